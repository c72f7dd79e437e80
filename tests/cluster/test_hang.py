"""An owner whose process hangs on a node that is well is replaced; one that only waits is left alone."""

import asyncio
from collections.abc import Iterator

import psutil
import pytest

from conversation_actors import ConversationHandle, RetryableError
from tests.cluster.conftest import Connect, Reaches, by_both_ports
from tests.support.observation import assert_exactly_once, gone, texts, user
from tests.support.processes import is_alive, pause, sigkill
from tests.support.servers import Server
from tests.support.waiting import wait_until

HANG_SECONDS = 3.0
REPLACED_SECONDS = 60.0
"""Doubt, `hang`, a process for the examiner, its question, a new owner: 9 s on an idle machine."""


@pytest.fixture
def stopped() -> Iterator[list[int]]:
    """Process ids of owners that a test stops; they do not outlive it."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        sigkill(pid)


async def stop_owner(handle: ConversationHandle, stopped: list[int]) -> int:
    """SIGSTOP the process of an owner."""
    pid = (await handle.info()).pid
    stopped.append(pid)
    pause(pid)
    return pid


@by_both_ports
async def test_a_stopped_owner_is_replaced(
    connect: Connect, conversation_id: str, stopped: list[int], reaches: Reaches
) -> None:
    """Two clients wait for it: the process is killed, one new owner comes, and what they wait for happens once."""
    timeouts = {"command": REPLACED_SECONDS, "hang": HANG_SECONDS}
    handles = [await (await connect(timeouts=timeouts)).open(conversation_id) for _ in range(2)]
    await handles[0].append(user("before"))
    pid = await stop_owner(handles[0], stopped)
    waiting = [asyncio.create_task(handle.append(user(f"meanwhile-{n}"))) for n, handle in enumerate(handles)]
    receipts = await asyncio.gather(*waiting)
    assert not is_alive(pid)
    assert {receipt.epoch for receipt in receipts} == {2}
    info = await handles[0].info()
    assert info.epoch == 2
    for handle in handles:
        await reaches(handle)

    async def follows() -> object:
        return handles[0].seq == max(receipt.seq for receipt in receipts)

    await wait_until(follows, "this handle's copy to have the other's write")
    assert_exactly_once(texts(handles[0].items), ["before", "meanwhile-0", "meanwhile-1"])


@by_both_ports
async def test_who_only_follows_notices_too(connect: Connect, conversation_id: str, stopped: list[int]) -> None:
    """Nobody calls: the poll that is overdue has the owner looked at, and killed."""
    timeouts = {"command": REPLACED_SECONDS, "hang": HANG_SECONDS, "poll": 2.0, "attempt": 8.0}
    handle = await (await connect(timeouts=timeouts)).open(conversation_id)
    pid = await stop_owner(handle, stopped)
    await gone(pid, patience=REPLACED_SECONDS)
    assert (await handle.info()).epoch == 2


async def test_an_owner_that_waits_for_redis_is_left_alone(
    connect: Connect, own_redis: Server, conversation_id: str
) -> None:
    """While Redis hangs the owner gives signs of life, for many times as long as a hung one would have."""
    client = await connect(own_redis.url, timeouts={"command": 6.0, "hang": 0.5, "attempt": 6.0, "write": 5.0})
    handle = await client.open(conversation_id)
    await handle.append(user("before"))
    process = psutil.Process((await handle.info()).pid)
    own_redis.pause()
    try:
        with pytest.raises(RetryableError):
            await handle.append(user("late"))
        assert process.is_running()
    finally:
        own_redis.resume()
    info = await handle.info()
    assert (info.pid, info.epoch) == (process.pid, 1)
