"""Ray's head goes for longer than Ray waits for it: whoever has joined lives on, is told, and joins the next one."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.observation import PROGRAMS
from tests.support.ray_cluster import RayCluster, program_environment
from tests.support.servers import Server

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

COMMAND_SECONDS = 5.0
RAYS_PATIENCE_SECONDS = 60.0
"""After so long without a head, Ray ends a process that has not chosen otherwise."""
BACK_SECONDS = 60.0
"""A head to be joined anew, and an owner to be started the slow way."""


class Survivor:
    """`programs/survivor.py`, a process of its own."""

    def __init__(self, cluster: RayCluster, redis: Server, conversation_id: str) -> None:
        """Start it."""
        variables = {
            "RAY_ADDRESS": cluster.address,
            "CONVERSATION_REDIS_URL": redis.url,
            "CONVERSATION_TIMEOUT_COMMAND": str(COMMAND_SECONDS),
            "CONVERSATION_TIMEOUT_OPEN": str(COMMAND_SECONDS),
            "CONVERSATION_TIMEOUT_ATTEMPT": "3",
        }
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAMS / "survivor.py"), conversation_id],
            env=program_environment(**variables), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    async def do(self, word: str) -> dict[str, Any]:
        """Have it do something; returns what it tells. Fails where the process has ended."""
        return await asyncio.to_thread(self._do, word)

    def _do(self, word: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the process ended, with {self.process.wait()}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def done(self, word: str) -> Any:
        """Return what it gets when it does something until that works."""
        deadline = time.monotonic() + BACK_SECONDS
        while True:
            told = await self.do(word)
            if not told["error"]:
                return told["value"]
            assert time.monotonic() < deadline, told["error"]


@pytest.fixture
def own_cluster() -> Iterator[RayCluster]:
    """Make a cluster that this process has not joined: it loses its head."""
    with RayCluster() as started:
        yield started


@pytest.fixture
def survivor(own_cluster: RayCluster, own_redis: Server, conversation_id: str) -> Iterator[Survivor]:
    """Make a client of that cluster."""
    started = Survivor(own_cluster, own_redis, conversation_id)
    yield started
    with started.process:
        started.process.kill()


async def test_a_client_outlives_the_head(survivor: Survivor, own_cluster: RayCluster) -> None:
    """Without a head for more than a minute every call raises a typed error in its time, and none ends the process.

    What was recorded meanwhile is kept. When another head stands at the address, with nothing of the old one's memory,
    the same client joins it, and its handle goes on with all that was acknowledged.
    """
    await survivor.done("append")
    own_cluster.kill_head()
    gone, told = time.monotonic(), await survivor.do("record")
    while time.monotonic() - gone < RAYS_PATIENCE_SECONDS + 5:
        for word, kinds in (("append", ("ClusterUnavailable", "OutcomeUnknown")), ("open", ("ClusterUnavailable",))):
            told = await survivor.do(word)
            assert told["error"].startswith(kinds), told
            assert told["seconds"] < COMMAND_SECONDS * 3
    assert "head at" in told["error"]  # the reason, once the head was asked before Ray was
    own_cluster.restart_head()
    await survivor.done("append")
    await survivor.done("flush")
    await survivor.done("open")
    items = await survivor.done("items")
    assert items[0].startswith("append-1")
    assert "record-2" in items
    assert len(items) == len(set(items))
    assert survivor.process.stdin is not None
    survivor.process.stdin.close()
    assert await asyncio.to_thread(survivor.process.wait, 30) == 0
