"""Room → conversation: who is there, with which devices, and what that calls for.

A person is a LiveKit identity, or what the attribute ``person`` says where the token gave it: then several
LiveKit participants are devices of one person. A device is one connection (LiveKit's ``sid``), so that a
page that was reloaded is a new device of the same person, in whichever order the two events come.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from livekit import rtc

from agent_worker.assignment import trusted_attribute
from agent_worker.call import CallConversation
from agent_worker.handlers import total
from agent_worker.welcome import Welcome, greeted_context, retention, welcome
from conversation_actors import ConversationHandle, Lease, Participant
from conversation_actors.errors import InvalidInputError

logger = logging.getLogger(__name__)

PERSON = "person"
LANGUAGE = "language"
_RESERVED = "lk."
_LONGEST_NAME, _LONGEST_LANGUAGE = 256, 64
"""Characters; what is longer is no name and no language, and must not cost the join."""
_KINDS = {
    rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD: "standard",
    rtc.ParticipantKind.PARTICIPANT_KIND_SIP: "sip",
    rtc.ParticipantKind.PARTICIPANT_KIND_CONNECTOR: "connector",
}
"""Kinds of participants that are people; agents, recorders and sources of media are not."""

OnWelcome = Callable[[Welcome, str | None], None]


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A LiveKit participant as it was when the event came; LiveKit's own object changes."""

    person: str
    device: str
    name: str
    language: str | None
    metadata: dict[str, Any]


def is_human(participant: rtc.Participant) -> bool:
    """Whether a participant of a room is a person."""
    return participant.kind in _KINDS


class Participants:
    """Follows a room's participants into the conversation. Handlers never raise and never wait."""

    def __init__(
        self,
        room: rtc.Room,
        conversation: CallConversation,
        *,
        on_welcome: OnWelcome,
        on_empty: Callable[[bool], None],
    ) -> None:
        """`on_welcome` is told what an arrival calls for, and its language; `on_empty` whether nobody is here."""
        self._room, self._conversation = room, conversation
        self._on_welcome, self._on_empty = on_welcome, on_empty
        self._present: dict[str, str] = {}
        self._persons: dict[str, str] = {}
        self._is_synced = self._is_stopped = False
        self._handlers: dict[Any, Callable[..., None]] = {
            "connection_state_changed": self._on_connection_state,
            "participant_connected": self._on_connected,
            "participant_disconnected": self._on_disconnected,
            "participant_attributes_changed": lambda _changed, participant: self._on_changed(participant),
            "participant_metadata_changed": lambda participant, _old, _new: self._on_changed(participant),
            "participant_name_changed": lambda participant, _old, _new: self._on_changed(participant),
        }

    @property
    def present(self) -> frozenset[str]:
        """Identities, as LiveKit has them, of the people in the room."""
        return frozenset(self._present)

    @property
    def is_empty(self) -> bool:
        """Whether nobody is in the room for sure: not while it is not followed, or the connection is lost."""
        return self._is_synced and not self._present and self._room.isconnected()

    def start(self) -> None:
        """Follow from now on; who is there already counts as arriving."""
        for name, handler in self._handlers.items():
            self._room.on(name, total(handler, logger, "a room event was not followed"))
        if self._room.isconnected():
            self._sync()

    def stop(self) -> None:
        """Follow no more: what the room says while this process leaves it is nobody's leaving."""
        self._is_synced, self._is_stopped = False, True

    def _on_connection_state(self, _state: rtc.ConnectionState.ValueType) -> None:
        if self._room.isconnected() and not self._is_stopped:
            self._sync()

    def _sync(self) -> None:
        """Bring the conversation up to date with the room, which was not watched so far (or not all the time)."""
        people = [one for one in self._room.remote_participants.values() if is_human(one)]
        self._persons = {one.sid: self._persons.get(one.sid) or _person_of(one) for one in people}
        here = {(person, device) for device, person in self._persons.items()}
        self._is_synced = True
        self._conversation.later(lambda handle, lease: _leave_absent(handle, lease, here))
        for gone in [identity for identity in self._present if identity not in {one.identity for one in people}]:
            del self._present[gone]
        for one in people:
            if self._present.get(one.identity) != one.sid:
                self._arrive(one)
        self._on_empty(not self._present)

    def _on_connected(self, participant: rtc.RemoteParticipant) -> None:
        if self._is_synced and is_human(participant):
            if self._present.get(participant.identity) != participant.sid:
                self._arrive(participant)
            self._on_empty(False)

    def _on_disconnected(self, participant: rtc.RemoteParticipant) -> None:
        if not self._is_synced or not is_human(participant):
            return
        device = participant.sid
        person = self._persons.pop(device, None) or _person_of(participant)
        if self._present.get(participant.identity) == device:
            del self._present[participant.identity]
        self._conversation.later(lambda handle, lease: handle.leave(person, device_id=device, lease=lease))
        self._on_empty(not self._present)

    def _on_changed(self, participant: rtc.Participant) -> None:
        if not self._is_synced or not is_human(participant):
            return
        arrival = _arrival_of(participant, self._persons.get(participant.sid))
        self._conversation.later(
            lambda handle, lease: handle.update_participant(
                arrival.person,
                name=arrival.name or None,
                metadata=arrival.metadata,
                language=arrival.language,
                lease=lease,
            )
        )

    def _arrive(self, participant: rtc.Participant) -> None:
        arrival = _arrival_of(participant, self._persons.get(participant.sid))
        self._present[participant.identity] = arrival.device
        self._persons[arrival.device] = arrival.person
        self._conversation.later(lambda handle, lease: self._join(handle, lease, arrival))

    async def _join(self, handle: ConversationHandle, lease: Lease, arrival: _Arrival) -> None:
        before = handle.participants.get(arrival.person)
        try:
            joined = await self._joined(handle, lease, arrival, arrival.metadata)
        except InvalidInputError as error:
            logger.warning("a participant's metadata is not kept", extra={"reason": str(error)})
            joined = await self._joined(handle, lease, arrival, {})
        settings = self._conversation.settings
        wanted = welcome(before, joined, device=arrival.device, grace=settings.grace)
        if wanted in {Welcome.FIRST, Welcome.BACK}:
            # first noted, then said: an agent that dies in between leaves a greeting out, and none is said twice
            await handle.update_participant(arrival.person, context=greeted_context(joined), lease=lease)
        self._on_welcome(wanted, joined.language)
        kept = retention(handle.participants.values(), settings.retention)
        if handle.retention != kept:
            await handle.set_retention(kept, lease=lease)

    async def _joined(
        self, handle: ConversationHandle, lease: Lease, arrival: _Arrival, metadata: dict[str, Any]
    ) -> Participant:
        return await handle.join(
            arrival.person,
            name=arrival.name or None,
            metadata=metadata,
            device_id=arrival.device,
            language=arrival.language,
            lease=lease,
        )


async def _leave_absent(handle: ConversationHandle, lease: Lease, here: set[tuple[str, str]]) -> None:
    """Let those leave who left while nobody watched."""
    for person, known in list(handle.participants.items()):
        for device in known.devices:
            if (person, device) not in here:
                await handle.leave(person, device_id=device, lease=lease)


def _person_of(participant: rtc.Participant) -> str:
    return trusted_attribute(participant, PERSON) or participant.identity


def _arrival_of(participant: rtc.Participant, person: str | None) -> _Arrival:
    """What is told of a participant; it stays the `person` it came as, though its attributes or rights change."""
    attributes = {name: value for name, value in participant.attributes.items() if not name.startswith(_RESERVED)}
    metadata: dict[str, Any] = {"kind": _KINDS[participant.kind], "livekit_identity": participant.identity}
    if attributes:
        metadata["attributes"] = attributes
    if participant.metadata:
        metadata["metadata"] = participant.metadata
    return _Arrival(
        person=person or _person_of(participant),
        device=participant.sid,
        name=participant.name[:_LONGEST_NAME],
        language=(attributes.get(LANGUAGE) or _language_in(participant.metadata) or "")[:_LONGEST_LANGUAGE] or None,
        metadata=metadata,
    )


def _language_in(metadata: str) -> str | None:
    """The language that metadata names, where it is JSON and does."""
    try:
        fields = json.loads(metadata) if metadata.lstrip().startswith("{") else {}
    except (ValueError, RecursionError):
        logger.warning("a participant's metadata is not JSON", extra={"size": len(metadata)})
        return None
    language = fields.get(LANGUAGE)
    return language if isinstance(language, str) and language else None
