"""Forgetting: nothing of an item that was removed stays in the archive, nor an older text of one that is there.

Entries stay, without the lines of such items. What cannot be read loses all its bytes: nobody can tell what it holds.
"""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Column, ColumnElement, bindparam, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.items import storable
from conversation_actors.archive.pictures import drop_unused, named_in
from conversation_actors.archive.records import UNREADABLE, header_of
from conversation_actors.archive.tables import checkpoints, entries, items, superseded
from conversation_actors.codec import decode_snapshot, encode_snapshot
from conversation_actors.errors import CorruptStateError, IncompatibleVersionError
from conversation_actors.items import StoredItem
from conversation_actors.state import EVENT_NAMES, ItemsAppended, ItemsEvicted, SummaryChanged
from conversation_actors.values import encode

_AT_ONCE = 500
_SUMMARY = EVENT_NAMES[SummaryChanged]
_WITH_WORDS = (EVENT_NAMES[ItemsAppended], EVENT_NAMES[ItemsEvicted], _SUMMARY, UNREADABLE)


async def forget(
    connection: AsyncConnection, life_id: int, *, before: int, removed: Collection[str] | None, is_late: bool = False
) -> None:
    """Forget what came before the entry `before`: `removed` items, and older texts of all others.

    None stands for everything: all items, and all summaries. If that entry `is_late`, items of later ones stay.
    """
    named = await _delete_items(connection, life_id, before if is_late else None, removed)
    summary = None if removed is None else await _last_summary(connection, life_id, before)
    await _scrub(connection, entries.c.seq, life_id, [entries.c.seq < before], kept_summary=summary)
    await _scrub(connection, superseded.c.id, life_id, [], kept_summary=None)
    await _scrub_checkpoint(connection, life_id, before=before, is_all=removed is None)
    await drop_unused(connection, life_id, named)


async def _delete_items(
    connection: AsyncConnection, life_id: int, before: int | None, removed: Collection[str] | None
) -> frozenset[str]:
    """Delete items; return the digests of pictures that are named in them."""
    named: frozenset[str] = frozenset()
    if removed is None:
        here = [items.c.life_id == life_id, *([] if before is None else [items.c.seq < before])]
        named = await _pictures_in(connection, here)
        await connection.execute(delete(items).where(*here))
        return named
    names = [storable(name) for name in removed]
    for first in range(0, len(names), _AT_ONCE):
        here = [items.c.life_id == life_id, items.c.item_id.in_(names[first : first + _AT_ONCE])]
        named |= await _pictures_in(connection, here)
        await connection.execute(delete(items).where(*here))
    return named


async def _pictures_in(connection: AsyncConnection, here: Sequence[ColumnElement[bool]]) -> frozenset[str]:
    found: set[str] = set()
    for data in (await connection.execute(select(items.c.data).where(*here))).scalars():
        found |= named_in(data)
    return frozenset(found)


async def _last_summary(connection: AsyncConnection, life_id: int, before: int) -> int | None:
    query = (
        select(entries.c.seq)
        .where(entries.c.life_id == life_id, entries.c.seq < before, entries.c.event == _SUMMARY)
        .order_by(entries.c.seq.desc())
        .limit(1)
    )
    return (await connection.execute(query)).scalar()


async def _scrub(
    connection: AsyncConnection,
    key: Column[int],
    life_id: int,
    here: Sequence[ColumnElement[bool]],
    *,
    kept_summary: int | None,
) -> None:
    """Rewrite the rows of one table, some at once, in the order of its column `key`."""
    table = key.table
    rewrite = (
        update(table).where(table.c.life_id == life_id, key == bindparam("of")).values(data=bindparam("rewritten"))
    )
    last = -1
    while True:
        query = (
            select(key, table.c.event, table.c.data)
            .where(table.c.life_id == life_id, *here, key > last, table.c.event.in_(_WITH_WORDS))
            .order_by(key)
            .limit(_AT_ONCE)
        )
        rows = (await connection.execute(query)).all()
        if not rows:
            return
        last = rows[-1][0]
        present = await _present(connection, life_id, [data for _, event, data in rows if event != UNREADABLE])
        changed = [
            {"of": number, "rewritten": rewritten}
            for number, event, data in rows
            if (event != _SUMMARY or number != kept_summary) and (rewritten := _rewritten(event, data, present)) != data
        ]
        if changed:
            await connection.execute(rewrite, changed)


async def _present(connection: AsyncConnection, life_id: int, data: Sequence[bytes]) -> Mapping[str, bytes]:
    """Return the present lines of the items that entries name; those that are gone are missing."""
    names = list({name for one in data for line in one.split(b"\n")[1:] if (name := _name_in(line)) is not None})
    present: dict[str, bytes] = {}
    for first in range(0, len(names), _AT_ONCE):
        some = [storable(name) for name in names[first : first + _AT_ONCE]]
        query = select(items.c.item_id, items.c.data).where(items.c.life_id == life_id, items.c.item_id.in_(some))
        present.update((name, line) for name, line in (await connection.execute(query)).all())
    return present


def _name_in(line: bytes) -> str | None:
    try:
        return StoredItem.parse(line).id
    except ValueError:
        return None


def _rewritten(event: str, data: bytes, present: Mapping[str, bytes]) -> bytes:
    """Return an entry with the present lines of its items, and without those that are gone."""
    header = dict(header_of(data))
    if event == UNREADABLE or not header:
        return b""
    if event == _SUMMARY:
        return encode({**header, "text": ""}, "summary") if header.get("text") else data
    named = [_name_in(line) for line in data.split(b"\n")[1:]]
    lines = [present[storable(name)] for name in named if name is not None and storable(name) in present]
    header.pop("items", None)
    if lines:
        header["items"] = len(lines)
    return b"\n".join([encode(header, "entry"), *lines])


async def _scrub_checkpoint(connection: AsyncConnection, life_id: int, *, before: int, is_all: bool) -> None:
    """Take out of a state from `before` what is forgotten; drop one that cannot be read. A later one has forgotten."""
    here = (checkpoints.c.life_id == life_id) & (checkpoints.c.seq < before)
    data = (await connection.execute(select(checkpoints.c.data).where(here))).scalar()
    if data is None:
        return
    try:
        state = decode_snapshot(data)
    except (CorruptStateError, IncompatibleVersionError):
        await connection.execute(delete(checkpoints).where(here))
        return
    present = await _present(connection, life_id, [b"\n".join([b"", *(item.data for item in state.window)])])
    gone = [item for item in state.window if storable(item.id) not in present]
    state.window.remove(gone, orphans_kept=state.limits.items)
    state.window.put([StoredItem.parse(present[storable(item.id)]) for item in state.window])
    if is_all:
        state.summary = None
    state.requests.clear()
    await connection.execute(update(checkpoints).where(here).values(data=encode_snapshot(state)))
