"""Processes of other programs: started apart from this terminal, and ended by their ids, never by a name."""

import os
import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_GONE_SECONDS = 10.0
_POLL = 0.05
_PROC = Path("/proc")
"""The directory in which Linux tells of processes, even in an image that has no ``ps``."""
_DEAD = {"", "Z", "X"}
_PARENT = 1
"""The index, among a process's fields after its name, of its parent."""
_START = 19
"""The index, among a process's fields after its name, of when it started, in ticks since the machine did."""


def with_environment(command: Iterable[str], *, changes: dict[str, str | None]) -> list[str]:
    """Return the command in a changed environment, by ``env``; a value of None unsets.

    This is not for secrets, because ``ps`` shows them.
    """
    unset = [option for name, value in changes.items() if value is None for option in ("-u", name)]
    return ["env", *unset, *(f"{name}={value}" for name, value in changes.items() if value is not None), *command]


def last_lines(path: Path, count: int = 12) -> list[str]:
    """Return the last lines of a log; none if there is no log."""
    return path.read_text(errors="replace").splitlines()[-count:] if path.exists() else []


def is_running(pid: int) -> bool:
    """Tell whether the process lives. A process that is dead but not yet collected by its parent does not."""
    return _state(pid) not in _DEAD


def session_members(leader: int) -> list[int]:
    """Return the ids of the processes in the session that `leader` opened.

    They are all that `leader` started, except those that left the session on purpose.
    """
    members = []
    for pid in _all_pids():
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == leader and is_running(pid):
                members.append(pid)
    return members


def sessions_with(argument: str) -> set[int]:
    """Return the sessions of all processes that were started with exactly this argument."""
    found = set()
    for pid in _all_pids():
        with suppress(ProcessLookupError, PermissionError):
            if argument in arguments_of(pid):
                found.add(os.getsid(pid))
    return found


def children_of(parent: int) -> list[int]:
    """Return the ids of the processes that this one has started, and that it has not outlived."""
    return [pid for pid in _all_pids() if _parent(pid) == parent]


def arguments_of(pid: int) -> list[str]:
    """Return the words of the command that the process was started with; none if there is no such process."""
    if not _PROC.joinpath("self/stat").exists():
        return _ps("-ww", "-o", "args=", "-p", str(pid)).split()
    try:
        return _PROC.joinpath(str(pid), "cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []


def start_of(pid: int) -> str:
    """Return when the process started, in a form that only serves to be compared; empty if there is no such process."""
    if not _PROC.joinpath("self/stat").exists():
        return _ps("-o", "lstart=", "-p", str(pid)).strip()
    return next(iter(_fields(pid)[_START:]), "")


def _parent(pid: int) -> int | None:
    if not _PROC.joinpath("self/stat").exists():
        told = _ps("-o", "ppid=", "-p", str(pid)).strip()
    else:
        told = next(iter(_fields(pid)[_PARENT:]), "")
    return int(told) if told.isdigit() else None


def _state(pid: int) -> str:
    """Return the system's letter for what the process does; empty if there is no such process."""
    if not _PROC.joinpath("self/stat").exists():
        return _ps("-o", "stat=", "-p", str(pid)).strip()[:1]
    return next(iter(_fields(pid)), "")


def _fields(pid: int) -> list[str]:
    """Return what Linux tells of a process after its name, the state first; none if there is no such process.

    The name may hold anything, but is in parentheses.
    """
    try:
        return _PROC.joinpath(str(pid), "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _all_pids() -> list[int]:
    if not _PROC.joinpath("self/stat").exists():
        return [int(pid) for pid in _ps("-A", "-o", "pid=").split()]
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def _ps(*options: str) -> str:
    return subprocess.run(["ps", *options], capture_output=True, text=True, errors="replace", check=False).stdout  # noqa: S603, S607  # options and numbers of ours, and wherever the system has it


def kill_session(leader: int) -> None:
    """End every process of the session with SIGKILL, and wait until they are gone, for `_GONE_SECONDS` at most."""
    deadline = time.monotonic() + _GONE_SECONDS
    while (members := session_members(leader)) and time.monotonic() < deadline:
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL)
