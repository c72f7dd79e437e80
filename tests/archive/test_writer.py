"""What the archive holds after records came: all of them, in order, once; and nothing of what was to be forgotten."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from conversation_actors.archive.database import Database
from conversation_actors.archive.gaps import GIVEN_UP, Gap
from conversation_actors.archive.records import UNREADABLE
from conversation_actors.archive.tables import entries, gaps, items, lives, superseded
from conversation_actors.archive.writer import Writer
from conversation_actors.errors import CorruptStateError, IncompatibleVersionError
from conversation_actors.store.backlog import Record, decode_record
from tests.support.archive_contents import archived, change, history, rows
from tests.support.archive_records import BEGAN, Author, item

HERE = "room-1"
FIRST = Author()
SECOND = Author(epoch=2, owner="owner-2")


async def test_entries_are_kept_as_they_came(database: Database, writer: Writer) -> None:
    """Entry and item have the bytes that the owner has written."""
    records = FIRST.talk(1, 3)

    written = await writer.write(HERE, records)

    assert (written.entries, written.items, written.repeated, written.gaps) == (3, 3, 0, ())
    kept = await rows(database, entries, "seq", "epoch", "at", "event", "data")
    assert kept == [
        (seq, 1, BEGAN + seq, "items_appended", decode_record(one).data) for seq, one in enumerate(records, 1)
    ]
    assert await rows(database, items, "seq", "place", "item_id", "type", "role", "call_id", "data") == [
        (seq, 0, f"item-{seq}", "message", "user", None, item(f"item-{seq}").data) for seq in (1, 2, 3)
    ]
    assert await rows(database, lives, "tenant", "conversation_id", "life", "seq", "epoch", "owner", "active_at") == [
        ("tenant", HERE, "life-1", 3, 1, "owner-1", BEGAN + 3)
    ]


async def test_repeats_are_there_once(database: Database, writer: Writer) -> None:
    """Whether they come in another batch or in the same one."""
    await writer.write(HERE, FIRST.talk(1, 5))
    written = await writer.write(HERE, [*FIRST.talk(3, 7), *FIRST.talk(1, 8)])

    assert (written.entries, written.repeated, written.items) == (3, 10, 3)
    assert await archived(database) == [*range(1, 9)]
    assert await history(database) == [f"item-{seq}" for seq in range(1, 9)]
    assert await rows(database, superseded, "seq") == []


async def test_two_writers_with_overlapping_batches_write_each_entry_once(
    database: Database, database_url: str, make_writer: Callable[[str], Writer]
) -> None:
    """Each has its own connections, as two archivers have; they take the same records, in pieces of other lengths."""
    records = FIRST.talk(1, 60)
    pieces = random.Random(7)

    async def archive(writer: Writer) -> int:
        done, new = 0, 0
        while done < len(records):
            first, done = max(0, done - pieces.randint(0, 5)), done + pieces.randint(1, 9)
            new += (await writer.write(HERE, records[first:done])).entries
        return new

    written = await asyncio.gather(*(archive(make_writer(database_url)) for _ in range(3)))

    assert sum(written) == 60
    assert await archived(database) == [*range(1, 61)]
    assert await history(database) == [f"item-{seq}" for seq in range(1, 61)]


async def test_writers_of_many_conversations_do_not_stop_each_other(
    database: Database, database_url: str, make_writer: Callable[[str], Writer]
) -> None:
    """They write the same conversations in different orders, each many in one transaction."""
    names = [f"room-{number}" for number in range(12)]
    writers = [make_writer(database_url) for _ in range(2)]

    async def archive(writer: Writer, order: list[str]) -> None:
        for first in range(1, 10, 3):
            await writer.write_all({name: FIRST.talk(first, first + 2) for name in order})

    await asyncio.gather(archive(writers[0], names), archive(writers[1], names[::-1]))

    assert await rows(database, lives, "conversation_id", "seq") == [(name, 9) for name in sorted(names)]
    assert len(await archived(database)) == 9 * 12


async def test_a_gap_is_noted(database: Database, writer: Writer) -> None:
    """What was given up is known, and what comes after it is archived."""
    await writer.write(HERE, FIRST.talk(1, 2))
    written = await writer.write(HERE, FIRST.talk(6, 7))

    assert written.gaps == (Gap(3, 5, GIVEN_UP),)
    assert await rows(database, gaps, "from_seq", "to_seq", "reason") == [(3, 5, GIVEN_UP)]
    assert await archived(database) == [1, 2, 6, 7]


async def test_a_life_may_begin_with_a_gap_but_not_before_its_start(database: Database, writer: Writer) -> None:
    """An id that was deleted goes on counting: positions of the life before are no gap."""
    author = replace(FIRST, start=10)

    assert (await writer.write("other", author.talk(11, 12))).gaps == ()
    assert (await writer.write(HERE, author.talk(13, 14))).gaps == (Gap(11, 12, GIVEN_UP),)


async def test_entries_that_come_late_fill_their_gap(database: Database, writer: Writer) -> None:
    """An owner that has restored Redis sends again what it has in memory."""
    await writer.write(HERE, [*FIRST.talk(1, 2), *FIRST.talk(9, 9)])
    await writer.write(HERE, [FIRST.evicts(5, "item-4"), *FIRST.talk(7, 7), *FIRST.talk(9, 10)])

    assert await archived(database) == [1, 2, 5, 7, 9, 10]
    assert await rows(database, gaps, "from_seq", "to_seq") == [(3, 4), (6, 6), (8, 8)]
    assert await history(database) == ["item-1", "item-2", "item-4", "item-7", "item-9", "item-10"]


async def test_a_newer_claim_supersedes_what_redis_has_lost(database: Database, writer: Writer) -> None:
    """The entries that were archived are set aside; their items stay, before those that came in their place."""
    await writer.write(HERE, [*FIRST.talk(1, 2), FIRST.says(3, "lost"), FIRST.evicts(4, "item-1")])
    again = [SECOND.says(3, "new"), *SECOND.talk(4, 5)]

    written = await writer.write(HERE, again)

    assert (written.entries, written.superseded) == (3, 2)
    assert await rows(database, entries, "seq", "epoch") == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2)]
    assert await rows(database, superseded, "seq", "epoch", "event") == [
        (3, 1, "items_appended"),
        (4, 1, "items_evicted"),
    ]
    assert await history(database) == ["item-1", "item-2", "lost", "new", "item-4", "item-5"]
    assert await rows(database, items, "item_id", "is_evicted") == [
        ("item-1", False), ("item-2", False), ("item-4", False), ("item-5", False), ("lost", True), ("new", False),
    ]  # fmt: skip
    assert await rows(database, lives, "seq", "epoch", "owner", "lineage") == [
        (5, 2, "owner-2", '[["life-1",1,"owner-1",2]]')
    ]


async def test_what_was_superseded_does_not_come_back(database: Database, writer: Writer) -> None:
    """Neither by the older claim's copies, nor, of two claims of one epoch, by those that were set aside."""
    old, twin = FIRST.talk(1, 4), replace(FIRST, owner="twin")
    await writer.write(HERE, old)
    await writer.write(HERE, [twin.says(3, "of the twin")])
    await writer.write(HERE, [SECOND.says(4, "new")])

    for _ in range(2):
        written = await writer.write(HERE, [*old, twin.says(3, "of the twin"), SECOND.says(4, "new")])
        assert (written.entries, written.superseded, written.repeated) == (0, 0, 6)
    assert await rows(database, entries, "seq", "epoch") == [(1, 1), (2, 1), (3, 1), (4, 2)]


async def test_superseding_twice_keeps_all_items_apart(database: Database, writer: Writer) -> None:
    """Three claims write the same position."""
    for epoch in (1, 2, 3):
        author = Author(epoch=epoch, owner=f"owner-{epoch}")
        await writer.write(HERE, [author.says(1, f"a{epoch}", f"b{epoch}")])

    assert (await history(database))[-2:] == ["a3", "b3"]
    assert set(await history(database)) == {"a1", "b1", "a2", "b2", "a3", "b3"}


@pytest.mark.parametrize("together", [True, False])
async def test_items_keep_their_place_until_they_have_left(
    database: Database, writer: Writer, *, together: bool
) -> None:
    """One that comes again replaces what it was; one that has left the window comes at the end."""
    records = [
        FIRST.says(1, "a", "b", "c"),
        FIRST.says(2, "b", words="b, corrected"),
        FIRST.evicts(3, "a", "b"),
        FIRST.says(4, "a", words="a, again"),
        FIRST.says(5, "d"),
        FIRST.says(6, "a", words="a, corrected"),
    ]
    for batch in [records] if together else [[one] for one in records]:
        await writer.write(HERE, batch)

    assert await rows(database, items, "seq", "place", "item_id", "is_evicted") == [
        (1, 1, "b", True), (1, 2, "c", False), (4, 0, "a", False), (5, 0, "d", False),
    ]  # fmt: skip
    assert dict(await rows(database, items, "item_id", "data"))["a"] == item("a", "a, corrected").data
    assert dict(await rows(database, items, "item_id", "data"))["b"] == item("b", "b, corrected").data


async def test_items_whose_entries_were_given_up_are_kept_as_they_leave(database: Database, writer: Writer) -> None:
    """They stand at the gap, in the order in which they leave."""
    await writer.write(HERE, [FIRST.says(1, "a"), FIRST.says(5, "z")])
    await writer.write(HERE, [FIRST.evicts(6, "a", "x"), FIRST.evicts(7, "y")])

    assert await history(database) == ["a", "x", "y", "z"]


async def test_bytes_that_cannot_be_read_block_nothing(database: Database, writer: Writer) -> None:
    """They are kept as they are, once, at the next position; what comes there by right takes their place."""
    damaged = Record("life-1", 0, 1, "owner-1", b'{"v": 2, "seq": 900, "at": 5.5, "ev').encode()
    records = [FIRST.says(1), b"\x00\xff garbage", damaged, *FIRST.talk(4, 5)]
    await writer.write(HERE, records)
    await writer.write(HERE, records)

    assert await rows(database, entries, "seq", "event") == [
        (1, "items_appended"), (2, UNREADABLE), (3, UNREADABLE), (4, "items_appended"), (5, "items_appended"),
    ]  # fmt: skip
    assert dict(await rows(database, entries, "seq", "data"))[2] == b"\x00\xff garbage"

    await writer.write(HERE, FIRST.talk(3, 5))
    await writer.write(HERE, records)
    assert dict(await rows(database, entries, "seq", "event"))[3] == "items_appended"
    assert await archived(database) == [1, 2, 3, 4, 5]


async def test_bytes_that_cannot_be_read_may_be_all_there_is(database: Database, writer: Writer) -> None:
    """Then nobody knows whose they are."""
    await writer.write(HERE, [b"garbage"])

    assert await rows(database, lives, "life", "seq") == [("", 1)]


async def test_an_entry_of_a_newer_version_waits(database: Database, writer: Writer) -> None:
    """Nothing of its batch is written: a newer archiver will read it."""
    newer = Record("life-1", 0, 1, "owner-1", b'{"v":99,"seq":2,"epoch":1,"at":1.0,"event":"poem"}').encode()

    with pytest.raises(IncompatibleVersionError):
        await writer.write(HERE, [FIRST.says(1), newer])
    assert await archived(database) == []


async def test_text_that_postgresql_refuses_is_archived(database: Database, writer: Writer) -> None:
    """It knows no character 0; the item's own bytes have it still."""
    line = b'{"type":"message","id":"a\\u0000b","role":"user","content":"x"}'
    header = b'{"v":2,"seq":1,"epoch":1,"at":1.0,"event":"items_appended","items":2}\n'
    other = line.replace(b"\\u0000", "\ufffd".encode())
    await writer.write(HERE, [Record("life-1", 0, 1, "owner-1", header + line + b"\n" + other).encode()])

    assert await rows(database, items, "item_id", "data") == [("a\ufffdb", other)]


async def test_a_damaged_row_is_named(database: Database, writer: Writer) -> None:
    """The error says in which table and row; nothing is written."""
    await writer.write(HERE, FIRST.talk(1, 1))
    await change(database, "UPDATE archive_lives SET lineage = 'no JSON'")

    with pytest.raises(CorruptStateError, match=r"archive_lives\.lineage of id \d+") as caught:
        await writer.write(HERE, FIRST.talk(2, 2))
    assert caught.value.key.startswith("archive_lives.lineage")
    assert await archived(database) == [1]
