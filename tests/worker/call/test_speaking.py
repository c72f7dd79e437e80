"""A line that the caller is owed is spoken by whoever can; where nobody can, the answer comes all the same."""

from collections.abc import AsyncIterable, AsyncIterator

import pytest
from livekit import rtc
from livekit.agents import Agent, ModelSettings
from livekit.agents.llm import AgentHandoff

from agent_worker.offline import OfflineServer
from agent_worker.offline.script import Reply
from agent_worker.session.notes import TRANSCRIPT
from tests.support.fakes import until
from tests.support.sessions.answering import BACK, Answer, seed, texts, user
from tests.support.sessions.fakes_call import FakeParticipant, FakeRoom, World
from tests.support.sessions.fakes_realtime import FakeRealtime
from tests.support.sessions.fakes_room import FunctionScript
from tests.support.sessions.realtime_calls import Loudspeaker

ANSWER = "It is on its way."


class OwnVoice(Agent):
    """An agent that makes its own sound: LiveKit refuses it a line, and speaks its answers."""

    def __init__(self) -> None:
        """As an application has it."""
        super().__init__(instructions="x")

    async def tts_node(self, text: AsyncIterable[str], model_settings: ModelSettings) -> AsyncIterator[rtc.AudioFrame]:
        """A hundredth of a second of silence for each part."""
        assert model_settings is not None
        async for _part in text:
            yield rtc.AudioFrame(bytes(480), 24_000, 1, 240)


def spoken(model: FakeRealtime) -> Agent:
    """An agent that speaks with a model of its own."""
    return Agent(instructions="You sell lamps.", llm=model)


class Late(Agent):
    """Opens its part of the call: by itself, or by a model."""

    def __init__(self, line: str) -> None:
        """`line`: what it says; empty: what a model says."""
        super().__init__(instructions="x")
        self._line = line

    async def on_enter(self) -> None:
        """Open it."""
        if self._line:
            await self.session.say(self._line)
        else:
            await self.session.generate_reply()


@pytest.mark.parametrize("line", ["The desk is here.", ""])
async def test_who_opens_a_part_of_the_call_answers_too(answer: Answer, world: World, line: str) -> None:
    """What was asked of the agent before it is answered once: by the model that opens, or behind the line."""
    alice = await seed(world, user("Where is it?"), AgentHandoff(new_agent_id="late"))
    script = FunctionScript(lambda _request: Reply(ANSWER))
    async with (
        OfflineServer(script) as server,
        answer(FakeRoom(alice), "job-2", agent=Late(line), on=server, greeting="") as running,
    ):
        await running.hears(*([line] if line else []), ANSWER)
        assert len(server.requests) == 1


async def test_without_a_voice_the_line_is_left_out_and_the_answer_comes(answer: Answer, world: World) -> None:
    """The line is left out; today's error was the whole resumption's."""
    alice = await seed(world, user("Where is it?"))
    script = FunctionScript(lambda _request: Reply(ANSWER))
    async with (
        OfflineServer(script) as server,
        answer(FakeRoom(alice), "job-2", agent=OwnVoice(), on=server, output=Loudspeaker()) as running,
    ):
        await until(lambda: len(server.requests) == 1)
        await running.is_known(ANSWER)
        assert running.call.failures.counts.get("resume") is None


async def test_a_model_that_speaks_says_the_line_and_answers(answer: Answer, world: World) -> None:
    """In one reply: with two, the model would take its own line for the answer."""
    noted = {TRANSCRIPT: {"text": "Where is it?", "language": "en", "at": 1.0}}
    alice = await seed(world, attributes=noted)
    model = FakeRealtime(f"{BACK} {ANSWER}")
    async with answer(FakeRoom(alice), "job-2", agent=spoken(model), greeting="", output=Loudspeaker()) as running:
        await until(lambda: texts(running.call.items)[:1] == ["Where is it?"])
        [told] = model.asked
        assert told is not None
        assert BACK in told
        assert "answer" in told


async def test_a_model_that_speaks_says_the_line_alone(answer: Answer, world: World) -> None:
    """Where nothing is unanswered it is asked for nothing else."""
    alice = await seed(world)
    model = FakeRealtime(BACK)
    async with answer(FakeRoom(alice), "job-2", agent=spoken(model), greeting="", output=Loudspeaker()) as running:
        await until(lambda: len(model.asked) == 1)
        assert "nothing else" in str(model.asked[0])
        await running.session_is_calm()
        assert len(model.asked) == 1


async def test_a_greeting_is_spoken_by_the_model(answer: Answer) -> None:
    """Ours, where the application wants one and has no voice for it."""
    model = FakeRealtime("Hello.")
    room = FakeRoom()
    async with answer(room, agent=spoken(model), greeting="Good day.", output=Loudspeaker()):
        room.enter(FakeParticipant("alice"))
        await until(lambda: len(model.asked) == 1)
        assert "Good day." in str(model.asked[0])
