"""Whole calls: a caller who speaks and listens, real workers, a real LiveKit server, one agent after the other.

Words travel as sound both ways. The model follows a written call, and says so when something of it is missing
from the request or is there twice: an answer that is heard as written is proof of a complete history.
"""

import asyncio
import time

import pytest
from pydantic import SecretStr

from agent_worker.settings import LiveKitSettings
from agent_worker.worker.migration import migrate
from tests.e2e.calls import (
    BACK,
    CALL,
    GREETING,
    UTTERANCE,
    hear,
    identity_of,
    times_heard,
    turn,
)
from tests.e2e.scene import Scene
from tests.support.processes import kill, paused

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]


async def test_ten_turns_with_tools(common_scene: Scene) -> None:
    """Every answer is heard as written; every item is stored once, in order, with a bounded retention."""
    async with common_scene.caller(name="Maria") as caller:
        await hear(caller, GREETING, after=caller.joined_at)
        for number in range(10):
            await turn(caller, number)
        kept = await common_scene.stored()
    kept.assert_nothing_lost(range(10))
    assert times_heard(caller, GREETING) == 1
    assert kept.participants["caller"].connected
    assert kept.participants["caller"].name == "Maria"
    [*_, last] = await common_scene.models.requests_about(CALL.turns[9].user[:20])
    said = [one["content"] for one in last["messages"] if one["role"] == "user"]
    assert len(said) == 10
    # the agent's instructions come with each request, and are in no conversation
    assert last["messages"][0]["role"] in {"system", "developer"}
    assert not any("Fernhill" in text for role, text in kept.said if role in {"system", "developer"})


async def test_job_killed_while_it_speaks(common_scene: Scene) -> None:
    """SIGKILL in mid-sentence: the next agent says it is back, answers what was unanswered, and knows everything."""
    async with common_scene.caller() as caller:
        await hear(caller, GREETING, after=caller.joined_at)
        for number in range(3):
            await turn(caller, number)
        holder, pid = await common_scene.agent()
        said = await caller.say(CALL.turns[3].user)
        await caller.wait_audible(said.ended, UTTERANCE, identity=identity_of(holder))
        killed = kill(pid)
        await common_scene.heard_again(caller, killed, holder, "job killed")
        await hear(caller, CALL.turns[3].reply, after=killed)
        await caller.wait_left(identity_of(holder), 10)
        for number in range(4, 6):
            await turn(caller, number)
        kept = await common_scene.stored()
    kept.assert_nothing_lost(range(6))
    assert times_heard(caller, GREETING) == 1
    assert times_heard(caller, BACK) == 1


async def test_worker_killed_with_another_one_up(scene: Scene) -> None:
    """The supervisor sees its worker die, calls the other worker's agent, and starts a worker again."""
    first = await scene.worker()
    async with scene.caller() as caller:
        await hear(caller, GREETING, after=caller.joined_at)
        await turn(caller, 0)
        await scene.worker()
        await scene.settled()
        holder, _ = await scene.agent()
        killed = kill(first.worker.pid)
        await scene.heard_again(caller, killed, holder, "worker killed")
        await turn(caller, 1)
        await turn(caller, 2)
        kept = await scene.stored()
    kept.assert_nothing_lost(range(3))
    assert times_heard(caller, GREETING) == 1
    await asyncio.to_thread(first.wait_ready, lives=2)


async def test_agent_that_hangs(common_scene: Scene) -> None:
    """SIGSTOP: nothing ends, nothing is said; the heartbeat tells. Awake again, the old agent says no word more."""
    async with common_scene.caller() as caller:
        await hear(caller, GREETING, after=caller.joined_at)
        await turn(caller, 0)
        await common_scene.settled()
        holder, pid = await common_scene.agent()
        stopped = time.monotonic()
        # Woken in time: ten seconds after its participant was removed its worker would kill it.
        with paused(pid):
            await common_scene.heard_again(caller, stopped, holder, "agent hangs")
        awake = time.monotonic()
        await turn(caller, 1)
        await turn(caller, 2)
        kept = await common_scene.stored()
    kept.assert_nothing_lost(range(3))
    assert caller.first_audible_after(awake, identity=identity_of(holder)) is None


async def test_conversation_actor_killed(common_scene: Scene) -> None:
    """The caller notices nothing: same agent, no pause in the talk, nothing lost."""
    async with common_scene.caller() as caller:
        await hear(caller, GREETING, after=caller.joined_at)
        await turn(caller, 0)
        holder, _ = await common_scene.agent()
        conversation = await common_scene.client.open(common_scene.room, create=False)
        said = await caller.say(CALL.turns[1].user)
        kill((await conversation.info()).pid)
        await hear(caller, CALL.turns[1].reply, after=said.started)
        await turn(caller, 2)
        kept = await common_scene.stored()
    kept.assert_nothing_lost(range(3))
    assert (await common_scene.agent())[0] == holder
    assert times_heard(caller, BACK) == 0


async def test_deploy(scene: Scene) -> None:
    """SIGTERM with a new worker up: the call goes over between two sentences; nobody says that it did."""
    old = await scene.worker()
    async with scene.caller() as caller:
        await hear(caller, GREETING, after=caller.joined_at)
        await turn(caller, 0)
        holder, _ = await scene.agent()
        await scene.worker()
        asked = time.monotonic()
        old.terminate()
        successor, _ = await scene.agent(other_than=holder)
        scene.record("deploy: handed over after", time.monotonic() - asked)
        await turn(caller, 1)
        await turn(caller, 2)
        kept = await scene.stored()
    kept.assert_nothing_lost(range(3))
    assert await old.wait_ended() == 0
    assert times_heard(caller, GREETING) == 1
    assert times_heard(caller, BACK) == 0
    assert caller.first_audible_after(asked, identity=identity_of(successor)) is not None


async def test_migrate_to_another_worker(scene: Scene) -> None:
    """Asked for in mid-sentence, it waits for the end of it; no turn is lost."""
    await scene.two_workers()
    livekit = LiveKitSettings(
        url=scene.server.url, api_key=scene.server.api_key, api_secret=SecretStr(scene.server.api_secret)
    )
    async with scene.caller() as caller:
        await hear(caller, GREETING, after=caller.joined_at)
        holder, pid = await scene.agent()
        said = await caller.say(CALL.turns[0].user)
        await caller.wait_audible(said.ended, UTTERANCE, identity=identity_of(holder))
        successor = await migrate(scene.room, store=scene.settings, livekit=livekit)
        await hear(caller, CALL.turns[0].reply, after=said.started)
        assert successor != holder
        assert (await scene.agent())[1] != pid
        await turn(caller, 1)
        kept = await scene.stored()
    kept.assert_nothing_lost(range(2))


async def test_two_people(common_scene: Scene) -> None:
    """Both are greeted and kept; when the first has left, the agent listens to the second."""
    async with (
        common_scene.caller("maria") as maria,
    ):
        await hear(maria, GREETING, after=maria.joined_at)
        await turn(maria, 0)
        async with common_scene.caller("tom", attributes={"language": "en"}) as tom:
            await hear(tom, GREETING, after=tom.joined_at)
            await maria.leave()
            await asyncio.sleep(1.0)  # who has left is known at once; the track of the other takes its time
            await turn(tom, 1)
            kept = await common_scene.stored()
    kept.assert_nothing_lost(range(2))
    assert {name: one.connected for name, one in kept.participants.items()} == {"maria": False, "tom": True}
    assert kept.participants["tom"].language == "en"


async def test_two_calls_in_one_worker(common_scene: Scene) -> None:
    """One call's agent is killed; the other one hears nothing of it."""
    other_room = f"{common_scene.room}-b"
    one = common_scene.caller("one")
    other = common_scene.caller("other", room=other_room)
    async with one, other:
        await asyncio.gather(hear(one, GREETING, after=0), hear(other, GREETING, after=0))
        _, pid = await common_scene.agent()
        untouched, _ = await common_scene.agent(other_room)
        kill(pid)
        await asyncio.gather(hear(one, BACK, after=0), turn(other, 0))
        await turn(one, 0)
        mine, others = await common_scene.stored(), await common_scene.stored(other_room)
    mine.assert_nothing_lost([0])
    others.assert_nothing_lost([0])
    assert (await common_scene.agent(other_room))[0] == untouched
    assert times_heard(other, BACK) == 0


async def test_starter_agent_killed_in_a_tool(scene: Scene) -> None:
    """LiveKit's starter agent with three lines more: a tool that was cut off ran once, and the model is told."""
    runs = scene.directory / "runs"
    lines = {"STARTER_TOOL_RUNS": str(runs), "AGENT_GREETING": GREETING}
    await scene.worker("--entrypoint", "tests.e2e.starter:entrypoint", **lines)
    async with scene.caller() as caller:
        await hear(caller, GREETING, after=caller.joined_at)
        await turn(caller, 0)
        _, pid = await scene.agent()
        await caller.say(CALL.turns[1].user)
        await caller.wait(lambda: runs.exists() and runs.read_text(), "the tool to run")
        killed = kill(pid)
        await hear(caller, "I'll check before I try again.", after=killed)
        kept = await scene.stored()
    assert runs.read_text().splitlines() == ["A-1024"]
    [output] = [item.to_dict() for item in kept.items if item.type == "function_call_output"]
    assert output["output"] == "interrupted; outcome unknown"
    [*_, last] = await scene.models.requests_about(CALL.turns[1].user[:12])
    assert any(one["role"] == "tool" and "outcome unknown" in one["content"] for one in last["messages"])


async def test_nobody_there_is_not_taken_over(scene: Scene) -> None:
    """The caller has hung up and the agent dies: no new one is sent into an empty room."""
    worker = await scene.worker(AGENT_LINGER="1")
    async with scene.caller() as caller:
        await hear(caller, GREETING, after=caller.joined_at)
        _, pid = await scene.agent()
        await caller.leave()
        kill(pid)
        while "outcome=nobody there" not in worker.log() and "the job ends" not in worker.log():  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert "outcome=dispatched" not in worker.log()
