"""What an agent says when it begins is said once in a call: by the first agent, and not by those that follow it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from livekit.agents import Agent, AgentSession, AgentTask, function_tool
from livekit.agents.llm import AgentHandoff, ChatMessage

from agent_worker.call.opening_lines import has_begun
from agent_worker.offline import OfflineServer
from agent_worker.offline.script import ChatRequest, Reply, RequestedCall
from agent_worker.session.had_the_word import ACTIVE_AGENT
from agent_worker.session.notes import TRANSCRIPT
from agent_worker.session.serialise import to_fields
from conversation_actors import item_from_dict
from tests.support.fakes import until
from tests.support.sessions.answering import BACK, Answer, Running, assistant, crash, seed, texts, user
from tests.support.sessions.fakes_call import FakeParticipant, FakeRoom, World
from tests.support.sessions.fakes_room import FunctionScript

WELCOME, HELLO = "Welcome to Fernhill.", "Hello from the model."
Enter = Callable[[AgentSession[Any]], Awaitable[None]]


class Opening(Agent):
    """Does something when it gets the word."""

    def __init__(self, enter: Enter) -> None:
        """`enter`: what it does."""
        super().__init__(instructions="x")
        self._enter = enter
        self.entered = 0

    async def on_enter(self) -> None:
        """Do it."""
        await self._enter(self.session)
        self.entered += 1


async def say(session: AgentSession[Any]) -> None:
    """A line, awaited to its end."""
    await session.say(WELCOME)


async def ask(session: AgentSession[Any]) -> None:
    """A greeting by the model, awaited to its end."""
    handle = session.generate_reply(instructions="Greet the caller.")
    await handle.wait_for_playout()


async def beside(session: AgentSession[Any]) -> None:
    """A line from a task of its own."""
    await asyncio.create_task(say(session))


def hello(_request: ChatRequest) -> Reply:
    """The model's only answer."""
    return Reply(HELLO)


@pytest.mark.parametrize("enter", [say, ask, beside])
async def test_what_on_enter_says_is_said_once(answer: Answer, enter: Enter) -> None:
    """A successor does not enter again what was entered: nothing is heard, nor asked of a model, nor in the history."""
    alice = FakeParticipant("alice")
    async with OfflineServer(FunctionScript(hello)) as server:
        async with answer(FakeRoom(alice), agent=Opening(enter), on=server, greeting="") as first:
            line = HELLO if enter is ask else WELCOME
            await first.hears(line)
            await first.is_known(line)
            await crash(first)
        asked = len(server.requests)
        agent = Opening(enter)
        async with answer(FakeRoom(alice), "job-2", agent=agent, on=server, greeting="") as second:
            await second.hears(BACK)
            assert agent.entered == 0
            assert texts(second.call.items) == [line]
        assert len(server.requests) == asked


@pytest.mark.parametrize("enter", [say, ask, beside])
async def test_what_an_agent_said_that_had_not_entered_yet_is_said_once(
    answer: Answer, world: World, enter: Enter
) -> None:
    """A successor's `on_enter` runs, and its lines are neither heard nor asked of a model, nor in the history."""
    alice = await seed(world, assistant(WELCOME))
    agent = Opening(enter)
    async with OfflineServer(FunctionScript(hello)) as server:
        async with answer(FakeRoom(alice), "job-2", agent=agent, on=server, greeting="") as running:
            await running.hears(BACK)
            assert agent.entered == 1
            assert texts(running.call.items) == [WELCOME]
        assert not server.requests


@pytest.mark.parametrize("enter", [say, ask, beside])
async def test_an_opening_that_was_not_said_yet_is_said_by_the_successor(
    answer: Answer, world: World, enter: Enter
) -> None:
    """The agent died before its first word: its successor opens the call, and says nothing of having been away."""
    alice = await seed(world)
    async with (
        OfflineServer(FunctionScript(hello)) as server,
        answer(FakeRoom(alice), "job-2", agent=Opening(enter), on=server, greeting="") as running,
    ):
        await running.hears(HELLO if enter is ask else WELCOME)


async def test_an_entrypoints_own_greeting_is_said_once(answer: Answer) -> None:
    """It stands behind the session's start, in the task that attached the session."""
    alice = FakeParticipant("alice")
    async with OfflineServer(FunctionScript(hello)) as server:
        async with answer(FakeRoom(alice), on=server, greeting="") as first:
            await first.session.generate_reply(instructions="Greet the caller.")
            await first.is_known(HELLO)
            await crash(first)
        async with answer(FakeRoom(alice), "job-2", on=server, greeting="") as second:
            handle = await second.session.generate_reply(instructions="Greet the caller.")
            assert handle.done()
            await second.session.say(WELCOME)
            await second.hears(BACK)
        assert len(server.requests) == 1


async def test_an_opening_by_words_for_the_model_is_not_repeated(answer: Answer) -> None:
    """Some greet by putting words into the caller's mouth: the same words are not put there again, others are."""
    alice = FakeParticipant("alice")
    async with OfflineServer(FunctionScript(hello)) as server:
        async with answer(FakeRoom(alice), on=server, greeting="") as first:
            await first.session.generate_reply(user_input="Greet me")
            await first.is_known(HELLO)
            await crash(first)
        async with answer(FakeRoom(alice), "job-2", on=server, greeting="", back_line="") as second:
            await second.session.generate_reply(user_input="Greet me")
            await second.session.generate_reply(user_input="Where is my order?")
            await until(lambda: texts(second.call.items) == ["Greet me", HELLO, "Where is my order?", HELLO])


async def test_after_the_first_turn_everything_is_said(answer: Answer, world: World) -> None:
    """What the entrypoint says later in the call is no opening."""
    alice = await seed(world, assistant(WELCOME))
    async with (
        OfflineServer(FunctionScript(hello)) as server,
        answer(FakeRoom(alice), "job-2", on=server, greeting="", back_line="") as running,
    ):
        await running.session.say("Too early.")
        await asyncio.create_task(typed(running, "Hello?"))
        await running.session.say("Goodbye.")
        await running.hears(HELLO, "Goodbye.")


async def typed(running: Running, text: str) -> None:
    """A turn of the caller's, from a task that is not the entrypoint's."""
    await running.session.generate_reply(user_input=text)


async def test_another_agent_opens_its_part_of_the_call(answer: Answer, world: World) -> None:
    """A handover in the successor's own life is one as ever."""
    alice = await seed(world, assistant("Hello."))
    agent = Opening(ask)
    async with (
        OfflineServer(FunctionScript(hello)) as server,
        answer(FakeRoom(alice), "job-2", agent=agent, on=server, greeting="", back_line="") as running,
    ):
        await running.session_is_calm()
        assert running.heard.lines == []
        running.session.update_agent(Opening(say))
        await running.hears(WELCOME)


async def test_a_task_that_on_enter_waits_for_speaks(answer: Answer, world: World) -> None:
    """It gets the word in this job, and its caller has to be asked what it is there to learn."""
    done = asyncio.Event()

    class Consent(AgentTask[bool]):
        def __init__(self) -> None:
            super().__init__(instructions="x")

        async def on_enter(self) -> None:
            await self.session.say("May I record this?")
            done.set()
            self.complete(True)

    async def consent(_session: AgentSession[Any]) -> None:
        await Consent()

    alice = await seed(world, assistant("Hello."))
    async with (
        OfflineServer(FunctionScript(hello)) as server,
        answer(FakeRoom(alice), "job-2", agent=Opening(consent), on=server, greeting="", back_line="") as running,
    ):
        await asyncio.wait_for(done.wait(), 10)
        await until(lambda: running.heard.lines == ["May I record this?"])


class Consent(AgentTask[bool]):
    """Asks for something, and is done when a tool is called."""

    def __init__(self, question: str = "May I record this?") -> None:
        """`question`: what it asks."""
        super().__init__(instructions="consent")
        self._question = question

    async def on_enter(self) -> None:
        """Ask."""
        await self.session.say(self._question)

    @function_tool
    async def given(self) -> None:
        """Note the consent."""
        self.complete(True)


class Service(Agent):
    """Asks for something before anything else, as LiveKit's documentation has it."""

    def __init__(self, *questions: str) -> None:
        """`questions`: one after another."""
        super().__init__(instructions="service")
        self._questions = questions

    async def on_enter(self) -> None:
        """Ask, and go on."""
        await self.session.say(WELCOME)
        for question in self._questions:
            await Consent(question)
        await self.session.say("How may I help you?")

    @function_tool
    async def look_up(self) -> str:
        """Look something up."""
        return "x"


def consenting(request: ChatRequest) -> Reply:
    """A model that takes a yes for a consent, and else tells whose tools it has."""
    last = request.messages[-1]
    if last["role"] == "user" and last["content"] == "yes" and "given" in request.tools:
        return Reply("", (RequestedCall(f"call_{len(request.messages)}", "given", "{}"),))
    return Reply(f"I have {', '.join(sorted(request.tools))}.")


async def test_a_task_that_on_enter_waited_for_is_not_begun_again(answer: Answer) -> None:
    """It was done, and `on_enter` over: the caller is asked nothing twice, and talks with the agent itself."""
    alice = FakeParticipant("alice")
    async with OfflineServer(FunctionScript(consenting)) as server:
        agent = Service("May I record this?")
        async with answer(FakeRoom(alice), agent=agent, on=server, greeting="") as first:
            await until(lambda: "May I record this?" in first.heard.lines)
            await first.session_is_calm()
            first.session.generate_reply(user_input="yes")
            await first.is_known("How may I help you?")
            await first.session_is_calm()
            await crash(first)
        agent = Service("May I record this?")
        async with answer(FakeRoom(alice), "job-2", agent=agent, on=server, greeting="") as second:
            await second.hears(BACK)
            assert second.session.current_agent is agent
            second.session.generate_reply(user_input="Where is my order?")
            await second.hears(BACK, "I have look_up.")


async def test_an_agent_that_died_while_it_entered_enters_again(answer: Answer) -> None:
    """It had said its first line, and a task has come and gone: the next one goes on, and nothing is said twice."""
    alice = FakeParticipant("alice")
    async with OfflineServer(FunctionScript(consenting)) as server:
        agent = Service("May I record this?", "And keep it?")
        async with answer(FakeRoom(alice), agent=agent, on=server, greeting="") as first:
            await until(lambda: "May I record this?" in first.heard.lines)
            await first.session_is_calm()
            first.session.generate_reply(user_input="yes")
            await first.is_known("And keep it?")
            await first.session_is_calm()
            await crash(first)
        agent = Service("May I record this?", "And keep it?")
        async with answer(FakeRoom(alice), "job-2", agent=agent, on=server, greeting="") as second:
            await second.hears(BACK)
            assert isinstance(second.session.current_agent, Consent)
            await asyncio.create_task(typed(second, "yes"))
            await second.hears(BACK, "How may I help you?")
            assert not isinstance(second.session.current_agent, AgentTask)


class Booking(Agent):
    """Has a tool that asks for something, and goes on working when it was told."""

    def __init__(self) -> None:
        """As an application has it."""
        super().__init__(instructions="booking")
        self.may_end = asyncio.Event()

    async def on_enter(self) -> None:
        """Greet."""
        await self.session.say(WELCOME)

    @function_tool
    async def book(self) -> str:
        """Book a room."""
        await Told()
        await self.may_end.wait()
        return "booked"


class Told(AgentTask[str]):
    """Done at once."""

    def __init__(self) -> None:
        """As an application has it."""
        super().__init__(instructions="told")

    async def on_enter(self) -> None:
        """Learn it."""
        self.complete("42")


def booking(request: ChatRequest) -> Reply:
    """A model that books when it is asked to."""
    last = request.messages[-1]
    if last["role"] == "user" and "book" in request.tools:
        return Reply("", (RequestedCall("call_1", "book", "{}"),))
    return Reply(f"An answer to the {last['role']}.")


async def test_who_has_the_word_again_behind_a_task_does_not_open_the_call_again(answer: Answer) -> None:
    """The end of a task is a handoff, and no beginning; what its tool was doing is answered."""
    alice = FakeParticipant("alice")
    async with OfflineServer(FunctionScript(booking)) as server:
        agent = Booking()
        async with answer(FakeRoom(alice), agent=agent, on=server, greeting="") as first:
            await first.hears(WELCOME)
            first.session.generate_reply(user_input="Book me a room.")
            await until(lambda: [item.type for item in first.call.items].count("agent_handoff") == 3)
            await crash(first)
            agent.may_end.set()
        async with answer(FakeRoom(alice), "job-2", agent=Booking(), on=server, greeting="") as second:
            await second.hears(BACK, "An answer to the tool.")


async def test_an_agent_whose_first_words_were_lost_says_them(answer: Answer, world: World) -> None:
    """Its `on_enter` had returned, and nobody had heard anything yet."""
    noted = {"agent_id": "opening", "class": "x:Opening", "is_first": True, "has_entered": True, "since": "h"}
    alice = await seed(world, AgentHandoff(id="h", new_agent_id="opening"), attributes={ACTIVE_AGENT: noted})
    async with answer(FakeRoom(alice), "job-2", agent=Opening(say), greeting="") as running:
        await running.hears(WELCOME)


async def test_an_agent_that_gets_the_word_back_in_this_job_enters(answer: Answer) -> None:
    """It is the start of the session that is no beginning, and not what comes later."""
    alice = FakeParticipant("alice")
    async with answer(FakeRoom(alice), agent=Opening(say), greeting="") as first:
        await first.hears(WELCOME)
        await first.is_known(WELCOME)
        await crash(first)
    agent = Opening(say)
    async with answer(FakeRoom(alice), "job-2", agent=agent, greeting="", back_line="") as second:
        await second.session_is_calm()
        second.session.update_agent(Desk())
        await second.hears("The desk is here.")
        second.session.update_agent(agent)
        await second.hears("The desk is here.", WELCOME)


async def test_what_on_enter_has_begun_speaks_when_it_has_returned(answer: Answer, world: World) -> None:
    """A reminder is no opening, and does not wait for the caller to speak."""
    alice = await seed(world, assistant(WELCOME))
    reminding: list[asyncio.Task[None]] = []

    async def remind(session: AgentSession[Any]) -> None:
        await session.say(WELCOME)
        reminding.append(asyncio.create_task(later(session)))

    async def later(session: AgentSession[Any]) -> None:
        await until(lambda: agent.entered == 1)
        await session.say("Are you still there?")

    agent = Opening(remind)
    async with answer(FakeRoom(alice), "job-2", agent=agent, greeting="", back_line="") as running:
        await running.hears("Are you still there?")


async def test_what_the_entrypoint_says_later_is_heard(answer: Answer, world: World) -> None:
    """A moment after the start it opens nothing any more, though the caller has been silent."""
    alice = await seed(world, assistant(WELCOME))
    world.timing = replace(world.timing, entrypoint=0.2)
    async with answer(FakeRoom(alice), "job-2", greeting="", back_line="") as running:
        await running.session.say(WELCOME)
        loop = asyncio.get_running_loop()
        until_then = loop.time() + 0.2
        await until(lambda: loop.time() > until_then)
        await running.session.say("Your table is ready.")
        await running.hears("Your table is ready.")


class Desk(Agent):
    """Takes over, and says so."""

    def __init__(self) -> None:
        """As an application has it."""
        super().__init__(instructions="desk")

    async def on_enter(self) -> None:
        """Say so."""
        await self.session.say("The desk is here.")


async def test_the_agent_that_had_the_word_does_not_open_its_part_again(answer: Answer) -> None:
    """Nor does the one that the application starts with, which has no word any more."""
    alice = FakeParticipant("alice")
    async with answer(FakeRoom(alice), agent=Opening(say), greeting="") as first:
        await first.hears(WELCOME)
        first.session.update_agent(Desk())
        await first.hears(WELCOME, "The desk is here.")
        await first.is_known("The desk is here.")
        await crash(first)
    async with answer(FakeRoom(alice), "job-2", agent=Opening(say), greeting="") as second:
        await second.hears(BACK)
        assert isinstance(second.session.current_agent, Desk)


async def test_an_agent_that_had_just_got_the_word_opens_its_part(answer: Answer, world: World) -> None:
    """And the entrypoint, which had opened the call, does not open it again."""
    alice = await seed(world, handoff("opening"), assistant(WELCOME), handoff("desk"))
    async with answer(FakeRoom(alice), "job-2", agent=Desk(), greeting="") as running:
        await running.session.say(WELCOME)
        await running.hears("The desk is here.")


async def test_the_agent_that_had_the_word_has_it_when_the_conversation_opens_late(
    answer: Answer, world: World
) -> None:
    """The session begins with the application's agent, and hands over without a word."""
    alice = FakeParticipant("alice")
    async with answer(FakeRoom(alice), agent=Opening(say), greeting="") as first:
        await first.hears(WELCOME)
        first.session.update_agent(Desk())
        await first.is_known("The desk is here.")
        await crash(first)
    world.may_open.clear()
    async with answer(FakeRoom(alice), "job-2", agent=Opening(nothing), greeting="", back_line="") as second:
        await second.session_is_calm()
        assert isinstance(second.session.current_agent, Opening)
        world.may_open.set()
        await until(lambda: isinstance(second.session.current_agent, Desk))
        await second.session_is_calm()
        assert second.heard.lines == []
        await until(lambda: "The desk is here." in [item.text_content for item in second.session.history.messages()])


async def nothing(_session: AgentSession[Any]) -> None:
    """Say nothing."""


async def test_the_session_of_a_first_job_is_left_alone(answer: Answer) -> None:
    """Nothing stands between its agent and its session."""
    async with answer(FakeRoom(), agent=Opening(say), greeting="") as running:
        await running.hears(WELCOME)
        assert "say" not in vars(running.session)


# What counts as having begun


def handoff(to: str) -> AgentHandoff:
    """The word goes to another agent."""
    return AgentHandoff(new_agent_id=to)


@pytest.mark.parametrize(
    ("items", "words", "begun"),
    [
        ([], None, False),
        ([handoff("a")], None, False),
        ([handoff("a"), assistant("Hello.")], None, True),
        ([handoff("a"), user("Hello?")], None, True),
        ([handoff("a"), assistant("Hello."), handoff("b")], None, False),
        ([assistant("Hello."), handoff("b"), assistant("I am B.")], None, True),
        ([handoff("a"), ChatMessage(role="system", content=["pinned"])], None, False),
        ([handoff("a")], {"text": "Hello?"}, True),
        ([handoff("a")], {"text": "Hello?", "may_be_skipped": True}, False),
    ],
)
def test_an_agent_has_begun_when_something_was_said_since_it_got_the_word(
    items: list[Any], words: Any, *, begun: bool
) -> None:
    """Said or was told something, since it got the word."""
    assert has_begun([item_from_dict(to_fields(item)) for item in items], {TRANSCRIPT: words}) == begun


@pytest.mark.parametrize(
    ("since", "begun"), [("of a", True), ("to the task", True), ("back", False), ("cut off", True), (None, False)]
)
def test_a_tasks_words_count_for_the_agent_that_waits_for_it(since: str | None, *, begun: bool) -> None:
    """What a task says is said in the name of who waits for it, and its end is no handoff; what is cut off was said."""
    items: list[Any] = [
        AgentHandoff(id="of a", new_agent_id="a"),
        AgentHandoff(id="to the task", new_agent_id="task"),
        assistant("May I?"),
        AgentHandoff(id="back", new_agent_id="a"),
    ]
    assert has_begun([item_from_dict(to_fields(item)) for item in items], {}, since=since) == begun
