"""Rows of a conversation as an archive has them, for tests that need no database."""

from collections.abc import AsyncIterator, Iterable

from conversation_actors.archive.rows import CHECKPOINT, ENTRY, GAP, ITEM, LIFE, PICTURE, SUPERSEDED, Row
from conversation_actors.codec import encode_entry
from conversation_actors.items import Item, Message
from conversation_actors.state import Entry, ItemsAppended

LIFE_ROW = {
    "life": "life-1",
    "start": 0,
    "seq": 2,
    "epoch": 1,
    "owner": "life-1",
    "lineage": "[]",
    "created_at": 100.0,
    "active_at": 102.0,
    "deleted_at": None,
}


def entry_row(seq: int, *items: Item) -> Row:
    """Return an entry that brought these items."""
    event = ItemsAppended(tuple(item.to_stored() for item in items))
    data = encode_entry(Entry(seq, 1, 100.0 + seq, event))
    return Row(ENTRY, {"seq": seq, "epoch": 1, "at": 100.0 + seq, "event": "items_appended", "data": data})


def item_row(seq: int, item: Item) -> Row:
    """Return an item of the window."""
    stored = item.to_stored()
    values = {"item_id": item.id, "seq": seq, "place": 0, "is_evicted": False, "type": item.type, "data": stored.data}
    return Row(ITEM, {**values, "role": stored.role or None, "call_id": stored.call_id or None})


def rows_of(*items: Item) -> list[Row]:
    """Return a conversation of one life, in which each item came by an entry of its own."""
    life = Row(LIFE, {**LIFE_ROW, "seq": len(items)})
    entries = [entry_row(seq, item) for seq, item in enumerate(items, 1)]
    return [life, *entries, *(item_row(seq, item) for seq, item in enumerate(items, 1))]


def every_kind() -> list[Row]:
    """Return a conversation that has a row of each kind, and bytes that are no text."""
    said = Message(id="m1", role="user", content="Grüße\u2028 \x00", created_at=100.5)
    rest = {"seq": 2, "epoch": 1, "at": 101.25, "event": "unreadable", "data": b"\xff\x00"}
    return [
        Row(LIFE, LIFE_ROW),
        Row(GAP, {"from_seq": 7, "to_seq": None, "reason": "given up", "noted_at": 103.0}),
        entry_row(1, said),
        Row(ENTRY, rest),
        Row(SUPERSEDED, {**rest, "noted_at": 104.0}),
        item_row(1, said),
        Row(CHECKPOINT, {"seq": 2, "data": b"\x28\xb5\x2f\xfd"}),
        Row(PICTURE, {"digest": "ab", "media_type": "image/jpeg", "kept_at": 99.0, "data": b"\xff\xd8"}),
    ]


async def stream(rows: Iterable[Row]) -> AsyncIterator[Row]:
    """Yield rows as an archive does."""
    for row in rows:
        yield row
