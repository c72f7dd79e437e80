"""One conversation by both ports: deposed owners that listen, readers that take nothing, many who come back at once."""

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from conversation_actors.activation.activation import MAX_WATCHERS
from conversation_actors.client import ConversationHandle
from conversation_actors.line.server_connection import HIGH_WATER
from conversation_actors.line.subscription import PUSH_BYTES
from tests.support.both_ports import LINE_QUICK, LineActor, LineCluster
from tests.support.fakes import FaultyStore, brief, until
from tests.support.observation import Watcher, assert_contiguous, texts, user
from tests.support.relay import Direction, Fault, Kind

logger = logging.getLogger(__name__)

LARGE = "x" * (64 << 10)
PING_BYTES = 16
"""More than a ping takes, and less than anything else."""
BACK_SECONDS = 120.0
"""In which all are back, on a machine that has little time."""
SEVERAL = 40
"""Handles that come back at once; a thousand in the long test."""


@pytest.fixture
def sockets() -> Iterator[Path]:
    """Make a directory for sockets: their paths may have 107 bytes, and pytest's are too deep."""
    with tempfile.TemporaryDirectory(prefix="line-") as directory:
        yield Path(directory)


@pytest.fixture
def store() -> FaultyStore:
    """Make a store whose writes can be held."""
    return FaultyStore()


@pytest.fixture
async def cluster(store: FaultyStore, sockets: Path) -> AsyncIterator[LineCluster]:
    """Make owners that are reached by both ports."""
    async with LineCluster(store, brief(), sockets) as made:
        yield made


async def deposed(cluster: LineCluster) -> LineActor:
    """Have another owner take over; return the one before, which lives and listens."""
    old = cluster.actor
    assert isinstance(old, LineActor)
    new = cluster.start_another()
    await until(lambda: new.activation is not None)
    return old


async def test_an_owner_that_was_deposed_acknowledges_nothing_by_its_line(cluster: LineCluster) -> None:
    """It decides what comes by its line, and is refused by the store: the append happens once, at its successor."""
    handle = await cluster.connected()
    await handle.append(user("before"))
    old = await deposed(cluster)
    receipt = await handle.append(user("after"))
    assert old.asked["execute"] == 2  # both came by the line to it
    assert (receipt.seq, receipt.epoch) == (2, 2)
    assert texts((await handle.snapshot(fresh=True)).items) == ["before", "after"]


async def test_what_a_deposed_owner_was_writing_stays_behind_its_gate(cluster: LineCluster, store: FaultyStore) -> None:
    """Its write hangs while another takes over: no answer leaves by the line, and the append happens once."""
    handle = await cluster.connected()
    await handle.append(user("before"))
    store.hold()
    appending = asyncio.create_task(handle.append(user("in flight")))
    asked = cluster.asked_by_line["execute"]
    await until(lambda: cluster.asked_by_line["execute"] > asked)
    await deposed(cluster)
    assert not appending.done()
    assert texts(handle.items) == ["before"]  # nor did it push anything
    store.release()
    receipt = await appending
    assert receipt.epoch == 2
    assert texts((await handle.snapshot(fresh=True)).items) == ["before", "in flight"]


async def test_a_fresh_read_by_the_line_of_a_deposed_owner_finds_out(cluster: LineCluster) -> None:
    """It asks the store first, which names another owner: the read is answered by that one."""
    handle = await cluster.connected()
    await handle.append(user("before"))
    await deposed(cluster)
    assert (await handle.snapshot(fresh=True)).epoch == 2


async def test_commands_are_not_acknowledged_by_a_line_before_they_are_durable(
    cluster: LineCluster, store: FaultyStore
) -> None:
    """While the store takes nothing, neither an answer nor a push tells of an append; a read shows nothing of it."""
    handle, passage = await cluster.connected(), cluster.relay.last
    other = await cluster.connected()
    store.hold()
    passed = passage.passed[Direction.TO_CLIENT]
    appending = asyncio.create_task(handle.append(user("held")))
    asked = cluster.asked_by_line["execute"]
    await until(lambda: cluster.asked_by_line["execute"] > asked)
    for _ in range(10):
        assert (await other.snapshot()).items == ()
    assert passage.passed[Direction.TO_CLIENT] == passed
    assert (appending.done(), other.seq, handle.seq) == (False, 0, 0)
    store.release()
    await appending
    await until(lambda: other.seq == 1)


def held_back(actor: LineActor) -> int:
    """Return how many bytes an owner has in its hands for clients that take nothing."""
    transports = [line._transport for line in actor.line_server._connections]
    return sum(transport.get_write_buffer_size() for transport in transports if transport is not None)


async def test_a_reader_that_takes_nothing_costs_the_owner_a_bounded_amount(store: FaultyStore, sockets: Path) -> None:
    """Megabytes are written meanwhile: the owner holds one push, nobody waits, and the reader gets a snapshot later."""
    async with LineCluster(store, brief(items=20, poll=60.0, attempt=60.0), sockets) as cluster:
        slow = await cluster.connected()
        passage = cluster.relay.last
        writer = await cluster.connected()
        await writer.append(user("first"))
        await until(lambda: slow.seq == 1)
        passage.fail(Fault(Kind.HOLD, Direction.TO_CLIENT))
        actor = cluster.actor
        assert isinstance(actor, LineActor)
        most = 0
        for number in range(150):  # ten megabytes
            await writer.append(user(f"{number}{LARGE}"))
            most = max(most, held_back(actor))
        assert most <= HIGH_WATER + PUSH_BYTES + len(LARGE)
        assert slow.seq < writer.seq
        passage.release()
        await until(lambda: slow.seq == writer.seq)
        assert slow.items == writer.items


async def come_back(cluster: LineCluster, count: int, writers: int) -> None:
    """Have so many handles lose their owner at one moment, when some of them write and the others follow."""
    handles: list[ConversationHandle] = [await cluster.connected() for _ in range(count)]
    async with Watcher(handles[0]) as watcher:
        await cluster.kill()
        began = asyncio.get_running_loop().time()
        writing = handles[:writers]
        receipts = await asyncio.gather(*(handle.append(user(str(n))) for n, handle in enumerate(writing)))
        assert {receipt.epoch for receipt in receipts} == {2}
        await until(lambda: all(port.way is not None for port in cluster.ports), patience=BACK_SECONDS)
        logger.warning("%d handles were back after %.1f s", count, asyncio.get_running_loop().time() - began)
        before = cluster.asked_by_line["execute"]
        await asyncio.gather(*(handle.append(user(f"again {n}")) for n, handle in enumerate(writing)))
        assert cluster.asked_by_line["execute"] - before == writers
        last = await handles[0].snapshot(fresh=True)
        await watcher.saw(last.seq)
        await until(lambda: all(handle.seq == last.seq for handle in handles), patience=BACK_SECONDS)
    assert_contiguous(watcher.seqs)
    assert sorted(watcher.texts) == sorted([*map(str, range(writers)), *(f"again {n}" for n in range(writers))])


async def test_many_handles_come_back_at_once(cluster: LineCluster) -> None:
    """Their owner dies: each command happens once, all lines are up again, and carry what is written then."""
    await come_back(cluster, SEVERAL, SEVERAL)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_thousand_handles_come_back_at_once(sockets: Path) -> None:
    """As above, of two owners, each with nearly as many as may follow one; a few write, and all hear of it."""
    settings, each = brief(command=BACK_SECONDS, attempt=BACK_SECONDS), MAX_WATCHERS - 10
    async with AsyncExitStack() as stack:
        clusters = [
            await stack.enter_async_context(LineCluster(FaultyStore(), settings, sockets, is_relayed=False))
            for _ in range(2)
        ]
        await asyncio.gather(*(come_back(cluster, each, 20) for cluster in clusters))


async def test_an_idle_handle_sends_a_keep_alive_and_nothing_else(sockets: Path) -> None:
    """While the line is up nothing is polled: for many times as long as a poll takes, only a few pings pass."""
    async with LineCluster(FaultyStore(), brief(poll=0.05), sockets) as cluster:
        handle = await cluster.connected()
        await handle.append(user("hello"))
        passed, polls = dict(cluster.relay.last.passed), cluster.calls["poll"]
        await asyncio.sleep(1.0)
        spent = [cluster.relay.last.passed[way] - passed[way] for way in Direction]
        assert max(spent) <= PING_BYTES * 1.0 / 0.05
        assert cluster.calls["poll"] == polls


@pytest.mark.parametrize("direction", Direction)
async def test_who_only_follows_notices_a_line_that_has_fallen_silent(sockets: Path, direction: Direction) -> None:
    """It asks nothing and hears nothing more: after the time of a poll it asks by calls, and soon by another line."""
    async with LineCluster(FaultyStore(), brief(poll=1.0), sockets, timing=LINE_QUICK) as cluster:
        follower = await cluster.connected()
        port, passage = cluster.ports[-1], cluster.relay.last
        writer = await cluster.connected()
        await writer.append(user("first"))
        await until(lambda: follower.seq == 1)
        passage.fail(Fault(Kind.SWALLOW, direction))
        await writer.append(user("second"))
        await until(lambda: follower.seq == 2)
        await until(lambda: port.way is not None and cluster.relay.last is not passage)
