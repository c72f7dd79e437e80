"""A Redis that keeps its data (AOF, every write on disk), whose clock can be moved and whose data can be set back."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conversation_actors.store.keys import Keys
from tests.support.faketime import ClockedServer
from tests.support.servers import Server

DIRECTIVES = {"appendonly": "yes", "appendfsync": "always"}
_DATA = "appendonlydir"


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


class HistoryServer(ClockedServer):
    """The server of one history."""

    def __init__(self, binary: Path, directory: Path, library: Path) -> None:
        """Nothing runs before `start`. `library` is libfaketime."""
        super().__init__(binary, directory / "redis", library)
        self.directives = DIRECTIVES
        self.root, self.ahead = directory, 0

    def step(self, seconds: int) -> None:
        """Move the clock."""
        self.ahead += seconds
        self.set_clock(self.ahead)

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
        with Server(self.binary, copy, DIRECTIVES) as second:
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
