"""What happened, in the past tense. An event carries its outcome, so applying it decides nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conversation_actors.items import StoredItem
from conversation_actors.state.facts import Lease, Participant


@dataclass(frozen=True, slots=True)
class ItemsAppended:
    """Items came, in this order. An item whose id was in the window took the old one's place."""

    items: tuple[StoredItem, ...]


@dataclass(frozen=True, slots=True)
class ItemsEvicted:
    """Items left the window, to keep its bounds. They are given in full: an archive needs only these events."""

    items: tuple[StoredItem, ...]


@dataclass(frozen=True, slots=True)
class ItemsRemoved:
    """Items were taken out on request, and nobody is to read what was stored before this entry any more.

    `identities` are those of the items that were in the window, each call with its outputs, and then those that were
    asked for and are not there: they may have left it before. If there are none, only the past was forgotten.
    """

    identities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HistoryCleared:
    """All items and the summary were dropped on request."""


@dataclass(frozen=True, slots=True)
class SummaryChanged:
    """A summary of the history up to `through_seq` was set."""

    text: str
    through_seq: int


@dataclass(frozen=True, slots=True)
class ParticipantJoined:
    """A participant came, or came with one more device, or said again that it is here."""

    participant: Participant
    device_id: str


@dataclass(frozen=True, slots=True)
class ParticipantLeft:
    """A participant left with one device (`device_id`) or with all of them (None)."""

    participant: Participant
    device_id: str | None


@dataclass(frozen=True, slots=True)
class ParticipantUpdated:
    """Something known of a participant changed."""

    participant: Participant


@dataclass(frozen=True, slots=True)
class ParticipantForgotten:
    """A participant who had left was dropped to make room for another."""

    identity: str


@dataclass(frozen=True, slots=True)
class AttributesChanged:
    """Shared attributes were set, or removed if the value is None."""

    changes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LeaseAcquired:
    """A lease has a holder: a new one, or the same one for longer (`renewed`)."""

    lease: Lease
    renewed: bool


@dataclass(frozen=True, slots=True)
class LeaseReleased:
    """A lease was given back."""

    name: str
    holder: str
    token: int


@dataclass(frozen=True, slots=True)
class RetentionChanged:
    """The conversation is kept for so many seconds after its last use; `None`: as long as the settings say."""

    seconds: float | None


@dataclass(frozen=True, slots=True)
class ConversationClosed:
    """The conversation ended, on purpose."""

    reason: str


@dataclass(frozen=True, slots=True)
class ConversationReopened:
    """The conversation takes writes again."""


@dataclass(frozen=True, slots=True)
class NothingChanged:
    """A request asked for what was already the case; kept so that a later repeat changes nothing either.

    `asked` is the stored name of the event that the request would have led to.
    """

    asked: str
    participant: Participant | None = None


Event = (
    ItemsAppended
    | ItemsEvicted
    | ItemsRemoved
    | HistoryCleared
    | SummaryChanged
    | ParticipantJoined
    | ParticipantLeft
    | ParticipantUpdated
    | ParticipantForgotten
    | AttributesChanged
    | LeaseAcquired
    | LeaseReleased
    | RetentionChanged
    | ConversationClosed
    | ConversationReopened
    | NothingChanged
)

EVENT_NAMES: Mapping[type[Event], str] = {
    ItemsAppended: "items_appended",
    ItemsEvicted: "items_evicted",
    ItemsRemoved: "items_removed",
    HistoryCleared: "history_cleared",
    SummaryChanged: "summary_changed",
    ParticipantJoined: "participant_joined",
    ParticipantLeft: "participant_left",
    ParticipantUpdated: "participant_updated",
    ParticipantForgotten: "participant_forgotten",
    AttributesChanged: "attributes_changed",
    LeaseAcquired: "lease_acquired",
    LeaseReleased: "lease_released",
    RetentionChanged: "retention_changed",
    ConversationClosed: "conversation_closed",
    ConversationReopened: "conversation_reopened",
    NothingChanged: "nothing_changed",
}
"""The stored names of events: in the journal, in snapshots, and in the request memory."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal: what happened at `seq`.

    `epoch` is the activation that wrote it. `at` is that activation's clock, in seconds since the epoch; it never goes
    back within a conversation. `request_id` is on the first entry of those that one request caused. With it comes the
    `digest` of what was asked for, if the request's sender chose the id.
    """

    seq: int
    epoch: int
    at: float
    event: Event
    request_id: str | None = None
    digest: str | None = None
