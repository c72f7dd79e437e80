"""Everything fails, at random, for a while; the invariants hold at the end."""

import asyncio
import logging
import random
import time
from contextlib import suppress

import pytest

from conversation_actors import ConversationHandle, RetryableError
from tests.cluster.conftest import Connect
from tests.support.observation import Watcher, assert_contiguous, assert_exactly_once, assert_ordered, texts, user
from tests.support.processes import sigkill
from tests.support.servers import Server

pytestmark = [pytest.mark.chaos]
log = logging.getLogger(__name__)

SECONDS = 20.0
TIMEOUTS = {"command": 8.0, "write": 1.0, "redis": 0.5, "attempt": 3.0}


async def write(handle: ConversationHandle, name: str, stop: asyncio.Event, acknowledged: list[str]) -> None:
    """Append one message after the other; repeat each, with its request_id, until it is acknowledged."""
    number = 0
    while not stop.is_set():
        message = user(f"{name}-{number:05}")
        while True:
            with suppress(RetryableError):
                await handle.append(message, request_id=message.text)
                break
        acknowledged.append(message.text)
        number += 1


async def write_and_cancel(handle: ConversationHandle, stop: asyncio.Event, dice: random.Random) -> None:
    """Append and lose patience: each may be there, or not, but not twice."""
    number = 0
    while not stop.is_set():
        with suppress(TimeoutError, RetryableError):
            async with asyncio.timeout(dice.uniform(0, 0.02)):
                await handle.append(user(f"c-{number:05}"))
        number += 1


async def kill_owner(handle: ConversationHandle) -> None:
    """SIGKILL of the owner, wherever it is."""
    with suppress(RetryableError):
        sigkill((await handle.info()).pid)


async def pause_redis(redis: Server, seconds: float) -> None:
    """Redis hangs for a while."""
    redis.pause()
    try:
        await asyncio.sleep(seconds)
    finally:
        redis.resume()


async def test_random_failures(connect: Connect, redis: Server, conversation_id: str) -> None:
    """Kills, hangs and cancellations at random: acknowledged is there once, in order, and a watcher saw it all."""
    seed = random.randrange(10**6)
    log.warning("seed %d", seed)  # shown when the test fails
    dice = random.Random(seed)
    handles = [await (await connect(timeouts=TIMEOUTS)).open(conversation_id) for _ in range(3)]
    stop = asyncio.Event()
    acknowledged: list[str] = []
    done = {"kill": 0, "pause": 0}
    async with Watcher(handles[2]) as watcher:
        tasks = [
            asyncio.create_task(write(handles[0], "a", stop, acknowledged)),
            asyncio.create_task(write(handles[1], "b", stop, acknowledged)),
            asyncio.create_task(write_and_cancel(handles[0], stop, dice)),
        ]
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            await asyncio.sleep(dice.uniform(0.2, 1.5))
            what = dice.choice(["kill", "pause"])
            done[what] += 1
            await (kill_owner(handles[2]) if what == "kill" else pause_redis(redis, dice.uniform(0.1, 2.5)))
        stop.set()
        await asyncio.gather(*tasks)
        for handle in handles:
            await handle.flush()
        snapshot = await handles[0].snapshot(fresh=True)
        await watcher.saw(snapshot.seq)
    log.warning(
        "%s, epoch %d, %d acknowledged, watch resumed %d times",
        done,
        snapshot.epoch,
        len(acknowledged),
        watcher.resumed,
    )
    assert len(acknowledged) > 20
    assert_contiguous(watcher.seqs)
    assert_exactly_once(watcher.texts, acknowledged)
    assert texts(snapshot.items) == watcher.texts
    for name in ("a", "b"):
        assert_ordered(watcher.texts, name)
