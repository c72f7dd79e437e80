"""The copy of a conversation that a handle keeps: read without I/O, changed only by durable entries."""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from conversation_actors.activation import View
from conversation_actors.codec import decode_entry, decode_snapshot
from conversation_actors.items import Item, StoredItem
from conversation_actors.state import ConversationState, Event, ItemsAppended, ItemsEvicted, Participant

_MOST_OTHERS_KNOWN = 1000
"""Items known that are not in the window, beside as many as are: those just sent, refused, or replaced."""


class LocalCopy:
    """A conversation's durable state as far as it is known here. Never ahead of Redis, a moment behind."""

    def __init__(self, view: View) -> None:
        """Begin with what the owner showed."""
        self.state = decode_snapshot(view.snapshot)
        self.epoch, self.life = view.epoch, view.life
        self._known = {item.data: item for item in self.state.window}
        self._items: tuple[Item, ...] | None = None
        self._decoded: dict[str, tuple[StoredItem, Item]] = {}
        self._changed = asyncio.Event()

    @property
    def seq(self) -> int:
        """The position this copy is at."""
        return self.state.seq

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

    def replace(self, view: View) -> None:
        """Take the owner's state as it is, when entries alone no longer lead there.

        A view that its own activation has gone beyond is passed over: entries came while it was on its way.
        """
        if (view.life, view.epoch) == (self.life, self.epoch) and view.seq < self.seq:
            return
        self.state = decode_snapshot(view.snapshot)
        self.epoch, self.life = view.epoch, view.life
        self._known = {item.data: item for item in self.state.window}
        self._note_change()

    def apply(self, entries: Iterable[bytes], sent: Iterable[StoredItem] = ()) -> None:
        """Take encoded entries, in order; those known already are passed over, a gap ends it.

        Items of these entries that were `sent` from here, or are in the window, need not be read again.
        """
        for item in sent:
            self._known[item.data] = item
        changed = False
        known = 0
        for data in entries:
            if known:
                known -= 1  # its place in the order tells which one it is
                continue
            entry = decode_entry(data, self._known)
            if entry.seq > self.state.seq + 1:
                break
            if entry.seq <= self.state.seq:
                known = self.state.seq - entry.seq
                continue
            self.state.apply(entry)
            self._know(entry.event)
            self.epoch = max(self.epoch, entry.epoch)
            changed = True
        self._forget_others()
        if changed:
            self._note_change()

    def _know(self, event: Event) -> None:
        """Know the items of the window."""
        if isinstance(event, ItemsAppended):
            for item in event.items:
                self._known[item.data] = item
        elif isinstance(event, ItemsEvicted):
            for item in event.items:
                self._known.pop(item.data, None)

    def _forget_others(self) -> None:
        """A few that are not in the window, refused ones among them, do no harm; and they are bounded."""
        if len(self._known) > 2 * len(self.state.window) + _MOST_OTHERS_KNOWN:
            self._known = {item.data: item for item in self.state.window}

    async def reach(self, seq: int) -> None:
        """Return when the copy is at `seq` or behind it."""
        while self.state.seq < seq:
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


def retention_of(state: ConversationState) -> timedelta | None:
    """How long it is kept after its last use."""
    return None if state.retention is None else timedelta(seconds=state.retention)


def history_of(state: ConversationState) -> tuple[Item, ...]:
    """The items of a state, decoded."""
    return tuple(stored.to_item() for stored in state.window)
