"""What was removed is gone from every column of every table, and everything else is still there."""

from collections.abc import Sequence

import pytest
from sqlalchemy import insert

from conversation_actors.archive.database import Database
from conversation_actors.archive.tables import checkpoints, entries, pictures
from conversation_actors.archive.writer import Writer
from conversation_actors.codec import decode_entry, decode_snapshot
from conversation_actors.state import ItemsAppended, SummaryChanged
from tests.archive.conftest import TENANT
from tests.support.archive_contents import archived, change, everything, history, rows
from tests.support.archive_records import BEGAN, Author, item, state_of, stored

HERE = "room-1"
FIRST = Author()
SECOND = Author(epoch=2, owner="owner-2")
SECRET, PLAIN = "4111-1111-1111-1111", "plainly spoken"


def told() -> Sequence[bytes]:
    """Return entries in which a secret is said, repeated, corrected away, evicted and summed up."""
    return [
        FIRST.says(1, "card", "other", words=SECRET),
        FIRST.says(2, "other", words=PLAIN),
        FIRST.evicts(3, "card"),
        FIRST.says(4, "card", words=f"{SECRET} again"),
        FIRST.record(5, SummaryChanged(f"a card: {SECRET}", 4)),
        FIRST.record(6, SummaryChanged("no card", 4)),
    ]


async def test_removing_leaves_nothing_of_an_item(database: Database, writer: Writer) -> None:
    """Neither in entries, however it was written there, nor in older texts of other items, nor in summaries."""
    await writer.write(HERE, [*told(), FIRST.removes(7, "card"), FIRST.says(8, "later")])

    assert SECRET.encode() not in await everything(database)
    assert await history(database) == ["other", "later"]
    assert await archived(database) == [1, 2, 3, 4, 5, 6, 7, 8]
    data = dict(await rows(database, entries, "seq", "data"))
    first = decode_entry(data[1]).event
    assert isinstance(first, ItemsAppended)
    assert [one.data for one in first.items] == [item("other", PLAIN).data]  # as it is now, at its place
    assert decode_entry(data[6]).event == SummaryChanged("no card", 4)


async def test_repeats_of_what_was_forgotten_do_not_bring_it_back(database: Database, writer: Writer) -> None:
    """Their bytes are others than those that are stored, and yet they are the same entries."""
    records = [*told(), FIRST.removes(7, "card")]
    await writer.write(HERE, records)

    assert (await writer.write(HERE, records)).repeated == 7
    assert SECRET.encode() not in await everything(database)


async def test_clearing_leaves_no_words(database: Database, writer: Writer) -> None:
    """All items and summaries are gone; what comes after stays."""
    await writer.write(HERE, [*told(), FIRST.clears(7), FIRST.says(8, "later", words=PLAIN)])

    left = await everything(database)
    assert SECRET.encode() not in left
    assert b"no card" not in left
    assert await history(database) == ["later"]
    assert (await writer.write(HERE, told())).repeated == 6


async def test_forgetting_reaches_what_was_superseded(database: Database, writer: Writer) -> None:
    """Entries that others took the place of, and their items."""
    await writer.write(HERE, told())
    await writer.write(HERE, [SECOND.says(2, "new", words=PLAIN)])
    assert SECRET.encode() in await everything(database)

    await writer.write(HERE, [SECOND.removes(3, "card", "other")])
    assert SECRET.encode() not in await everything(database)
    assert await history(database) == ["new"]


async def test_forgetting_reaches_the_state_that_is_kept(database: Database, writer: Writer) -> None:
    """It stays usable, at its position."""
    state = state_of([FIRST.says(1, "card", "other", words=SECRET), FIRST.says(2, "other", words=PLAIN)], window=9)
    await writer.adopt(HERE, stored(FIRST, state), state)

    await writer.write(HERE, [FIRST.removes(3, "card")])

    assert SECRET.encode() not in await everything(database)
    ((seq, data),) = await rows(database, checkpoints, "seq", "data")
    assert seq == 2
    assert [one.id for one in decode_snapshot(data).window] == ["other"]


async def test_a_state_that_cannot_be_read_is_dropped_when_something_is_forgotten(
    database: Database, writer: Writer
) -> None:
    """Nobody can tell what it holds; neither of an entry."""
    state = state_of(FIRST.talk(1, 1), window=9)
    await writer.adopt(HERE, stored(FIRST, state), state)
    await change(database, _DAMAGE[_kind(database)])
    await writer.write(HERE, [f"garbage {SECRET}".encode()])

    await writer.write(HERE, [FIRST.removes(3)])
    assert await rows(database, checkpoints, "seq") == []
    assert SECRET.encode() not in await everything(database)


_DAMAGE = {
    "sqlite": "UPDATE archive_checkpoints SET data = CAST('damaged' AS BLOB)",
    "postgresql": "UPDATE archive_checkpoints SET data = 'damaged'::bytea",
}


def _kind(database: Database) -> str:
    return database.address.driver.split("+")[0]


async def test_long_conversations_are_forgotten_in_pieces(database: Database, writer: Writer) -> None:
    """More entries than one statement takes."""
    await writer.write(HERE, [FIRST.says(seq, words=SECRET) for seq in range(1, 1202)])
    await writer.write(HERE, [FIRST.clears(1202)])

    assert SECRET.encode() not in await everything(database)
    assert len(await archived(database)) == 1202


@pytest.mark.parametrize("is_of_the_client", [True, False])
async def test_deletion_leaves_only_names(database: Database, writer: Writer, *, is_of_the_client: bool) -> None:
    """By the client, and by the record in the backlog."""
    await writer.write(HERE, told())
    await writer.write(HERE, [SECOND.says(2, "new", words=SECRET)])

    if is_of_the_client:
        await writer.delete(HERE)
    else:
        await writer.write(HERE, [SECOND.deletes()])

    assert SECRET.encode() not in await everything(database)
    assert await archived(database) == []


async def test_pictures_go_with_the_last_item_that_names_them(database: Database, writer: Writer) -> None:
    """A picture that another item names stays, and so does one that no item names yet."""
    shared, own, coming = "a" * 64, "b" * 64, "c" * 64
    await writer.write(HERE, [FIRST.says(1, "x", words=f"{shared} {own}"), FIRST.says(2, "y", words=shared)])
    await keep(database, shared, own, coming)

    await writer.write(HERE, [FIRST.removes(3, "x")])
    assert await rows(database, pictures, "digest") == [(shared,), (coming,)]

    await keep(database, own, at=BEGAN + 100)  # of a life whose first item is still on its way
    await writer.write(HERE, [FIRST.deletes()])
    assert await rows(database, pictures, "digest") == [(own,)]
    await writer.delete(HERE)
    assert await rows(database, pictures, "digest") == []


async def keep(database: Database, *digests: str, at: float = BEGAN) -> None:
    """Store pictures, as a client would before it appends."""
    kept = {"tenant": TENANT, "conversation_id": HERE, "media_type": "image/jpeg", "data": b"...", "kept_at": at}
    async with database.writing("keeping") as connection:
        await connection.execute(insert(pictures), [{**kept, "digest": digest} for digest in digests])
