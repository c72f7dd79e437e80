"""Who is expected where: what a job that was called finds of the reason why; and its twin in memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

MAX_EXPECTATIONS = 64
"""In one place; with one too many the one that would be over first is forgotten."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where somebody is expected: a room, and the name by which agents are called there, which may be empty."""

    room: str
    agent_name: str


class ExpectationStore(Protocol):
    """Texts by token, a few in each place, each for a time. They are hints: nothing waits for their durability.

    Errors are those of `Store`; every method may be repeated, and may be cancelled at any await.
    """

    async def put(self, place: Place, token: str, told: bytes, *, keep: timedelta, is_new: bool) -> bool:
        """Keep `told` for `keep` from now. Return False if it is not `is_new`, and is there no more."""

    async def all(self, place: Place) -> Sequence[tuple[str, bytes]]:
        """Return tokens and what was told, of those whose time is not over."""

    async def drop(self, place: Place, token: str) -> bool:
        """Forget one. Return False if it is not there."""


class MemoryExpectations:
    """An `ExpectationStore` that ends with its process; `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Expect nobody yet."""
        self._clock = clock
        self._kept: dict[Place, dict[str, tuple[float, bytes]]] = {}

    async def put(self, place: Place, token: str, told: bytes, *, keep: timedelta, is_new: bool) -> bool:
        """See `ExpectationStore.put`."""
        here = self._here(place)
        if token not in here:
            if not is_new:
                return False
            if len(here) >= MAX_EXPECTATIONS:
                del here[min(here, key=lambda name: here[name][0])]
        here[token] = self._clock() + keep.total_seconds(), told
        return True

    async def all(self, place: Place) -> list[tuple[str, bytes]]:
        """See `ExpectationStore.all`."""
        return [(token, told) for token, (_, told) in self._here(place).items()]

    async def drop(self, place: Place, token: str) -> bool:
        """See `ExpectationStore.drop`."""
        return self._here(place).pop(token, None) is not None

    def _here(self, place: Place) -> dict[str, tuple[float, bytes]]:
        now = self._clock()
        here = {token: kept for token, kept in self._kept.get(place, {}).items() if kept[0] > now}
        self._kept[place] = here
        return here
