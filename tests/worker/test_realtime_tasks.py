"""An agent with a realtime model whose `on_enter` waits for tasks: after a crash the running one goes on, by voice."""

from collections.abc import AsyncIterator

import aiohttp
import pytest_asyncio
from livekit.agents import Agent, AgentTask, function_tool
from livekit.agents.llm import RealtimeModel
from livekit.plugins import openai

from agent_worker.offline import OfflineServer
from agent_worker.offline.script import ChatRequest, Reply, RequestedCall
from agent_worker.session.had_the_word import TASKS
from tests.unit.fakes import until
from tests.worker.answering import BACK, Answer, Running, crash, texts
from tests.worker.fakes import FunctionScript
from tests.worker.fakes_call import FakeParticipant, FakeRoom
from tests.worker.realtime_calls import Microphone
from tests.worker.test_speaking import Loudspeaker

NAME, TOWN, THANKS = "Your name", "Your town", "Thank you"
ASK = "Say exactly this, and nothing else: "


class Asking(AgentTask[str]):
    """Asks for something, by voice."""

    def __init__(self, question: str, model: RealtimeModel) -> None:
        """`model`: the agent's."""
        super().__init__(instructions=f"You ask: {question}", llm=model)
        self._question = question

    async def on_enter(self) -> None:
        """Ask."""
        await self.session.generate_reply(instructions=ASK + self._question)

    @function_tool
    async def take(self, answer: str) -> None:
        """Take what is said.

        Args:
            answer: What was said.
        """
        self.complete(answer)


class Form(Agent):
    """Asks for two things, one behind the other."""

    def __init__(self, server: OfflineServer, http: aiohttp.ClientSession) -> None:
        """`server`: where the model is."""
        model = openai.realtime.RealtimeModel(base_url=server.base_url, api_key="any", http_session=http)
        super().__init__(instructions="You fill in a form.", llm=model)
        self._model = model
        self.answers: list[str] = []

    async def on_enter(self) -> None:
        """Ask."""
        self.answers.append(await Asking(NAME, self._model))
        self.answers.append(await Asking(TOWN, self._model))
        await self.session.generate_reply(instructions=ASK + THANKS)


def _takes(request: ChatRequest) -> Reply:
    instructions, last = str(request.messages[0]["content"]), request.messages[-1]
    if ASK in instructions:
        return Reply(instructions.rpartition(ASK)[2].splitlines()[0])
    if last["role"] == "user" and "take" in request.tools:
        return Reply(
            calls=(RequestedCall(f"call_{len(request.messages)}", "take", f'{{"answer": "{last["content"]}"}}'),)
        )
    return Reply("I have nothing to say")


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """The models' connections."""
    async with aiohttp.ClientSession() as session:
        yield session


def _is_at_the_second(running: Running) -> bool:
    noted = (running.call.attributes.get(TASKS) or {}).get("running") or []
    return TOWN in texts(running.call.items) and bool(noted) and noted[-1]["has_entered"]


async def test_the_running_task_goes_on(answer: Answer, http: aiohttp.ClientSession) -> None:
    """The first one's result is there, the second one is not asked again, and takes the next words."""
    alice, microphone = FakeParticipant("alice"), Microphone()
    async with OfflineServer(FunctionScript(_takes)) as models:
        form = Form(models, http)
        async with answer(
            FakeRoom(alice), agent=form, greeting="", output=Loudspeaker(), microphone=microphone
        ) as running:
            await running.is_known(NAME)
            microphone.say("Ada")
            await until(lambda: _is_at_the_second(running))
            assert form.answers == ["Ada"]
            await crash(running)
        form, microphone = Form(models, http), Microphone()
        async with answer(
            FakeRoom(alice), "job-2", agent=form, greeting="", output=Loudspeaker(), microphone=microphone
        ) as running:
            await running.is_known(BACK)
            assert form.answers == ["Ada"]
            assert isinstance(running.session.current_agent, Asking)
            microphone.say("Kiel")
            await running.is_known(THANKS)
            assert form.answers == ["Ada", "Kiel"]
            said = texts(running.call.items)
            assert [said.count(one) for one in (NAME, TOWN, THANKS, BACK)] == [1, 1, 1, 1]
