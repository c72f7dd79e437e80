"""Signs of life of the holders of one lease, across conversations; and their twin in memory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from conversation_actors.values import decode

ENDED_SECONDS = 600.0
"""How long an end is remembered, so that a holder who slept through it cannot undo it by a late beat."""


@dataclass(frozen=True, slots=True)
class HeartbeatRecord:
    """Who holds a conversation's lease, as far as signs of life tell.

    `group` is what dies together, as a worker process; `details` are the holder's own. `claimant` has taken
    it upon itself to do what a death asks for; `attempt` counts how often that was begun. `expired_for` is
    how long ago the deadline passed, negative where it is to come; in a record that was claimed, the
    deadline before the claim.
    """

    conversation_id: str
    holder: str
    group: str
    details: Mapping[str, Any]
    attempt: int
    claimant: str | None
    expired_for: timedelta

    @property
    def is_alive(self) -> bool:
        """Whether the holder was heard of in time, and nobody has taken it for dead."""
        return self.claimant is None and self.expired_for < timedelta(0)


class HeartbeatStore(Protocol):
    """Records of one lease, by conversation, with deadlines by the store's own clock.

    Errors are those of `Store`; every method may be repeated, and may be cancelled at any await. Lost
    records are written anew by the next beat, so nothing waits for their durability.
    """

    async def start(
        self, conversation_id: str, holder: str, *, valid_for: timedelta, group: str, details: bytes
    ) -> None:
        """Begin a record for `valid_for`, in place of whatever there was. `details` is a JSON object."""

    async def beat(
        self, conversation_id: str, holder: str, *, valid_for: timedelta, group: str, details: bytes | None
    ) -> bool:
        """Move the deadline; an empty group, and no details, leave what there is. A lost record begins anew.

        False where it is claimed, another holder's, or was ended.
        """

    async def end(self, conversation_id: str, holder: str) -> bool:
        """Drop this holder's record, claimed or not. False where there is none."""

    async def claim(
        self, conversation_id: str, claimant: str, *, hold: timedelta, holder: str | None
    ) -> HeartbeatRecord | None:
        """Claim one record for `hold`: of this holder unless another's claim holds, or (None) one that has expired.

        A claimant that claims what it holds already holds it longer, and counts no further attempt.
        """

    async def claim_expired(
        self, claimant: str, *, hold: timedelta, limit: int, forget: timedelta
    ) -> list[HeartbeatRecord]:
        """Claim records whose deadline has passed, the oldest first; each is given to one caller.

        Those that passed it more than `forget` ago are dropped.
        """

    async def claim_group(self, group: str, claimant: str, *, hold: timedelta) -> list[HeartbeatRecord]:
        """Claim all records of a group that nobody has claimed. Not atomic over all of them."""

    async def postpone(self, record: HeartbeatRecord, *, delay: timedelta) -> bool:
        """Let a claim expire after `delay`. False where it is this claimant's no more."""

    async def settle(self, record: HeartbeatRecord) -> bool:
        """Drop a claimed record. False where it is this claimant's no more."""

    async def find(self, conversation_id: str) -> HeartbeatRecord | None:
        """The record of one conversation."""


@dataclass(slots=True)
class _Kept:
    holder: str
    group: str
    details: bytes
    deadline: float
    attempt: int = 0
    claimant: str | None = None


class MemoryHeartbeats:
    """A `HeartbeatStore` that ends with its process; `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Know of nobody yet."""
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self._ended: dict[str, float] = {}

    async def start(
        self, conversation_id: str, holder: str, *, valid_for: timedelta, group: str, details: bytes
    ) -> None:
        """See `HeartbeatStore.start`."""
        self._ended.pop(conversation_id, None)
        self._kept[conversation_id] = _Kept(holder, group, details, self._in(valid_for))

    async def beat(
        self, conversation_id: str, holder: str, *, valid_for: timedelta, group: str, details: bytes | None
    ) -> bool:
        """See `HeartbeatStore.beat`."""
        kept = self._kept.get(conversation_id)
        if kept is None:
            if self._ended.get(conversation_id, 0.0) > self._clock():
                return False
            kept = self._kept[conversation_id] = _Kept(holder, "", b"{}", 0.0)
        if kept.holder != holder or kept.claimant is not None:
            return False
        kept.deadline = self._in(valid_for)
        kept.group = group or kept.group
        kept.details = kept.details if details is None else details
        return True

    async def end(self, conversation_id: str, holder: str) -> bool:
        """See `HeartbeatStore.end`."""
        kept = self._kept.get(conversation_id)
        if kept is None or kept.holder != holder:
            return False
        self._drop(conversation_id)
        return True

    async def claim(
        self, conversation_id: str, claimant: str, *, hold: timedelta, holder: str | None
    ) -> HeartbeatRecord | None:
        """See `HeartbeatStore.claim`."""
        kept = self._kept.get(conversation_id)
        if kept is None or (holder is not None and kept.holder != holder):
            return None
        if kept.deadline > self._clock():
            if holder is None or kept.claimant not in {None, claimant}:
                return None
            kept.attempt -= kept.claimant is not None
        return self._claim(conversation_id, kept, claimant, hold)

    async def claim_expired(
        self, claimant: str, *, hold: timedelta, limit: int, forget: timedelta
    ) -> list[HeartbeatRecord]:
        """See `HeartbeatStore.claim_expired`."""
        now = self._clock()
        for conversation_id in [name for name, kept in self._kept.items() if kept.deadline <= now - _seconds(forget)]:
            del self._kept[conversation_id]
        expired = sorted((kept.deadline, name) for name, kept in self._kept.items() if kept.deadline <= now)
        return [self._claim(name, self._kept[name], claimant, hold) for _, name in expired[:limit]]

    async def claim_group(self, group: str, claimant: str, *, hold: timedelta) -> list[HeartbeatRecord]:
        """See `HeartbeatStore.claim_group`."""
        left = [name for name, kept in self._kept.items() if kept.group == group and kept.claimant is None]
        return [self._claim(name, self._kept[name], claimant, hold) for name in left]

    async def postpone(self, record: HeartbeatRecord, *, delay: timedelta) -> bool:
        """See `HeartbeatStore.postpone`."""
        kept = self._claimed(record)
        if kept is None:
            return False
        kept.deadline = self._in(delay)
        return True

    async def settle(self, record: HeartbeatRecord) -> bool:
        """See `HeartbeatStore.settle`."""
        if self._claimed(record) is None:
            return False
        self._drop(record.conversation_id)
        return True

    async def find(self, conversation_id: str) -> HeartbeatRecord | None:
        """See `HeartbeatStore.find`."""
        kept = self._kept.get(conversation_id)
        return None if kept is None else self._told(conversation_id, kept)

    def _claimed(self, record: HeartbeatRecord) -> _Kept | None:
        kept = self._kept.get(record.conversation_id)
        if kept is None or record.claimant is None:
            return None
        claim = record.holder, record.claimant, record.attempt
        return kept if (kept.holder, kept.claimant, kept.attempt) == claim else None

    def _claim(self, conversation_id: str, kept: _Kept, claimant: str, hold: timedelta) -> HeartbeatRecord:
        kept.claimant, kept.attempt = claimant, kept.attempt + 1
        told = self._told(conversation_id, kept)
        kept.deadline = self._in(hold)
        return told

    def _told(self, conversation_id: str, kept: _Kept) -> HeartbeatRecord:
        expired_for = timedelta(seconds=self._clock() - kept.deadline)
        details = decode(kept.details)
        return HeartbeatRecord(
            conversation_id, kept.holder, kept.group, details, kept.attempt, kept.claimant, expired_for
        )

    def _drop(self, conversation_id: str) -> None:
        now = self._clock()
        del self._kept[conversation_id]
        self._ended = {name: until for name, until in self._ended.items() if until > now}
        self._ended[conversation_id] = now + ENDED_SECONDS

    def _in(self, duration: timedelta) -> float:
        return self._clock() + _seconds(duration)


def _seconds(duration: timedelta) -> float:
    return duration.total_seconds()
