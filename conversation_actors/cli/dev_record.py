"""The record of a `dev` in its data directory, by which another one finds it, or cleans up if it is dead.

There are two files. A living `dev` holds ``dev.lock``, which the kernel releases however the process ends. ``dev.json``
says what the `dev` has started. Processes are named by id and start time, because an id alone may be another process's
by now.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from conversation_actors.cli.processes import is_running, kill_session, session_members, sessions_with, start_of
from conversation_actors.cli.ray_head import DIRECTORY_PREFIX, temporary_directory
from conversation_actors.errors import InvalidInputError
from conversation_actors.private_files import try_lock, write_json

_LOCK, _RECORD = "dev.lock", "dev.json"
DIGESTS = 20
"""Number of URLs that are remembered: a terminal may have last week's in its environment."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process, told apart from any other that has been given its id since."""

    pid: int
    started: str
    """When it started, in a form that only serves to be compared."""
    boot: str = ""
    """The run of the machine in which it started, if the system tells that."""

    @classmethod
    def of(cls, pid: int) -> Self:
        """Return the process that has this id now."""
        return cls(pid, _started(pid) or "", _boot())

    @property
    def is_running(self) -> bool:
        """Whether the process still runs under its id."""
        return bool(self.started) and _started(self.pid) == self.started

    @property
    def is_replaced(self) -> bool:
        """Whether its id is, or may be, another process's by now. If so, nothing of the old session is left either."""
        return bool(self.boot and self.boot != _boot()) or _started(self.pid) not in {None, self.started}


class Phase(StrEnum):
    """The phase that a `dev` is in."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class DevRecord:
    """Everything that a `dev` has started."""

    dev: Process
    phase: Phase = Phase.STARTING
    head: Process | None = None
    """The first process of Ray's head; the others are in its session."""
    head_directory: str | None = None
    archiver: Process | None = None
    """The process that archives, which leads a session of its own."""
    has_server: bool = False
    """Whether Redis is a server of the `dev`'s own, in the data directory."""
    variables: dict[str, str] = field(default_factory=dict)
    """What another terminal needs while the `dev` runs, including secrets."""
    redis_digests: tuple[str, ...] = ()
    """Digests of the URLs by which its Redis is recognised: this one's first, then those of earlier ones, which may
    have been pasted somewhere."""

    def is_own(self, redis_url: str) -> bool:
        """Tell whether the URL is of a server of our own, of this `dev` or an earlier one."""
        return self.has_server and digest(redis_url) in self.redis_digests


class DevFile:
    """The data directory's record, held by one `dev` at a time. As a context manager, it lets go at the end."""

    def __init__(self, directory: Path, lock: int) -> None:
        """Take as `lock` the descriptor that holds the record; see `take`."""
        self.directory, self._lock = directory, lock
        self.left = read(directory)
        """What the `dev` before this one wrote last."""
        self._record = DevRecord(Process.of(os.getpid()))

    @classmethod
    def take(cls, directory: Path) -> Self | None:
        """Return the record, held by this process, or None while another process holds it. Makes the directory.

        Raises `InvalidInputError` if the directory cannot be used.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = try_lock(directory / _LOCK)
        except OSError as error:
            message = f"the data directory {directory} (CONVERSATION_DATA_DIR) cannot be used: {error.strerror}"
            raise InvalidInputError(message, field="CONVERSATION_DATA_DIR") from None
        return None if descriptor is None else cls(directory, descriptor)

    def write(self, **changes: Any) -> None:
        """Note what has changed, in a file that only its owner may read."""
        self._record = replace(self._record, **changes)
        self._save()

    def close_left(self) -> None:
        """Note that nothing is left of what the `dev` before this one had started."""
        if self.left is not None:
            self._record = replace(self.left, phase=Phase.ENDED, variables={})
            self._save()

    def _save(self) -> None:
        write_json(self.directory / _RECORD, asdict(self._record))

    def __enter__(self) -> Self:
        """Return the record, which is held already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let go of the record."""
        os.close(self._lock)


def read(directory: Path) -> DevRecord | None:
    """Return the record of the last `dev` there, running or not; None if there is none that can be read."""
    try:
        told = json.loads((directory / _RECORD).read_text())
        told |= {"dev": Process(**_known(Process, told["dev"])), "phase": Phase(told["phase"])}
        told["redis_digests"] = tuple(told["redis_digests"])
        processes = {
            name: told[name] and Process(**_known(Process, told[name])) for name in ("head", "archiver") if name in told
        }
        return DevRecord(**_known(DevRecord, told) | processes)
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None  # never written, or damaged; the lock says whether one runs


def _known(kind: type[Process | DevRecord], told: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that this version knows; a newer version may have written more."""
    return {one.name: told[one.name] for one in fields(kind) if one.name in told}


def digest(redis_url: str) -> str:
    """Return what is kept of a URL, because the URL may hold a password."""
    return sha256(redis_url.encode()).hexdigest()


def end_head(record: DevRecord) -> int:
    """End what is left of a dead `dev`'s Ray, and remove its files. Returns how many processes there were."""
    count = 0
    for leader in _leaders(record):
        count += len(session_members(leader))
        kill_session(leader)
    if record.head_directory is not None and Path(record.head_directory).name.startswith(DIRECTORY_PREFIX):
        shutil.rmtree(record.head_directory, ignore_errors=True)
    return count


def end_archiver(record: DevRecord) -> bool:
    """End the archiver that a dead `dev` has left, and tell whether there was one. What it had begun is not lost."""
    if record.archiver is None or not record.archiver.is_running:
        return False
    kill_session(record.archiver.pid)
    return True


def _leaders(record: DevRecord) -> set[int]:
    """Return the sessions of a `dev`'s Ray.

    A `dev` that was killed before it noted the process had noted the directory, by which the sessions are found.
    """
    if record.head is not None:
        return set() if record.head.is_replaced else {record.head.pid}
    return set() if record.head_directory is None else sessions_with(temporary_directory(Path(record.head_directory)))


def _started(pid: int) -> str | None:
    """Return when the process with this id started; None if there is none, or it is dead and not collected."""
    if not is_running(pid):
        return None
    moment = start_of(pid)
    return f"{_boot()} {moment}".strip() if moment else None


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
