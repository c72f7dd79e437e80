"""Session → conversation: what happens in a call besides its items, as shared attributes.

Each attribute holds the latest of its kind; whoever watches the conversation sees every one. A word that
was understood, and is not part of any message yet, is the one that matters after a crash.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from livekit.agents import (
    AgentSession,
    ConversationItemAddedEvent,
    ErrorEvent,
    SpeechCreatedEvent,
    UserInputTranscribedEvent,
)
from livekit.agents.llm import ChatItem, FunctionCallOutput

from agent_worker.failures import Failures
from agent_worker.session.handlers import total
from agent_worker.session.stacks import stack_of
from agent_worker.session.unsettled import MAX_TRANSCRIPT_BYTES, UnsettledWords
from conversation_actors.calls import names

__all__ = [
    "ERROR",
    "MAX_TRANSCRIPT_BYTES",
    "SETTLED",
    "SPEECH",
    "TRANSCRIPT",
    "SessionNotes",
    "unanswered_item",
    "unanswered_words",
]

TRANSCRIPT = "livekit.transcript"
"""``{text, language, at}``: what the caller said and no message has yet; None when a message has it, or none will.
``may_be_skipped``: all of it was said while the agent could not be interrupted, and nobody has to answer it."""
SETTLED = "livekit.settled"
"""The id of the history's last item, if it looks as if it wanted an answer and the application wants none."""
SPEECH = "livekit.speech"
"""``{source, user_initiated, at}``: the utterance that the agent began last."""
ERROR = names.ERROR
"""``{type, source, recoverable, at}``: the last failure of a model. No text of it: it may quote the call. ``stack``
(see `stack_of`) only where the settings want it."""

_FAILURE = "an event was not noted"

Noted = Mapping[str, Any] | Callable[[str], Any]
"""Where attributes are looked up by their names."""


def look_up(noted: Noted, name: str) -> Any:
    """Return the value of an attribute; None if there is none."""
    return noted.get(name) if isinstance(noted, Mapping) else noted(name)


class NoteTaker(Protocol):
    """Whoever sets shared attributes, in order, without making anybody wait."""

    def note(self, name: str, value: Any) -> None:
        """Set an attribute; None removes it. Never blocks, never raises for the sake of the network."""


class SessionNotes:
    """The attributes of this module, kept up to date. Handlers never raise and never wait."""

    def __init__(
        self,
        session: AgentSession[Any],
        conversation: NoteTaker,
        failures: Failures | None = None,
        *,
        stacks: bool = False,
    ) -> None:
        """Nothing is noted before `start`. What goes wrong in a handler is counted in `failures`.

        `stacks`: note of a model's failure also where in the code it happened.
        """
        counted = failures or Failures()

        def safely(handler: Callable[[Any], None]) -> Callable[[Any], None]:
            return total(handler, counted, "notes", _FAILURE)

        self._session, self._conversation = session, conversation
        self._stacks = stacks
        self._unsettled = UnsettledWords()
        self._heard: dict[str, Any] = {}
        self._may_be_noted = True
        self._handlers: dict[Any, Callable[[Any], None]] = {
            "user_input_transcribed": safely(self._on_transcript),
            "conversation_item_added": safely(self._on_item),
            "speech_created": safely(self._on_speech),
            "error": safely(self._on_error),
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

    def complete_turn(self, text: str) -> None:
        """Note that a turn of this text has ended; the application decides what becomes of it."""
        self._unsettled.complete(text)

    def refuse_turn(self) -> None:
        """Note that the application wants no answer to the turn that has ended."""
        self._unsettled.refuse()
        self._note_words()

    def cancel_turn(self) -> None:
        """Note that the application has taken back what was heard since the last turn."""
        self._unsettled.cancel()
        self._note_words()

    def drop_words(self) -> None:
        """No message will come of what was heard, by this agent or one before it."""
        self._unsettled.clear()
        self._may_be_noted = True
        self._note_words()

    def settle(self, item_id: str) -> None:
        """No answer is wanted to what the history ends with."""
        self._conversation.note(SETTLED, item_id)

    def _on_transcript(self, event: UserInputTranscribedEvent) -> None:
        if not event.is_final or not event.transcript.strip():
            return
        speech = self._session.current_speech
        may_be_skipped = speech is not None and not speech.allow_interruptions and not speech.done()
        self._unsettled.hear(event.transcript, may_be_skipped=may_be_skipped)
        self._heard = {"language": None if event.language is None else str(event.language), "at": event.created_at}
        self._note_words()

    def _on_item(self, event: ConversationItemAddedEvent) -> None:
        if event.item.type == "message" and event.item.role == "user":
            self._unsettled.settle()
            self._note_words()

    def _note_words(self) -> None:
        if self._unsettled:
            told = {"text": self._unsettled.text, **self._heard}
            if self._unsettled.may_be_skipped:
                told["may_be_skipped"] = True
            self._conversation.note(TRANSCRIPT, told)
        elif self._may_be_noted:
            # the first time, too: an agent before this one may have left what was answered now
            self._conversation.note(TRANSCRIPT, None)
        self._may_be_noted = bool(self._unsettled)

    def _on_speech(self, event: SpeechCreatedEvent) -> None:
        told = {"source": event.source, "user_initiated": event.user_initiated, "at": event.created_at}
        self._conversation.note(SPEECH, told)

    def _on_error(self, event: ErrorEvent) -> None:
        error = event.error
        failure = getattr(error, "error", error)
        told = {
            "type": type(failure).__name__,
            "source": type(event.source).__name__,
            "recoverable": bool(getattr(error, "recoverable", False)),
            "at": event.created_at,
        }
        stack = stack_of(failure) if self._stacks else None
        if stack is not None:
            told["stack"] = stack
        self._conversation.note(ERROR, told)


def unanswered_item(history: Iterable[ChatItem]) -> ChatItem | None:
    """Return what a history ends with, if that wants the agent to speak; a tool may have wanted silence."""
    is_silenced = False
    for item in reversed(list(history)):
        if item.type == "message":
            return item if item.role == "user" and not is_silenced else None
        if item.type == "function_call_output":
            if _wants_reply(item):
                return item
            is_silenced = True
        elif item.type == "function_call" and not is_silenced:
            return item
    return None


def _wants_reply(output: FunctionCallOutput) -> bool:
    """Whether LiveKit has the model speak after it; before 1.7 it tells by an output that is empty."""
    return bool(getattr(output, "reply_required", output.output))


def unanswered_words(attributes: Mapping[str, Any], last_user_text: str) -> str | None:
    """Return what the caller said that is in no message, and wants an answer; None if there is nothing.

    A crash may come between the message and the removal of the words from the attribute.
    """
    noted = attributes.get(TRANSCRIPT)
    fields: Mapping[str, Any] = noted if isinstance(noted, Mapping) else {}
    text = fields.get("text")
    if not isinstance(text, str) or not text.strip() or fields.get("may_be_skipped") is True:
        return None
    return None if text.strip() in last_user_text else text.strip()
