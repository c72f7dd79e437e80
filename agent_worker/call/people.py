"""The people of a call, in one place: who they are, whom the agent hears, what is known of them and said at the end."""

from collections.abc import Callable, Mapping
from typing import Any

from livekit import rtc
from livekit.agents import AgentSession
from livekit.agents.llm import ChatMessage

from agent_worker.call.ending import Ending
from agent_worker.call.farewell import Farewell
from agent_worker.call.linking import Linking
from agent_worker.call.participants import OnWelcome, Participants
from agent_worker.call.person_notes import PersonNotes
from agent_worker.call.speaker import Speaker
from agent_worker.call.speaking import Speaking
from agent_worker.tenure.conversation import CallConversation


class People:
    """The parts of a call that need a room with people in it."""

    def __init__(
        self,
        session: AgentSession[Any],
        conversation: CallConversation,
        room: rtc.Room,
        *,
        ending: Ending,
        speaking: Speaking,
        on_welcome: OnWelcome,
        on_empty: Callable[[bool], None],
        has_tracks: bool,
    ) -> None:
        """Nothing of the room is followed before `start`. The callbacks and `has_tracks`: see `Participants`."""
        self._failures = conversation.failures
        self._participants = Participants(
            room, conversation, on_welcome=on_welcome, on_empty=on_empty, has_tracks=has_tracks
        )
        self.linking = Linking(session, room, self._failures)
        self._speaker = Speaker(session, room, self.linking, self._participants)
        self._notes = PersonNotes(session, conversation, self.linking, self._participants)
        self._farewell = Farewell(
            session,
            conversation,
            room,
            ending=ending,
            speaking=speaking,
            linking=self.linking,
            people=self._participants,
            on_begin=self.stop_notes,
        )

    def start(self) -> None:
        """Follow the room from now on; before the session starts."""
        self._farewell.start()
        self._notes.start(self._failures)
        self._participants.start()
        self.linking.start()
        self._speaker.start(self._failures)

    def stop_notes(self) -> None:
        """Note nothing more of a person; who comes and goes is still followed."""
        self._notes.stop()

    def stop(self) -> None:
        """Follow nobody any more."""
        self._participants.stop()

    @property
    def is_somebody_here(self) -> bool:
        """Whether somebody is in the room, as far as it is followed."""
        return bool(self._participants.present)

    @property
    def is_empty(self) -> bool:
        """Whether nobody is in the room for sure; see `Participants.is_empty`."""
        return self._participants.is_empty

    def speaker(self, message: ChatMessage) -> Mapping[str, Any] | None:
        """Return who said what becomes a message now; see `Speaker`."""
        return self._speaker(message)

    def speaks(self) -> str | None:
        """Return who is listened to now; see `Speaker.now`."""
        return self._speaker.now

    def has_spoken(self) -> str | None:
        """Return who said what is no message yet; see `Speaker.latest`."""
        return self._speaker.latest

    def who(self, participant: rtc.RemoteParticipant) -> Mapping[str, Any]:
        """Return a participant as the conversation knows it; see `Participants.who`."""
        return self._participants.who(participant)

    def listen_to_somebody(self) -> None:
        """Have the agent listen to somebody who is here, if it listens to nobody who is."""
        self.linking.to_somebody(self._participants.present)

    def look_back(self) -> None:
        """Note what the history tells of the people, which is whole only now."""
        self._notes.look_back()
