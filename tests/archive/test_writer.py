"""What the archive holds after records came: all of them, in order, once; and nothing of what was to be forgotten."""

import asyncio
import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Table, select

from conversation_actors.archive.database import Database
from conversation_actors.archive.gaps import BEFORE_THE_ARCHIVE, GIVEN_UP, Gap
from conversation_actors.archive.records import UNREADABLE
from conversation_actors.archive.tables import checkpoints, entries, gaps, items, lives, metadata, superseded
from conversation_actors.archive.writer import Writer
from conversation_actors.codec import decode_entry, encode_entry
from conversation_actors.state import (
    ConversationClosed,
    ConversationState,
    Entry,
    ItemsAppended,
    Limits,
    SummaryChanged,
)
from conversation_actors.state.commands import AppendItems
from conversation_actors.state.decisions import decide
from conversation_actors.store.backlog import Record, decode_record
from tests.support.archive_records import BEGAN, Author, item

HERE = "room-1"
FIRST = Author()
SECOND = Author(epoch=2, owner="owner-2")


@pytest.fixture
def writer(database: Database) -> Writer:
    """A writer of one tenant."""
    return Writer(database, "tenant")


async def rows(database: Database, table: Table, *columns: str) -> list[tuple[Any, ...]]:
    """Return columns of all rows, in the order of the first ones."""
    async with database.reading("looking") as connection:
        chosen = [table.c[name] for name in columns]
        return [tuple(row) for row in (await connection.execute(select(*chosen).order_by(*chosen))).all()]


async def archived(database: Database) -> list[int]:
    """Return the positions of all entries."""
    return [seq for (seq,) in await rows(database, entries, "seq")]


async def history(database: Database) -> list[str]:
    """Return the ids of all items, in the order of their places."""
    return [name for *_, name in await rows(database, items, "seq", "place", "item_id")]


async def everything(database: Database) -> bytes:
    """Return all values of all columns of all tables, as bytes."""
    found: list[bytes] = []
    async with database.reading("looking") as connection:
        for table in metadata.sorted_tables:
            for row in (await connection.execute(select(table))).all():
                found += [value if isinstance(value, bytes) else str(value).encode() for value in row]
    return b"\n".join(found)


async def test_entries_are_kept_as_they_came(database: Database, writer: Writer) -> None:
    """Entry and item have the bytes that the owner has written."""
    records = FIRST.talk(1, 3)

    written = await writer.write(HERE, records)

    assert (written.entries, written.items, written.repeated, written.gaps) == (3, 3, 0, ())
    kept = await rows(database, entries, "seq", "epoch", "at", "event", "data")
    assert kept == [
        (seq, 1, BEGAN + seq, "items_appended", decode_record(stored).data) for seq, stored in enumerate(records, 1)
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
