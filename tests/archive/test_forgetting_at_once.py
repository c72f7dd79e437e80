"""Forgetting in the archive: many removals at once leave what they leave one by one, and read the life once."""

import random
from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.engine import Engine

from conversation_actors import Message
from conversation_actors.archive.database import Database
from conversation_actors.archive.tables import entries, items
from conversation_actors.archive.writer import Writer
from conversation_actors.codec import encode_entry
from conversation_actors.state import (
    Entry,
    Event,
    HistoryCleared,
    ItemsAppended,
    ItemsEvicted,
    ItemsRemoved,
    SummaryChanged,
)
from conversation_actors.store.backlog import Record


def item(name: str, text: str) -> Any:
    """One item."""
    return Message(role="user", content=text, id=name).to_stored()


def record(seq: int, happened: Event) -> bytes:
    """One record of a life."""
    return Record("life", 0, 1, "owner", encode_entry(Entry(seq, 1, 1.5, happened, f"r{seq}"))).encode()


def story(seed: int) -> list[bytes]:
    """Items that come, come again, leave and are taken out, in some order; at last all older texts are forgotten."""
    dice = random.Random(seed)
    window: dict[str, Any] = {}
    happened: list[Event] = []
    for number in range(50):
        name = f"item-{dice.randrange(12)}"
        kind = dice.choices(("put", "evict", "remove", "clear", "summary"), (10, 3, 4, 1, 2))[0]
        if kind == "put":
            window[name] = item(name, f"text {number}")
            happened.append(ItemsAppended((window[name],)))
        elif kind == "evict" and name in window:
            happened.append(ItemsEvicted((window.pop(name),)))
        elif kind == "remove":
            happened.append(ItemsRemoved((name,) if window.pop(name, None) else ()))
        elif kind == "clear":
            window.clear()
            happened.append(HistoryCleared())
        else:
            happened.append(SummaryChanged(f"summary {number}", number))
    happened.append(ItemsRemoved(()))
    return [record(seq, one) for seq, one in enumerate(happened, 1)]


async def stored(database: Database) -> list[Any]:
    """Return what the archive has of its one life."""
    async with database.reading("comparing") as connection:
        rows = await connection.execute(select(entries.c.seq, entries.c.data).order_by(entries.c.seq))
        found = list(rows)
        rows = await connection.execute(
            select(items.c.item_id, items.c.seq, items.c.place, items.c.is_evicted, items.c.data).order_by(
                items.c.seq, items.c.place
            )
        )
        return [*found, *rows]


@pytest.mark.parametrize("seed", [1, 2])
async def test_many_removals_at_once_leave_what_they_leave_one_by_one(database: Database, seed: int) -> None:
    """Whatever came again after it was taken out is there, and nothing of what came before is."""
    writer, records = Writer(database, "default"), story(seed)
    for one in records:
        await writer.write("c", [one])
    expected = await stored(database)
    await writer.delete("c")
    async with database.writing("beginning anew") as connection:
        await connection.exec_driver_sql("DELETE FROM archive_lives")

    await writer.write("c", records)

    assert await stored(database) == expected


async def test_many_removals_at_once_read_the_life_once(database: Database) -> None:
    """So that a backlog of them, as an outage leaves, is archived in a bounded time."""
    count = 30
    coming = [record(seq, ItemsAppended((item(f"i{seq}", "hello"),))) for seq in range(1, count + 1)]
    leaving = [record(count + seq, ItemsRemoved((f"i{seq}",))) for seq in range(1, count + 1)]
    reads: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        if "FROM archive_entries" in statement and "archive_entries.event IN" in statement:
            reads.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        await Writer(database, "default").write("c", [*coming, *leaving])
    finally:
        event.remove(Engine, "before_cursor_execute", note)

    assert 0 < len(reads) <= 2
