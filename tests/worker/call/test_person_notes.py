"""What a call tells of the person who speaks: the language, the last question and what was answered."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import pytest
from livekit.agents import (
    Agent,
    ConversationItemAddedEvent,
    FunctionToolsExecutedEvent,
    UserInputTranscribedEvent,
    function_tool,
)
from livekit.agents.llm import AgentHandoff, InputTranscriptionCompleted

from agent_worker.call.person_notes import (
    HEARD_LANGUAGE,
    LAST_ANSWER,
    LAST_QUERY,
    MOST_NOTED_BYTES,
    bounded,
    forgotten,
)
from agent_worker.offline import OfflineServer
from agent_worker.offline.script import ChatRequest, Reply, RequestedCall
from conversation_actors import ConversationHandle
from tests.support.fakes import until
from tests.support.sessions.answering import Answer, Running, assistant, crash, seed, user
from tests.support.sessions.fakes_call import FakeParticipant, FakeRoom, World
from tests.support.sessions.fakes_room import FunctionScript
from tests.support.sessions.room_io import FakeRoomIO

ANSWERS = {"Where is it?": "On its way.", "When?": "On Monday.", "Look it up.": ""}


class Clerk(Agent):
    """An agent with a tool, and words of its own for those who say nothing."""

    def __init__(self) -> None:
        """As an application has it."""
        super().__init__(instructions="x")

    @function_tool
    async def look_up(self) -> str:
        """Find out."""
        return "It is here."


def decide(request: ChatRequest) -> Reply:
    """Answer by what was said; a tool's output is read out."""
    last = request.messages[-1]
    if last["role"] == "tool":
        return Reply(str(last["content"]))
    if last["content"] == "Look it up.":
        return Reply("One moment.", calls=(RequestedCall("call_1", "look_up", "{}"),))
    return Reply(ANSWERS.get(str(last["content"]), "I don't know."))


class Talk:
    """A caller, or two, and the agent."""

    def __init__(self, running: Running) -> None:
        """The session is linked to whoever speaks."""
        self.running, self.session, self.call = running, running.session, running.call
        self.io = FakeRoomIO(cast("Any", running.room.remote_participants))
        with self._in_room():
            started = ConversationItemAddedEvent(item=AgentHandoff(new_agent_id="a"))
            self.session.emit("conversation_item_added", started)

    @contextmanager
    def _in_room(self) -> Iterator[None]:
        """Have the session be in a room for as long as it hears: it would speak into a real one."""
        self.session._room_io = cast("Any", self.io)
        yield
        self.session._room_io = None

    def hear(self, text: str, who: str = "alice", *, language: Any = None, is_final: bool = True) -> None:
        """Words are understood."""
        told = UserInputTranscribedEvent(transcript=text, is_final=is_final, language=language)
        with self._in_room():
            self.io.set_participant(who)
            self.session.emit("user_input_transcribed", told)

    async def ask(self, text: str, who: str = "alice") -> None:
        """Take a turn, and hear the answer."""
        self.hear(text, who)
        await self.session.generate_reply(user_input=text)
        await self.running.session_is_calm()

    async def context(self, who: str = "alice") -> dict[str, Any]:
        """What is known of somebody, when all is durable; less what greetings note."""
        await self.call.flush()
        known = self.call.participants[who].context
        return {name: value for name, value in known.items() if name != "livekit.greeted"}

    async def language(self, who: str = "alice") -> str | None:
        """Their language, when all is durable."""
        await self.call.flush()
        return self.call.participants[who].language


Talking = Callable[..., Any]


@pytest.fixture
def talking(answer: Answer) -> Talking:
    """Have an agent talk with the people of a room."""

    @asynccontextmanager
    async def begin(*here: FakeParticipant, holder: str = "job-1", **given: Any) -> AsyncIterator[Talk]:
        async with (
            OfflineServer(FunctionScript(decide)) as server,
            answer(FakeRoom(*here), holder, agent=Clerk(), on=server, **{"greeting": "", **given}) as running,
        ):
            await running.session_is_calm()
            yield Talk(running)

    return begin


def alice(**told: Any) -> FakeParticipant:
    """The caller."""
    return FakeParticipant("alice", **told)


# The language


async def test_the_recogniser_tells_the_language_of_who_gave_none(talking: Talking) -> None:
    """From final words on, and what it hears later is followed."""
    async with talking(alice(), FakeParticipant("bob")) as talk:
        talk.hear("Guten", language="de", is_final=False)
        talk.hear(" ", language="de")
        talk.hear("Guten Tag")
        assert await talk.language() is None
        talk.hear("Guten Tag", language="de")
        assert await talk.language() == "de"
        talk.hear("Bonjour", language="fr")
        assert (await talk.language(), await talk.language("bob")) == ("fr", None)


@pytest.mark.parametrize("told", [{"attributes": {"language": "de"}}, {"metadata": '{"language": "de"}'}])
async def test_a_given_language_is_never_overruled(talking: Talking, told: dict[str, Any]) -> None:
    """Nor is one that was given in an earlier call."""
    async with talking(alice(**told)) as talk:
        talk.hear("Hello", language="en")
        assert await talk.language() == "de"
    async with talking(alice(), holder="job-2") as talk:
        talk.hear("Hello", language="en")
        assert await talk.language() == "de"
        assert HEARD_LANGUAGE not in await talk.context()


async def test_a_language_that_is_given_later_overrules_the_recogniser(talking: Talking) -> None:
    """And stays, though it is the same and words of another one are heard, in this call and the next."""
    caller = alice()
    async with talking(caller) as talk:
        talk.hear("Guten Tag", language="de")
        assert await talk.language() == "de"
        caller.attributes["language"] = "de"
        talk.running.room.emit("participant_attributes_changed", {"language": "de"}, caller)
        talk.hear("Hello", language="en")
        assert await talk.language() == "de"
        await crash(talk.running)
    async with talking(alice(), holder="job-2") as talk:
        talk.hear("Hello", language="en")
        assert await talk.language() == "de"


@pytest.mark.parametrize("language", ["multi", "auto", "und", "", "x" * 65])
async def test_what_is_no_language_is_not_taken_for_one(talking: Talking, language: str) -> None:
    """Some recognisers tell their setting instead."""
    async with talking(alice()) as talk:
        talk.hear("Guten Tag", language=language)
        assert await talk.language() is None


async def test_a_language_is_written_once(talking: Talking, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is said in it."""
    written: list[Any] = []
    original = ConversationHandle.update_participant

    async def watched(self: ConversationHandle, identity: str, **fields: Any) -> Any:
        written.append(fields.get("language"))
        return await original(self, identity, **fields)

    async with talking(alice()) as talk:
        await talk.call.flush()
        monkeypatch.setattr(ConversationHandle, "update_participant", watched)
        for _ in range(5):
            talk.hear("Guten Tag", language="de")
            assert await talk.language() == "de"
        assert written == ["de"]


# The last question and its answer


async def test_the_last_question_and_its_answer_are_noted(talking: Talking) -> None:
    """Of whoever asked; a later turn takes the earlier one's place."""
    async with talking(alice(), FakeParticipant("bob")) as talk:
        await talk.ask("Where is it?")
        assert await talk.context() == {LAST_QUERY: "Where is it?", LAST_ANSWER: "On its way."}
        await talk.ask("When?", "bob")
        assert await talk.context("bob") == {LAST_QUERY: "When?", LAST_ANSWER: "On Monday."}
        assert await talk.context() == {LAST_QUERY: "Where is it?", LAST_ANSWER: "On its way."}


async def test_the_answer_is_what_the_tool_led_to(talking: Talking) -> None:
    """And not what was said while it ran."""
    async with talking(alice()) as talk:
        await talk.ask("Look it up.")
        assert await talk.context() == {LAST_QUERY: "Look it up.", LAST_ANSWER: "It is here."}


async def test_what_is_said_unasked_is_no_answer(talking: Talking) -> None:
    """Neither a greeting nor a reminder."""
    async with talking(alice(), greeting="Hello.") as talk:
        await talk.running.hears("Hello.")
        assert await talk.context() == {}
        await talk.ask("Where is it?")
        await talk.session.say("Are you still there?")
        await talk.running.session_is_calm()
        assert (await talk.context())[LAST_ANSWER] == "On its way."


async def test_one_write_for_one_turn(talking: Talking, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tool and two messages in it too."""
    written: list[Any] = []
    original = ConversationHandle.update_participant

    async def watched(self: ConversationHandle, identity: str, **fields: Any) -> Any:
        written.append(identity)
        return await original(self, identity, **fields)

    async with talking(alice()) as talk:
        await talk.call.flush()
        monkeypatch.setattr(ConversationHandle, "update_participant", watched)
        await talk.ask("Look it up.")
        await talk.call.flush()
        assert written == ["alice"]


async def test_words_of_nobody_are_nobodys_question(talking: Talking) -> None:
    """What the application puts in itself."""
    async with talking(alice()) as talk:
        await talk.session.generate_reply(user_input="Where is it?")
        await talk.running.session_is_calm()
        assert await talk.context() == {}


async def test_a_question_that_a_dead_agent_left_is_answered_in_its_place(talking: Talking, world: World) -> None:
    """The answer of the one that follows is the answer to it."""
    asked = user("Where is it?")
    asked.extra["participant"] = {"identity": "alice", "device": None}
    caller = await seed(world, asked)
    async with talking(caller, holder="job-2", back_line="") as talk:
        await talk.running.is_known("On its way.")
        await talk.running.session_is_calm()
        assert await talk.context() == {LAST_QUERY: "Where is it?", LAST_ANSWER: "On its way."}


async def test_a_question_that_is_known_only_later_is_one_all_the_same(talking: Talking, world: World) -> None:
    """The conversation has opened behind the session's start."""
    asked = user("Where is it?")
    asked.extra["participant"] = {"identity": "alice", "device": None}
    caller = await seed(world, asked)
    world.may_open.clear()
    async with talking(caller, holder="job-2", back_line="") as talk:
        assert talk.call.items == ()
        world.may_open.set()
        await talk.running.is_known("On its way.")
        await talk.running.session_is_calm()
        assert await talk.context() == {LAST_QUERY: "Where is it?", LAST_ANSWER: "On its way."}


async def test_a_question_without_an_answer_is_noted_at_the_end(talking: Talking) -> None:
    """And the answer to the one before is none to it."""
    async with talking(alice()) as talk:
        await talk.ask("Where is it?")
        talk.hear("When?")
        asked = user("When?")
        talk.session._conversation_item_added(asked)
        await talk.session.aclose()
        assert await talk.context() == {LAST_QUERY: "When?"}


@pytest.mark.skipif(
    "turn_started_at" not in InputTranscriptionCompleted.__dataclass_fields__,
    reason="before 1.6.8 LiveKit does not tell that such words came before their answer",
)
async def test_words_that_are_transcribed_behind_their_answer_are_what_it_answers(talking: Talking) -> None:
    """As realtime models do it; and the next answer is none to them."""
    async with talking(alice()) as talk:
        await talk.ask("Where is it?")
        for asked, answered in (("When?", "On Monday."), ("Whose?", "It is yours.")):
            talk.hear(asked)
            question = user(asked)
            talk.session._conversation_item_added(assistant(answered))
            talk.session._conversation_item_added(question)
            assert await talk.context() == {LAST_QUERY: asked, LAST_ANSWER: answered}


async def test_words_that_the_conversation_missed_are_told_again(talking: Talking) -> None:
    """It was away, or too much waited; now it answers, and nobody says anything more."""
    async with talking(alice()) as talk:
        await talk.ask("Where is it?")
        await talk.call.flush()
        handle = talk.call._standing.handle
        assert handle is not None
        await handle.update_participant("alice", context={})
        for told in talk.call._telling._on_changes_missed:
            told(False)
        assert await talk.context() == {LAST_QUERY: "Where is it?", LAST_ANSWER: "On its way."}


async def test_a_long_question_is_noted_up_to_a_bound(talking: Talking) -> None:
    """They are a note, and no second history."""
    async with talking(alice()) as talk:
        await talk.ask("電" * 5000)
        noted = (await talk.context())[LAST_QUERY]
        assert noted.startswith("電電")
        assert noted.endswith("…")
        assert len(noted.encode()) <= MOST_NOTED_BYTES


async def test_a_full_context_costs_the_note_and_is_told_once(
    talking: Talking, caplog: pytest.LogCaptureFixture
) -> None:
    """The application's own values are worth more, and the call goes on."""
    async with talking(alice()) as talk:
        await talk.call.flush()
        handle = talk.call._standing.handle
        assert handle is not None
        await handle.update_participant("alice", context={"own": "x" * 16_250})
        await talk.ask("Where is it?")
        await talk.ask("When?")
        assert await talk.context() == {"own": "x" * 16_250}
        assert caplog.text.count("a person's last words are not kept") == 1
        assert "Where is it?" not in caplog.text


async def test_words_that_were_taken_back_are_forgotten(talking: Talking) -> None:
    """For whoever takes something out of the history: it may be a card number, also in a later job."""
    async with talking(alice(), FakeParticipant("bob")) as talk:
        await talk.ask("Where is it?")
        await talk.ask("When?", "bob")
        talk.call.later(lambda handle, lease: forgotten(handle, lease, {"On its way.", "Where is it? ", "When?"}))
        assert await talk.context() == {LAST_QUERY: "Where is it?"}
        assert await talk.context("bob") == {LAST_ANSWER: "On Monday."}


@pytest.mark.parametrize(("role", "left"), [("user", {}), ("assistant", {LAST_QUERY: "Where is it?"})])
async def test_what_is_removed_before_the_turn_is_over_is_not_noted(
    talking: Talking, world: World, role: str, left: dict[str, str]
) -> None:
    """The session has it still, for its own answer; nobody else is to read it."""

    def remove(event: ConversationItemAddedEvent) -> None:
        if event.item.type == "message" and event.item.role == role:
            talk.call.remove(event.item.id)

    async with talking(alice()) as talk:
        talk.session.on("conversation_item_added", remove)
        await talk.ask("Where is it?")
        assert await talk.context() == left
        secret = b"Where is it?" if role == "user" else b"On its way."
        assert secret not in world.store.content


@pytest.mark.parametrize("way", ["edited", "removed"])
async def test_words_that_are_taken_out_are_forgotten_though_the_conversation_was_away(
    talking: Talking, world: World, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """What waits is dropped then; this is asked for again when it answers, and then nothing of it is stored."""
    async with talking(alice()) as talk:
        await talk.ask("Hello?")
        await talk.ask("Where is it?")
        assert (await talk.context())[LAST_QUERY] == "Where is it?"
        asked = next(item for item in talk.session.history.messages() if item.text_content == "Where is it?")
        if way == "removed":
            talk.call.remove(asked.id)
        else:
            history = talk.session.history.items
            history[:] = [item for item in history if item is not asked]
            done = FunctionToolsExecutedEvent(function_calls=[], function_call_outputs=[])
            talk.session.emit("function_tools_executed", done)
        monkeypatch.setattr("agent_worker.tenure.backlog.MAX_OPERATIONS", 20)
        for number in range(25):
            talk.call.later(lambda handle, lease, name=f"n{number}": handle.set_attributes({name: 1}, lease=lease))
        assert talk.call.failures.counts["changes"] == 1
        async with asyncio.timeout(5):
            await until(lambda: LAST_QUERY not in talk.call.participants["alice"].context)
            await until(lambda: b"Where is it?" not in world.store.content)


@pytest.mark.parametrize("text", ["", "short", "x" * MOST_NOTED_BYTES, "é" * 2000, "a" + "😀" * 500])
def test_bounded_text_is_cut_between_characters(text: str) -> None:
    """Cut between characters; nothing is added to what fits."""
    cut = bounded(text)
    assert len(cut.encode()) <= MOST_NOTED_BYTES
    assert cut == text or (cut.endswith("…") and text.startswith(cut[:-1]))
