"""Whether what a job has recorded is durable: asked before a tool runs, and answered in time."""

import asyncio
import time

import pytest

from agent_worker.tenure.conversation import CallConversation
from conversation_actors import Message
from tests.support.fakes import until
from tests.support.sessions.fakes_call import World

LONG = 20.0
"""Seconds that no test waits for: each answer comes sooner, or was not due."""


@pytest.fixture
def waits() -> dict[str, float]:
    """Return how long an owner and its clients wait: for Redis only a moment."""
    return {"close": 0.5, "write": 0.05, "command": 0.3}


async def opened(world: World) -> CallConversation:
    """The conversation, as its agent has it."""
    call = world.call()
    assert await call.open()
    return call


def say(number: int) -> Message:
    """A message of the caller's."""
    return Message(id=f"m{number}", role="user", content="hello")


async def test_what_was_recorded_is_durable_when_the_answer_is_yes(world: World) -> None:
    """It is there when the answer is yes; with nothing recorded the answer is yes too."""
    call = await opened(world)
    assert await call.is_durable(LONG)
    call.record(say(1))
    assert await call.is_durable(LONG)
    assert [item.id for item in call.items] == ["m1"]


async def test_nothing_is_durable_while_redis_is_away(world: World) -> None:
    """The answer is no when the time is over, and yes when Redis comes back within it."""
    call = await opened(world)
    world.store.is_down = True
    call.record(say(1))
    began = time.monotonic()
    assert not await call.is_durable(0.3)
    assert 0.25 < time.monotonic() - began < LONG / 2
    asked = asyncio.create_task(call.is_durable(LONG))
    failures = call.failures.counts.get("items", 0)
    await until(lambda: call.failures.counts.get("items", 0) > failures)
    assert not asked.done()
    world.store.is_down = False
    assert await asked


async def test_the_answer_waits_until_the_conversation_is_open(world: World) -> None:
    """It waits for the conversation, and for what was recorded meanwhile."""
    world.may_open.clear()
    call = world.call()
    opening = asyncio.create_task(call.open())
    call.record(say(1))
    assert not await call.is_durable(0.05)
    asked = asyncio.create_task(call.is_durable(LONG))
    world.may_open.set()
    assert await asked
    assert [item.id for item in call.items] == ["m1"]
    await opening


async def test_nothing_of_a_deposed_job_is_durable(world: World) -> None:
    """The call is another agent's: nothing of this one is durable any more, and nothing is waited for."""
    call = await opened(world)
    world.store.is_down = True
    call.record(say(1))
    asked = asyncio.create_task(call.is_durable(LONG))
    call._upkeep.depose("test")
    began = time.monotonic()
    assert not await asked
    assert time.monotonic() - began < LONG / 2
    world.store.is_down = False


async def test_two_who_ask_at_one_time_get_an_answer_each(world: World) -> None:
    """Each gets its answer, also beside a flush that hears of another item's refusal."""
    call = await opened(world)
    call.record(say(1))
    flushed = asyncio.create_task(call.flush())
    assert all(await asyncio.gather(call.is_durable(LONG), call.is_durable(LONG)))
    await flushed
