"""When an archiver makes a checkpoint: after so many entries of a conversation, of which it remembers the latest."""

from datetime import timedelta
from pathlib import Path

from pydantic import SecretStr

from conversation_actors.archive.address import sqlite_url
from conversation_actors.archive.checkpoints import Checkpoints
from conversation_actors.archive.database import Database
from conversation_actors.state import Limits


class Counting(Checkpoints):
    """It only says of whom it would make one."""

    def __init__(self, *, every: int, remembered: int) -> None:
        """Of nobody yet."""
        nowhere = Database(SecretStr(sqlite_url(Path("/nowhere"))), timeout=timedelta(seconds=1))
        super().__init__(nowhere, "default", limits=Limits(), every=every, remembered=remembered)
        self.made: list[str] = []

    async def _advance(self, conversation_id: str) -> bool:
        self.made.append(conversation_id)
        return True


async def test_a_checkpoint_is_made_after_so_many_entries() -> None:
    """Of one conversation, and then after as many more."""
    counting = Counting(every=3, remembered=10)
    for _ in range(6):
        await counting.count("a", 1)
        await counting.count("b", 1)
    assert counting.made == ["a", "b"] * 2


async def test_the_entries_of_few_conversations_are_remembered() -> None:
    """Those that had entries last: others may have become idle where another archiver has noticed it."""
    counting = Counting(every=2, remembered=3)
    for name in ("a", "b", "c", "a", "d", "e"):
        await counting.count(name, 1)
    assert counting.made == ["a"]
    await counting.count("c", 1)
    await counting.count("f", 1)
    await counting.count("b", 1)  # b had been forgotten
    await counting.count("c", 1)
    assert counting.made == ["a", "c"]
    for number in range(1000):
        await counting.count(str(number), 1)
    assert len(counting._fresh) == 3
