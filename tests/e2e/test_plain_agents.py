"""Agents that are not ours, with one line of ours: what they refuse stays refused, rooms outlive jobs."""

import asyncio
import time

import pytest
from livekit import api
from pydantic import SecretStr

from agent_worker.settings import LiveKitSettings
from agent_worker.tenure.conversation import HANDOVER
from agent_worker.worker.migration import migrate
from tests.e2e.calls import BACK, CALL, UTTERANCE, hear, turn
from tests.e2e.plain_agents import REFUSED
from tests.e2e.scene import Scene
from tests.support.caller import Caller
from tests.support.processes import kill, paused
from tests.support.servers import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]
TYPING, CAREFUL = "tests.e2e.plain_agents:typing", "tests.e2e.plain_agents:careful"


async def typed_turn(caller: Caller, number: int) -> None:
    """Type a turn of the written call, and read the answer that is written there."""
    line = CALL.turns[number]
    typed = await caller.chat(line.user)
    await caller.wait_caption(line.reply, UTTERANCE, after=typed)


async def migrated(scene: Scene) -> str:
    """Have another worker's agent take the call over."""
    livekit = LiveKitSettings(
        url=scene.server.url, api_key=scene.server.api_key, api_secret=SecretStr(scene.server.api_secret)
    )
    return await migrate(scene.room, store=scene.settings, livekit=livekit)


async def room_exists(scene: Scene) -> bool:
    """Whether LiveKit's server has the test's room."""
    async with scene.server.api() as client:
        found = await client.room.list_rooms(api.ListRoomsRequest(names=[scene.room]))
    return bool(found.rooms)


async def test_words_typed_in_a_handover_are_answered_once(scene: Scene) -> None:
    """By the one agent or the other: before it is asked for, while the one waits to go, and while the other begins."""
    await scene.two_workers("--entrypoint", TYPING)
    async with scene.caller() as caller:
        await caller.wait_agent(UTTERANCE)
        holder, _ = await scene.agent()
        await typed_turn(caller, 0)
        conversation = await scene.client.open(scene.room, create=False)
        going = asyncio.create_task(migrated(scene))

        async def is_asked() -> bool:
            return HANDOVER in conversation.attributes

        await wait_until(is_asked, "the handover to be asked for", patience=30)
        texts = []
        for number, pause in enumerate((0.0, 0.9, 0.3, 0.3, 0.3)):
            await asyncio.sleep(pause)
            texts.append(f"Note number {number}.")
            await caller.chat(texts[-1])
        assert await going != holder
        handed = time.monotonic()

        async def all_is_known() -> bool:
            return [text for text in (await scene.stored()).by_user() if "ote" in text][-1:] == texts[-1:]

        # LiveKit (1.8.9) may exchange two texts that come within some 15 ms while its agent speaks
        await wait_until(all_is_known, "the note before the last to be known", patience=30)
        texts.append("And the last note.")
        typed = await caller.chat(texts[-1])
        await caller.wait_caption(lambda one: bool(one.text), UTTERANCE, after=max(typed, handed))
        await wait_until(all_is_known, "the last note to be known", patience=30)
        kept = await scene.stored()
    assert kept.by_user() == [CALL.turns[0].user, *texts]
    [*_, last] = await scene.models.requests_about(texts[-1])
    asked = [one["content"] for one in last["messages"] if one["role"] == "user"]
    assert asked == [CALL.turns[0].user, *texts]


async def test_a_room_outlives_the_jobs_of_a_call_and_not_the_call(scene: Scene) -> None:
    """Each of its agents deletes it at its end: handed over, hung and awake again, and at last with the caller gone."""
    await scene.two_workers("--entrypoint", TYPING)
    async with scene.caller() as caller:
        first = await caller.wait_agent(UTTERANCE)
        await typed_turn(caller, 0)
        await migrated(scene)
        await caller.wait_left(first.identity, 30)
        await typed_turn(caller, 1)
        await scene.settled(CALL.turns[1].reply)
        holder, pid = await scene.agent()
        with paused(pid):
            await scene.agent(other_than=holder)
        await caller.wait_left(f"agent-{holder}", 30)
        # it has joined, and reads: what is typed before that is lost
        await caller.wait_caption(BACK, UTTERANCE)
        await typed_turn(caller, 2)
        assert caller.rtc_room.isconnected()
        assert await room_exists(scene)
    kept = await scene.stored()
    kept.assert_nothing_lost(range(3))

    async def is_gone() -> bool:
        return not await room_exists(scene)

    await wait_until(is_gone, "the room to be deleted with the call over", patience=15)


async def test_a_refused_turn_is_nobodys_question(scene: Scene) -> None:
    """SIGKILL behind it: the next agent says that it is back, and asks no model about it; the call goes on."""
    refused = scene.directory / "refused"
    await scene.worker("--entrypoint", CAREFUL, **{REFUSED: str(refused)})
    async with scene.caller() as caller:
        await caller.wait_agent(UTTERANCE)
        await turn(caller, 0)
        await caller.say("Please transfer ten thousand.")
        await caller.wait(refused.exists, "the turn to be refused")

        async def is_settled() -> bool:
            return "livekit.transcript" not in (await scene.stored()).attributes

        await wait_until(is_settled, "the refused words to be forgotten", patience=10)
        _, pid = await scene.agent()
        killed = kill(pid)
        await hear(caller, BACK, after=killed)
        await turn(caller, 1)
        kept = await scene.stored()
    kept.assert_nothing_lost(range(2))
    assert await scene.models.requests_about("transfer ten thousand") == []
