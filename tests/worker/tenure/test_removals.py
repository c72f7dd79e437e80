"""What a job takes out of its conversation is in the store no more, whenever it was recorded, and whatever is away."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from agent_worker.settings import CallSettings
from agent_worker.tenure.conversation import CallConversation
from conversation_actors import Message
from conversation_actors.errors import ClusterUnavailableError
from tests.support.fakes import until
from tests.support.sessions.fakes_call import Clock, World, Worlds

SECRET = "4111 1111 1111 1111"


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> AsyncIterator[World]:
    """A conversation that can be opened; what is not answered is not waited for, for long."""
    async with Worlds(monkeypatch, clock, close=0.5) as made:
        yield made


def say(identity: str, text: str = "hello") -> Message:
    """A message of the caller's."""
    return Message(id=identity, role="user", content=text)


def ids(call: CallConversation) -> list[str]:
    """Ids of the history."""
    return [item.id for item in call.items]


async def test_what_was_just_recorded_and_noted_is_taken_out(world: World) -> None:
    """Although nothing of it was stored yet when somebody wished it gone; attributes as they were, too."""
    call = world.call()
    await call.open()
    call.record(say("u1"))
    call.note("livekit.transcript", {"text": SECRET})
    call.record(say("u2", SECRET))
    await call.flush()
    assert SECRET.encode() in world.store.content
    call.note("livekit.transcript", None)
    call.record(say("u3", SECRET))
    call.remove("u2", "u3")
    await call.flush()
    assert ids(call) == ["u1"]
    assert SECRET.encode() not in world.store.content


async def test_a_replaced_item_is_stored_before_the_past_is_forgotten(world: World) -> None:
    """Else the snapshot would hold it as it was."""
    call = world.call()
    await call.open()
    call.record(say("u1", SECRET))
    call.record(say("u1", "[hidden]"))
    call.remove()
    await call.flush()
    assert [item.to_dict()["content"] for item in call.items] == ["[hidden]"]
    assert SECRET.encode() not in world.store.content


async def test_what_waits_for_the_conversation_is_taken_out(world: World) -> None:
    """A conversation that opens late is never told of it."""
    world.ray_trouble = ClusterUnavailableError("no cluster")
    call = world.call(settings=CallSettings(open_timeout=timedelta(seconds=0.02)))
    assert not await call.open()
    call.record(say("u1"))
    call.record(say("u2", SECRET))
    call.remove("u2")
    world.ray_trouble = None
    async with asyncio.timeout(5):
        await call.wait_open()
    await call.flush()
    assert ids(call) == ["u1"]
    assert not any(SECRET.encode() in entry for entry in world.store.landed.values())


async def test_an_outage_only_delays_it(world: World) -> None:
    """The owner dies, and Redis with it, while it is asked for: it is done when they are there again."""
    call = world.call()
    await call.open()
    call.record(say("u1", SECRET))
    call.record(say("u2"))
    await call.flush()
    world.store.is_down = True
    await world.cluster.kill()
    call.remove("u1")
    await asyncio.sleep(0)
    world.store.is_down = False
    async with asyncio.timeout(10):
        await until(lambda: SECRET.encode() not in world.store.content)
    await until(lambda: ids(call) == ["u2"])


async def test_a_dropped_removal_is_asked_for_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where too many changes wait, all are dropped: what is to be gone is not forgotten over it."""
    monkeypatch.setattr("agent_worker.tenure.backlog.MAX_OPERATIONS", 3)
    call = world.call()
    await call.open()
    call.record(say("u1", SECRET))
    await call.flush()
    call.remove("u1")
    for number in range(5):
        call.later(lambda handle, lease, name=f"n{number}": handle.set_attributes({name: 1}, lease=lease))  # type: ignore[misc]
    async with asyncio.timeout(10):
        await until(lambda: SECRET.encode() not in world.store.content)
    assert call.failures.counts["changes"] == 1


async def test_the_deposed_takes_nothing_out(world: World) -> None:
    """Another agent has the conversation: what it holds is not this job's to remove."""
    call = world.call()
    await call.open()
    call.record(say("u1"))
    await call.flush()
    handle = await world.cluster.handle()
    await handle.acquire_lease("agent", holder="job-2", duration=timedelta(hours=1), replacing="job-1")
    await until(call.deposed.is_set)
    call.remove("u1")
    await call.flush()
    await handle.append(say("u2"))
    assert [item.id for item in handle.items] == ["u1", "u2"]


@pytest.mark.parametrize("name", ["", "x" * 1000])
async def test_an_id_that_nothing_can_have_costs_no_other_removal(world: World, name: str) -> None:
    """No item of it was ever stored; it is passed over, now and by later removals."""
    call = world.call()
    await call.open()
    call.record(say("u1", SECRET))
    call.remove("u1", name)
    await call.flush()
    assert ids(call) == []
    assert SECRET.encode() not in world.store.content


async def test_what_was_removed_is_told_to_who_records_it_again(world: World) -> None:
    """With a call's outputs, which go with it; before it is asked for."""
    call, told = world.call(), list[frozenset[str]]()
    await call.open()
    call.on_removed(told.append)
    call.remove("u1", "u2")
    call.remove()
    assert told == [frozenset({"u1", "u2"})]


async def test_what_is_changed_between_two_removals_is_forgotten(world: World) -> None:
    """The first one does not do for the second, which was asked for behind the change; those in a row are one."""
    call = world.call()
    await call.open()
    for number in range(3):
        value = f"{SECRET} {number}"
        call.later(lambda handle, lease, value=value: handle.set_attributes({"x": value}, lease=lease))  # type: ignore[misc]
        call.remove()
    call.later(lambda handle, lease: handle.set_attributes({"x": None}, lease=lease))
    for _ in range(20):
        call.remove()
    written = len(world.store.snapshots)
    await call.flush()
    assert SECRET.encode() not in world.store.content
    assert len(world.store.snapshots) == written + 1
