"""What entries do to the items of a life: gathered for many entries, then written in a few statements."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.bulk import BulkInsert
from conversation_actors.archive.lives import Life
from conversation_actors.archive.tables import gaps, items
from conversation_actors.items import StoredItem

BELOW = 1 << 20
"""More than the items of any entry. Places from ``-BELOW`` up to 0 are of items that came before those of the entry
itself: their own entries are not known, or were superseded (those are another ``BELOW`` lower, each time)."""

_ZERO = literal_column("0", Integer)  # no parameter: rows are the only ones
_COLUMNS = ("life_id", "item_id", "seq", "place", "is_evicted", "type", "role", "call_id", "data")


def _upsert(statement: Any, *, is_anew: bool) -> Any:
    """Say what happens to an item that is there: it gets its new data.

    It keeps its place, unless it has left the window (`is_anew` tells that of an item that left and came back among
    what is written here), or the entry that comes now is older than what is known of it.
    """
    new = statement.excluded
    is_below = and_(items.c.seq == new.seq, items.c.place < _ZERO, new.place >= _ZERO)
    moves = or_(items.c.is_evicted, items.c.seq > new.seq, is_below)
    changed = {name: new[name] for name in ("is_evicted", "type", "role", "call_id", "data")}
    places = {
        name: new[name] if is_anew else case((moves, new[name]), else_=items.c[name]) for name in ("seq", "place")
    }
    return statement.on_conflict_do_update(index_elements=["life_id", "item_id"], set_={**changed, **places})


def _upsert_apart(statement: Any) -> Any:
    """Say what happens to an item that is there: it stays as it is, unless only lost entries have told of it."""
    new = statement.excluded
    is_older = and_(items.c.is_evicted, items.c.place < _ZERO, items.c.seq <= new.seq)
    changed = {name: new[name] for name in ("type", "role", "call_id", "data")}
    return statement.on_conflict_do_update(index_elements=["life_id", "item_id"], set_=changed, where=is_older)


_PUT = BulkInsert(items, _COLUMNS, partial(_upsert, is_anew=False))
_PUT_ANEW = BulkInsert(items, _COLUMNS, partial(_upsert, is_anew=True))
_PUT_APART = BulkInsert(items, _COLUMNS, _upsert_apart)
_EVICT = (
    update(items)
    .where(items.c.life_id == bindparam("of"), items.c.item_id == bindparam("item"))
    .values(is_evicted=True)
)

_CORRECT = (
    update(items)
    .where(items.c.life_id == bindparam("of"), items.c.item_id == bindparam("item"))
    .values({name: bindparam(f"new_{name}") for name in ("type", "role", "call_id", "data")})
)


def storable(text: str) -> str:
    """Return text as PostgreSQL takes it, which knows no character 0."""
    return text.replace("\0", "\ufffd") if "\0" in text else text


@dataclass(slots=True)
class _Change:
    item: StoredItem
    seq: int
    place: int
    comes: bool
    is_evicted: bool = False
    anew: bool = False


class ItemChanges:
    """Changes of lives' items that are not written yet. The order of calls is that of the entries."""

    def __init__(self) -> None:
        self._changes: dict[tuple[int, str], _Change] = {}
        self._with_gaps: dict[int, Life] = {}

    def put(self, life: Life, seq: int, arriving: Sequence[StoredItem]) -> None:
        """Take the items of an entry that brought items."""
        for place, item in enumerate(arriving):
            key = life.id, storable(item.id)
            change = self._changes.get(key)
            if change is None:
                self._changes[key] = _Change(item, seq, place, comes=True)
                continue
            if change.is_evicted:
                change.seq, change.place, change.anew, change.is_evicted = seq, place, True, False
            change.item, change.comes = item, True

    def evict(self, life: Life, seq: int, leaving: Sequence[StoredItem]) -> None:
        """Take the items of an entry that told of their leaving the window."""
        if life.last_gap is not None:
            self._with_gaps[life.id] = life
        for place, item in enumerate(leaving):
            key = life.id, storable(item.id)
            change = self._changes.get(key)
            if change is None:
                change = self._changes[key] = _Change(item, seq, place, comes=False)
            change.is_evicted = True

    async def write(self, connection: AsyncConnection) -> None:
        """Write all changes, and begin anew."""
        changes, self._changes = self._changes, {}
        with_gaps, self._with_gaps = self._with_gaps, {}
        for life in with_gaps.values():
            leaving = [one for (life_id, _), one in changes.items() if life_id == life.id and not one.comes]
            await _salvage(connection, life, leaving)
        coming = [(life_id, change) for (life_id, _), change in changes.items() if change.comes]
        await _PUT.execute(connection, [_row(*one) for one in coming if not one[1].anew])
        await _PUT_ANEW.execute(connection, [_row(*one) for one in coming if one[1].anew])
        gone = [{"of": life_id, "item": name} for (life_id, name), change in changes.items() if not change.comes]
        if gone:
            await connection.execute(_EVICT, gone)


def _row(life_id: int, change: _Change) -> tuple[Any, ...]:
    item = change.item
    role, call_id = storable(item.role) or None, storable(item.call_id) or None
    place = (change.seq, change.place, change.is_evicted)
    return (life_id, storable(item.id), *place, storable(item.type), role, call_id, item.data)


async def _salvage(connection: AsyncConnection, life: Life, leaving: Sequence[_Change]) -> None:
    """Add those items of which the archive learns only as they leave: their own entries were given up.

    Old items leave first. So they stand at the end of the last gap before, in the order in which they leave.
    """
    if not leaving:
        return
    names = [storable(change.item.id) for change in leaving]
    query = select(items.c.item_id).where(items.c.life_id == life.id, items.c.item_id.in_(names))
    known = set((await connection.execute(query)).scalars())
    unknown = [change for change in leaving if storable(change.item.id) not in known]
    if not unknown:
        return
    noted = (await connection.execute(select(gaps.c.from_seq, gaps.c.to_seq).where(gaps.c.life_id == life.id))).all()
    for change in unknown:
        ends = [min(last or change.seq, change.seq - 1) for first, last in noted if first < change.seq]
        await insert_below(connection, life, max(ends, default=change.seq), [change.item])


async def insert_below(connection: AsyncConnection, life: Life, seq: int, found: Sequence[StoredItem]) -> None:
    """Add items, in this order, before those that the entry `seq` itself has brought."""
    if not found:
        return
    here = and_(items.c.life_id == life.id, items.c.seq == seq, items.c.place < 0, items.c.place >= -BELOW)
    highest = (await connection.execute(select(func.max(items.c.place)).where(here))).scalar()
    first = -BELOW if highest is None else highest + 1
    changes = [_Change(item, seq, first + number, comes=True) for number, item in enumerate(found)]
    await _PUT.execute(connection, [_row(life.id, change) for change in changes])


async def put_where_they_stand(
    connection: AsyncConnection, life: Life, found: Sequence[tuple[StoredItem, tuple[int, int], bool]]
) -> None:
    """Write items at these places (position of the entry, and place in it), in the window or evicted, as told."""
    changes = [_Change(item, *place, comes=True, is_evicted=is_evicted) for item, place, is_evicted in found]
    await _PUT_ANEW.execute(connection, [_row(life.id, change) for change in changes])


async def put_apart(connection: AsyncConnection, life: Life, seq: int, arriving: Sequence[StoredItem]) -> None:
    """Add the items of an entry `seq` that is no part of the history: they stand where `lower` would have put them."""
    here = and_(items.c.life_id == life.id, items.c.seq == seq)
    by = _room(await _lowest(connection, here))
    unique = {storable(item.id): item for item in arriving}
    changes = [
        _Change(item, seq, place - by, comes=True, is_evicted=True) for place, item in enumerate(unique.values())
    ]
    await _PUT_APART.execute(connection, [_row(life.id, change) for change in changes])


async def drop_apart(connection: AsyncConnection, life: Life, before: int, removed: Sequence[str] | None) -> None:
    """Delete `removed` items (None: all) that stand below the entries before `before`, and have left the window."""
    here = [items.c.life_id == life.id, items.c.seq < before, items.c.place < 0, items.c.is_evicted.is_(True)]
    if removed is None:
        await connection.execute(delete(items).where(*here))
    for name in removed or ():
        await connection.execute(delete(items).where(*here, items.c.item_id == storable(name)))


async def correct(connection: AsyncConnection, life: Life, changed: Sequence[StoredItem]) -> None:
    """Give items that are there the data of these; their places stay."""
    rows = [
        {
            "of": life.id,
            "item": storable(item.id),
            "new_type": storable(item.type),
            "new_role": storable(item.role) or None,
            "new_call_id": storable(item.call_id) or None,
            "new_data": item.data,
        }
        for item in changed
    ]
    if rows:
        await connection.execute(_CORRECT, rows)


async def lower(connection: AsyncConnection, life: Life, seq: int) -> None:
    """Make room for other entries from `seq` on: the items that the present ones brought stand before theirs.

    They are no longer in the window of who writes now. If they come again, they come at the end.
    """
    here = and_(items.c.life_id == life.id, items.c.seq >= seq)
    lowest = await _lowest(connection, here)
    if lowest is None:
        return
    by = _room(lowest)
    statement = update(items).where(here, items.c.place >= 0).values(place=items.c.place - literal(by))
    await connection.execute(statement)
    await connection.execute(update(items).where(here).values(is_evicted=True))


async def _lowest(connection: AsyncConnection, here: ColumnElement[bool]) -> int | None:
    lowest: int | None = (await connection.execute(select(func.min(items.c.place)).where(here))).scalar()
    return lowest


def _room(lowest: int | None) -> int:
    """Return by how much places go down to be beyond what is below already."""
    return BELOW * (1 + (BELOW - 1 - min(lowest or 0, 0)) // BELOW)


async def bring_back(connection: AsyncConnection, life: Life, before: int, returned: Sequence[str]) -> None:
    """Say of items that they are in the window, because the entries in which they left were superseded."""
    here = and_(
        items.c.life_id == life.id, items.c.seq < before, items.c.item_id.in_([storable(one) for one in returned])
    )
    await connection.execute(update(items).where(here).values(is_evicted=False))


async def keep_in_window(connection: AsyncConnection, life: Life, window: Sequence[str]) -> None:
    """Say of all items but those of a window that they have left it."""
    here = select(items.c.item_id).where(items.c.life_id == life.id, items.c.is_evicted.is_(False))
    left = set((await connection.execute(here)).scalars()) - {storable(name) for name in window}
    if left:
        await connection.execute(_EVICT, [{"of": life.id, "item": name} for name in left])
