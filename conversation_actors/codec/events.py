"""Events as fields of a header, and the readers of these, by stored name."""

from collections.abc import Callable, Mapping
from typing import Any

from conversation_actors.codec.facts import lease_fields, lease_of, participant_fields, participant_of
from conversation_actors.codec.fields import (
    Fields,
    integer,
    mapping,
    optional_number,
    optional_text,
    text,
    texts,
    typed,
)
from conversation_actors.items import StoredItem
from conversation_actors.state import (
    EVENT_NAMES,
    AttributesChanged,
    ConversationClosed,
    ConversationReopened,
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


def event_fields(event: Event) -> dict[str, Any]:  # noqa: C901, PLR0911  # one line for each kind of event
    """Return the header fields of an event, except its name and its items."""
    match event:
        case ItemsRemoved(identities):
            return {"ids": list(identities)}
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
_CLASSES = {kind.__name__: name for kind, name in EVENT_NAMES.items()}


def named_by(header: Fields) -> Callable[[str], str]:
    """Return the function that turns an event's name in this header into its stored name.

    Schema 1 named some events by their Python classes.
    """
    return (lambda name: _CLASSES.get(name, name)) if header["v"] == 1 else str


_READERS: Mapping[type[Event], Callable[[Fields, Items], Event]] = {
    ItemsAppended: lambda _, items: ItemsAppended(items),
    ItemsEvicted: lambda _, items: ItemsEvicted(items),
    ItemsRemoved: lambda f, _: ItemsRemoved(texts(f, "ids")),
    HistoryCleared: lambda _f, _i: HistoryCleared(),
    SummaryChanged: lambda f, _: SummaryChanged(text(f, "text"), integer(f, "through_seq")),
    ParticipantJoined: lambda f, _: ParticipantJoined(participant_of(f["participant"]), text(f, "device_id")),
    ParticipantLeft: lambda f, _: ParticipantLeft(participant_of(f["participant"]), optional_text(f, "device_id")),
    ParticipantUpdated: lambda f, _: ParticipantUpdated(participant_of(f["participant"])),
    ParticipantForgotten: lambda f, _: ParticipantForgotten(text(f, "identity")),
    AttributesChanged: lambda f, _: AttributesChanged(mapping(f, "changes")),
    LeaseAcquired: lambda f, _: LeaseAcquired(lease_of(f["lease"]), typed(f, "renewed", bool)),
    LeaseReleased: lambda f, _: LeaseReleased(text(f, "name"), text(f, "holder"), integer(f, "token")),
    RetentionChanged: lambda f, _: RetentionChanged(optional_number(f, "seconds")),
    ConversationClosed: lambda f, _: ConversationClosed(text(f, "reason")),
    ConversationReopened: lambda _f, _i: ConversationReopened(),
    NothingChanged: lambda f, _: NothingChanged(
        named_by(f)(text(f, "asked")), participant_of(f["participant"]) if f["participant"] else None
    ),
}
EVENTS = {EVENT_NAMES[kind]: read for kind, read in _READERS.items()}
"""The function that reads an event, by the event's stored name."""
