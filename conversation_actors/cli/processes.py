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
"""Where Linux tells of processes, also in an image that has no ``ps``."""
_DEAD = {"", "Z", "X"}
_START = 19
"""Of a process's fields behind its name: when it started, in ticks since the machine did."""


def with_environment(command: Iterable[str], *, changes: dict[str, str | None]) -> list[str]:
    """Change a command's environment, by ``env``; a value of None unsets. Not for secrets: ``ps`` shows them."""
    unset = [option for name, value in changes.items() if value is None for option in ("-u", name)]
    return ["env", *unset, *(f"{name}={value}" for name, value in changes.items() if value is not None), *command]


def last_lines(path: Path, count: int = 12) -> list[str]:
    """Return the end of a log; empty if there is none."""
    return path.read_text(errors="replace").splitlines()[-count:] if path.exists() else []


def is_running(pid: int) -> bool:
    """Whether the process lives. One that is dead and not collected by its parent does not."""
    return _state(pid) not in _DEAD


def session_members(leader: int) -> list[int]:
    """Ids of the processes in the session that `leader` opened: all it started, but for what left on purpose."""
    members = []
    for pid in _all_pids():
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == leader and is_running(pid):
                members.append(pid)
    return members


def sessions_with(argument: str) -> set[int]:
    """Return the sessions of all processes that were started with this very argument."""
    found = set()
    for pid in _all_pids():
        with suppress(ProcessLookupError, PermissionError):
            if argument in _arguments(pid):
                found.add(os.getsid(pid))
    return found


def _arguments(pid: int) -> list[str]:
    """Return the words of the command that the process was started with; empty if there is none."""
    if not _PROC.joinpath("self/stat").exists():
        return _ps("-ww", "-o", "args=", "-p", str(pid)).split()
    try:
        return _PROC.joinpath(str(pid), "cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []


def start_of(pid: int) -> str:
    """When the process started, in a form that only serves to be compared; empty if there is none."""
    if not _PROC.joinpath("self/stat").exists():
        return _ps("-o", "lstart=", "-p", str(pid)).strip()
    return next(iter(_fields(pid)[_START:]), "")


def _state(pid: int) -> str:
    """Return the system's letter for what the process does; empty if there is none."""
    if not _PROC.joinpath("self/stat").exists():
        return _ps("-o", "stat=", "-p", str(pid)).strip()[:1]
    return next(iter(_fields(pid)), "")


def _fields(pid: int) -> list[str]:
    """Return what Linux tells of a process after its name, which may hold anything, in parentheses: its state first."""
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
    """End every process of the session with SIGKILL, and wait until they are gone."""
    deadline = time.monotonic() + _GONE_SECONDS
    while (members := session_members(leader)) and time.monotonic() < deadline:
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL)
