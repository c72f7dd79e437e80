"""Commands: what may be asked of a conversation. The client builds them after it has checked every value's form."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from conversation_actors.items import StoredItem
from conversation_actors.state.events import (
    EVENT_NAMES,
    AttributesChanged,
    ConversationClosed,
    ConversationReopened,
    HistoryCleared,
    ItemsAppended,
    ItemsRemoved,
    LeaseAcquired,
    LeaseReleased,
    ParticipantJoined,
    ParticipantLeft,
    ParticipantUpdated,
    RetentionChanged,
    SummaryChanged,
)
from conversation_actors.state.facts import Participant


@dataclass(frozen=True, slots=True)
class AppendItems:
    """The command to put items at the end of the history, all or none; an `id` already in the window is replaced."""

    items: tuple[StoredItem, ...]


@dataclass(frozen=True, slots=True)
class RemoveItems:
    """The command to take items out, each call with its outputs, and to forget what was stored before.

    Ids that are not in the window are told on: the archive may have their items. Without any ids, only the past is
    forgotten.
    """

    identities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClearHistory:
    """The command to drop every item, including system messages, and the summary.

    Participants, attributes and leases stay.
    """


@dataclass(frozen=True, slots=True)
class SetSummary:
    """The command to keep what a summariser wrote about the history up to `through_seq`."""

    text: str
    through_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinParticipant:
    """The command to note that a participant is here, on this device. `None` leaves a known value as it is."""

    identity: str
    device_id: str
    name: str | None = None
    metadata: Mapping[str, Any] | None = None
    language: str | None = None


@dataclass(frozen=True, slots=True)
class LeaveParticipant:
    """The command to note that a participant has left with this device, or with all of them (`None`)."""

    identity: str
    device_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateParticipant:
    """The command to change what is known of a participant. `None` leaves a value as it is."""

    identity: str
    name: str | None = None
    metadata: Mapping[str, Any] | None = None
    language: str | None = None
    context: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class SetAttributes:
    """The command to merge shared attributes; a value of `None` removes the key.

    With `expected_seq`, it is refused if any attribute changed after that position.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    expected_seq: int | None = None


@dataclass(frozen=True, slots=True)
class AcquireLease:
    """The command to take a lease for `duration` seconds: one that is free or expired, or one's own, which renews it.

    A holder named `replacing` is deposed, even if its lease has not expired.
    """

    name: str
    holder: str
    duration: float
    replacing: str | None = None


@dataclass(frozen=True, slots=True)
class ReleaseLease:
    """The command to give a lease back.

    Nothing happens if `holder`, `token` or `life` is not that of the present lease.
    """

    name: str
    holder: str
    token: int
    life: str = ""


@dataclass(frozen=True, slots=True)
class SetRetention:
    """The command to keep the conversation for so many seconds after its last use.

    `None` means as long as the settings say.
    """

    seconds: float | None


@dataclass(frozen=True, slots=True)
class CloseConversation:
    """The command to end the conversation: writes are refused until it is reopened."""

    reason: str


@dataclass(frozen=True, slots=True)
class ReopenConversation:
    """The command to accept writes again."""


class Guard(NamedTuple):
    """The lease in whose name a command comes. Tokens begin anew in every life of a conversation."""

    name: str
    token: int
    holder: str
    life: str


Command = (
    AppendItems
    | RemoveItems
    | ClearHistory
    | SetSummary
    | JoinParticipant
    | LeaveParticipant
    | UpdateParticipant
    | SetAttributes
    | AcquireLease
    | ReleaseLease
    | SetRetention
    | CloseConversation
    | ReopenConversation
)

EVENT_OF: Mapping[type[Command], str] = {
    AppendItems: EVENT_NAMES[ItemsAppended],
    RemoveItems: EVENT_NAMES[ItemsRemoved],
    ClearHistory: EVENT_NAMES[HistoryCleared],
    SetSummary: EVENT_NAMES[SummaryChanged],
    JoinParticipant: EVENT_NAMES[ParticipantJoined],
    LeaveParticipant: EVENT_NAMES[ParticipantLeft],
    UpdateParticipant: EVENT_NAMES[ParticipantUpdated],
    SetAttributes: EVENT_NAMES[AttributesChanged],
    AcquireLease: EVENT_NAMES[LeaseAcquired],
    ReleaseLease: EVENT_NAMES[LeaseReleased],
    SetRetention: EVENT_NAMES[RetentionChanged],
    CloseConversation: EVENT_NAMES[ConversationClosed],
    ReopenConversation: EVENT_NAMES[ConversationReopened],
}
"""The stored name of what a command leads to first."""


def described(command: JoinParticipant | UpdateParticipant, *, at: float) -> Participant:
    """Return the participant that a command of that time describes: not connected, and with no device."""
    return Participant(
        identity=command.identity,
        name=command.name or "",
        metadata=command.metadata or {},
        joined_at=at,
        last_seen=at,
        language=command.language,
        context=(isinstance(command, UpdateParticipant) and command.context) or {},
    )
