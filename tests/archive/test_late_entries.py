"""Entries that fill a gap behind later ones: what they brought is there as if they had come in time."""

from collections.abc import Sequence

import pytest

from conversation_actors.archive.database import Database
from conversation_actors.archive.tables import entries, gaps, items, superseded
from conversation_actors.archive.writer import Writer
from conversation_actors.state import SummaryChanged
from tests.support.archive_contents import archived, everything, history, rows
from tests.support.archive_records import Author, item, state_of, stored

HERE = "room-1"
FIRST = Author()
OLD, NEW = "4111-1111-1111-1111", "plainly spoken"
BEFORE = [FIRST.says(1, "a", "b"), FIRST.evicts(2, "b")]

STORIES: dict[str, tuple[bytes, Sequence[bytes]]] = {
    "removed": (FIRST.says(3, "x", words=OLD), [FIRST.removes(4, "x")]),
    "cleared": (FIRST.says(3, "x", words=OLD), [FIRST.clears(4)]),
    "corrected": (FIRST.says(3, "x", words=OLD), [FIRST.says(4, "x", words=NEW)]),
    "corrected both times": (FIRST.says(3, "a", words=OLD), [FIRST.says(4, "a", words=NEW)]),
    "evicted": (FIRST.says(3, "a", words=NEW), [FIRST.evicts(4, "a")]),
    "evicted and back": (FIRST.says(3, "x", words=OLD), [FIRST.evicts(4, "x"), FIRST.says(5, "x", words=NEW)]),
    "removed and back": (
        FIRST.says(3, "x", words=OLD),
        [FIRST.removes(4, "x"), FIRST.says(5, "x", words=NEW), FIRST.says(6, "y")],
    ),
    "a late removal": (FIRST.removes(3, "a"), [FIRST.says(4, "a", words=NEW)]),
    "a late removal of what was not in the window": (FIRST.removes(3, "b"), [FIRST.says(4, "b", words=NEW)]),
    "a late clearing": (FIRST.clears(3), [FIRST.says(4, "a", words=NEW), FIRST.says(5, "b")]),
    "a late leaving": (FIRST.evicts(3, "a"), [FIRST.says(4, "a", words=NEW)]),
    "late words": (FIRST.record(3, SummaryChanged(OLD, 1)), [FIRST.clears(4)]),
}


@pytest.mark.parametrize("story", STORIES)
async def test_what_comes_late_leaves_what_it_leaves_in_time(database: Database, writer: Writer, story: str) -> None:
    """Nothing that was removed comes back, no newer text gives way to an older one, and nothing is lost."""
    late, later = STORIES[story]
    other = Writer(database, "in time")
    for one in [*BEFORE, late, *later]:
        await other.write(HERE, [one])
    in_time = await _contents(database)
    await other.delete(HERE)

    await writer.write(HERE, BEFORE)
    await writer.write(HERE, later)
    assert (await writer.write(HERE, [late])).entries == 1

    assert await _contents(database) == in_time
    assert await rows(database, gaps, "from_seq") == []
    is_to_be_gone = any(word in story for word in ("removed", "cleared", "late words"))
    assert not (is_to_be_gone and OLD.encode() in await everything(database))


async def test_a_batch_may_mix_late_entries_with_others(database: Database, writer: Writer) -> None:
    """Late ones before, between and after new ones, and a removal among those."""
    await writer.write(HERE, [FIRST.says(1), FIRST.says(6, "x", words=NEW)])
    await writer.write(
        HERE,
        [FIRST.says(2, "x", words=OLD), FIRST.says(7, "y"), FIRST.removes(3, "x"), FIRST.removes(8, "y"),
         FIRST.says(5, "y", words=OLD), FIRST.says(9, "z"), FIRST.says(4)],
    )  # fmt: skip

    assert await archived(database) == [*range(1, 10)]
    assert await history(database) == ["item-1", "item-4", "x", "z"]
    assert dict(await rows(database, items, "item_id", "data"))["x"] == item("x", NEW).data
    assert OLD.encode() not in await everything(database)


async def test_an_older_entry_does_not_change_what_a_state_has_told(database: Database, writer: Writer) -> None:
    """The state that was adopted is newer than the late entry, and the entry in between may never come."""
    told = [FIRST.says(1, "x", words=OLD), FIRST.says(2, "y"), FIRST.says(3, "x", words=NEW)]
    state = state_of(told, window=9)
    await writer.adopt(HERE, stored(FIRST, state), state)

    await writer.write(HERE, told[:1])

    assert dict(await rows(database, items, "item_id", "data"))["x"] == item("x", NEW).data
    assert await rows(database, items, "item_id", "is_evicted") == [("x", False), ("y", False)]


async def _contents(database: Database) -> tuple[object, ...]:
    """Return what is archived and not deleted: items where they stand, and entries."""
    return (
        await rows(database, items, "seq", "place", "item_id", "is_evicted", "data"),
        await rows(database, entries, "seq", "epoch", "data"),
        await rows(database, superseded, "seq", "data"),
    )
