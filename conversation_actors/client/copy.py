"""The copy of a conversation that a handle keeps: read without I/O, changed only by durable entries."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any, NamedTuple

from conversation_actors.codec import decode_entry, decode_snapshot
from conversation_actors.items import Item, StoredItem
from conversation_actors.protocol import Echo, Seen, View
from conversation_actors.state import (
    AppendItems,
    Command,
    ConversationState,
    Entry,
    HistoryCleared,
    ItemsAppended,
    ItemsEvicted,
    ItemsRemoved,
    Participant,
)

MAX_REMOVED = 2000
"""Ids of removed items that a copy remembers; the newest."""

Position = tuple[int, Seen]
"""A `seq`, and the history that it is one of."""


class StoredState(NamedTuple):
    """A durable state as it was read from the store, for one copy alone; and the history that it belongs to."""

    state: ConversationState
    seen: Seen

    @property
    def seq(self) -> int:
        """The position of the state."""
        return self.state.seq


class LocalCopy:
    """A conversation's durable state as far as it is known here. Never ahead of Redis, a moment behind."""

    def __init__(self, view: View | StoredState) -> None:
        """Begin with what the owner showed, or with what was stored."""
        self.state = _state_of(view)
        self.seen = view.seen
        """The history that this is a copy of."""
        self.removed: dict[str, None] = {}
        """Ids of items that were seen to be removed, or cleared, and did not come again; the latest last."""
        self._items: tuple[Item, ...] | None = None
        self._decoded: dict[str, tuple[StoredItem, Item]] = {}
        self._changed = asyncio.Event()

    @property
    def seq(self) -> int:
        """The position this copy is at."""
        return self.state.seq

    @property
    def position(self) -> Position:
        """The position, and the history that it is one of."""
        return self.state.seq, self.seen

    @property
    def items(self) -> tuple[Item, ...]:
        """The history, oldest first; decoded when first asked for after a change."""
        if self._items is None:
            self._items = self._decode_items()
        return self._items

    @property
    def participants(self) -> Mapping[str, Participant]:
        """Participants by identity."""
        return MappingProxyType(self.state.participants)

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Shared attributes."""
        return MappingProxyType(self.state.attributes)

    def replace(self, view: View | StoredState) -> None:
        """Take a state as it is, when entries alone no longer lead there.

        A view that its own activation has gone beyond is passed over: entries came while it was on its way.
        """
        if view.seen == self.seen and view.seq < self.seq:
            return
        self.state = _state_of(view)
        self.seen = view.seen
        self._note_change()

    def apply(
        self, entries: Iterable[bytes | Echo], *, owner: str, asked: Position, sent: Sequence[Command] = ()
    ) -> bool:
        """Take entries, in order; those known already are passed over, a gap ends it: then return False.

        They are what `owner` told of the history `asked` for, encoded, or echoes of the commands that were `sent` from
        here. Where the copy has gone on since with what another owner told, they may not follow: none is taken, and
        the next poll will tell.
        """
        if owner != self.seen.owner and asked != self.position:
            return True
        changed, has_gap = False, False
        known = 0
        for told in entries:
            if known:
                known -= 1  # its place in the order tells which one it is
                continue
            entry = decode_entry(told) if isinstance(told, bytes) else told
            if entry.seq > self.state.seq + 1:
                has_gap = True
                break
            if entry.seq <= self.state.seq:
                known = max(self.state.seq - entry.seq - 1, 0)
                continue
            completed = self._completed(entry, sent) if isinstance(entry, Echo) else entry
            self._remember_removed(completed)
            self.state.apply(completed)
            changed = True
        if changed:
            self.seen = Seen(self.seen.life, owner)
            self._note_change()
        return not has_gap

    def _remember_removed(self, entry: Entry) -> None:
        match entry.event:
            case ItemsRemoved(identities):
                gone = identities
            case HistoryCleared():
                gone = tuple([item.id for item in self.state.window])
            case ItemsAppended(items):
                for item in items if self.removed else ():
                    self.removed.pop(item.id, None)
                return
            case _:
                return
        self.removed.update(dict.fromkeys(gone))
        while len(self.removed) > MAX_REMOVED:
            del self.removed[next(iter(self.removed))]

    def _completed(self, echo: Echo, sent: Sequence[Command]) -> Entry:
        """Return the entry, with the items that are here already: sent just now, or in the window."""
        if echo.appended is None:
            present = [item for identity in echo.evicted if (item := self.state.window.get(identity))]
            return Entry(echo.seq, echo.epoch, echo.at, ItemsEvicted(tuple(present)))
        command = sent[echo.appended]
        assert isinstance(command, AppendItems)
        return Entry(echo.seq, echo.epoch, echo.at, ItemsAppended(command.items))

    def shows(self, seq: int, owner: str | None = None) -> bool:
        """Whether the copy is at `seq` or beyond; with `owner`, of what that one has told."""
        return self.state.seq >= seq and owner in {None, self.seen.owner}

    async def reach(self, seq: int, *, owner: str | None = None) -> None:
        """Return when the copy shows `seq`."""
        while not self.shows(seq, owner):
            await self._changed.wait()

    def _note_change(self) -> None:
        self._items = None
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _decode_items(self) -> tuple[Item, ...]:
        decoded: dict[str, tuple[StoredItem, Item]] = {}
        for stored in self.state.window:
            known = self._decoded.get(stored.id)
            decoded[stored.id] = known if known and known[0] is stored else (stored, stored.to_item())
        self._decoded = decoded
        return tuple(item for _, item in decoded.values())


def _state_of(view: View | StoredState) -> ConversationState:
    return view.state if isinstance(view, StoredState) else decode_snapshot(view.snapshot)


def retention_of(state: ConversationState) -> timedelta | None:
    """How long it is kept after its last use."""
    return None if state.retention is None else timedelta(seconds=state.retention)


def history_of(state: ConversationState) -> tuple[Item, ...]:
    """Return the items of a state, decoded."""
    return tuple(stored.to_item() for stored in state.window)
