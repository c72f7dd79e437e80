"""Calls whose agent waits for tasks: what the caller hears, and who answers, when the agent died meanwhile."""

import asyncio
from collections.abc import Callable

from livekit.agents import Agent, AgentTask, UserInputTranscribedEvent, function_tool

from agent_worker.offline import OfflineServer
from agent_worker.offline.script import ChatRequest, Reply, RequestedCall
from agent_worker.session.had_the_word import ACTIVE_AGENT, TASKS
from agent_worker.session.notes import TRANSCRIPT
from tests.support.fakes import until
from tests.support.sessions.answering import BACK, Answer, Running, crash, texts
from tests.support.sessions.fake_conversation import FunctionScript
from tests.support.sessions.fake_room import FakeParticipant, FakeRoom

WELCOME, NAME, THANKS, TOWN, END = "Welcome.", "Your name?", "Thanks.", "Your town?", "That was all."


class Asking(AgentTask[str]):
    """Asks for something."""

    def __init__(self, question: str, may_ask: asyncio.Event | None = None) -> None:
        """`may_ask`: until then it is silent."""
        super().__init__(instructions=question)
        self._question, self._may_ask = question, may_ask

    async def on_enter(self) -> None:
        """Ask."""
        if self._may_ask is not None:
            await self._may_ask.wait()
        await self.session.say(self._question)

    @function_tool
    async def take(self) -> None:
        """Take what is said."""
        self.complete("taken")


class Form(Agent):
    """Asks for two things, with words of its own before, between and behind."""

    def __init__(self, *, may_thank: asyncio.Event | None = None, may_ask: asyncio.Event | None = None) -> None:
        """Until `may_thank` it does not say that it has the first, until `may_ask` it does not ask for the second."""
        super().__init__(instructions="form")
        self._may_thank, self._may_ask = may_thank, may_ask
        self.answers: list[str] = []

    def release(self) -> None:
        """Wait for nothing more: LiveKit waits for `on_enter` before it closes a session."""
        for one in (self._may_thank, self._may_ask):
            if one is not None:
                one.set()

    async def on_enter(self) -> None:
        """Ask."""
        await self.session.say(WELCOME)
        self.answers.append(await Asking(NAME))
        if self._may_thank is not None:
            await self._may_thank.wait()
        await self.session.say(THANKS)
        self.answers.append(await Asking(TOWN, self._may_ask))
        await self.session.say(END)


def taking(request: ChatRequest) -> Reply:
    """A model that takes everything that is said, where it can, and else tells whose tools it has."""
    last = request.messages[-1]
    if last["role"] == "user" and last["content"].startswith("take it") and "take" in request.tools:
        return Reply("", (RequestedCall(f"call_{len(request.messages)}", "take", "{}"),))
    return Reply(f"I am {request.messages[0]['content']}")


async def said(running: Running, text: str = "take it") -> None:
    """A turn of the caller's, from a task that is not the entrypoint's."""

    async def say() -> None:
        running.session.generate_reply(user_input=text)

    await asyncio.create_task(say())


async def killed(
    answer: Answer, server: OfflineServer, form: Form, is_there: Callable[[Running], bool]
) -> FakeParticipant:
    """A first job, which ends where it is there; returns its caller."""
    alice = FakeParticipant("alice")
    async with answer(FakeRoom(alice), agent=form, on=server, greeting="") as first:
        await first.is_known(NAME)
        await first.session_is_calm()
        await said(first)
        await until(lambda: is_there(first))
        await crash(first)
        form.release()
    return alice


def _is_at(running: Running, question: str) -> bool:
    noted = (running.call.attributes.get(TASKS) or {}).get("running") or []
    return bool(noted) and question in running.heard.lines and noted[-1]["has_entered"]


async def test_the_running_task_goes_on_silently(answer: Answer) -> None:
    """Its question was heard: the caller hears that the agent is back, and nothing else, until there is an answer."""
    async with OfflineServer(FunctionScript(taking)) as server:
        alice = await killed(answer, server, Form(), lambda first: _is_at(first, TOWN))
        form = Form()
        async with answer(FakeRoom(alice), "job-2", agent=form, on=server, greeting="") as second:
            await second.hears(BACK)
            assert form.answers == ["taken"]
            await said(second, "What?")
            await second.hears(BACK, f"I am {TOWN}")
            await said(second)
            await second.hears(BACK, f"I am {TOWN}", END)
            assert form.answers == ["taken", "taken"]


async def test_what_was_heard_last_is_answered_by_the_task(answer: Answer) -> None:
    """Words that were in no message yet are for the task; and what its agent says behind it is new, and heard."""

    def is_there(first: Running) -> bool:
        if _is_at(first, TOWN) and TRANSCRIPT not in first.call.attributes:
            first.session.emit(
                "user_input_transcribed", UserInputTranscribedEvent(transcript="take it, too", is_final=True)
            )
        return TRANSCRIPT in first.call.attributes

    async with OfflineServer(FunctionScript(taking)) as server:
        alice = await killed(answer, server, Form(), is_there)
        form = Form()
        async with answer(FakeRoom(alice), "job-2", agent=form, on=server, greeting="") as second:
            await second.hears(BACK, END)
            assert form.answers == ["taken", "taken"]


async def test_a_task_whose_question_was_not_heard_asks_it_again(answer: Answer) -> None:
    """The agent died before the task had spoken: its first words are the first that are heard."""
    async with OfflineServer(FunctionScript(taking)) as server:
        form = Form(may_ask=asyncio.Event())
        alice = await killed(answer, server, form, lambda first: THANKS in texts(first.call.items) and _runs(first))
        async with answer(FakeRoom(alice), "job-2", agent=Form(), on=server, greeting="") as second:
            await second.hears(TOWN)


def _runs(running: Running) -> bool:
    return bool((running.call.attributes.get(TASKS) or {}).get("running"))


async def test_words_between_two_tasks_that_were_not_heard(answer: Answer) -> None:
    """The first task was over, and nothing was said since: the agent goes on behind it."""
    async with OfflineServer(FunctionScript(taking)) as server:
        form = Form(may_thank=asyncio.Event())
        alice = await killed(answer, server, form, lambda first: not _runs(first) and TASKS in first.call.attributes)
        form = Form()
        async with answer(FakeRoom(alice), "job-2", agent=form, on=server, greeting="", back_line="") as second:
            await second.hears(THANKS, TOWN)
            assert form.answers == ["taken"]


async def test_an_agent_whose_tasks_are_over_and_that_was_not_heard_since(answer: Answer) -> None:
    """Its `on_enter` had returned: it runs once more, the tasks are over at once, and its last words are heard."""

    class Quick(Form):
        async def on_enter(self) -> None:
            """Do not wait for the last words."""
            self.answers.append(await Asking(NAME))
            self.speaking = asyncio.create_task(self.end())

        async def end(self) -> None:
            """Say them."""
            if self._may_thank is not None:
                await self._may_thank.wait()
            await self.session.say(END)

    def is_there(first: Running) -> bool:
        return bool((first.call.attributes.get(ACTIVE_AGENT) or {}).get("has_entered"))

    async with OfflineServer(FunctionScript(taking)) as server:
        alice = await killed(answer, server, Quick(may_thank=asyncio.Event()), is_there)
        form = Quick()
        async with answer(FakeRoom(alice), "job-2", agent=form, on=server, greeting="", back_line="") as second:
            await second.hears(END)
            assert form.answers == ["taken"]
