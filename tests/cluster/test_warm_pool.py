"""The warm pool on a real cluster: openings find a worker that was there before."""

import os
import secrets

import psutil
import pytest
import ray

from conversation_actors import ConversationClient, Message
from conversation_actors.runtime import NAMESPACE
from conversation_actors.runtime.warm_pool import POOL_NAME, RayNodes
from conversation_actors.settings import PoolSettings
from tests.cluster.conftest import Connect
from tests.support.processes import sigkill
from tests.support.ray_cluster import RayCluster
from tests.support.servers import wait_until


def idle_workers(cluster: RayCluster) -> set[int]:
    """Process ids of the cluster's workers that nobody has taken."""
    idle = set()
    for node in cluster.nodes:
        for process in node.processes():
            try:
                if process.cmdline()[:1] == ["ray::IDLE"]:
                    idle.add(process.pid)
            except psutil.Error:
                continue
    return idle


async def ready() -> int:
    """How many workers the pool believes to be ready."""
    counted: dict[str, int] = await ray.get_actor(POOL_NAME, namespace=NAMESPACE).ready.remote()
    return sum(counted.values())


@pytest.fixture
async def pooled(connect: Connect, cluster: RayCluster) -> ConversationClient:
    """A client of a cluster whose pool is full."""
    client: ConversationClient = await connect()

    async def full() -> bool:
        try:
            return await ready() >= PoolSettings().minimum <= len(idle_workers(cluster))
        except ValueError:
            return False  # the client starts the pool behind its own start

    await wait_until(full, "workers that are ready", patience=60)
    return client


async def test_an_opening_takes_a_worker_that_was_there(
    pooled: ConversationClient, cluster: RayCluster, conversation_id: str
) -> None:
    """The conversation's process is one that was started ahead of time, and another one takes its place."""
    before = idle_workers(cluster)
    conversation = await pooled.open(conversation_id)
    info = await conversation.info()
    assert info.pid in before

    async def replaced() -> bool:
        return bool(idle_workers(cluster) - before)

    await wait_until(replaced, "a worker in its place", patience=60)


async def test_a_restart_takes_a_worker_that_was_there(
    pooled: ConversationClient, cluster: RayCluster, conversation_id: str
) -> None:
    """An owner that was killed comes back in a process that was started ahead of time."""
    conversation = await pooled.open(conversation_id)
    killed = (await conversation.info()).pid

    async def refilled() -> bool:
        return len(idle_workers(cluster)) >= PoolSettings().minimum

    await wait_until(refilled, "workers that are ready", patience=60)
    before = idle_workers(cluster)
    sigkill(killed)
    await conversation.append(Message(role="user", content="still there?"))
    assert (await conversation.info()).pid in before

    async def replaced() -> bool:
        return bool(idle_workers(cluster) - before)

    await wait_until(replaced, "a worker in the place of the one that the restart took", patience=60)


async def test_the_pool_can_be_killed(pooled: ConversationClient, cluster: RayCluster) -> None:
    """Its process is killed: openings go on, and Ray starts it again; it fills up anew."""
    pid = await pool_pid(cluster)
    sigkill(pid)
    conversation = await pooled.open(f"after-the-pool-{secrets.token_hex(4)}")
    await conversation.append(Message(role="user", content="hello"))

    async def is_back() -> bool:
        try:
            return await ready() >= PoolSettings().minimum
        except ray.exceptions.RayError:
            return False

    await wait_until(is_back, "the pool", patience=60)
    assert await pool_pid(cluster) != pid


async def pool_pid(cluster: RayCluster) -> int:
    """The pool's process."""
    for node in cluster.nodes:
        for process in node.processes():
            try:
                title = process.cmdline()[:1]
            except psutil.Error:
                continue
            if title and title[0].startswith("ray::WarmPool"):
                return process.pid
    message = f"no pool in {os.getpid()}'s cluster"
    raise AssertionError(message)


async def test_the_pool_sees_what_is_there(pooled: ConversationClient, cluster: RayCluster) -> None:
    """What it asks the raylet for is what Ray calls idle: it would notice if a release changed that."""
    node = next(node for node in ray.nodes() if node["Alive"])
    address = f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}"

    async def agrees() -> bool:
        return await RayNodes().count(address) == len(idle_workers(cluster)) >= PoolSettings().minimum

    await wait_until(agrees, "the raylet's count to be that of the processes", patience=60)


async def test_without_a_pool_openings_work(connect: Connect, conversation_id: str) -> None:
    """`maximum=0` asks for none; nothing else changes."""
    client = await connect(pool=PoolSettings(minimum=0, maximum=0))
    conversation = await client.open(conversation_id)
    receipt = await conversation.append(Message(role="user", content="hello"))
    assert receipt.seq == 1
