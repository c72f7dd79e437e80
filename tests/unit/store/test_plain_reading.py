"""Reading with plain commands, while the conversation is being written to; the server is a fake."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from conversation_actors.errors import ConversationNotFoundError, CorruptStateError, StoreUnavailableError
from conversation_actors.store.keys import ConversationKeys, Keys
from conversation_actors.store.redis_reading import RedisReading
from conversation_actors.store.script_calls import Command, ScriptCalls


def meta(*, seq: int, base: int = 0, first: int = 0, owner: str = "o") -> list[bytes | None]:
    """Return what the hash says of a conversation without a snapshot."""
    fields: list[str | int | None] = [1, owner, seq, base, None, 2, None, first, "life", 1000 + seq]
    return [None if field is None else str(field).encode() for field in fields]


class Busy:
    """A server on which something is written during each read."""

    def __init__(self, replies: Callable[[int], tuple[list[bytes | None], int, list[bytes | None]]]) -> None:
        """Answer by the number of the read: meta before, entries of the journal, meta after."""
        self._replies = replies
        self.reads = 0
        self.left_ms = 60_000

    async def reading_plainly(
        self, _keys: ConversationKeys, before: Sequence[Command], _commands: Sequence[Command]
    ) -> tuple[list[Any], list[Any]]:
        """See `ScriptCalls.reading_plainly`."""
        self.reads += 1
        first, entries, last = self._replies(self.reads)
        return [{"role": "master"} for _ in before], [first, self.left_ms, None, [b"e"] * entries, last]


def reading(server: Busy) -> RedisReading:
    """Return the reader of a replica, which is read plainly."""
    return RedisReading(cast("ScriptCalls", server), Keys(), is_replica=True)


async def test_a_conversation_that_is_always_written_to_is_read() -> None:
    """Each time an entry is appended meanwhile: what was read is the moment of the journal."""
    server = Busy(lambda n: (meta(seq=10 * n), 10 * n + 1, meta(seq=10 * n + 2)))
    read = await reading(server).read("c")
    assert (server.reads, read.seq, len(read.journal)) == (1, 11, 11)


async def test_what_is_of_no_one_moment_is_read_again() -> None:
    """A snapshot, or another owner, came between."""
    server = Busy(lambda n: (meta(seq=4), 4 if n > 2 else 2, meta(seq=4, base=0 if n > 2 else 2, first=0)))
    assert (await reading(server).read("c")).seq == 4
    assert server.reads == 3


async def test_what_changes_for_ever_is_for_later() -> None:
    """Whoever asks may wait: the read itself ends."""
    server = Busy(lambda n: (meta(seq=4, owner=f"o{n}"), 4, meta(seq=4, owner=f"o{n + 1}")))
    with pytest.raises(StoreUnavailableError, match="each of the 8 times"):
        await reading(server).read("c")


async def test_damage_is_not_taken_for_an_append() -> None:
    """Too few entries, and nobody who writes."""
    with pytest.raises(CorruptStateError, match="holds 3 entries where meta says 4"):
        await reading(Busy(lambda _n: (meta(seq=4), 3, meta(seq=4)))).read("c")


async def test_what_expires_meanwhile_is_not_damaged() -> None:
    """Its keys go one after the other, within a millisecond: it is gone, or about to be."""
    gone: list[bytes | None] = [None] * 10

    def expiring(reads: int) -> tuple[list[bytes | None], int, list[bytes | None]]:
        server.left_ms = 1 if reads == 1 else -2
        return (meta(seq=4), 0, meta(seq=4)) if reads == 1 else (gone, 0, gone)

    server = Busy(expiring)
    with pytest.raises(ConversationNotFoundError):
        await reading(server).read("c")
