"""What entries do to the items of a life: gathered for many entries, then written in a few statements."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Boolean, Insert, and_, bindparam, case, func, literal, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.lives import Life
from conversation_actors.archive.tables import items
from conversation_actors.items import StoredItem

BELOW = 1 << 20
"""More than the items of any entry. Places from ``-BELOW`` up to 0 are of items that came before those of the entry
itself: their own entries are not known, or were superseded (those are another ``BELOW`` lower, each time)."""

_COLUMNS = ("life_id", "item_id", "seq", "place", "is_evicted", "type", "role", "call_id", "data")


def _upsert(dialect: Any) -> Insert:
    """Return the statement that adds an item, or gives one that is there its new data.

    One that is there keeps its place, unless it has left the window (`anew` tells that of an item that left and came
    back among what is written here), or the entry that comes now is older than what is known of it.
    """
    statement = dialect.insert(items).values({name: bindparam(f"new_{name}") for name in _COLUMNS})
    new = statement.excluded
    moves = or_(bindparam("anew", type_=Boolean), items.c.is_evicted, items.c.seq > new.seq)
    changed = {name: new[name] for name in ("is_evicted", "type", "role", "call_id", "data")}
    places = {name: case((moves, new[name]), else_=items.c[name]) for name in ("seq", "place")}
    upsert: Insert = statement.on_conflict_do_update(index_elements=["life_id", "item_id"], set_={**changed, **places})
    return upsert


_UPSERTS = {"sqlite": _upsert(sqlite), "postgresql": _upsert(postgresql)}
_EVICT = (
    update(items)
    .where(items.c.life_id == bindparam("of"), items.c.item_id == bindparam("item"))
    .values(is_evicted=True)
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
    """Changes of one life's items that are not written yet. The order of calls is that of the entries."""

    def __init__(self) -> None:
        self._changes: dict[str, _Change] = {}

    def put(self, seq: int, arriving: Sequence[StoredItem]) -> None:
        """Take the items of an entry that brought items."""
        for place, item in enumerate(arriving):
            change = self._changes.get(item.id)
            if change is None:
                self._changes[item.id] = _Change(item, seq, place, comes=True)
                continue
            if change.is_evicted:
                change.seq, change.place, change.anew, change.is_evicted = seq, place, True, False
            change.item, change.comes = item, True

    def evict(self, seq: int, leaving: Sequence[StoredItem]) -> None:
        """Take the items of an entry that told of their leaving the window."""
        for place, item in enumerate(leaving):
            change = self._changes.get(item.id)
            if change is None:
                change = self._changes[item.id] = _Change(item, seq, place, comes=False)
            change.is_evicted = True

    async def write(self, connection: AsyncConnection, life: Life) -> None:
        """Write all changes, and begin anew."""
        changes, self._changes = self._changes, {}
        if life.last_gap is not None:
            await _salvage(connection, life, [change for change in changes.values() if not change.comes])
        coming = [_parameters(life.id, change) for change in changes.values() if change.comes]
        if coming:
            await connection.execute(_UPSERTS[connection.dialect.name], coming)
        gone = [{"of": life.id, "item": storable(name)} for name, change in changes.items() if not change.comes]
        if gone:
            await connection.execute(_EVICT, gone)


def _parameters(life_id: int, change: _Change) -> dict[str, Any]:
    item = change.item
    return {
        "new_life_id": life_id,
        "new_item_id": storable(item.id),
        "new_seq": change.seq,
        "new_place": change.place,
        "new_is_evicted": change.is_evicted,
        "new_type": storable(item.type),
        "new_role": storable(item.role) or None,
        "new_call_id": storable(item.call_id) or None,
        "new_data": item.data,
        "anew": change.anew,
    }


async def _salvage(connection: AsyncConnection, life: Life, leaving: Sequence[_Change]) -> None:
    """Add those items of which the archive learns only as they leave: their own entries were given up.

    Old items leave first. So they stand at the end of the last gap, in the order in which they leave.
    """
    if not leaving or life.last_gap is None:
        return
    names = [storable(change.item.id) for change in leaving]
    query = select(items.c.item_id).where(items.c.life_id == life.id, items.c.item_id.in_(names))
    known = set((await connection.execute(query)).scalars())
    unknown = [change for change in leaving if storable(change.item.id) not in known]
    await insert_below(connection, life, life.last_gap, [change.item for change in unknown])


async def insert_below(connection: AsyncConnection, life: Life, seq: int, found: Sequence[StoredItem]) -> None:
    """Add items, in this order, before those that the entry `seq` itself has brought."""
    if not found:
        return
    here = and_(items.c.life_id == life.id, items.c.seq == seq, items.c.place < 0, items.c.place >= -BELOW)
    highest = (await connection.execute(select(func.max(items.c.place)).where(here))).scalar()
    first = -BELOW if highest is None else highest + 1
    rows = [_parameters(life.id, _Change(item, seq, first + number, comes=True)) for number, item in enumerate(found)]
    await connection.execute(_UPSERTS[connection.dialect.name], rows)


async def lower(connection: AsyncConnection, life: Life, seq: int) -> None:
    """Make room for other entries from `seq` on: the items that the present ones brought stand before theirs.

    They are no longer in the window of who writes now. If they come again, they come at the end.
    """
    here = and_(items.c.life_id == life.id, items.c.seq >= seq)
    lowest = (await connection.execute(select(func.min(items.c.place)).where(here))).scalar()
    if lowest is None:
        return
    by = BELOW * (1 + (BELOW - 1 - min(lowest, 0)) // BELOW)  # beyond what is below already
    statement = update(items).where(here, items.c.place >= 0).values(place=items.c.place - literal(by))
    await connection.execute(statement)
    await connection.execute(update(items).where(here).values(is_evicted=True))


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
