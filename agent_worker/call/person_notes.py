"""Session → conversation: what is known of the person who speaks, beside who it is.

It is kept with the person and not with the call: whoever comes back, however much of the history has left its window,
is spoken to in the right language, and the agent can be told what was asked last.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from livekit.agents import (
    AgentSession,
    AgentStateChangedEvent,
    ConversationItemAddedEvent,
    SpeechCreatedEvent,
    UserInputTranscribedEvent,
)
from livekit.agents.llm import ChatMessage

from agent_worker.call.arrivals import LONGEST_LANGUAGE
from agent_worker.call.linking import Linking
from agent_worker.call.participants import Participants
from agent_worker.failures import Failures
from agent_worker.session.handlers import total
from agent_worker.session.notes import unanswered_item
from agent_worker.tenure.conversation import CallConversation
from conversation_actors import ConversationHandle, Lease
from conversation_actors.errors import InvalidInputError
from conversation_actors.items import Item, Message, speaker_in

LAST_QUERY, LAST_ANSWER = "livekit.last_query", "livekit.last_answer"
"""Keys in a participant's context: what the person said last, and what the agent said to that; texts, bounded."""
HEARD_LANGUAGE = "livekit.heard_language"
"""Key in a participant's context: the language that a recogniser has told; if it is theirs, nobody has given one."""
MOST_NOTED_BYTES = 1 << 10
"""Of one text, as UTF-8: both leave most of a participant's room to the application."""
_NO_LANGUAGES = frozenset({"", "auto", "multi", "und"})
"""What recognisers tell instead of a language."""


def bounded(text: str) -> str:
    """Return the text, cut if it is too long to be noted."""
    if len(text.encode("utf-8", "replace")) <= MOST_NOTED_BYTES:
        return text
    kept = text.encode("utf-8", "replace")[: MOST_NOTED_BYTES - len("…".encode())]
    return kept.decode("utf-8", "ignore") + "…"


async def forgotten(handle: ConversationHandle, lease: Lease, texts: Collection[str]) -> None:
    """Take the notes back that quote these texts, of everybody: the history has them no more."""
    quoted = {bounded(text) for text in texts}
    for person, known in list(handle.participants.items()):
        quoting = {name: None for name in (LAST_QUERY, LAST_ANSWER) if known.context.get(name) in quoted}
        if quoting:
            await _note(handle, lease, person, quoting)


class Retractions:
    """Texts that nobody's notes are to quote any more, until that is so.

    Asked for again when the conversation was away.
    """

    def __init__(self, conversation: CallConversation) -> None:
        """Of what is removed from the conversation, too; of what is edited, by `put`."""
        self._conversation = conversation
        self._waiting: dict[str, None] = {}
        conversation.on_changes_missed(lambda _is_afresh: self._ask_again())
        conversation.on_removed(lambda ids: self.put(_texts(conversation.items, ids)))

    def put(self, texts: Collection[str]) -> None:
        """Take the notes back that quote these. The past is to be forgotten after that."""
        self._waiting.update(dict.fromkeys(texts))
        if texts:
            self._conversation.later(self._write)

    def _ask_again(self) -> None:
        if self._waiting:
            self._conversation.later(self._write)
            self._conversation.remove()  # the one that was asked for comes before it

    async def _write(self, handle: ConversationHandle, lease: Lease) -> None:
        texts = list(self._waiting)
        await forgotten(handle, lease, texts)
        for text in texts:
            self._waiting.pop(text, None)


def _texts(items: Iterable[Item], ids: Collection[str]) -> list[str]:
    """Return what these items say, if they are messages."""
    return [item.text for item in items if item.id in ids and isinstance(item, Message) and item.text]


async def _note(handle: ConversationHandle, lease: Lease, person: str, changes: Mapping[str, Any]) -> None:
    """Change a person's context; a value of None is removed, and what is there already is not written."""
    known = handle.participants.get(person)
    if known is None:
        return
    merged = {name: value for name, value in {**known.context, **changes}.items() if value is not None}
    if merged != known.context:
        await handle.update_participant(person, context=merged, lease=lease)


class PersonNotes:
    """Keeps languages and last words up to date. Handlers never raise and never wait.

    A turn is one write, when the agent listens again. If several agents hear the same words it is the one of the
    call that writes.
    """

    def __init__(
        self, session: AgentSession[Any], conversation: CallConversation, linking: Linking, people: Participants
    ) -> None:
        """Nothing is followed before `start`."""
        self._session, self._conversation = session, conversation
        self._linking, self._people = linking, people
        self._languages: dict[str, str] = {}
        self._asked: ChatMessage | None = None
        self._answer: str | None = None
        self._removed: set[str] = set()
        self._is_due = self._is_full = self._is_stopped = False

    def start(self, failures: Failures) -> None:
        """Follow from now on. What the agent before this one left unanswered is a question too."""
        handlers: dict[Any, Any] = {
            "user_input_transcribed": self._on_transcript,
            "conversation_item_added": self._on_item,
            "speech_created": self._on_speech,
            "agent_state_changed": self._on_agent_state,
        }
        for name, handler in handlers.items():
            self._session.on(name, total(handler, failures, "person", "a person's words were not noted"))
        self._conversation.on_changes_missed(self._on_missed)
        self._conversation.on_removed(self._removed.update)
        self.look_back()

    def look_back(self) -> None:
        """Take what the history ends with for the question, if nobody has answered or asked since."""
        history = self._session.history.items
        if self._asked is None and unanswered_item(history) is not None:
            said = (item for item in reversed(history) if item.type == "message" and item.role == "user")
            self._asked = next(said, None)

    def stop(self) -> None:
        """Follow no more; the last question is noted, though nobody has answered it. Idempotent."""
        if not self._is_stopped:
            self._is_stopped = True
            self._tell()

    def _on_missed(self, _is_afresh: bool) -> None:  # noqa: FBT001  # a callback of one value
        """Any of what was told may be missing; what is there is not written again."""
        self._languages.clear()
        self._is_due = self._asked is not None
        if self._answer is not None and self._session.agent_state == "listening" and not self._is_stopped:
            self._tell()

    # The language.

    def _on_transcript(self, event: UserInputTranscribedEvent) -> None:
        linked, language = self._linking.linked, str(event.language or "")
        is_language = language not in _NO_LANGUAGES and len(language) <= LONGEST_LANGUAGE
        if self._is_stopped or linked is None or not (is_language and event.is_final and event.transcript.strip()):
            return
        person = self._people.who(linked)["identity"]
        if self._languages.get(person) != language and not self._conversation.is_beside:
            self._languages[person] = language
            self._conversation.later(lambda handle, lease: self._hear(handle, lease, person, language))

    async def _hear(self, handle: ConversationHandle, lease: Lease, person: str, language: str) -> None:
        """Take a language for the person's, if the person has given none."""
        known = handle.participants.get(person)
        if known is None:
            return
        if self._people.has_told_language(person):
            # from now on it counts as given, also in calls in which it is not given again
            await _note(handle, lease, person, {HEARD_LANGUAGE: None})
        elif known.language in {None, known.context.get(HEARD_LANGUAGE)}:
            context = {**known.context, HEARD_LANGUAGE: language}
            await handle.update_participant(person, language=language, context=context, lease=lease)

    # The last words.

    def _on_item(self, event: ConversationItemAddedEvent) -> None:
        item = event.item
        if self._is_stopped or item.type != "message":
            return
        if item.role == "user":
            # a realtime model may have answered what is transcribed only now
            self._asked, self._answer, self._is_due = item, self._answer_behind(item), True
            if self._answer is not None and self._session.agent_state == "listening":
                self._tell()
        elif item.role == "assistant" and self._asked is not None and item.text_content:
            self._answer, self._is_due = item.text_content, True

    def _answer_behind(self, asked: ChatMessage) -> str | None:
        """Return what the history has as said after a question already, and before the next one."""
        history = self._session.history
        place, answer = history.index_by_id(asked.id), None
        for item in history.items[len(history.items) if place is None else place + 1 :]:
            if item.type == "message" and item.role == "user":
                break
            if item.type == "message" and item.role == "assistant" and item.text_content:
                answer = item.text_content
        return answer

    def _on_speech(self, event: SpeechCreatedEvent) -> None:
        """Tell what the application says while the agent listens from an answer to what was asked."""
        if event.user_initiated and self._answer is not None and self._session.agent_state == "listening":
            self._tell()
            self._asked = None

    def _on_agent_state(self, event: AgentStateChangedEvent) -> None:
        if event.new_state == "listening" and self._answer is not None and not self._is_stopped:
            self._tell()

    def _tell(self) -> None:
        asked, answer, is_due = self._present(self._asked), self._answer, self._is_due
        there = (item for item in self._session.history.messages() if item.id not in self._removed)
        if answer is not None and not any(item.text_content == answer for item in there):
            answer = None
        self._is_due = False
        person = None if asked is None else _person_of(asked)
        if asked is None or person is None or not is_due or self._conversation.is_beside:
            return
        words = {LAST_QUERY: bounded(asked.text_content or "") or None, LAST_ANSWER: answer and bounded(answer)}
        self._conversation.later(lambda handle, lease: self._keep(handle, lease, person, words))

    def _present(self, message: ChatMessage | None) -> ChatMessage | None:
        """Return the message as the history has it now; None if somebody has taken it out."""
        if message is None or message.id in self._removed:
            return None
        known = self._session.history.get_by_id(message.id)
        return known if isinstance(known, ChatMessage) else None

    async def _keep(self, handle: ConversationHandle, lease: Lease, person: str, words: Mapping[str, Any]) -> None:
        try:
            await _note(handle, lease, person, words)
        except InvalidInputError as error:
            if not self._is_full:
                self._is_full = True
                self._conversation.failures.count("person", error, "a person's last words are not kept")


def _person_of(message: ChatMessage) -> str | None:
    """Who said it, as the recorder has noted it."""
    speaker = speaker_in(message.extra)
    return None if speaker is None else speaker["identity"]
