"""A cluster that may lose nodes, and a Redis that may hang: each for one test."""

from collections.abc import Iterator

import pytest

from tests.cluster.conftest import configure, connect, conversation_id, own_redis, surroundings
from tests.support.ray_cluster import QUICK_NODE_DEATH, RayCluster, as_json
from tests.support.servers import Server

__all__ = ["configure", "connect", "conversation_id", "own_redis", "surroundings"]


@pytest.fixture
def cluster() -> Iterator[RayCluster]:
    """Make a head that soon notices a dead node, and has room for one conversation; joined by this process."""
    with RayCluster(resources=as_json(conversation=1), environment=QUICK_NODE_DEATH) as started:
        started.join()
        yield started


@pytest.fixture
def redis(own_redis: Server) -> Server:
    """Every test's server is its own here."""
    return own_redis
