"""On which nodes conversations start: on all in turn, or on one until that is half full."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Iterator

import pytest
import ray

from conversation_actors import ConversationClient
from conversation_actors.settings import Placement
from tests.support.observation import make_settings
from tests.support.ray_cluster import RayCluster
from tests.support.servers import Server

NODES = 3
OPENED = 30
AT_ONCE = 6
LEAST, MOST = 6, 14
"""Of 30 on a node of three: in proportion what is asked of 200, 40 to 95."""


@pytest.fixture(scope="module")
def three_nodes() -> Iterator[RayCluster]:
    """Three nodes with room for all; this process leaves the cluster again, for the tests that come behind."""
    with RayCluster() as cluster:
        for _ in range(NODES - 1):
            cluster.add_node()
        cluster.join()
        yield cluster
    ray.shutdown()


async def nodes_of_owners(client: ConversationClient) -> Counter[str]:
    """Open conversations, a few at once, and count on which nodes their owners are. None stays."""
    prefix, gate = secrets.token_hex(4), asyncio.Semaphore(AT_ONCE)

    async def opened(number: int) -> str:
        async with gate:
            conversation = await client.open(f"{prefix}-{number}")
            node_id = (await conversation.info()).node_id
            await conversation.passivate()
            return node_id

    return Counter(await asyncio.gather(*(opened(number) for number in range(OPENED))))


@pytest.mark.timeout(240)
async def test_conversations_are_spread(three_nodes: RayCluster, redis: Server) -> None:
    """Without a word each node gets about its third; the loss of one is nobody else's."""
    async with ConversationClient(make_settings(redis.url, three_nodes.address)) as client:
        counted = await nodes_of_owners(client)
    assert len(counted) == NODES
    assert all(LEAST <= count <= MOST for count in counted.values()), counted


async def test_conversations_are_packed(three_nodes: RayCluster, redis: Server) -> None:
    """Where that is asked for, other nodes stay empty, so that an autoscaler can take them away."""
    settings = make_settings(redis.url, three_nodes.address, placement=Placement.PACK)
    async with ConversationClient(settings) as client:
        assert len(await nodes_of_owners(client)) == 1
