"""What waiting entries make of archived items: a page joined from both, without a gap and without doubles.

An item stands at the entry that brought it (`Position`). It keeps its place when it is appended again while it is in
the window; if it had left the window, it comes again, at the end. `Overlay` follows these rules over entries that the
database does not have yet, and `Assembly` merges the result with the rows of the database. Neither does any I/O.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from conversation_actors.items import StoredItem
from conversation_actors.state import Entry, HistoryCleared, ItemsAppended, ItemsEvicted, ItemsRemoved


class Position(NamedTuple):
    """Where an item stands: the entry that brought it, and its place among the items of that entry, from 0."""

    seq: int
    place: int


class Placed(NamedTuple):
    """An item where it stands. `is_evicted` if it has left the window: if it comes again, it comes at the end."""

    position: Position
    is_evicted: bool
    item: StoredItem


class Stamp(NamedTuple):
    """What tells an entry from another one at the same position: the activation that wrote it, and when."""

    epoch: int
    at: float


def fresh(entries: Iterable[Entry], archived: Mapping[int, Stamp] | None = None) -> list[Entry]:
    """Return those entries that the database does not have, each once, in the order in which they wait.

    `archived` are those that it has at the positions of `entries`. Another entry at such a position takes the place of
    the archived one, which Redis had lost, unless an older activation has written it; so do those that follow it.
    """
    known = dict(archived or {})
    missing: list[Entry] = []
    for entry in entries:
        stamp = Stamp(entry.epoch, entry.at)
        other = known.get(entry.seq)
        if other is not None:
            if stamp == other or stamp.epoch < other.epoch:
                continue
            known = {seq: one for seq, one in known.items() if seq < entry.seq}
        known[entry.seq] = stamp
        missing.append(entry)
    return missing


def appended(entries: Iterable[Entry]) -> list[str]:
    """Return the ids of the items that come with `entries`, each once: what to look up before they are applied."""
    events = [entry.event for entry in entries]
    return list(dict.fromkeys(item.id for event in events if isinstance(event, ItemsAppended) for item in event.items))


class Overlay:
    """What becomes of archived items when entries are applied that the database does not have."""

    def __init__(self, entries: Iterable[Entry] = (), known: Mapping[str, Placed] | None = None) -> None:
        """Apply `entries`, in order; `known` are the archived ones among the items that they bring."""
        self._known: Mapping[str, Placed] = known or {}
        self._changed: dict[str, Placed | None] = {}
        self._is_cleared = False
        for entry in entries:
            self._apply(entry)

    def shown(self, row: Placed) -> Placed | None:
        """Return what stands at the place of an archived row now; None if the item is gone, or stands elsewhere."""
        if row.item.id not in self._changed:
            return None if self._is_cleared else row
        now = self._changed[row.item.id]
        return now if now is not None and now.position == row.position else None

    def brought(self) -> list[Placed]:
        """Return the items that stand where the entries have brought them, in order."""
        new = [now for name, now in self._changed.items() if now is not None and not self._has_stayed(name, now)]
        return sorted(new, key=_position)

    def _has_stayed(self, identity: str, now: Placed) -> bool:
        known = self._known.get(identity)
        return known is not None and known.position == now.position

    def _find(self, identity: str) -> Placed | None:
        if identity in self._changed:
            return self._changed[identity]
        return None if self._is_cleared else self._known.get(identity)

    def _apply(self, entry: Entry) -> None:
        match entry.event:
            case ItemsAppended(items):
                for place, item in enumerate(items):
                    old = self._find(item.id)
                    stays = old is not None and not old.is_evicted
                    position = old.position if old is not None and stays else Position(entry.seq, place)
                    self._changed[item.id] = Placed(position, is_evicted=False, item=item)
            case ItemsEvicted(items):
                for item in items:
                    if (old := self._find(item.id)) is not None:
                        self._changed[item.id] = old._replace(is_evicted=True)
            case ItemsRemoved(identities):
                self._changed.update(dict.fromkeys(identities))
            case HistoryCleared():
                self._changed.clear()
                self._is_cleared = True
            case _:
                pass


class Wanted(NamedTuple):
    """Which page is wanted: of `limit` items, from the one that follows `after` on (None: the first one)."""

    after: Position | None
    limit: int
    newest_first: bool

    def follows(self, position: Position) -> bool:
        """Tell whether an item there is on this page or on one that follows."""
        if self.after is None:
            return True
        return position < self.after if self.newest_first else position > self.after


class Found(NamedTuple):
    """A page: its items, and whether others follow."""

    placed: list[Placed]
    has_more: bool


class Assembly:
    """One page, put together from archived rows, which are added in order, and from what an overlay brings."""

    def __init__(self, overlay: Overlay, wanted: Wanted) -> None:
        """Begin with what the overlay brings."""
        self._overlay, self._page = overlay, wanted
        self._brought = [placed for placed in overlay.brought() if wanted.follows(placed.position)]
        self._shown: list[Placed] = []
        self._has_all = False
        self.reached = wanted.after
        """The position after which the next rows are read."""

    @property
    def wanted(self) -> int:
        """How many more rows the page may need; 0 if it is complete."""
        return 0 if self._has_all else max(0, self._page.limit + 1 - len(self._shown))

    def add(self, rows: Sequence[Placed]) -> None:
        """Take the next archived rows, in the page's direction; fewer than are wanted are the last ones."""
        self._has_all = len(rows) < self.wanted
        self._shown.extend(now for row in rows if (now := self._overlay.shown(row)) is not None)
        if rows:
            self.reached = rows[-1].position

    def page(self) -> Found:
        """Return the page, as far as the rows go that were added."""
        found = [*self._shown, *self._brought]
        found.sort(key=_position, reverse=self._page.newest_first)
        return Found(found[: self._page.limit], len(found) > self._page.limit)


def page_of(entries: Iterable[Entry], wanted: Wanted) -> Found:
    """Return a page of the items that `entries` bring, if nothing of them is archived."""
    return Assembly(Overlay(entries), wanted).page()


def _position(placed: Placed) -> Position:
    return placed.position
