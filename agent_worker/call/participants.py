"""Room → conversation: who is there, with which devices, and what that calls for.

A person is what the attribute ``person`` says if the token gave it, else the ``user_id`` of the room's metadata,
else a LiveKit identity: several LiveKit participants may be devices of one person. A device is one connection
(LiveKit's ``sid``), so that a page that was reloaded is a new device of the same person, in whichever order the two
events come.

What the conversation does not take, because it does not answer, is not repeated event by event: when it answers
again, the room is looked at.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from livekit import rtc

from agent_worker.call.arrivals import Arrival, is_human, person_of
from agent_worker.call.tracks import Tracks
from agent_worker.call.welcome import GREETED, greeted_context, retention, welcome
from agent_worker.lines import Welcome
from agent_worker.session.handlers import total
from agent_worker.tenure.conversation import CallConversation
from conversation_actors import ConversationHandle, Lease, Participant
from conversation_actors.errors import InvalidInputError

MAX_GREETED = 1000
"""People remembered as greeted in this call, should the conversation forget them."""

OnWelcome = Callable[[Welcome, Participant], None]


@dataclass(slots=True)
class _Owed:
    """What the arrival of one device calls for, until it is told; the join that asks for it may be repeated."""

    before: Participant | None
    """As the conversation knew the person when it was told of this device for the first time."""
    wanted: Welcome | None = None
    is_told: bool = False


class Participants:
    """Follows a room's participants into the conversation. Handlers never raise and never wait.

    Each device is welcomed once, however often the conversation has to be told of it.
    """

    def __init__(
        self,
        room: rtc.Room,
        conversation: CallConversation,
        *,
        on_welcome: OnWelcome,
        on_empty: Callable[[bool], None],
        has_tracks: bool = True,
    ) -> None:
        """`on_welcome` is told what an arrival calls for, and whose it is; `on_empty` whether nobody is here.

        `has_tracks`: what people have open is kept too, see `Tracks`.
        """
        self._room, self._conversation = room, conversation
        self._tracks = Tracks(room, conversation, self._devices_of) if has_tracks else None
        self._on_welcome, self._on_empty = on_welcome, on_empty
        self._present: dict[str, str] = {}
        self._persons: dict[str, str] = {}
        self._owed: dict[str, _Owed] = {}
        self._greeted: dict[str, None] = {}
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

    def who(self, participant: rtc.RemoteParticipant) -> dict[str, Any]:
        """Return a participant as the conversation knows it: the person, and the device."""
        device = participant.sid
        return {"identity": self._person(participant), "device": device}

    def has_told_language(self, person: str) -> bool:
        """Whether somebody who is here has told their language, with any of their devices."""
        here = self._room.remote_participants.values()
        return any(Arrival.of(one, person).language for one in here if self._person(one) == person)

    def start(self) -> None:
        """Follow from now on; who is there already counts as arriving."""
        for name, handler in self._handlers.items():
            told = "a room event was not followed"
            self._room.on(name, total(handler, self._conversation.failures, "participants", told))
        if self._tracks is not None:
            self._tracks.start()
        self._conversation.on_changes_missed(lambda _is_afresh: self._look_again())
        if self._room.isconnected():
            self._sync()

    def stop(self) -> None:
        """Follow no more: what the room says while this process leaves it is nobody's leaving."""
        self._is_synced, self._is_stopped = False, True
        if self._tracks is not None:
            self._tracks.stop()

    def _on_connection_state(self, _state: rtc.ConnectionState.ValueType) -> None:
        if self._room.isconnected() and not self._is_stopped:
            self._sync()

    def _sync(self) -> None:
        """Bring the conversation up to date with the room, which was not watched so far (or not all the time)."""
        self._is_synced = True
        for one in self._look():
            if self._present.get(one.identity) != one.sid:
                self._arrive(one)
        if self._tracks is not None:
            self._tracks.look()
        self._on_empty(not self._present)

    def _look(self) -> list[rtc.RemoteParticipant]:
        """Return the people in the room now; those who are not are let go."""
        people = [one for one in self._room.remote_participants.values() if is_human(one)]
        self._persons = {one.sid: self._person(one) for one in people}
        self._owed = {device: owed for device, owed in self._owed.items() if device in self._persons}
        here = {(person, device) for device, person in self._persons.items()}
        self._conversation.later(lambda handle, lease: _leave_absent(handle, lease, here))
        for gone in [identity for identity in self._present if identity not in {one.identity for one in people}]:
            del self._present[gone]
        return people

    def _look_again(self) -> None:
        """Tell the conversation of everybody who is here: it may have missed any part of it."""
        if self._is_synced:
            for one in self._look():
                self._arrive(one)
            if self._tracks is not None:
                self._tracks.look()

    def _on_connected(self, participant: rtc.RemoteParticipant) -> None:
        if self._is_synced and is_human(participant):
            if self._present.get(participant.identity) != participant.sid:
                self._arrive(participant)
            self._on_empty(False)

    def _on_disconnected(self, participant: rtc.RemoteParticipant) -> None:
        if not self._is_synced or not is_human(participant):
            return
        device = participant.sid
        person = self._person(participant)
        self._persons.pop(device, None)
        self._owed.pop(device, None)
        if self._present.get(participant.identity) == device:
            del self._present[participant.identity]
        self._conversation.later(lambda handle, lease: handle.leave(person, device_id=device, lease=lease))
        if self._tracks is not None:
            self._tracks.change()
        self._on_empty(not self._present)

    def _on_changed(self, participant: rtc.Participant) -> None:
        if not self._is_synced or not is_human(participant):
            return
        arrival = Arrival.of(participant, self._person(participant))
        self._conversation.later(lambda handle, lease: self._update(handle, lease, arrival))

    async def _update(self, handle: ConversationHandle, lease: Lease, arrival: Arrival) -> None:
        await self._written(
            lambda metadata: handle.update_participant(
                arrival.person, name=arrival.name or None, metadata=metadata, language=arrival.language, lease=lease
            ),
            arrival.metadata,
            arrival.person,
        )

    def _arrive(self, participant: rtc.Participant) -> None:
        arrival = Arrival.of(participant, self._person(participant))
        self._present[participant.identity] = arrival.device
        self._persons[arrival.device] = arrival.person
        self._conversation.later(lambda handle, lease: self._join(handle, lease, arrival))

    def _person(self, participant: rtc.Participant) -> str:
        """Who somebody is: whom it came as, to this agent or to one before it, whatever is said of it since."""
        device = participant.sid
        known = self._persons.get(device)
        if known is None:
            people = self._conversation.participants.values()
            known = next((one.identity for one in people if device in one.devices), None)
        return known or person_of(participant, self._room.metadata)

    async def _join(self, handle: ConversationHandle, lease: Lease, arrival: Arrival) -> None:
        owed = self._owed.get(arrival.device)
        if owed is None:
            owed = self._owed[arrival.device] = _Owed(handle.participants.get(arrival.person))
        try:
            joined = await self._joined(handle, lease, arrival, arrival.metadata)
        except InvalidInputError as error:
            self._conversation.failures.count("participants", error, "a participant's metadata is not kept")
            joined = await self._joined(handle, lease, arrival, {})
        settings = self._conversation.settings
        if owed.wanted is None:
            owed.wanted = self._wanted(owed, joined, arrival)
        if owed.wanted in {Welcome.FIRST, Welcome.BACK} or (owed.is_told and GREETED not in joined.context):
            # first noted, then said: an agent that dies in between leaves a greeting out, and none is said twice
            await handle.update_participant(arrival.person, context=greeted_context(joined), lease=lease)
        if not owed.is_told:
            owed.is_told = True
            self._on_welcome(owed.wanted, joined)
        kept = retention(handle.participants.values(), settings.retention)
        if handle.retention != kept:
            await handle.set_retention(kept, lease=lease)

    def _wanted(self, owed: _Owed, joined: Participant, arrival: Arrival) -> Welcome:
        """Return what an arrival calls for; who was greeted in this call is not new, though the conversation forgot."""
        conversation = self._conversation
        wanted = welcome(
            owed.before,
            joined,
            device=arrival.device,
            grace=conversation.settings.grace,
            is_restart=conversation.is_restart,
        )
        if wanted is not Welcome.RESUME and conversation.is_beside:
            return Welcome.NOTHING
        if wanted is Welcome.FIRST and arrival.person in self._greeted:
            return Welcome.NOTHING
        if wanted is Welcome.FIRST:
            self._greeted[arrival.person] = None
            if len(self._greeted) > MAX_GREETED:
                del self._greeted[next(iter(self._greeted))]
        return wanted

    async def _joined(
        self, handle: ConversationHandle, lease: Lease, arrival: Arrival, metadata: dict[str, Any]
    ) -> Participant:
        return await self._written(
            lambda written: handle.join(
                arrival.person,
                name=arrival.name or None,
                metadata=written,
                device_id=arrival.device,
                language=arrival.language,
                lease=lease,
            ),
            metadata,
            arrival.person,
        )

    async def _written(
        self, write: Callable[[dict[str, Any]], Awaitable[Participant]], metadata: dict[str, Any], person: str
    ) -> Participant:
        """Write metadata with what is open now; without that, if there is no room for both."""
        if self._tracks is None:
            return await write(metadata)
        try:
            return await write(self._tracks.added(metadata, person))
        except InvalidInputError:
            return await write(metadata)

    def _devices_of(self, person: str) -> list[rtc.RemoteParticipant]:
        """Return the LiveKit participants in the room that are this person."""
        people = (one for one in self._room.remote_participants.values() if is_human(one))
        return [one for one in people if self._person(one) == person]


async def _leave_absent(handle: ConversationHandle, lease: Lease, here: set[tuple[str, str]]) -> None:
    """Let those leave who left while nobody watched."""
    for person, known in list(handle.participants.items()):
        for device in known.devices:
            if (person, device) not in here:
                await handle.leave(person, device_id=device, lease=lease)
