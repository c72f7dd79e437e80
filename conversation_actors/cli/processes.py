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


def with_environment(command: Iterable[str], *, changes: dict[str, str | None]) -> list[str]:
    """The command in a changed environment, by ``env``; a value of None unsets. Not for secrets: ``ps`` shows them."""
    unset = [option for name, value in changes.items() if value is None for option in ("-u", name)]
    return ["env", *unset, *(f"{name}={value}" for name, value in changes.items() if value is not None), *command]


def last_lines(path: Path, count: int = 12) -> list[str]:
    """The end of a log; empty where there is none."""
    return path.read_text(errors="replace").splitlines()[-count:] if path.exists() else []


def is_running(pid: int) -> bool:
    """Whether the process lives. One that is dead and not collected by its parent does not."""
    listed = subprocess.run(  # noqa: S603  # a number of ours, and no shell
        ["ps", "-o", "stat=", "-p", str(pid)],  # noqa: S607  # wherever the system has it
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    return listed.stdout.strip()[:1] not in {"", "Z"}


def session_members(leader: int) -> list[int]:
    """Ids of the processes in the session that `leader` opened: all it started, but for what left on purpose."""
    command = ["ps", "-A", "-o", "pid=,stat="]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603  # a constant
    members = []
    for pid, state in (line.split(None, 1) for line in listed.splitlines()):
        with suppress(ProcessLookupError, PermissionError):
            if not state.startswith("Z") and os.getsid(int(pid)) == leader:
                members.append(int(pid))
    return members


def sessions_with(argument: str) -> set[int]:
    """The sessions of all processes that were started with this very argument."""
    command = ["ps", "-ww", "-A", "-o", "pid=,args="]
    listed = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True).stdout  # noqa: S603  # a constant
    found = set()
    for pid, *words in (line.split() for line in listed.splitlines()):
        with suppress(ProcessLookupError, PermissionError):
            if argument in words:
                found.add(os.getsid(int(pid)))
    return found


def kill_session(leader: int) -> None:
    """End every process of the session with SIGKILL, and wait until they are gone."""
    deadline = time.monotonic() + _GONE_SECONDS
    while (members := session_members(leader)) and time.monotonic() < deadline:
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL)
