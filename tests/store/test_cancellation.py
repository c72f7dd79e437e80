"""Whoever cancels a call of the store ends the task, at whatever moment that is."""

import asyncio
import random
from datetime import timedelta
from typing import Any

import pytest

from conversation_actors.errors import StoreUnavailableError
from conversation_actors.store.redis import RedisStore
from tests.support.servers import PATIENCE

ROUNDS = 300
SWALLOWED: dict[str, Exception | None] = {"an answer": None, "a failure": OSError("gone")}


async def swallow(failure: Exception | None) -> None:
    """Forget a cancellation, as `asyncio.wait_for` does when its work is done at that moment."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        if failure is not None:
            raise failure from None


@pytest.mark.parametrize("case", SWALLOWED)
async def test_a_swallowed_cancellation_ends_the_task(redis_store: RedisStore, case: str) -> None:
    """Whether there was an answer or a failure instead."""

    async def call() -> None:
        async with redis_store._calls.answering("test"):
            await swallow(SWALLOWED[case])

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task}, timeout=PATIENCE)
    assert task.cancelled()


async def test_a_timeout_around_it_is_a_timeout(redis_store: RedisStore) -> None:
    """Of the caller's own, which cancels too; and ours is no cancellation."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), redis_store._calls.answering("test"):
            await swallow(None)
    redis_store._calls._timeout = 0.01
    with pytest.raises(StoreUnavailableError):
        async with redis_store._calls.answering("test"):
            await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_loop_of_calls_ends_when_it_is_cancelled(redis_store: RedisStore) -> None:
    """At any moment of a call: many are tried."""
    signs = redis_store.heartbeats("agent", ttl=timedelta(minutes=1))

    async def loop() -> None:
        while True:
            await signs.find("c")

    for _ in range(ROUNDS):
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(loop()) for _ in range(3)]
        await asyncio.sleep(random.uniform(0, 0.004))
        for task in tasks:
            task.cancel()
        _, left = await asyncio.wait(tasks, timeout=PATIENCE)
        assert not left
