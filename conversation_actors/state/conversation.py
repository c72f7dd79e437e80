"""The state of one conversation, and the function by which events change it."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from conversation_actors.state.events import (
    EVENT_NAMES,
    AttributesChanged,
    ConversationClosed,
    ConversationReopened,
    Entry,
    Event,
    HistoryCleared,
    ItemsAppended,
    ItemsEvicted,
    ItemsRemoved,
    LeaseAcquired,
    LeaseReleased,
    NothingChanged,
    ParticipantForgotten,
    ParticipantJoined,
    ParticipantLeft,
    ParticipantUpdated,
    RetentionChanged,
    SummaryChanged,
)
from conversation_actors.state.facts import LONGEST_STRETCH, Closing, Lease, Limits, Participant, Summary
from conversation_actors.state.window import Window

MAX_RESULTS = 64
"""Participants remembered as results of requests. Of older requests it is only known that they happened, and when."""


class Remembered(NamedTuple):
    """What a request led to, in case it is repeated: `result` is the participant or lease that the request gave.

    `kind` is the stored name of the event; `digest` tells this request from one with other content.
    """

    seq: int
    epoch: int
    at: float
    kind: str
    result: Participant | Lease | None = None
    digest: str | None = None


_APPENDED = EVENT_NAMES[ItemsAppended]


def remembered(entry: Entry) -> Remembered:
    """Return what to remember of the first entry that a request caused."""
    event = entry.event
    if type(event) is ItemsAppended:  # first: nearly all of them are
        return Remembered(entry.seq, entry.epoch, entry.at, _APPENDED, None, entry.digest)
    match event:
        case (
            ParticipantJoined(participant)
            | ParticipantLeft(participant)
            | ParticipantUpdated(participant)
            | NothingChanged(_, participant)
        ):
            result: Participant | Lease | None = participant
        case LeaseAcquired(lease):
            result = lease
        case _:
            result = None
    kind = event.asked if isinstance(event, NothingChanged) else EVENT_NAMES[type(event)]
    return Remembered(entry.seq, entry.epoch, entry.at, kind, result, entry.digest)


def _kept(leases: Mapping[str, Lease], most: int, *, now: float) -> dict[str, Lease]:
    """Return all leases that hold, and as many expired ones, the newest first, as fit into `most`.

    Holders may still renew their expired leases.
    """
    expired = sorted((lease for lease in leases.values() if lease.expires_at <= now), key=lambda held: held.expires_at)
    dropped = {lease.name for lease in expired[: max(0, len(leases) - most)]}
    return {name: lease for name, lease in leases.items() if name not in dropped}


class ConversationState:
    """A conversation at `seq`. Two states that applied the same entries are equal.

    Only `apply` changes the state; `remember` and `forget_requests` only change the request memory. `participants`,
    `attributes` and `leases` are replaced and never changed, so that code which iterates over one of them sees it as it
    was at that moment.
    """

    def __init__(self, limits: Limits | None = None, *, seq: int = 0) -> None:
        """Start empty at `seq` (0, except for an id that was deleted and is used again)."""
        self.limits = limits or Limits()
        self.life = ""
        """Which of the conversations of this id this is. The store tells that; entries and snapshots do not."""
        self.seq = seq
        self.changed_at = 0.0
        self.total_items = 0
        """Items that ever came. An item that takes another's place does not count; one that left and comes again counts
        again."""
        self.talked_for = 0.0
        """Seconds, up to the last entry, in which somebody was connected; see `talked_until`."""
        self.has_counted_all = True
        """Whether these two totals cover everything that happened. They do not if an older version has written a
        part."""
        self.window = Window()
        self.participants: dict[str, Participant] = {}
        self.attributes: dict[str, Any] = {}
        self.attributes_seq = seq
        self.leases: dict[str, Lease] = {}
        self.summary: Summary | None = None
        self.closing: Closing | None = None
        self.retention: float | None = None
        """Seconds that the conversation is kept after its last use; None: as long as the settings say."""
        self.requests: OrderedDict[str, Remembered] = OrderedDict()
        self._with_result: OrderedDict[str, None] = OrderedDict()
        self.forgotten_seq = 0
        """The position at which an entry that was applied here last forgot the past: nothing before it is to stay
        stored."""
        self.unknown: dict[str, Any] = {}
        """Fields that a newer version stored, kept for it."""

    def apply(self, entry: Entry) -> None:
        """Apply one entry. Raises `ValueError` and changes nothing if it is not the next one."""
        if entry.seq != self.seq + 1:
            message = f"entry {entry.seq} does not follow {self.seq}"
            raise ValueError(message)
        self.talked_for = self.talked_until(entry.at)
        self._apply_event(entry.event, entry)
        self.seq = entry.seq
        self.changed_at = entry.at
        if entry.request_id is not None:
            self.remember(entry.request_id, remembered(entry))
            while len(self.requests) > self.limits.requests:
                self.requests.popitem(last=False)

    def talked_until(self, at: float) -> float:
        """Return the seconds in which at least one participant was connected, up to `at`, a time after the last entry.

        They are the seconds from entry to entry, by the owners' clocks. At most `LONGEST_STRETCH` of them count between
        two entries.
        """
        for participant in self.participants.values():  # any() costs a microsecond, at every entry
            if participant.connected:
                stretch = at - self.changed_at
                return self.talked_for + (min(stretch, LONGEST_STRETCH) if stretch > 0.0 else 0.0)
        return self.talked_for

    def copy(self) -> Self:
        """Return an equal state that changes on its own. Facts and items are immutable and shared."""
        twin = type(self)(self.limits, seq=self.seq)
        twin.life = self.life
        twin.changed_at = self.changed_at
        twin.total_items, twin.talked_for = self.total_items, self.talked_for
        twin.has_counted_all = self.has_counted_all
        twin.window = Window(self.window, self.window.orphans)
        twin.participants = dict(self.participants)
        twin.attributes = dict(self.attributes)
        twin.attributes_seq = self.attributes_seq
        twin.leases = dict(self.leases)
        twin.summary, twin.closing, twin.retention = self.summary, self.closing, self.retention
        for request_id, kept in self.requests.items():
            twin.remember(request_id, kept)
        twin.forgotten_seq = self.forgotten_seq
        twin.unknown = dict(self.unknown)
        return twin

    def _apply_event(self, event: Event, entry: Entry) -> None:  # noqa: C901, PLR0912  # one line for each kind of event
        if isinstance(event, ItemsAppended):  # nearly all are one of these two, and a pattern costs three times as much
            kept = len(self.window)
            self.window.put(event.items)
            self.total_items += len(self.window) - kept
            return
        if isinstance(event, ItemsEvicted):
            self.window.remove(event.items, orphans_kept=self.limits.items)
            return
        match event:
            case ItemsRemoved(identities):
                present = [item for identity in identities if (item := self.window.get(identity)) is not None]
                self.window.remove(present, orphans_kept=self.limits.items)
                self._forget_past(entry.seq)
            case HistoryCleared():
                self.window.remove(tuple(self.window), orphans_kept=self.limits.items)
                self.summary = None
                self._forget_past(entry.seq)
            case SummaryChanged(text, through_seq):
                self.summary = Summary(text, through_seq)
            case ParticipantJoined(participant) | ParticipantLeft(participant) | ParticipantUpdated(participant):
                self.participants = {**self.participants, participant.identity: participant}
            case ParticipantForgotten(identity):
                self.participants = {name: kept for name, kept in self.participants.items() if name != identity}
            case AttributesChanged(changes):
                merged = {**self.attributes, **changes}
                self.attributes = {name: value for name, value in merged.items() if value is not None}
                self.attributes_seq = entry.seq
            case LeaseAcquired(lease):
                self.leases = _kept({**self.leases, lease.name: lease}, self.limits.leases, now=entry.at)
            case LeaseReleased(name, _, token):
                held = self.leases.get(name)
                if held is not None and held.token == token:
                    self.leases = {other: lease for other, lease in self.leases.items() if other != name}
            case RetentionChanged(seconds):
                self.retention = seconds
            case ConversationClosed(reason):
                self.closing = Closing(reason, entry.at)
            case ConversationReopened():
                self.closing = None
            case NothingChanged():
                pass

    def remember(self, request_id: str, kept: Remembered) -> None:
        """Add to the request memory. Only the latest `MAX_RESULTS` participants are kept, as they may be large."""
        self.requests.pop(request_id, None)  # one that is used again is the newest, wherever it was
        self.requests[request_id] = kept
        if request_id in self._with_result:  # of an earlier request with this id, which was forgotten
            del self._with_result[request_id]
        if not isinstance(kept.result, Participant):
            return
        self._with_result[request_id] = None
        if len(self._with_result) > MAX_RESULTS:
            oldest, _ = self._with_result.popitem(last=False)
            if oldest in self.requests:
                self.requests[oldest] = self.requests[oldest]._replace(result=None)

    def _forget_past(self, seq: int) -> None:
        """Forget what participants were: from now on, a repeat of an old request is told what its participant is."""
        self.forgotten_seq = seq
        for request_id in self._with_result:
            if request_id in self.requests:
                self.requests[request_id] = self.requests[request_id]._replace(result=None)
        self._with_result.clear()

    def forget_requests(self, *, through_seq: int) -> None:
        """Forget requests up to a position. The state does not know how old they are; the code that holds it does."""
        requests = self.requests
        while requests and requests[next(iter(requests))].seq <= through_seq:
            requests.popitem(last=False)
