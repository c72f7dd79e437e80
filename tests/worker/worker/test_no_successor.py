"""What is said in a conversation whose agent has died and gets no successor; what that makes of its call."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

from agent_worker.worker import no_successor
from agent_worker.worker.no_successor import say_given_up, say_nobody_there
from conversation_actors import ConversationHandle, HeartbeatRecord
from conversation_actors.calls import CallFold, Happening, SessionRecord
from conversation_actors.calls.happenings import SESSION_RECORDED
from conversation_actors.calls.names import AGENT, AGENT_LEASE
from tests.support.sessions.fakes_call import FakeClient, World

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def on_world(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever says it says it there."""
    monkeypatch.setattr(no_successor, "ConversationClient", lambda _settings: FakeClient(world))


async def died(world: World) -> HeartbeatRecord:
    """An agent that had the call dies."""
    call = world.call()
    await call.open()
    await call.flush()
    record = await world.agents.find("c")
    assert record is not None
    await call.aclose()
    return record


async def ends(handle: ConversationHandle) -> list[tuple[str, int]]:
    """Return why each call ended, and how many of its agents had died."""
    fold, last, told = CallFold("c", "life", idle=600.0), handle.seq, list[Happening]()
    async for entry in handle.watch(after_seq=0):
        told += fold.take(entry)
        if entry.seq >= last:
            break
    told += fold.pass_time(time.time() + 1e6)
    records = [SessionRecord.from_dict(one.data) for one in told if one.type == SESSION_RECORDED]
    return [(record.end_reason, record.crashes) for record in records]


@pytest.mark.parametrize(("state", "end"), [("given up", "given_up"), ("nobody there", "left")])
async def test_the_call_of_an_agent_that_died_ends(world: World, state: str, end: str) -> None:
    """Whoever calls again has a call of their own."""
    record, settings = await died(world), world.cluster.settings
    await (say_given_up(settings, record, 3) if end == "given_up" else say_nobody_there(settings, record))
    said = (await world.cluster.handle()).attributes[AGENT]
    assert (said["holder"], said["state"], said["of"]) == (None, state, "job-1")

    handle = await world.cluster.handle()
    await handle.acquire_lease(AGENT_LEASE, holder="job-2", duration=HOUR, replacing="job-1")
    assert await ends(handle) == [(end, 1), ("lost", 1)]


@pytest.mark.parametrize("is_given_up", [False, True])
async def test_of_a_call_that_another_agent_has_nothing_is_said(world: World, *, is_given_up: bool) -> None:
    """It came while the dead one was looked after."""
    record, settings = await died(world), world.cluster.settings
    handle = await world.cluster.handle()
    await handle.acquire_lease(AGENT_LEASE, holder="job-2", duration=HOUR, replacing="job-1")
    before = (await handle.snapshot(fresh=True)).attributes[AGENT]

    await (say_given_up(settings, record, 3) if is_given_up else say_nobody_there(settings, record))

    assert (await handle.snapshot(fresh=True)).attributes[AGENT] == before


async def test_what_is_noted_meanwhile_is_no_obstacle(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked again at who has the call."""
    record, handle = await died(world), await world.cluster.handle()
    set_attributes, others = ConversationHandle.set_attributes, iter(range(2))

    async def late(self: ConversationHandle, changes: Any, **options: Any) -> object:
        for number in others:
            await set_attributes(handle, {"mood": number})
            break
        return await set_attributes(self, changes, **options)

    monkeypatch.setattr(ConversationHandle, "set_attributes", late)
    async with asyncio.timeout(20):
        await say_nobody_there(world.cluster.settings, record)

    attributes = (await handle.snapshot(fresh=True)).attributes
    assert (attributes[AGENT]["of"], attributes["mood"]) == ("job-1", 1)


async def test_a_conversation_that_is_gone_is_not_made_for_that(world: World) -> None:
    """It was deleted, or its time is over."""
    record = await died(world)
    await world.lose_everything()

    await say_nobody_there(world.cluster.settings, record)

    assert (await world.cluster.handle()).seq == 0
