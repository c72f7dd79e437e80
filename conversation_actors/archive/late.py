"""Entries that come late, into a gap: what becomes of the items that they name, after them and all later entries."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive import entries
from conversation_actors.archive.items import ItemChanges, put_where_they_stand, storable
from conversation_actors.archive.lives import Life
from conversation_actors.archive.scrubbing import Forgetting, delete_items
from conversation_actors.archive.tables import items
from conversation_actors.codec import decode_entry
from conversation_actors.errors import CorruptStateError, IncompatibleVersionError
from conversation_actors.items import StoredItem
from conversation_actors.state import EVENT_NAMES, Event, HistoryCleared, ItemsAppended, ItemsEvicted, ItemsRemoved

logger = logging.getLogger(__name__)

_AT_ONCE = 500
_OF_ITEMS = tuple(EVENT_NAMES[kind] for kind in (ItemsAppended, ItemsEvicted, ItemsRemoved, HistoryCleared))


@dataclass(frozen=True, slots=True)
class _Item:
    """An item at some point of its life. `place` is None if only its leaving is known."""

    item: StoredItem
    place: tuple[int, int] | None
    is_evicted: bool


async def settle(connection: AsyncConnection, life: Life, late: Mapping[int, Event]) -> None:
    """Make items what they are after `late` entries, by position, and all that follow. The entries are written already.

    What late or later entries took out is forgotten, also in the words of the late ones.
    """
    since = min(late)
    names = _named(late.values())
    told = await _told(connection, life, since)
    removals = [(seq, at, event) for seq, at, event in told if isinstance(event, ItemsRemoved | HistoryCleared)]
    gone = await _follow(connection, life, since, names, [(seq, event) for seq, _, event in told])
    forgetting = Forgetting(connection, life.id)
    for seq, at, event in removals:
        forgetting.note(seq, event.identities if isinstance(event, ItemsRemoved) else None, at=at, named=gone)
    if forgetting.is_begun:
        await forgetting.finish()


def _named(late: Collection[Event]) -> set[str] | None:
    """Return the items that entries name; None stands for all."""
    names: set[str] = set()
    for event in late:
        match event:
            case ItemsAppended(some) | ItemsEvicted(some):
                names.update(storable(item.id) for item in some)
            case ItemsRemoved(identities):
                names.update(storable(name) for name in identities)
            case HistoryCleared():
                return None
            case _:
                pass
    return names


async def _told(connection: AsyncConnection, life: Life, since: int) -> list[tuple[int, float, Event]]:
    """Return position, time and event of the entries from `since` on that say something of items."""
    found: list[tuple[int, float, Event]] = []
    for row in await entries.of_kinds(connection, life.id, _OF_ITEMS, since=since):
        try:
            found.append((row.seq, row.at, decode_entry(row.data).event))
        except (CorruptStateError, IncompatibleVersionError) as error:
            logger.warning("an entry was left out", extra={"life": life.life, "seq": row.seq, "reason": str(error)})
    return found


async def _follow(
    connection: AsyncConnection,
    life: Life,
    since: int,
    names: set[str] | None,
    told: Sequence[tuple[int, Event]],
) -> frozenset[str]:
    """Follow items through entries and write what they are then; return the digests of pictures in what went."""
    present = await _present(connection, life, names)
    course = _Course(names, _as_before(present, since, told))
    # What only a state, or the items' leaving, has told stands below the entry up to which it was known.
    seen = sorted(
        ((row.place[0], name, row) for name, row in present.items() if row.place and _is_below(row.place, since)),
        key=lambda one: one[0],
    )
    for seq, event in told:
        while seen and seen[0][0] < seq:
            _, name, row = seen.pop(0)
            course.see(name, row)
        course.apply(seq, event)
    for _, name, row in seen:
        course.see(name, row)
    gone = await delete_items(connection, life.id, [name for name in course.gone if name in present])
    changed = {name: now for name, now in course.known.items() if now.place is not None and now != present.get(name)}
    await put_where_they_stand(
        connection,
        life,
        [(now.item, now.place, now.is_evicted) for now in changed.values() if now.place is not None],
    )
    leaving = ItemChanges()
    for name, now in course.known.items():
        if now.place is None:
            leaving.evict(life, course.left[name], [now.item])
    await leaving.write(connection)
    return gone


def _is_below(place: tuple[int, int], since: int) -> bool:
    return place[0] >= since and place[1] < 0


def _as_before(present: Mapping[str, _Item], since: int, told: Sequence[tuple[int, Event]]) -> dict[str, _Item]:
    """Return the items that were there before the entry `since`. Those that leave later were in the window then."""
    leave = {storable(one.id) for _, event in told if isinstance(event, ItemsEvicted) for one in event.items}
    return {
        name: _Item(row.item, row.place, row.is_evicted and name not in leave)
        for name, row in present.items()
        if row.place is not None and row.place[0] < since
    }


class _Course:
    """Items, as entries change them one after the other."""

    def __init__(self, names: set[str] | None, known: dict[str, _Item]) -> None:
        """Begin with what is `known`; follow only these `names` (None: all)."""
        self.known = known
        self.gone: set[str] = set()
        self.left: dict[str, int] = {}
        """The last entry in which an item left the window."""
        self._names = names

    def see(self, name: str, row: _Item) -> None:
        """Take what is known of an item up to here."""
        known = self.known.get(name)
        place = known.place if known is not None and known.place is not None and not known.is_evicted else row.place
        self.known[name] = _Item(row.item, place, row.is_evicted)
        self.gone.discard(name)

    def apply(self, seq: int, event: Event) -> None:
        """Apply an entry."""
        match event:
            case ItemsAppended(arriving):
                for place, item in self._followed(arriving):
                    self._put(item, (seq, place))
            case ItemsEvicted(leaving):
                for _, item in self._followed(leaving):
                    name = storable(item.id)
                    known = self.known.get(name)
                    known = known or _Item(item, None, is_evicted=True)
                    self.known[name] = _Item(known.item, known.place, is_evicted=True)
                    self.left[name] = seq
            case ItemsRemoved(identities):
                self._drop([storable(name) for name in identities])
            case HistoryCleared():
                self._drop(list(self.known) if self._names is None else self._names)
            case _:
                pass

    def _put(self, item: StoredItem, place: tuple[int, int]) -> None:
        name = storable(item.id)
        known = self.known.get(name)
        stays = known is not None and known.place is not None and not known.is_evicted
        self.known[name] = _Item(item, known.place if known is not None and stays else place, is_evicted=False)
        self.gone.discard(name)

    def _drop(self, names: Collection[str]) -> None:
        for name in names:
            if self._names is None or name in self._names:
                self.known.pop(name, None)
                self.gone.add(name)

    def _followed(self, some: Sequence[StoredItem]) -> list[tuple[int, StoredItem]]:
        names = self._names
        return [(at, item) for at, item in enumerate(some) if names is None or storable(item.id) in names]


async def _present(connection: AsyncConnection, life: Life, names: set[str] | None) -> dict[str, _Item]:
    """Return those of a life's items that have these names (None: all), as they are stored."""
    query = select(
        items.c.item_id, items.c.seq, items.c.place, items.c.is_evicted, items.c.type, items.c.role, items.c.call_id,
        items.c.data,
    ).where(items.c.life_id == life.id)  # fmt: skip
    wanted = sorted(names or ())
    portions = [wanted[first : first + _AT_ONCE] for first in range(0, len(wanted), _AT_ONCE)]
    queries = [query] if names is None else [query.where(items.c.item_id.in_(some)) for some in portions]
    found: dict[str, _Item] = {}
    for one in queries:
        for name, seq, place, is_evicted, kind, role, call_id, data in await connection.execute(one):
            item = StoredItem(name, kind, role or "", call_id or "", bytes(data))
            found[name] = _Item(item, (seq, place), is_evicted)
    return found
