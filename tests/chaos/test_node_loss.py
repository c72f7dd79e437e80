"""A node dies, or hangs with its actors alive: the conversation goes on elsewhere, and nothing is lost."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
import ray

from conversation_actors import ConversationHandle
from tests.cluster.conftest import Connect
from tests.support.observation import (
    Watcher,
    assert_contiguous,
    assert_exactly_once,
    assert_ordered,
    gone,
    start_program,
    texts,
    user,
)
from tests.support.processes import is_alive, pause, resume
from tests.support.ray_cluster import Node, RayCluster
from tests.support.servers import Server, wait_until

pytestmark = [pytest.mark.chaos]
log = logging.getLogger(__name__)

NOTICED_SECONDS = 30.0
"""A dead node is noticed in 3 s, a hung one in 6 s, on an idle machine."""


class _Filler:
    """Takes the head's only place for a conversation, so that the next one goes to another node."""

    def here(self) -> str:
        """Tell the node."""
        return str(ray.get_runtime_context().get_node_id())


@pytest.fixture
async def elsewhere(
    cluster: RayCluster, connect: Connect, conversation_id: str
) -> AsyncIterator[tuple[ConversationHandle, Node]]:
    """A conversation on a node beside the head, and that node; the head has room to take it over."""
    filler = ray.remote(_Filler).options(num_cpus=0, resources={"conversation": 1}).remote()
    head_id = await filler.here.remote()
    node = cluster.add_node()
    conversation = await (await connect(timeouts={"command": 60.0})).open(conversation_id)
    info = await conversation.info()
    assert info.node_id != head_id
    assert node.raylet in psutil.Process(info.pid).parents()  # between them: the fork server
    ray.kill(filler)
    yield conversation, node
    assert (await conversation.info()).node_id == head_id


async def test_append_goes_on_at_another_node_when_one_is_killed(elsewhere: tuple[ConversationHandle, Node]) -> None:
    """SIGKILL of raylet and workers: the next append is acknowledged by an owner on another node."""
    conversation, node = elsewhere
    written = [f"before-{number}" for number in range(20)]
    for text in written:
        await conversation.append(user(text))
    node.kill_raylet()
    killed = time.monotonic()
    receipt = await conversation.append(user("after"))
    seconds = time.monotonic() - killed
    log.warning("acknowledged again after %.1f s", seconds)
    assert seconds < NOTICED_SECONDS
    assert (receipt.seq, receipt.epoch) == (21, 2)
    assert texts((await conversation.snapshot(fresh=True)).items) == [*written, "after"]


async def has_tried(client: Any, *, epoch: int) -> bool:
    """Tell whether the server was asked to write under this epoch, since its slow log logs everything."""
    commands = [entry["command"].split() for entry in client.slowlog_get(-1)]
    return any(command[:1] == [b"EVALSHA"] and command[7:8] == [b"%d" % epoch] for command in commands)


async def test_owner_of_a_hung_raylet_is_refused_what_it_writes(
    elsewhere: tuple[ConversationHandle, Node], redis: Server
) -> None:
    """A hung raylet's actor lives on beside its successor: what it still wants to write is refused."""
    conversation, node = elsewhere
    await conversation.append(user("before"))
    zombie = psutil.Process((await conversation.info()).pid)
    zombie.suspend()  # what is sent to it now waits in its socket until it wakes as a zombie
    in_flight = asyncio.create_task(conversation.append(user("in flight")))
    await asyncio.sleep(0)
    node.raylet.suspend()
    hung = time.monotonic()
    receipt = await in_flight
    seconds = time.monotonic() - hung
    log.warning("acknowledged again after %.1f s", seconds)
    assert seconds < NOTICED_SECONDS
    assert (receipt.seq, receipt.epoch) == (2, 2)
    assert is_alive(zombie.pid)

    with redis.client() as client:
        client.config_set("slowlog-log-slower-than", 0)
        zombie.resume()  # it executes what it was sent, as epoch 1
        await wait_until(lambda: has_tried(client, epoch=1), "the zombie to write")
    after = await conversation.append(user("after"))
    assert (after.seq, after.epoch) == (3, 2)
    await gone(zombie.pid)
    assert texts((await conversation.snapshot(fresh=True)).items) == ["before", "in flight", "after"]


async def test_raylet_hung_under_load(elsewhere: tuple[ConversationHandle, Node], connect: Connect) -> None:
    """Two handles write on while a raylet hangs: old and new owner overlap in time, and never in the journal."""
    conversation, node = elsewhere
    second = await (await connect(timeouts={"command": 60.0})).open(conversation.id)
    stop = asyncio.Event()
    acknowledged: list[str] = []

    async def write(handle: ConversationHandle, name: str) -> None:
        number = 0
        while not stop.is_set():
            await handle.append(user(text := f"{name}-{number:05}"))
            acknowledged.append(text)
            number += 1

    async with Watcher(conversation) as watcher:
        writers = [asyncio.create_task(write(conversation, "a")), asyncio.create_task(write(second, "b"))]
        await watcher.saw(20)
        node.raylet.suspend()

        async def has_moved() -> bool:
            return watcher.entries[-1].epoch > 1

        await wait_until(has_moved, "another node to take over", patience=NOTICED_SECONDS)
        await watcher.saw(watcher.seqs[-1] + 20)
        stop.set()
        await asyncio.gather(*writers)
        snapshot = await conversation.snapshot(fresh=True)
        await watcher.saw(snapshot.seq)
    epochs = [entry.epoch for entry in watcher.entries]
    assert epochs == sorted(epochs)
    assert_contiguous(watcher.seqs)
    assert_exactly_once(watcher.texts, acknowledged)
    assert texts(snapshot.items) == watcher.texts
    for name in ("a", "b"):
        assert_ordered(watcher.texts, name)


async def test_hung_head_lets_a_process_end(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that accepts connections and answers nothing: a typed error in time, and the process can exit."""
    monkeypatch.setenv("CONVERSATION_REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    monkeypatch.setenv("CONVERSATION_TIMEOUT_CONNECT", "4")
    control_plane = cluster.nodes[0].named("gcs_server")
    pause(control_plane.pid)
    program = start_program("outsider")
    try:
        output, _ = await asyncio.to_thread(program.communicate, timeout=60)
    finally:
        resume(control_plane.pid)
        program.kill()
        program.communicate()
    kind, *sentences = output.splitlines()
    assert kind == "ClusterUnavailableError"
    assert len(sentences) == 1
