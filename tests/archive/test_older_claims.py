"""Entries of an older claim that come after a newer claim's: kept beside the history, which they are no part of."""

import json

import pytest

from conversation_actors.archive.database import Database
from conversation_actors.archive.records import UNREADABLE
from conversation_actors.archive.tables import entries, gaps, items, lives, superseded
from conversation_actors.archive.writer import Writer
from conversation_actors.codec import encode_entry
from conversation_actors.state import Entry, ItemsAppended
from conversation_actors.store.backlog import Record
from tests.support.archive_contents import archived, everything, history, rows
from tests.support.archive_records import BEGAN, Author, item

HERE = "room-1"
FIRST = Author()
SECOND = Author(epoch=2, owner="owner-2")
SECRET = "4111-1111-1111-1111"


async def test_what_an_older_claim_wrote_is_not_put_behind_a_newer_one(database: Database, writer: Writer) -> None:
    """An archiver took it before Redis lost it, and wakes when the next claim has gone on from there."""
    await writer.write(HERE, [*FIRST.talk(1, 2), SECOND.says(3, "new")])
    life = ("seq", "epoch", "owner", "lineage", "active_at")
    before = await rows(database, lives, *life)

    written = await writer.write(HERE, FIRST.talk(1, 5))

    assert (written.entries, written.repeated, written.superseded, written.gaps) == (0, 2, 3, ())
    assert await rows(database, entries, "seq", "epoch") == [(1, 1), (2, 1), (3, 2)]
    assert await rows(database, superseded, "seq", "epoch") == [(3, 1), (4, 1), (5, 1)]
    assert await rows(database, lives, *life) == before
    assert await rows(database, gaps, "from_seq") == []


async def test_it_fills_no_gap_behind_a_newer_claim(database: Database, writer: Writer) -> None:
    """A gap before the newer claim's first entry is its own to fill."""
    await writer.write(HERE, [FIRST.says(1), SECOND.says(3), SECOND.says(5)])

    written = await writer.write(HERE, FIRST.talk(2, 4))

    assert (written.entries, written.superseded) == (1, 2)
    assert await rows(database, entries, "seq", "epoch") == [(1, 1), (2, 1), (3, 2), (5, 2)]
    assert await rows(database, gaps, "from_seq", "to_seq") == [(4, 4)]


async def test_it_is_kept_once(database: Database, writer: Writer) -> None:
    """Also if the newer claim has reached its positions meanwhile."""
    await writer.write(HERE, [*FIRST.talk(1, 2), SECOND.says(3, "new")])
    await writer.write(HERE, FIRST.talk(1, 5))

    assert (await writer.write(HERE, FIRST.talk(4, 5))).repeated == 2
    await writer.write(HERE, [SECOND.says(4, "newer"), SECOND.says(5, "newest")])
    assert (await writer.write(HERE, FIRST.talk(1, 5))).repeated == 5

    assert await rows(database, superseded, "seq") == [(3,), (4,), (5,)]
    assert await rows(database, entries, "seq", "epoch") == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2)]


async def test_its_items_stand_before_the_newer_ones(database: Database, writer: Writer) -> None:
    """As those of other superseded entries do. They are not in the window, and change no item that is known."""
    await writer.write(HERE, [FIRST.says(1, "a", "b"), SECOND.says(2, "new")])
    stale = [FIRST.says(2, "lost"), FIRST.says(3, "b", words="lost"), FIRST.says(4, "lost", words="corrected")]
    await writer.write(HERE, stale)
    await writer.write(HERE, [SECOND.says(3, "newer")])

    assert await history(database) == ["a", "b", "lost", "new", "newer"]
    assert await rows(database, items, "item_id", "is_evicted") == [
        ("a", False), ("b", False), ("lost", True), ("new", False), ("newer", False),
    ]  # fmt: skip
    data = dict(await rows(database, items, "item_id", "data"))
    assert (data["b"], data["lost"]) == (item("b").data, item("lost", "corrected").data)

    await writer.write(HERE, [SECOND.says(4, "lost", words="again")])
    assert await history(database) == ["a", "b", "new", "newer", "lost"]


@pytest.mark.parametrize("is_cleared", [True, False])
@pytest.mark.parametrize("is_newer", [True, False])
async def test_what_was_forgotten_does_not_come_with_it(
    database: Database, writer: Writer, *, is_newer: bool, is_cleared: bool
) -> None:
    """Neither what the newer claim has removed since, nor what the older one had removed itself."""
    author = SECOND if is_newer else FIRST
    seq = 3 if is_newer else 5
    removal = author.clears(seq) if is_cleared else author.removes(seq, "card")
    await writer.write(HERE, [FIRST.says(1), SECOND.says(2, "new"), *([removal] if is_newer else [])])

    stale = [FIRST.says(4, "card", words=SECRET), *([] if is_newer else [removal])]
    await writer.write(HERE, stale)
    assert (await writer.write(HERE, stale)).repeated == len(stale)

    assert SECRET.encode() not in await everything(database)
    assert await history(database) == ([] if is_newer and is_cleared else ["item-1", "new"])
    assert (4, 1) in await rows(database, superseded, "seq", "epoch")


async def test_bytes_that_cannot_be_read_do_not_set_the_epoch_back(database: Database, writer: Writer) -> None:
    """Garbage says nothing of a claim; an older claim's damaged entry is no part of the history."""
    damaged = Record("life-1", 0, 1, "owner-1", b'{"v": 2, "seq": 900, "at": 5.5, "ev').encode()
    await writer.write(HERE, [SECOND.says(1), b"garbage"])
    for _ in range(2):
        await writer.write(HERE, [damaged, *FIRST.talk(3, 3)])

    assert await rows(database, lives, "seq", "epoch", "owner") == [(2, 2, "owner-2")]
    assert await rows(database, entries, "seq", "event") == [(1, "items_appended"), (2, UNREADABLE)]
    assert await rows(database, superseded, "seq", "event") == [(3, "items_appended"), (3, UNREADABLE)]


async def test_what_cannot_be_read_gives_way_to_no_older_claim(database: Database, writer: Writer) -> None:
    """Entries of the newer claim stand behind it, and would have to give way, too."""
    await writer.write(HERE, [FIRST.says(1), b"garbage", SECOND.says(3)])

    assert (await writer.write(HERE, FIRST.talk(2, 2))).superseded == 1

    assert await archived(database) == [1, 2, 3]
    assert await rows(database, lives, "seq", "epoch") == [(3, 2)]


_BYTES = encode_entry(Entry(1, 1, BEGAN, ItemsAppended((item("x"),)), "r"))


@pytest.mark.parametrize(
    "header",
    [
        ["life-1", 1 << 63, 1, "owner-1"],
        ["life-1", -1, 1, "owner-1"],
        ["life-1", True, 1, "owner-1"],
        ["life-1", 0, 1 << 63, "owner-1"],
        ["life-1", 0, -1, "owner-1"],
        ["li\0fe", 0, 1, "owner-1"],
        ["life-1", 0, 1, "own\0er"],
        ["li\ud800fe", 0, 1, "owner-1"],
        ["life-1", 0, 1, "own\ud800er"],
    ],
)
async def test_a_header_that_no_database_takes_blocks_nothing(
    database: Database, writer: Writer, header: list[object]
) -> None:
    """It cannot be read, as any other damaged bytes; those behind it are archived."""
    told = json.dumps(header).encode() + b"\n"
    damaged = [told, told + _BYTES]  # a deletion, and an entry

    await writer.write(HERE, [*damaged, FIRST.says(3)])
    await writer.write(HERE, [FIRST.says(4), *damaged])

    assert await archived(database) == [1, 2, 3, 4]
    assert await rows(database, entries, "seq", "data") >= [(1, damaged[0]), (2, damaged[1])]
    assert await writer.lives(HERE) == ("life-1",)
