"""A conversation that opens late in its call, or is lost in the middle of it: the talk goes on and is kept."""

import asyncio
import time

import pytest
from livekit.agents import (
    Agent,
    RunContext,
    function_tool,
)
from livekit.agents.llm import FunctionCall

from agent_worker.offline import OfflineServer
from agent_worker.offline.script import ChatRequest, Reply, RequestedCall
from agent_worker.offline.transcript import Transcript
from agent_worker.session.recorder import belongs_in_history
from tests.support.fakes import turns, until
from tests.support.sessions.answering import (
    BACK,
    GREETING,
    LATE,
    Answer,
    assistant,
    crash,
    seed,
    texts,
    user,
    vanish,
)
from tests.support.sessions.fake_conversation import FunctionScript
from tests.support.sessions.fake_room import FakeParticipant, FakeRoom
from tests.support.sessions.fakes_call import World


class Slow(Agent):
    """Has a tool that ends when the test says so."""

    def __init__(self) -> None:
        """Search until released."""
        super().__init__(instructions="x")
        self.release = asyncio.Event()

    @function_tool
    async def search(self, context: RunContext[None]) -> str:
        """Search for long."""
        assert context is not None
        await self.release.wait()
        return "found"


def search_once(request: ChatRequest) -> Reply:
    """Have the model call the tool, and then tell of it."""
    done = any(message["role"] == "tool" for message in request.messages)
    return Reply("Found it.") if done else Reply("", (RequestedCall("c1", "search", "{}"),))


# A conversation that opens late


@pytest.mark.parametrize("ahead", [0.0, 7200.0, -7200.0])
async def test_what_was_said_before_a_late_opening_is_put_in_front(
    answer: Answer, world: World, transcript: Transcript, ahead: float
) -> None:
    """Whatever the clocks say of it; the next request to the model has it in order, behind the instructions."""
    old = transcript.turns[0]
    now = time.time() + ahead
    said = [user(old.user), assistant(old.reply)]
    for number, message in enumerate(said):
        message.created_at = now + number
    await seed(world, *said)
    world.may_open.clear()
    async with answer(FakeRoom(), greeting="") as running:
        assert not running.call.is_open
        turn = transcript.turns[1]
        await running.session.run(user_input=turn.user)
        world.may_open.set()
        await until(lambda: old.user in [item.text_content for item in running.session.history.messages()])
        await running.session.generate_reply(user_input="And now?")
        await running.call.flush()
        assert [item.type for item in running.session.history.items[:3]] == ["message", "message", "agent_handoff"]
        spoken = [item.text_content for item in running.session.history.messages()]
        assert spoken[:3] == [old.user, old.reply, turn.user]
        assert texts(running.call.items)[:3] == [old.user, old.reply, turn.user]


async def test_the_model_sees_the_instructions_first(answer: Answer, world: World, server: OfflineServer) -> None:
    """Also when older items came behind them in time."""
    old = user("Long ago")
    old.created_at = 1.0
    await seed(world, old)
    world.may_open.clear()
    async with answer(FakeRoom(), greeting="") as running:
        await running.session_is_calm()
        world.may_open.set()
        await until(lambda: "Long ago" in [item.text_content for item in running.session.history.messages()])
        await running.session.generate_reply(user_input="Now")
    sent = server.requests[-1]["messages"]
    assert [message["role"] for message in sent[:1]] == ["system"]
    assert [message["content"] for message in sent if message["role"] == "user"] == ["Long ago", "Now"]


async def test_opened_before_the_session_starts_it_waits_for_it(
    answer: Answer, world: World, server: OfflineServer
) -> None:
    """Between the budget's end and the session's start there is no history to put anything into."""
    await seed(world, user("Long ago"))
    world.may_open.clear()

    async def open_now() -> None:
        known = len(world.cluster._handles)
        world.may_open.set()
        await until(lambda: len(world.cluster._handles) > known)
        await turns()

    async with answer(FakeRoom(), greeting="", before_start=open_now) as running:
        await until(lambda: "Long ago" in [item.text_content for item in running.session.history.messages()])
        await running.session.generate_reply(user_input="Now")
    sent = server.requests[-1]["messages"]
    assert [message["content"] for message in sent if message["role"] == "user"] == ["Long ago", "Now"]


async def test_a_greeting_waits_for_a_conversation_that_opens_late(answer: Answer, world: World) -> None:
    """Said when it can be noted."""
    world.may_open.clear()
    async with answer(FakeRoom(FakeParticipant("alice"))) as running:
        await running.session_is_calm()
        assert running.heard.lines == []
        world.may_open.set()
        await running.hears(GREETING)


async def test_a_call_that_was_interrupted_before_is_told_late(answer: Answer, world: World) -> None:
    """Recorded as everywhere."""
    call = FunctionCall(id="item_9/fnc_0", call_id="c9", name="look_up_order", arguments="{}")
    await seed(world, user("Hi"), call)
    world.may_open.clear()
    async with answer(FakeRoom(), greeting="") as running:
        await running.session_is_calm()
        world.may_open.set()
        await until(lambda: any(item.type == "function_call_output" for item in running.call.items))


async def test_a_tool_that_runs_while_it_opens_is_not_interrupted(answer: Answer, world: World) -> None:
    """Its call is recorded, its output is not there yet: the one who runs it is this session."""
    world.may_open.clear()
    slow = Slow()
    async with (
        OfflineServer(FunctionScript(search_once)) as server,
        answer(FakeRoom(), agent=slow, on=server, greeting="") as running,
    ):
        speech = running.session.generate_reply(user_input="Search")
        await until(lambda: running.attached.recorder.recorded >= 3)
        world.may_open.set()
        await asyncio.wait_for(running.call.wait_open(), LATE)
        await running.call.flush()
        slow.release.set()
        await speech
        await running.is_known("Found it.")
    outputs = [item.to_dict()["output"] for item in running.call.items if item.type == "function_call_output"]
    assert outputs == ["found"]


# A conversation that is lost


async def test_a_conversation_that_is_gone_is_told_the_talk(
    answer: Answer, world: World, transcript: Transcript
) -> None:
    """All that the session has, in order, as it was; the caller hears nothing of it."""
    first, second = transcript.turns[0], transcript.turns[1]
    alice = FakeParticipant("alice")
    async with answer(FakeRoom(alice)) as running:
        await running.hears(GREETING)
        await running.session.run(user_input=first.user)
        await running.is_known(first.reply)
        await running.call.flush()
        before = [item.to_dict() for item in running.call.items]
        await vanish(world)
        running.call.note("x", 1)
        await until(lambda: "x" in running.call.attributes)
        assert [item.to_dict() for item in (await world.cluster.handle()).items] == before
        await running.session.run(user_input=second.user)
        await running.is_known(second.reply)
        told = [item.id for item in running.session.history.items if belongs_in_history(item)]
        assert sorted(item.id for item in running.call.items) == sorted(told)
        assert running.call.participants["alice"].devices == (alice.sid,)
        said = [step.say for step in second.steps if step.say]
        assert running.heard.lines == [GREETING, first.reply, *said, second.reply]
        await crash(running)
    async with answer(FakeRoom(alice), "job-2") as after:
        await after.hears(BACK)
        assert texts(after.call.items)[-1] == second.reply


async def test_a_tool_that_runs_while_it_is_lost_is_told_with_its_output(answer: Answer, world: World) -> None:
    """Its call was known before it ran, and is again; and both are, when it is done, once."""
    slow = Slow()
    async with (
        OfflineServer(FunctionScript(search_once)) as server,
        answer(FakeRoom(), agent=slow, on=server, greeting="") as running,
    ):
        speech = running.session.generate_reply(user_input="Search")
        await until(lambda: "function_call" in [item.type for item in running.call.items])
        await vanish(world)
        running.call.note("x", 1)
        await until(lambda: "x" in running.call.attributes)
        assert "function_call" in [item.type for item in running.call.items]
        slow.release.set()
        await speech
        await running.is_known("Found it.")
    kinds = [item.type for item in running.call.items]
    assert [kind for kind in kinds if kind.startswith("function")] == ["function_call", "function_call_output"]
