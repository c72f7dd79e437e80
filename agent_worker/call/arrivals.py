"""Who a LiveKit participant is: a person or not, whose device, called what, speaking which language."""

import json
import logging
from dataclasses import dataclass
from typing import Any, Self

from livekit import rtc

from agent_worker.call.welcome import spoken_name
from agent_worker.people import PEOPLE
from agent_worker.tenure.assignment import trusted_attribute, user_named_by_room

logger = logging.getLogger(__name__)

PERSON = "person"
LANGUAGE = "language"
_RESERVED = "lk."
_LONGEST_NAME, LONGEST_LANGUAGE = 256, 64
"""Characters; what is longer is no name and no language, and must not cost the join."""
_KINDS = {rtc.ParticipantKind.Value(f"PARTICIPANT_KIND_{name}"): kind for name, kind in PEOPLE.items()}
"""Kinds of participants that are people."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A LiveKit participant as it was when the event came; LiveKit's own object changes."""

    person: str
    device: str
    name: str
    language: str | None
    metadata: dict[str, Any]

    @classmethod
    def of(cls, participant: rtc.Participant, person: str) -> Self:
        """Return what is told of a participant, who is this person."""
        attributes = {name: value for name, value in participant.attributes.items() if not name.startswith(_RESERVED)}
        metadata: dict[str, Any] = {"kind": _KINDS[participant.kind], "livekit_identity": participant.identity}
        if attributes:
            metadata["attributes"] = attributes
        if participant.metadata:
            metadata["metadata"] = participant.metadata
        return cls(
            person=person,
            device=participant.sid,
            name=participant.name[:_LONGEST_NAME],
            language=(attributes.get(LANGUAGE) or _language_in(participant.metadata) or "")[:LONGEST_LANGUAGE] or None,
            metadata=metadata,
        )


def is_human(participant: rtc.Participant) -> bool:
    """Return whether a participant of a room is a person."""
    return participant.kind in _KINDS


def name_of(participant: rtc.Participant) -> str:
    """Return what a participant that nobody has followed yet is called when spoken to; empty if that is not known."""
    return spoken_name(participant.name, _KINDS.get(participant.kind))


def who(participant: rtc.Participant, room: rtc.Room) -> dict[str, Any]:
    """Return the person and the device of a participant that nobody has followed yet."""
    return {"identity": person_of(participant, room.metadata), "device": participant.sid}


def person_of(participant: rtc.Participant, room_metadata: str = "") -> str:
    """Return who a participant says to be, if that can be trusted; else its LiveKit identity."""
    return trusted_attribute(participant, PERSON) or user_named_by_room(room_metadata) or participant.identity


def _language_in(metadata: str) -> str | None:
    """Return the language that metadata names, if the metadata is JSON and names one."""
    try:
        fields = json.loads(metadata) if metadata.lstrip().startswith("{") else {}
    except (ValueError, RecursionError):
        logger.warning("a participant's metadata is not JSON", extra={"size": len(metadata)})
        return None
    language = fields.get(LANGUAGE)
    return language if isinstance(language, str) and language else None
