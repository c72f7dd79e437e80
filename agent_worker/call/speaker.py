"""Who said it: the participant that a user message is from."""

from collections.abc import Mapping
from typing import Any

from livekit import rtc
from livekit.agents import AgentSession, UserInputTranscribedEvent
from livekit.agents.llm import ChatMessage

from agent_worker.call.linking import Linking
from agent_worker.call.participants import Participants
from agent_worker.call.typed_words import typist
from agent_worker.failures import Failures
from agent_worker.session.handlers import total


class Speaker:
    """The speaker of each user message: who was listened to when its words were final, or who typed it."""

    def __init__(self, session: AgentSession[Any], room: rtc.Room, linking: Linking, people: Participants) -> None:
        """Nobody has spoken; nothing is followed before `start`."""
        self._session, self._room, self._linking, self._people = session, room, linking, people
        self._heard: Mapping[str, Any] | None = None
        self._is_heard = False

    def start(self, failures: Failures) -> None:
        """Follow who is listened to."""
        told = "who spoke was not noted"
        self._session.on("user_input_transcribed", total(self._on_transcript, failures, "speaker", told))

    @property
    def now(self) -> str | None:
        """Who is listened to now, as the conversation knows them; None if nobody is."""
        linked = self._linking.linked
        return None if linked is None else str(self._people.who(linked)["identity"])

    @property
    def latest(self) -> str | None:
        """Who said the words that are no message yet; if there are none, who is listened to now."""
        return self.now if self._heard is None else str(self._heard["identity"])

    def __call__(self, message: ChatMessage) -> Mapping[str, Any] | None:
        """Who said what becomes a message now; None if nobody did, as with what the application puts in."""
        identity = typist(message.text_content or "", is_heard=self._is_heard)
        if identity is not None:
            participant = self._room.remote_participants.get(identity)
            return {"identity": identity, "device": None} if participant is None else self._people.who(participant)
        heard, self._heard, self._is_heard = self._heard, None, False
        return heard

    def _on_transcript(self, event: UserInputTranscribedEvent) -> None:
        linked = self._linking.linked
        self._is_heard = self._is_heard or event.is_final
        if event.is_final and linked is not None:
            self._heard = self._people.who(linked)
