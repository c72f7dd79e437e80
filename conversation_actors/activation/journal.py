"""Durable entries that watchers may still ask for."""

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import TypeVar

from conversation_actors.errors import PositionLostError
from conversation_actors.protocol import Echo

Told = TypeVar("Told", bound=bytes | Echo)


class RecentEntries:
    """The latest durable entries, encoded, in order and without gaps; bounded by number and by bytes."""

    def __init__(self, *, seq: int, entries: int, size: int) -> None:
        """Start empty at `seq`; keep at most `entries` of them, and `size` bytes (but at least one)."""
        self._entries: deque[bytes] = deque()
        self._most, self._largest = entries, size
        self._size = 0
        self.seq = seq

    @property
    def first_available(self) -> int:
        """The oldest position from which all that follows is still here."""
        return self.seq - len(self._entries)

    def extend(self, entries: Iterable[bytes]) -> None:
        """Add the entries that follow `seq`, and drop the oldest beyond the bounds."""
        before = len(self._entries)
        self._entries.extend(entries)
        added = len(self._entries) - before
        self.seq += added
        self._size += sum(map(len, islice(reversed(self._entries), added)))
        while len(self._entries) > self._most or (self._size > self._largest and len(self._entries) > 1):
            self._size -= len(self._entries.popleft())

    def forget_before(self, seq: int) -> None:
        """Drop the entries before position `seq`: whoever has not read them by now is not to."""
        while self.first_available < seq - 1 and self._entries:
            self._size -= len(self._entries.popleft())

    def after(self, seq: int, *, size: int) -> tuple[bytes, ...]:
        """Return entries that follow `seq`, as many as fit in `size` bytes (at least one, if there is one).

        Raises as `following` does.
        """
        return fitting(self.following(seq), size)

    def following(self, seq: int) -> Iterable[bytes]:
        """Return the entries that follow `seq`, found from the nearer end: a follower is at the newest, of very many.

        Raises `PositionLostError` for a position that is no longer here, or not yet.
        """
        if not self.first_available <= seq <= self.seq:
            message = f"entries are kept from {self.first_available} to {self.seq}; {seq} is outside"
            raise PositionLostError(message, first_available=self.first_available)
        passed, left = seq - self.first_available, self.seq - seq
        if passed < left:
            return islice(self._entries, passed, None)
        return reversed(tuple(islice(reversed(self._entries), left)))


def fitting(entries: Iterable[Told], size: int) -> tuple[Told, ...]:
    """Return the first of `entries` that fit in `size` bytes, and one in any case. An echo's bytes are its ids."""
    taken: list[Told] = []
    for entry in entries:
        size -= len(entry) if isinstance(entry, bytes) else sum(map(len, entry.evicted))
        if taken and size < 0:
            break
        taken.append(entry)
    return tuple(taken)
