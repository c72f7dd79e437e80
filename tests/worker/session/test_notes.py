"""What happens in a call besides its items, as shared attributes: the latest of each kind, and no failure of ours."""

import json
import logging
from typing import Any

import pytest
from livekit.agents import (
    AgentSession,
    AgentStateChangedEvent,
    APIConnectionError,
    ConversationItemAddedEvent,
    ErrorEvent,
    LanguageCode,
    UserInputTranscribedEvent,
)
from livekit.agents.llm import LLM, AgentHandoff, ChatMessage, LLMError

from agent_worker.failures import Failures
from agent_worker.offline import OfflineServer
from agent_worker.offline.transcript import Transcript
from agent_worker.session.notes import (
    ERROR,
    MAX_TRANSCRIPT_BYTES,
    SPEECH,
    TRANSCRIPT,
    SessionNotes,
    unanswered_words,
)
from agent_worker.session.usage import UsageNotes
from conversation_actors.calls.names import USAGE
from tests.support.fakes import until
from tests.worker.conftest import SessionFactory


class Pad:
    """A taker of notes, as `CallConversation` is one."""

    def __init__(self) -> None:
        """Empty."""
        self.written: list[tuple[str, Any]] = []
        self.trouble: Exception | None = None

    def note(self, name: str, value: Any) -> None:
        """Write one down."""
        if self.trouble is not None:
            raise self.trouble
        json.dumps(value)
        self.written.append((name, value))

    @property
    def now(self) -> dict[str, Any]:
        """The latest of each kind."""
        return dict(self.written)


@pytest.fixture
def pad() -> Pad:
    """Where notes go."""
    return Pad()


@pytest.fixture
def failures() -> Failures:
    """What went wrong while notes were taken."""
    return Failures()


@pytest.fixture
async def session(
    server: OfflineServer, new_session: SessionFactory, pad: Pad, failures: Failures
) -> AgentSession[None]:
    """A session whose notes are taken; not started."""
    made = await new_session(server)
    SessionNotes(made, pad, failures).start()
    UsageNotes(made, pad, failures, holder="job-1").start()
    return made


def hear(session: AgentSession[None], text: str, *, final: bool = True, language: str | None = None) -> None:
    """The recogniser understands something."""
    code = None if language is None else LanguageCode(language)
    heard = UserInputTranscribedEvent(transcript=text, is_final=final, language=code, created_at=1.0)
    session.emit("user_input_transcribed", heard)


def become_message(session: AgentSession[None], text: str, role: Any = "user") -> None:
    """A message enters the history."""
    session._conversation_item_added(ChatMessage(role=role, content=[text]))


def noted(text: str, language: str | None = None) -> dict[str, Any]:
    """The note of a transcript."""
    return {"text": text, "language": language, "at": 1.0}


async def test_words_are_noted_until_they_are_a_message(session: AgentSession[None], pad: Pad) -> None:
    """They add up; a message has them all."""
    hear(session, "Where is")
    hear(session, "my order?", language="en")
    become_message(session, "Where is my order?")
    assert pad.written == [
        (TRANSCRIPT, noted("Where is")),
        (TRANSCRIPT, noted("Where is my order?", "en")),
        (TRANSCRIPT, None),
    ]
    hear(session, "Hello?")
    assert pad.now[TRANSCRIPT] == noted("Hello?")


async def test_only_final_words_are_noted(session: AgentSession[None], pad: Pad) -> None:
    """Only what the recogniser is done with."""
    hear(session, "Where", final=False)
    hear(session, "   ")
    assert pad.written == []


async def test_only_the_callers_own_message_settles_it(session: AgentSession[None], pad: Pad) -> None:
    """Not what the agent says, nor another item."""
    hear(session, "Hello?")
    become_message(session, "Yes?", "assistant")
    session.emit("conversation_item_added", ConversationItemAddedEvent(item=AgentHandoff(new_agent_id="b")))
    assert pad.now[TRANSCRIPT] == noted("Hello?")


async def test_what_an_agent_before_this_one_left_is_settled_once(session: AgentSession[None], pad: Pad) -> None:
    """By the first message, which answers for it; later ones have nothing to remove."""
    become_message(session, "Where is my order?")
    become_message(session, "Hello?")
    assert pad.written == [(TRANSCRIPT, None)]


async def test_of_a_megabyte_of_words_the_end_is_noted(session: AgentSession[None], pad: Pad) -> None:
    """The end of it is kept, whole characters; nothing more is held in memory either."""
    hear(session, "\u00fc" * (1 << 20))
    for number in range(50):
        hear(session, f"word{number} " * 2000)
    last = pad.now[TRANSCRIPT]["text"]
    assert len(last.encode()) <= MAX_TRANSCRIPT_BYTES
    assert last.endswith("word49")
    first = pad.written[0][1]["text"]
    assert set(first) == {"\u00fc"}
    assert len(first.encode()) > MAX_TRANSCRIPT_BYTES - 4
    held = [value for handler in session._events["user_input_transcribed"] for value in _held(handler)]
    assert held
    assert max(held) <= MAX_TRANSCRIPT_BYTES


def _held(handler: Any) -> list[int]:
    """Sizes of what the object behind a handler keeps of the caller's words."""
    cells = [cell.cell_contents for cell in handler.__closure__ or ()]
    kept = [vars(one.__self__).get("_unsettled") for one in cells if hasattr(one, "__self__")]
    return [sum(len(one.text) for one in words._words) for words in kept if words is not None]


async def test_broken_text_of_a_recogniser_costs_one_character(session: AgentSession[None], pad: Pad) -> None:
    """A recogniser's broken text costs a character."""
    hear(session, "half \ud83d here")
    assert "here" in pad.now[TRANSCRIPT]["text"]
    pad.now[TRANSCRIPT]["text"].encode()


async def test_a_model_failure_is_noted_without_its_text(
    session: AgentSession[None], pad: Pad, caplog: pytest.LogCaptureFixture
) -> None:
    """What and where, and whether it goes on: its text may quote the call."""
    caplog.set_level(logging.DEBUG)
    model = session.llm
    assert isinstance(model, LLM)
    failure = APIConnectionError("private words")
    error = LLMError(timestamp=1.0, label="x", error=failure, recoverable=True)
    session.emit("error", ErrorEvent(error=error, source=model, created_at=2.0))
    session.emit("error", ErrorEvent(error=ValueError("private words"), source=model, created_at=3.0))
    told = [value for name, value in pad.written if name == ERROR]
    assert told[0] == {"type": "APIConnectionError", "source": "LLM", "recoverable": True, "at": 2.0}
    assert (told[1]["type"], told[1]["recoverable"]) == ("ValueError", False)
    assert "private words" not in json.dumps(pad.written) + caplog.text


async def test_a_model_failure_is_noted_with_where_it_happened_if_that_is_wanted(
    server: OfflineServer, new_session: SessionFactory, pad: Pad
) -> None:
    """And still without its text."""
    session = await new_session(server)
    SessionNotes(session, pad, stacks=True).start()
    model = session.llm
    assert isinstance(model, LLM)
    words = "private words"
    try:
        raise APIConnectionError(words)  # noqa: TRY301  # it has to have been raised
    except APIConnectionError as failure:
        error = LLMError(timestamp=1.0, label="x", error=failure, recoverable=True)
    session.emit("error", ErrorEvent(error=error, source=model, created_at=2.0))
    session.emit("error", ErrorEvent(error=ValueError(words), source=model, created_at=3.0))
    first, second = [value for name, value in pad.written if name == ERROR]
    assert "test_notes.py" in first["stack"]
    assert first["stack"].endswith("APIConnectionError")
    assert "stack" not in second
    assert words not in json.dumps(pad.written)


async def test_a_turn_notes_its_speech_and_its_usage_once(
    session: AgentSession[None], pad: Pad, transcript: Transcript
) -> None:
    """What began to be said, and what the models have used, once, when the agent listens again."""
    from agent_worker.example.agent import SupportAgent

    await session.start(SupportAgent(), record=False)
    pad.written.clear()
    await session.run(user_input=transcript.turns[0].user)
    await until(lambda: USAGE in pad.now)
    assert pad.now[SPEECH]["source"] == "generate_reply"
    session.emit("agent_state_changed", AgentStateChangedEvent(old_state="speaking", new_state="listening"))
    (used,) = [value for name, value in pad.written if name == USAGE]
    assert used["at"] > 0
    assert used["holder"] == "job-1"
    assert used["models"][0]["type"] == "llm_usage"
    assert transcript.turns[0].reply not in json.dumps(pad.written)


@pytest.mark.parametrize("error", [TypeError("private words"), ValueError("private words")])
async def test_an_error_while_noting_does_not_reach_livekit(
    session: AgentSession[None], pad: Pad, failures: Failures, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """LiveKit lets a TypeError through, and the reply that is being spoken would end."""
    pad.trouble = error
    hear(session, "Hello?")
    become_message(session, "Hello?")
    nonsense: Any = object()
    kinds: list[Any] = ["error", "speech_created", "session_usage_updated", "agent_state_changed"]
    for kind in kinds:
        session.emit(kind, nonsense)
    assert sum(failures.counts.values()) == 6
    assert "agent_worker.failures" in {record.name for record in caplog.records}
    assert "private words" not in caplog.text


async def test_nothing_is_noted_after_stop(server: OfflineServer, new_session: SessionFactory, pad: Pad) -> None:
    """After `stop` nothing is noted."""
    session = await new_session(server)
    for notes in (SessionNotes(session, pad), UsageNotes(session, pad, holder="job-1")):
        notes.start()
        notes.stop()
    hear(session, "Hello?")
    become_message(session, "Hello?")
    assert pad.written == []


@pytest.mark.parametrize(
    ("attributes", "last", "words"),
    [
        ({}, "", None),
        ({TRANSCRIPT: None}, "", None),
        ({TRANSCRIPT: "Hello?"}, "", None),
        ({TRANSCRIPT: {"text": 7}}, "", None),
        ({TRANSCRIPT: {"text": "  "}}, "", None),
        ({TRANSCRIPT: {"text": " Hello? "}}, "", "Hello?"),
        ({TRANSCRIPT: {"text": "Hello?"}}, "Where is my order?", "Hello?"),
        ({TRANSCRIPT: {"text": "my order?"}}, "Where is my order?", None),
        ({TRANSCRIPT: {"text": "Hello?"}}, "Hello?", None),
    ],
)
def test_unanswered_words_are_read_from_foreign_attributes_without_raising(
    attributes: dict[str, Any], last: str, words: str | None
) -> None:
    """Read from attributes that anybody may have written."""
    assert unanswered_words(attributes, last) == words
