"""Lives, one after the other under one id: claims, deletion, retention, and states that are adopted."""

from dataclasses import replace

from conversation_actors.archive.database import Database
from conversation_actors.archive.gaps import BEFORE_THE_ARCHIVE
from conversation_actors.archive.tables import entries, gaps, items, lives
from conversation_actors.archive.writer import Writer
from conversation_actors.state import ConversationClosed, ConversationState
from conversation_actors.store.backlog import decode_record
from tests.support.archive_contents import archived, history, rows
from tests.support.archive_records import BEGAN, Author, state_of, stored

HERE = "room-1"
FIRST = Author()
SECOND = Author(epoch=2, owner="owner-2")


async def test_claims_follow_each_other_in_the_lineage(database: Database, writer: Writer) -> None:
    """So that who has slept through them is told that nothing was lost."""
    await writer.write(HERE, [*FIRST.talk(1, 2), *SECOND.talk(3, 4), *Author(epoch=3, owner="owner-3").talk(5, 5)])

    assert await rows(database, lives, "epoch", "owner", "lineage") == [
        (3, "owner-3", '[["life-1",1,"owner-1",2],["life-1",2,"owner-2",4]]')
    ]


async def test_an_entry_that_was_sent_again_counts_for_the_claim_that_sent_it(
    database: Database, writer: Writer
) -> None:
    """Its owner goes on from there: whoever opens the conversation later takes an epoch after its own."""
    again = [replace(decode_record(told), epoch=SECOND.epoch, owner=SECOND.owner) for told in FIRST.talk(2, 3)]
    await writer.write(HERE, [FIRST.says(1), *(record.encode() for record in again)])

    assert await rows(database, entries, "seq", "epoch") == [(1, 1), (2, 1), (3, 1)]
    assert await rows(database, lives, "epoch", "owner", "lineage") == [(2, "owner-2", '[["life-1",1,"owner-1",1]]')]


async def test_bytes_that_nobody_can_read_change_no_claim(database: Database, writer: Writer) -> None:
    """They do not even say whose they are."""
    await writer.write(HERE, [*SECOND.talk(1, 1), b"no header"])

    assert await rows(database, lives, "seq", "epoch", "owner") == [(2, 2, "owner-2")]


async def test_lives_are_apart_and_a_deletion_keeps_late_records_out(database: Database, writer: Writer) -> None:
    """All that the old life had is gone; the next one of this id is not touched, whoever repeats the deletion."""
    later = Author(life="life-2", start=4)
    await writer.write(HERE, FIRST.talk(1, 3))
    written = await writer.write(HERE, [FIRST.deletes(), *later.talk(5, 6)])
    again = await writer.write(HERE, [*FIRST.talk(2, 4), FIRST.deletes(), *later.talk(5, 7)])

    assert (written.deleted, written.entries) == (1, 2)
    assert (again.deleted, again.entries, again.repeated) == (0, 1, 6)
    assert await archived(database) == [5, 6, 7]
    assert await history(database) == ["item-5", "item-6", "item-7"]
    assert await writer.lives(HERE) == ("life-2",)


async def test_a_deletion_that_comes_first_is_remembered(database: Database, writer: Writer) -> None:
    """Another archiver may still hold records of the life."""
    await writer.write(HERE, [FIRST.deletes()])
    await writer.write(HERE, FIRST.talk(1, 3))

    assert await archived(database) == []
    assert await writer.lives(HERE) == ()


async def test_delete_takes_all_or_some_lives(database: Database, writer: Writer) -> None:
    """And only of this conversation, and this tenant."""
    other, stranger = "room-2", Writer(database, "stranger")
    await writer.write(HERE, [*FIRST.talk(1, 2), *Author(life="life-2").talk(1, 2)])
    await writer.write(other, FIRST.talk(1, 2))
    await stranger.write(HERE, FIRST.talk(1, 2))

    assert await writer.delete(HERE, only=["life-1"]) == 1
    assert await writer.lives(HERE) == ("life-2",)
    assert await writer.delete(HERE) == 1
    assert await writer.delete(HERE) == 0
    await writer.write(HERE, FIRST.talk(3, 3))
    assert await writer.lives(HERE) == ()
    assert await writer.lives(other) == ("life-1",)
    assert await stranger.lives(HERE) == ("life-1",)
    assert len(await archived(database)) == 4


async def test_retention_drops_the_lives_that_ended_before(database: Database, writer: Writer) -> None:
    """Their rows go, some at a time; a life that was written since stays."""
    for number in range(4):
        await writer.write(f"room-{number}", FIRST.talk(1, number + 1))

    assert await writer.purge(BEGAN + 3.5, most=2) == 2
    assert await writer.purge(BEGAN + 3.5, most=2) == 1
    assert await writer.purge(BEGAN + 3.5, most=2) == 0
    assert await rows(database, lives, "conversation_id") == [("room-3",)]
    assert await archived(database) == [1, 2, 3, 4]


async def test_a_state_is_adopted_where_entries_are_missing(database: Database, writer: Writer) -> None:
    """A conversation that was there before the archive; entries up to that state are still taken when they come."""
    state = state_of(FIRST.talk(1, 4), window=2)

    assert await writer.adopt(HERE, stored(FIRST, state), state)
    assert not await writer.adopt(HERE, stored(FIRST, state), state)
    assert await history(database) == ["item-3", "item-4"]
    assert await rows(database, gaps, "from_seq", "to_seq", "reason") == [(1, 4, BEFORE_THE_ARCHIVE)]

    await writer.write(HERE, FIRST.talk(1, 6))
    assert await rows(database, gaps, "from_seq") == []
    assert await history(database) == [f"item-{seq}" for seq in range(1, 7)]
    assert await rows(database, items, "seq", "place") == [(seq, 0) for seq in range(1, 7)]


async def test_a_state_is_adopted_after_a_gap(database: Database, writer: Writer) -> None:
    """What has left the window in between is marked so; what is archived already is not adopted over."""
    await writer.write(HERE, FIRST.talk(1, 2))
    state = state_of(FIRST.talk(1, 5), window=2)

    assert await writer.adopt(HERE, stored(FIRST, state), state)
    assert not await writer.adopt(HERE, stored(FIRST, state), ConversationState(seq=3))
    assert await rows(database, gaps, "from_seq", "to_seq") == [(3, 5)]
    assert await rows(database, items, "item_id", "is_evicted") == [
        ("item-1", True), ("item-2", True), ("item-4", False), ("item-5", False),
    ]  # fmt: skip
    await writer.write(HERE, [FIRST.record(6, ConversationClosed("done"))])
    assert (await writer.write(HERE, FIRST.talk(5, 5))).entries == 1
