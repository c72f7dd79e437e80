"""Session → conversation: what happens in a call besides its items, as shared attributes.

Each attribute holds the latest of its kind; whoever watches the conversation sees every one. A word that
was understood, and is not part of any message yet, is the one that matters after a crash.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from livekit.agents import (
    AgentSession,
    AgentStateChangedEvent,
    ConversationItemAddedEvent,
    ErrorEvent,
    SpeechCreatedEvent,
    UserInputTranscribedEvent,
)
from livekit.agents.voice.events import SessionUsageUpdatedEvent
from pydantic_core import to_jsonable_python

from agent_worker.failures import Failures
from agent_worker.session.handlers import total

TRANSCRIPT = "livekit.transcript"
"""``{text, language, at}``: what the caller said and no message has yet; None when a message has it."""
SPEECH = "livekit.speech"
"""``{source, user_initiated, at}``: the utterance that the agent began last."""
ERROR = "livekit.error"
"""``{type, source, recoverable, at}``: the last failure of a model. No text of it: it may quote the call."""
USAGE = "livekit.usage"
"""What the models of this job have used so far, as LiveKit counts it; written when the agent stops to listen."""

_FAILURE = "an event was not noted"
MOST_TRANSCRIPT_BYTES = 8 << 10
"""Of what was said and not made a message; the end of it is kept."""

Noted = Mapping[str, Any] | Callable[[str], Any]
"""Where attributes are looked up by their names."""


def look_up(noted: Noted, name: str) -> Any:
    """The value of an attribute; None where there is none."""
    return noted.get(name) if isinstance(noted, Mapping) else noted(name)


class NoteTaker(Protocol):
    """Whoever sets shared attributes, in order, without making anybody wait."""

    def note(self, name: str, value: Any) -> None:
        """Set an attribute; None removes it. Never blocks, never raises for the sake of the network."""


class SessionNotes:
    """Keeps the attributes of this module up to date. Handlers never raise and never wait."""

    def __init__(self, session: AgentSession[Any], conversation: NoteTaker, failures: Failures | None = None) -> None:
        """Nothing is noted before `start`. What goes wrong in a handler is counted in `failures`."""
        counted = failures or Failures()

        def safely(handler: Callable[[Any], None]) -> Callable[[Any], None]:
            return total(handler, counted, "notes", _FAILURE)

        self._session, self._conversation = session, conversation
        self._unsettled = ""
        self._may_be_noted = True
        self._usage: dict[str, Any] | None = None
        self._handlers: dict[Any, Callable[[Any], None]] = {
            "user_input_transcribed": safely(self._on_transcript),
            "conversation_item_added": safely(self._on_item),
            "speech_created": safely(self._on_speech),
            "error": safely(self._on_error),
            "session_usage_updated": safely(self._on_usage),
            "agent_state_changed": safely(self._on_agent_state),
        }

    @property
    def has_unsettled_words(self) -> bool:
        """Whether something was understood that is part of no message yet."""
        return bool(self._unsettled)

    def start(self) -> None:
        """Note from now on."""
        for name, handler in self._handlers.items():
            self._session.on(name, handler)

    def stop(self) -> None:
        """Note no more."""
        for name, handler in self._handlers.items():
            self._session.off(name, handler)

    def _on_transcript(self, event: UserInputTranscribedEvent) -> None:
        if not event.is_final or not event.transcript.strip():
            return
        self._unsettled = _end_of(f"{self._unsettled} {event.transcript.strip()}".strip())
        language = None if event.language is None else str(event.language)
        self._may_be_noted = True
        self._conversation.note(TRANSCRIPT, {"text": self._unsettled, "language": language, "at": event.created_at})

    def _on_item(self, event: ConversationItemAddedEvent) -> None:
        # the first time, too: an agent before this one may have left what this message answers for
        if event.item.type == "message" and event.item.role == "user" and self._may_be_noted:
            self._unsettled, self._may_be_noted = "", False
            self._conversation.note(TRANSCRIPT, None)

    def _on_speech(self, event: SpeechCreatedEvent) -> None:
        told = {"source": event.source, "user_initiated": event.user_initiated, "at": event.created_at}
        self._conversation.note(SPEECH, told)

    def _on_error(self, event: ErrorEvent) -> None:
        error = event.error
        told = {
            "type": type(getattr(error, "error", error)).__name__,
            "source": type(event.source).__name__,
            "recoverable": bool(getattr(error, "recoverable", False)),
            "at": event.created_at,
        }
        self._conversation.note(ERROR, told)

    def _on_usage(self, event: SessionUsageUpdatedEvent) -> None:
        self._usage = {"models": [to_jsonable_python(used) for used in event.usage.model_usage], "at": time.time()}

    def _on_agent_state(self, event: AgentStateChangedEvent) -> None:
        if event.new_state == "listening" and self._usage is not None:
            usage, self._usage = self._usage, None
            self._conversation.note(USAGE, usage)


def unanswered_words(attributes: Mapping[str, Any], last_user_text: str) -> str | None:
    """What the caller said that is in no message; None where there is nothing.

    A crash may come between the message and the removal of the words from the attribute.
    """
    noted = attributes.get(TRANSCRIPT)
    text = noted.get("text") if isinstance(noted, Mapping) else None
    if not isinstance(text, str) or not text.strip():
        return None
    return None if text.strip() in last_user_text else text.strip()


def _end_of(text: str) -> str:
    encoded = text.encode("utf-8", "replace")
    return encoded[-MOST_TRANSCRIPT_BYTES:].decode("utf-8", "ignore")
