"""Signs of life of the holders of one lease, across conversations; and their twin in memory.

How long a heartbeat has been silent is measured by each reader, in `client/silence.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Protocol

from conversation_actors.values import decode

ENDED_SECONDS = 600.0
"""How long an end is remembered, so that a holder who slept through it cannot undo it by a late beat; and how long
after its last beat it is remembered what a holder has begun; and how long where a holder is on its way to."""
_ROLE_MARK = "\n"


def record_name(conversation_id: str, role: str) -> str:
    """Return the name of one record among a lease's: an id has no line feed, so no two pairs share a name."""
    return f"{conversation_id}{_ROLE_MARK}{role}" if role else conversation_id


def conversation_of(name: str) -> tuple[str, str]:
    """Return the conversation's id, and the role, of a record's name."""
    conversation_id, _, role = name.partition(_ROLE_MARK)
    return conversation_id, role


@dataclass(frozen=True, slots=True)
class Beat:
    """One of all beats of a lease's holders, by its number.

    Numbers only rise within an `incarnation`. If the store lost them it begins another one, so that a
    number that comes again is not taken for the one before.
    """

    incarnation: str
    number: int


NO_BEAT = Beat("", 0)


@dataclass(frozen=True, slots=True)
class HeartbeatRecord:
    """Who holds a conversation's lease, as far as signs of life tell.

    `group` is what dies together, as a worker process; `details` are the holder's own. `claimant` has taken
    it upon itself to do what a death asks for; `attempt` counts how often that was begun. `valid_for` is how
    long the last beat, or the claim, is to be believed. `silent_for` is how long the reader that tells this has
    seen the record unchanged, counting only time in which the store has answered that reader: zero at the
    first look. In a record that was claimed, it is zero. `role` tells the holders of several leases of one conversation
    apart that are watched together; it is empty if there is only one.
    """

    conversation_id: str
    holder: str
    group: str
    details: Mapping[str, Any]
    attempt: int
    claimant: str | None
    valid_for: timedelta
    silent_for: timedelta = timedelta(0)
    beat: Beat = field(default=NO_BEAT, repr=False, compare=False)
    """Where the record stands; it changes with everything that happens to the record."""
    role: str = ""

    @property
    def name(self) -> str:
        """The record's own name among those of its lease: see `record_name`."""
        return record_name(self.conversation_id, self.role)

    @property
    def is_silent(self) -> bool:
        """Whether this reader has heard nothing for as long as the last beat, or the claim, was to be believed."""
        return self.silent_for >= self.valid_for

    @property
    def is_alive(self) -> bool:
        """Whether nobody has taken the holder for dead, nor has this reader reason to."""
        return self.claimant is None and not self.is_silent


@dataclass(frozen=True, slots=True)
class Damaged:
    """A record that cannot be read, by an id that need not be one of ours."""

    conversation_id: str
    beat: Beat

    @property
    def name(self) -> str:
        """The same, as of a record that can be read."""
        return self.conversation_id


Found = HeartbeatRecord | Damaged


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the records, in the order of their beats, and the last beat that there was when it was read."""

    last: Beat
    found: tuple[Found, ...]


class HeartbeatStore(Protocol):
    """Records of one lease, by conversation, each at the beat of its last change.

    A `conversation_id` here may be a `record_name`. A store says what there is and never how old it is:
    `client.HeartbeatReader` sees who is silent. Errors are those of `Store`; every method may be repeated, and may be
    cancelled at any await. Lost records are written anew by the next beat, so nothing waits for their durability.
    """

    async def start(
        self, conversation_id: str, holder: str, *, valid_for: timedelta, group: str, details: bytes
    ) -> None:
        """Begin a record, in place of whatever there was. `details` is a JSON object."""

    async def beat(
        self, conversation_id: str, holder: str, *, valid_for: timedelta, group: str, details: bytes | None
    ) -> bool:
        """Raise the beat; an empty group, and no details, leave what there is. A lost or damaged record begins anew.

        False if it is claimed, another holder's, or was ended.
        """

    async def end(self, conversation_id: str, holder: str) -> bool:
        """Drop this holder's record, claimed or not. False if there is none."""

    async def silent(self, *, after: int, until: int, limit: int) -> Page:
        """Return at most `limit` records whose beats are after `after`, and not after `until`, the lowest first."""

    async def claim(
        self, conversation_id: str, claimant: str, *, hold: timedelta, holder: str | None, seen: Beat | None
    ) -> Found | None:
        """Claim one record for `hold`: of this holder unless another's claim holds, or (None) of anybody.

        `seen` is the beat at which the claimant has seen it silent for long enough: then a claim holds no more,
        and the record may be anybody's, if it still stands there. A claimant that claims what it holds already
        holds it longer, and counts no further attempt.
        """

    async def claim_silent(
        self, records: Sequence[HeartbeatRecord], claimant: str, *, hold: timedelta
    ) -> Sequence[Found]:
        """Claim those that still stand at their beats; each is given to one caller. All are of one incarnation."""

    async def claim_group(self, group: str, claimant: str, *, hold: timedelta) -> Sequence[Found]:
        """Claim all records of a group that nobody has claimed. Not atomic over all of them."""

    async def drop(self, found: Sequence[Found]) -> None:
        """Forget those that still stand at their beats. All are of one incarnation."""

    async def postpone(self, record: HeartbeatRecord, *, delay: timedelta) -> bool:
        """Let a claim hold for `delay` from now. False if it is this claimant's no more."""

    async def settle(self, record: HeartbeatRecord) -> bool:
        """Drop a claimed record. False if it is this claimant's no more."""

    async def find(self, conversation_id: str) -> Found | None:
        """Return the record of one conversation."""

    async def announce(self, conversation_id: str, holder: str) -> None:
        """Note that a holder is on its way to a record, whoever has it now: `held_by` names it for a while."""

    async def withdraw(self, conversation_id: str, holder: str) -> None:
        """Take that back; what the holder has begun under this name is forgotten with it."""

    async def held_by(self, holder: str) -> Sequence[str]:
        """Return the names of the records that a holder has begun, or has announced, whoever has them now.

        For a while after its last beat, or after it was announced.
        """

    async def roles_of(self, conversation_id: str) -> Sequence[str]:
        """Return the roles that have a record of this conversation, damaged ones too. Not atomic over all records."""


class MemoryHeartbeats:
    """A `HeartbeatStore` that ends with its process; `clock` gives seconds, for how long an end is remembered."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Know of nobody yet."""
        self._clock = clock
        self._kept: dict[str, HeartbeatRecord] = {}
        self._ended: dict[str, float] = {}
        self._begun: dict[str, set[str]] = {}
        self._last = Beat("memory", 0)

    async def start(
        self, conversation_id: str, holder: str, *, valid_for: timedelta, group: str, details: bytes
    ) -> None:
        """See `HeartbeatStore.start`."""
        self._ended.pop(conversation_id, None)
        self._begun.setdefault(holder, set()).add(conversation_id)
        told_id, role = conversation_of(conversation_id)
        self._put(HeartbeatRecord(told_id, holder, group, decode(details), 0, None, valid_for, role=role))

    async def beat(
        self, conversation_id: str, holder: str, *, valid_for: timedelta, group: str, details: bytes | None
    ) -> bool:
        """See `HeartbeatStore.beat`."""
        kept = self._kept.get(conversation_id)
        if kept is None:
            if self._ended.get(conversation_id, 0.0) > self._clock():
                return False
            told_id, role = conversation_of(conversation_id)
            kept = HeartbeatRecord(told_id, holder, "", {}, 0, None, valid_for, role=role)
        if kept.holder != holder or kept.claimant is not None:
            return False
        self._begun.setdefault(holder, set()).add(conversation_id)
        known = kept.details if details is None else decode(details)
        self._put(replace(kept, group=group or kept.group, details=known, valid_for=valid_for))
        return True

    async def end(self, conversation_id: str, holder: str) -> bool:
        """See `HeartbeatStore.end`."""
        kept = self._kept.get(conversation_id)
        if kept is None or kept.holder != holder:
            return False
        self._end(conversation_id)
        return True

    async def silent(self, *, after: int, until: int, limit: int) -> Page:
        """See `HeartbeatStore.silent`."""
        found = [kept for kept in self._kept.values() if after < kept.beat.number <= until]
        found.sort(key=lambda kept: kept.beat.number)
        return Page(self._last, tuple(found[:limit]))

    async def claim(
        self, conversation_id: str, claimant: str, *, hold: timedelta, holder: str | None, seen: Beat | None
    ) -> HeartbeatRecord | None:
        """See `HeartbeatStore.claim`."""
        kept = self._kept.get(conversation_id)
        if kept is None or (holder is not None and kept.holder != holder):
            return None
        if seen != kept.beat:
            if holder is None or kept.claimant not in {None, claimant}:
                return None
            kept = replace(kept, attempt=kept.attempt - (kept.claimant is not None))
        return self._claim(kept, claimant, hold)

    async def claim_silent(
        self, records: Sequence[HeartbeatRecord], claimant: str, *, hold: timedelta
    ) -> list[HeartbeatRecord]:
        """See `HeartbeatStore.claim_silent`."""
        return [self._claim(kept, claimant, hold) for kept in self._standing(records)]

    async def claim_group(self, group: str, claimant: str, *, hold: timedelta) -> list[HeartbeatRecord]:
        """See `HeartbeatStore.claim_group`."""
        left = [kept for kept in self._kept.values() if kept.group == group and kept.claimant is None]
        return [self._claim(kept, claimant, hold) for kept in left]

    async def drop(self, found: Sequence[Found]) -> None:
        """See `HeartbeatStore.drop`."""
        for kept in self._standing(found):
            del self._kept[kept.name]

    async def postpone(self, record: HeartbeatRecord, *, delay: timedelta) -> bool:
        """See `HeartbeatStore.postpone`."""
        kept = self._claimed(record)
        if kept is None:
            return False
        self._put(replace(kept, valid_for=delay))
        return True

    async def settle(self, record: HeartbeatRecord) -> bool:
        """See `HeartbeatStore.settle`."""
        if self._claimed(record) is None:
            return False
        self._end(record.name)
        return True

    async def find(self, conversation_id: str) -> HeartbeatRecord | None:
        """See `HeartbeatStore.find`."""
        return self._kept.get(conversation_id)

    async def announce(self, conversation_id: str, holder: str) -> None:
        """See `HeartbeatStore.announce`."""
        self._begun.setdefault(holder, set()).add(conversation_id)

    async def withdraw(self, conversation_id: str, holder: str) -> None:
        """See `HeartbeatStore.withdraw`."""
        self._begun.get(holder, set()).discard(conversation_id)

    async def held_by(self, holder: str) -> list[str]:
        """See `HeartbeatStore.held_by`."""
        return sorted(self._begun.get(holder, ()))

    async def roles_of(self, conversation_id: str) -> list[str]:
        """See `HeartbeatStore.roles_of`."""
        found = (conversation_of(name) for name in self._kept)
        return sorted(role for told_id, role in found if told_id == conversation_id and role)

    def _standing(self, found: Sequence[Found]) -> list[HeartbeatRecord]:
        kept = [(self._kept.get(one.name), one.beat) for one in found]
        return [now for now, beat in kept if now is not None and now.beat == beat]

    def _claimed(self, record: HeartbeatRecord) -> HeartbeatRecord | None:
        kept = self._kept.get(record.name)
        if kept is None or record.claimant is None:
            return None
        claim = record.holder, record.claimant, record.attempt
        return kept if (kept.holder, kept.claimant, kept.attempt) == claim else None

    def _claim(self, kept: HeartbeatRecord, claimant: str, hold: timedelta) -> HeartbeatRecord:
        return self._put(replace(kept, claimant=claimant, attempt=kept.attempt + 1, valid_for=hold))

    def _put(self, record: HeartbeatRecord) -> HeartbeatRecord:
        self._last = Beat(self._last.incarnation, self._last.number + 1)
        put = self._kept[record.name] = replace(record, beat=self._last)
        return put

    def _end(self, conversation_id: str) -> None:
        now = self._clock()
        del self._kept[conversation_id]
        self._ended = {name: until for name, until in self._ended.items() if until > now}
        self._ended[conversation_id] = now + ENDED_SECONDS
