"""Turns that no message comes of leave nothing for the next agent to answer; one that is open is answered once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest
from livekit.agents import (
    Agent,
    AgentSession,
    ConversationItemAddedEvent,
    ErrorEvent,
    StopResponse,
    UserInputTranscribedEvent,
)
from livekit.agents.llm import AgentHandoff, ChatContext, ChatMessage, FunctionCall, LLMError
from livekit.agents.voice.events import ToolCallStarted, ToolExecutionUpdatedEvent

from agent_worker.failures import Failures
from agent_worker.offline import OfflineServer
from agent_worker.offline.script import Reply
from agent_worker.session.notes import SETTLED, TRANSCRIPT, SessionNotes
from agent_worker.session.turns import Turns
from agent_worker.session.unsettled import UnsettledWords
from agent_worker.timing import TIMING, Timing
from tests.support.fakes import until
from tests.support.sessions.answering import BACK, Answer, Running, seed, texts, user
from tests.support.sessions.fakes_call import FakeParticipant, FakeRoom, World
from tests.support.sessions.fakes_room import FunctionScript
from tests.worker.conftest import SessionFactory

Decide = Callable[[ChatMessage], Awaitable[None]]


class Deciding(Agent):
    """An application that has a say in each turn."""

    def __init__(self, decide: Decide) -> None:
        """`decide`: what it does about a turn."""
        super().__init__(instructions="x")
        self._decide = decide

    async def on_user_turn_completed(self, turn_ctx: ChatContext, new_message: ChatMessage) -> None:
        """Decide."""
        assert turn_ctx is not None
        await self._decide(new_message)


async def stop(_message: ChatMessage) -> None:
    """No answer is wanted."""
    raise StopResponse


async def fail(_message: ChatMessage) -> None:
    """It is broken: LiveKit drops the turn."""
    message = "broken"
    raise ValueError(message)


async def accept(_message: ChatMessage) -> None:
    """An answer is wanted."""


class Pad:
    """A taker of notes."""

    def __init__(self) -> None:
        """Empty."""
        self.now: dict[str, Any] = {}

    def note(self, name: str, value: Any) -> None:
        """Keep the latest of each kind."""
        self.now[name] = value

    @property
    def words(self) -> str | None:
        """What is noted as said and not settled."""
        noted = self.now.get(TRANSCRIPT)
        return None if noted is None else noted["text"]


@pytest.fixture
def pad() -> Pad:
    """Where notes go."""
    return Pad()


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Return what is set when somebody has looked for words that stayed without a message."""
    is_done, look = asyncio.Event(), Turns._look

    def looking(self: Turns) -> None:
        look(self)
        is_done.set()

    monkeypatch.setattr(Turns, "_look", looking)
    return is_done


Started = Callable[..., Any]
AT_ONCE = Timing(turn_slack=0.0)
"""Words without a message are looked for without a pause."""


@pytest.fixture
def started(server: OfflineServer, new_session: SessionFactory, pad: Pad) -> Started:
    """Start an agent in a session whose turns are watched."""

    @asynccontextmanager
    async def start(agent: Agent, timing: Timing = TIMING) -> AsyncIterator[AgentSession[None]]:
        session = await new_session(server)
        notes = SessionNotes(session, pad, Failures())
        notes.start()
        watched = Turns(session, notes, Failures(), timing=timing)
        watched.start()
        await session.start(agent, record=False)
        yield session
        watched.stop()
        await session.aclose()

    return start


def hear(session: AgentSession[None], text: str, *, final: bool = True) -> None:
    """The recogniser understands something."""
    session.emit("user_input_transcribed", UserInputTranscribedEvent(transcript=text, is_final=final))


async def end_turn(session: AgentSession[None], text: str) -> None:
    """LiveKit asks the agent about a turn that has ended, and drops it where that raises."""
    message = ChatMessage(role="user", content=[text])
    with suppress(StopResponse, ValueError):
        await session.current_agent.on_user_turn_completed(ChatContext.empty(), new_message=message)
        session.emit("conversation_item_added", ConversationItemAddedEvent(item=message))


@pytest.mark.parametrize("decide", [stop, fail])
async def test_a_turn_that_was_refused_leaves_no_words(started: Started, pad: Pad, decide: Decide) -> None:
    """As soon as the application has said so; what is said behind it waits for a turn of its own."""
    async with started(Deciding(decide)) as session:
        hear(session, "Transfer ten")
        hear(session, "thousand.")
        assert pad.words == "Transfer ten thousand."
        hear(session, "Hello?")
        await end_turn(session, "Transfer ten thousand.")
        assert pad.words == "Hello?"


async def test_a_turn_that_is_answered_keeps_its_words_until_then(started: Started, pad: Pad) -> None:
    """While the application thinks about it, too: a crash there leaves an open question."""
    thinking, go_on = asyncio.Event(), asyncio.Event()

    async def think(_message: ChatMessage) -> None:
        thinking.set()
        await go_on.wait()

    async with started(Deciding(think)) as session:
        hear(session, "Where is my order?")
        turn = asyncio.create_task(end_turn(session, "Where is my order?"))
        await thinking.wait()
        hear(session, "Hello?")
        session.clear_user_turn()
        assert pad.words == "Where is my order?"
        go_on.set()
        await turn
        assert pad.words is None


async def test_words_that_were_taken_back_are_gone(started: Started, pad: Pad) -> None:
    """Push to talk: the caller has cancelled."""
    async with started(Deciding(accept)) as session:
        hear(session, "Never mind")
        session.clear_user_turn()
        assert pad.words is None


async def test_each_agent_that_gets_the_word_has_a_say(started: Started, pad: Pad) -> None:
    """Also one that is handed over to."""
    async with started(Deciding(accept)) as session:
        second = Deciding(stop)
        session.update_agent(second)
        await until(lambda: "on_user_turn_completed" in vars(second))
        hear(session, "Transfer ten thousand.")
        await end_turn(session, "Transfer ten thousand.")
        assert pad.words is None


async def test_words_that_nobody_settles_are_dropped(started: Started, pad: Pad, looked: asyncio.Event) -> None:
    """A turn that LiveKit has skipped: later than any turn ends, while nobody speaks."""
    async with started(Deciding(accept), AT_ONCE) as session:
        session.update_options(endpointing_opts={"min_delay": 0.0, "max_delay": 0.02})
        session._update_user_state("speaking")
        hear(session, "Hello?")
        hear(session, "You there", final=False)
        await asyncio.wait_for(looked.wait(), 10)
        assert pad.words == "Hello?"
        session._update_user_state("listening")
        await until(lambda: pad.words is None)


async def test_with_turns_that_the_application_ends_words_wait(
    started: Started, pad: Pad, looked: asyncio.Event
) -> None:
    """Push to talk again: the caller thinks before letting go of the button."""
    agent = Deciding(accept)
    agent.turn_detection = "manual"
    async with started(agent, AT_ONCE) as session:
        session.update_options(endpointing_opts={"min_delay": 0.0, "max_delay": 0.0})
        hear(session, "Hello?")
        await asyncio.wait_for(looked.wait(), 10)
        assert pad.words == "Hello?"


async def test_words_over_a_speech_that_cannot_be_interrupted_are_marked(started: Started, pad: Pad) -> None:
    """LiveKit skips a turn that ends there; words that come behind it are answered with them."""
    agent = Deciding(accept)
    async with started(agent) as session:
        release = asyncio.Event()

        async def slowly() -> AsyncIterator[str]:
            yield "Your call is recorded."
            await release.wait()

        speech = session.say(slowly(), allow_interruptions=False)
        await until(lambda: session.current_speech is speech)
        hear(session, "Yes yes.")
        assert pad.now[TRANSCRIPT]["may_be_skipped"] is True
        release.set()
        await speech
        hear(session, "And now?")
        assert "may_be_skipped" not in pad.now[TRANSCRIPT]


async def test_a_message_that_the_application_wants_no_answer_to_is_noted(started: Started, pad: Pad) -> None:
    """At once, where it says so: ``commit_user_turn(skip_reply=True)``."""
    async with started(Deciding(accept)) as session:
        with suppress(AssertionError):  # there is no recogniser here that could be asked for the words
            session.commit_user_turn(skip_reply=True)
        message = user("Note this.")
        session._conversation_item_added(message)
        assert pad.now[SETTLED] == message.id
        with suppress(AssertionError):
            session.commit_user_turn()
        session._conversation_item_added(user("And this?"))
        assert pad.now[SETTLED] == message.id


@pytest.mark.parametrize("why", ["", "the model failed", "a tool runs"])
async def test_what_nobody_answers_for_long_is_noted(
    started: Started, pad: Pad, looked: asyncio.Event, why: str
) -> None:
    """A turn that was skipped; but not what a model has failed at, nor what a tool in the background may answer."""
    async with started(Deciding(accept), AT_ONCE) as session:
        session.update_options(endpointing_opts={"min_delay": 0.0, "max_delay": 0.02})
        message = user("Hello?")
        session._conversation_item_added(message)
        if why == "a tool runs":
            call = FunctionCall(call_id="c1", name="search", arguments="{}")
            session.emit(
                "tool_execution_updated", ToolExecutionUpdatedEvent(update=ToolCallStarted(function_call=call))
            )
        elif why:
            error = LLMError(timestamp=1.0, label="x", error=ValueError("private"), recoverable=True)
            session.emit("error", ErrorEvent(error=error, source=cast("Any", session.llm)))
        looked.clear()
        session.emit("conversation_item_added", ConversationItemAddedEvent(item=AgentHandoff(new_agent_id="a")))
        await asyncio.wait_for(looked.wait(), 10)
        assert (pad.now.get(SETTLED) == message.id) == (not why)


# In a call


async def test_a_refused_turn_is_not_answered_by_the_next_agent(answer: Answer) -> None:
    """Nor carried out; the caller hears that the agent is back, and no more."""
    alice = FakeParticipant("alice")
    script = FunctionScript(lambda _request: Reply("Transferred."))
    async with OfflineServer(script) as server:
        async with answer(FakeRoom(alice), agent=Deciding(stop), on=server, greeting="") as first:
            await first.session_is_calm()
            hear(first.session, "Transfer ten thousand.")
            await until(lambda: TRANSCRIPT in first.call.attributes)
            await end_turn(first.session, "Transfer ten thousand.")
            await crash_when_told(first)
        async with answer(FakeRoom(alice), "job-2", agent=Deciding(stop), on=server, greeting="") as second:
            await second.hears(BACK)
        assert not server.requests


async def crash_when_told(running: Running) -> None:
    """The agent's process is gone, behind its last note."""
    await running.call.flush()
    running.attached.recorder.stop()
    await running.call.aclose()


async def test_words_that_may_have_been_skipped_are_not_answered(answer: Answer, world: World) -> None:
    """They are removed, so that nobody answers them later either."""
    noted = {TRANSCRIPT: {"text": "Yes yes.", "language": "en", "at": 1.0, "may_be_skipped": True}}
    alice = await seed(world, attributes=noted)
    script = FunctionScript(lambda _request: Reply("What?"))
    async with OfflineServer(script) as server, answer(FakeRoom(alice), "job-2", on=server, greeting="") as running:
        await running.hears(BACK)
        await until(lambda: TRANSCRIPT not in running.call.attributes)
        assert not server.requests


async def test_a_message_that_wants_no_answer_gets_none(answer: Answer, world: World) -> None:
    """From the next agent either; the one behind it does."""
    kept = user("Note this.")
    alice = await seed(world, kept, attributes={SETTLED: kept.id})
    script = FunctionScript(lambda _request: Reply("What?"))
    async with OfflineServer(script) as server, answer(FakeRoom(alice), "job-2", on=server, greeting="") as running:
        await running.hears(BACK)
        assert not server.requests
        await running.session.generate_reply(user_input="And now?")
        await running.hears(BACK, "What?")


async def test_an_open_question_is_answered_once_by_however_many_agents(answer: Answer, world: World) -> None:
    """However many agents follow one another: the control."""
    noted = {TRANSCRIPT: {"text": "Where is it?", "language": "en", "at": 1.0}}
    alice = await seed(world, user("Hello."), attributes=noted)
    script = FunctionScript(lambda _request: Reply("Here."))
    async with OfflineServer(script) as server:
        async with answer(FakeRoom(alice), "job-2", on=server, greeting="") as second:
            await second.hears(BACK, "Here.")
            await second.is_known("Here.")
            await crash_when_told(second)
        async with answer(FakeRoom(alice), "job-3", on=server, greeting="") as third:
            await third.hears(BACK)
            assert texts(third.call.items) == ["Hello.", "Where is it?", "Here."]
        assert len(server.requests) == 1


async def test_a_deploy_does_not_wait_for_a_refused_turn(answer: Answer, world: World) -> None:
    """The call goes over as soon as nobody speaks."""
    async with answer(FakeRoom(), agent=Deciding(stop), greeting="", linger=60.0) as running:
        await running.session_is_calm()
        hear(running.session, "Transfer ten thousand.")
        await end_turn(running.session, "Transfer ten thousand.")
        running.call.handover_asked.set()
        assert await running.ended() == "handed over"


# The words themselves


def test_words_of_a_turn_are_found_in_its_text() -> None:
    """As they were heard, also where the turn has more than that; else it is all of them."""
    words = UnsettledWords()
    for text in ("one", "two", "three"):
        words.hear(text, may_be_skipped=False)
    words.complete("one two and a half")
    words.refuse()
    assert words.text == "three"
    words.complete("something else")
    words.refuse()
    assert not words


def test_a_message_settles_its_turn_or_all() -> None:
    """Typed words, or those of a model that decides by itself, have no turn that was completed."""
    words = UnsettledWords()
    words.hear("one", may_be_skipped=False)
    words.complete("one")
    words.hear("two", may_be_skipped=False)
    words.settle()
    assert words.text == "two"
    words.settle()
    assert not words
