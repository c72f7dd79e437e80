"""Events by their stored names."""

from collections.abc import Callable, Mapping
from typing import Any

from conversation_actors.codec.facts import lease_fields, lease_of, participant_fields, participant_of
from conversation_actors.codec.fields import Fields, integer, mapping, optional_number, optional_text, text, typed
from conversation_actors.items import StoredItem
from conversation_actors.state import (
    AttributesChanged,
    ConversationClosed,
    ConversationReopened,
    Event,
    HistoryCleared,
    ItemsAppended,
    ItemsEvicted,
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


def event_fields(event: Event) -> dict[str, Any]:  # noqa: C901, PLR0911  # one line for each kind of event
    """The header fields of an event, besides its name and its items."""
    match event:
        case SummaryChanged(text, through_seq):
            return {"text": text, "through_seq": through_seq}
        case ParticipantJoined(participant, device_id) | ParticipantLeft(participant, device_id):
            return {"participant": participant_fields(participant), "device_id": device_id}
        case NothingChanged(asked, participant):
            return {"asked": asked, "participant": None if participant is None else participant_fields(participant)}
        case ParticipantUpdated(participant):
            return {"participant": participant_fields(participant)}
        case ParticipantForgotten(identity):
            return {"identity": identity}
        case AttributesChanged(changes):
            return {"changes": dict(changes)}
        case LeaseAcquired(lease, renewed):
            return {"lease": lease_fields(lease), "renewed": renewed}
        case LeaseReleased(name, holder, token):
            return {"name": name, "holder": holder, "token": token}
        case RetentionChanged(seconds):
            return {"seconds": seconds}
        case ConversationClosed(reason):
            return {"reason": reason}
        case _:
            return {}


Items = tuple[StoredItem, ...]
EVENTS: Mapping[str, Callable[[Fields, Items], Event]] = {
    "items_appended": lambda _, items: ItemsAppended(items),
    "items_evicted": lambda _, items: ItemsEvicted(items),
    "history_cleared": lambda _f, _i: HistoryCleared(),
    "summary_changed": lambda f, _: SummaryChanged(text(f, "text"), integer(f, "through_seq")),
    "participant_joined": lambda f, _: ParticipantJoined(participant_of(f["participant"]), text(f, "device_id")),
    "participant_left": lambda f, _: ParticipantLeft(participant_of(f["participant"]), optional_text(f, "device_id")),
    "participant_updated": lambda f, _: ParticipantUpdated(participant_of(f["participant"])),
    "participant_forgotten": lambda f, _: ParticipantForgotten(text(f, "identity")),
    "attributes_changed": lambda f, _: AttributesChanged(mapping(f, "changes")),
    "lease_acquired": lambda f, _: LeaseAcquired(lease_of(f["lease"]), typed(f, "renewed", bool)),
    "lease_released": lambda f, _: LeaseReleased(text(f, "name"), text(f, "holder"), integer(f, "token")),
    "retention_changed": lambda f, _: RetentionChanged(optional_number(f, "seconds")),
    "conversation_closed": lambda f, _: ConversationClosed(text(f, "reason")),
    "conversation_reopened": lambda _f, _i: ConversationReopened(),
    "nothing_changed": lambda f, _: NothingChanged(
        text(f, "asked"), participant_of(f["participant"]) if f["participant"] else None
    ),
}
EVENT_NAMES: Mapping[type[Event], str] = {
    ItemsAppended: "items_appended",
    ItemsEvicted: "items_evicted",
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
