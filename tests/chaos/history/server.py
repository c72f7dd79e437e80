"""A Redis that keeps its data (AOF, every write on disk), whose clock can be moved and whose data can be set back."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conversation_actors.store.keys import Keys
from tests.servers import Server

DIRECTIVES = {"appendonly": "yes", "appendfsync": "always"}
_DATA = "appendonlydir"
_SHARED = Path("/dev/shm")  # noqa: S108  # not ours to choose


def faketime() -> Path | None:
    """The library that moves a process's clock (package `libfaketime`), where it is installed."""
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


@dataclass(frozen=True, slots=True)
class Position:
    """Where a conversation stands in a server's data."""

    life: str
    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy of a server's data, and where each conversation stands in it."""

    directory: Path
    positions: dict[str, Position]


class HistoryServer(Server):
    """The server of one history. Its clock stands still nowhere; its moves are in `offset` seconds."""

    def __init__(self, binary: Path, directory: Path) -> None:
        """Nothing runs before `start`."""
        self.root, self.offset, self._real = directory, 0, binary
        self._clock = directory / "clock"
        library = faketime()
        self.has_clock = library is not None
        super().__init__(self._wrapped(library) if library else binary, directory / "redis", DIRECTIVES)

    def _wrapped(self, library: Path) -> Path:
        """A program that becomes the server, with a clock that a file sets."""
        self._clock.write_text("+0\n")
        wrapper = self.root / "server"
        wrapper.write_text(
            f"#!/bin/sh\nLD_PRELOAD={library} FAKETIME_TIMESTAMP_FILE={self._clock} FAKETIME_DONT_FAKE_MONOTONIC=1 "
            f'FAKETIME_NO_CACHE=1 exec {self._real} "$@"\n'
        )
        wrapper.chmod(0o755)
        return wrapper

    def kill(self) -> None:
        """See `Server.kill`; what the library leaves in shared memory goes too."""
        super().kill()
        if self.process is not None:
            for name in (f"faketime_shm_{self.process.pid}", f"sem.faketime_sem_{self.process.pid}"):
                (_SHARED / name).unlink(missing_ok=True)

    def step(self, seconds: int) -> None:
        """Move the clock."""
        self.offset += seconds
        moved = self._clock.with_suffix(".new")
        moved.write_text(f"{self.offset:+d}\n")
        moved.rename(self._clock)

    def positions(self, conversations: list[str]) -> dict[str, Position]:
        """Where each conversation stands that is there."""
        return positions_of(self.client(), conversations)

    def back_up(self, conversations: list[str], number: int) -> Backup:
        """Copy the data while the server stands still. A second server tells what is in the copy."""
        copy = self.root / f"backup-{number}"
        self.pause()
        try:
            shutil.copytree(self.directory / _DATA, copy / _DATA)
        finally:
            self.resume()
        with Server(self._real, copy, DIRECTIVES) as second:
            return Backup(copy, positions_of(second.client(), conversations))

    def set_back(self, backup: Backup) -> None:
        """Put a copy in the place of the data; only while the server is dead."""
        shutil.rmtree(self.directory / _DATA)
        shutil.copytree(backup.directory / _DATA, self.directory / _DATA)


def positions_of(client: Any, conversations: list[str]) -> dict[str, Position]:
    """Read where each conversation stands that is there."""
    found: dict[str, Position] = {}
    with client:
        for conversation in conversations:
            life, epoch, seq = client.hmget(Keys().conversation(conversation).meta, ["life", "epoch", "seq"])
            if life and epoch and seq:
                found[conversation] = Position(life.decode(), int(epoch), int(seq))
    return found
