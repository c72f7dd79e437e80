"""Many owners die at the same moment: all come back, none waits for ever, nothing is lost."""

import asyncio
import logging
import time
from collections.abc import Iterator

import pytest

from conversation_actors import ConversationHandle
from tests.cluster.conftest import Connect
from tests.support.observation import texts, user
from tests.support.processes import sigkill
from tests.support.ray_cluster import IS_PLAIN, RayCluster

pytestmark = [pytest.mark.chaos]
log = logging.getLogger(__name__)

OWNERS = 10 if IS_PLAIN else 60
"""An ordinary worker takes two seconds of a core to start."""
PATIENCE = 90.0
"""For the last of them: a new process for each, on two busy cores."""


@pytest.fixture
def cluster() -> Iterator[RayCluster]:
    """A head with room for all of them."""
    with RayCluster() as started:
        started.join()
        yield started


async def test_all_owners_killed_at_once(connect: Connect, conversation_id: str) -> None:
    """Each conversation's next append is acknowledged, under its next epoch, with its history complete."""
    client = await connect(timeouts={"command": PATIENCE, "open": PATIENCE})
    handles: list[ConversationHandle] = await asyncio.gather(
        *(client.open(f"{conversation_id}-{number}") for number in range(OWNERS))
    )
    await asyncio.gather(*(handle.append(user("before")) for handle in handles))
    owners = [info.pid for info in await asyncio.gather(*(handle.info() for handle in handles))]
    for pid in owners:
        sigkill(pid)
    killed = time.monotonic()
    waited: list[float] = []

    async def go_on(handle: ConversationHandle) -> None:
        receipt = await handle.append(user("after"))
        waited.append(time.monotonic() - killed)
        assert (receipt.seq, receipt.epoch) == (2, 2)
        assert texts((await handle.snapshot(fresh=True)).items) == ["before", "after"]

    await asyncio.gather(*(go_on(handle) for handle in handles))
    log.warning("%d owners: the first was back after %.1f s, the last after %.1f s", OWNERS, waited[0], waited[-1])
    assert len(waited) == OWNERS
