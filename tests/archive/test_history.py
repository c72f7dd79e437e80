"""The whole history: once and in order while items cross from Redis into the database, with what was said just now."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Self, cast

import pytest
from sqlalchemy import select, update

from conversation_actors import FunctionCall, FunctionCallOutput, Message
from conversation_actors.archive.tables import entries, items
from conversation_actors.errors import (
    ArchiveMisconfiguredError,
    ArchiveUnavailableError,
    ConflictError,
    ConversationNotFoundError,
    CorruptStateError,
    InvalidInputError,
)
from conversation_actors.settings import Durability
from conversation_actors.store import MemoryStore, Store
from conversation_actors.store.backlog import Batch
from conversation_actors.store.redis import RedisStore
from conversation_actors.store.shared import archive_bounds
from tests.archive.conftest import migrated_url
from tests.support.archive_world import WINDOW, ArchiveWorld, archive_world, archived_at, names, said, whole
from tests.support.fakes import CONVERSATION, FakeCluster, brief
from tests.support.servers import Server

TTL = timedelta(minutes=10)


@pytest.fixture(params=["memory-sqlite", "redis-postgresql"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ArchiveWorld]:
    """Both stores and both databases, each with one of the other kind."""
    store_kind, database_kind = request.param.split("-")
    settings = archived_at(await migrated_url(database_kind, tmp_path, request))
    bounds = archive_bounds(settings)
    if store_kind == "memory":
        store: Store = MemoryStore(archive=bounds)
    else:
        server: Server = request.getfixturevalue("server")
        client = server.client()
        client.flushall()
        client.close()
        durability = (Durability.REDIS, 0)
        store = RedisStore(server.url, durability=durability, timeout=timedelta(seconds=10), archive=bounds)
    async with archive_world(store, settings) as made:
        yield made
    await store.aclose()


async def test_what_left_the_window_is_there_with_what_was_said_just_now(world: ArchiveWorld) -> None:
    """At every stage of its way: while it waits, while it is archived and still waits, and when it waits no more."""
    handle = await world.cluster.handle()
    told = [f"m{number}" for number in range(WINDOW + 4)]
    for name in told:
        await handle.append(*said(name))
        assert (await names(handle))[-1] == name
    assert len(handle.items) == WINDOW
    assert await names(handle, limit=3) == told
    batch = await world.take(most_bytes=600)
    assert 0 < len(batch.stored) < len(told)
    assert await names(handle, limit=3) == told
    await world.settle(batch)
    assert await names(handle, limit=3) == told
    await world.archive()
    assert await names(handle, limit=3) == told
    assert await names(handle, limit=3, newest_first=True) == told[::-1]
    await handle.append(*said("new"))
    assert await names(handle, limit=4, newest_first=True) == ["new", *told[::-1]]


async def test_items_are_as_the_handle_has_them(world: ArchiveWorld) -> None:
    """With whatever fields they have."""
    handle = await world.cluster.handle()
    await handle.append(*said("a"), Message(role="assistant", content=["x", {"type": "y"}], extra={"z": [1, None]}))
    await handle.append(FunctionCall(call_id="c", name="f", arguments="{}"), FunctionCallOutput(call_id="c", output=""))
    shown = list(handle.items)
    assert await whole(handle) == shown
    await world.archive()
    assert await whole(handle) == shown


async def test_pages_have_everything_once_and_in_order_while_items_cross_the_seam(world: ArchiveWorld) -> None:
    """A writer and an archiver go on while pages are read, in both directions, with small and with large limits."""
    handle, writer = await world.cluster.handle(), await world.cluster.handle()
    acknowledged = 0

    async def write() -> None:
        nonlocal acknowledged
        for turn in range(30):
            some = [f"m{number}" for number in range(acknowledged, acknowledged + 1 + turn % 3)]
            await writer.append(*said(*some))
            acknowledged += len(some)

    async def archive(writing: asyncio.Task[None]) -> None:
        while (batch := await world.take(most_bytes=700)).stored or not writing.done():
            await asyncio.sleep(0)
            await world.settle(batch)

    writing = asyncio.create_task(write())
    archiving = asyncio.create_task(archive(writing))
    limit = 1
    while not archiving.done():
        limit = limit % 40 + 3
        for newest_first in (True, False):
            known = acknowledged
            found = await names(handle, limit=limit, newest_first=newest_first)
            ordered = found[::-1] if newest_first else found
            assert ordered == [f"m{number}" for number in range(len(ordered))]
            assert len(ordered) >= known
    await asyncio.gather(writing, archiving)
    assert await names(handle, limit=7) == [f"m{number}" for number in range(acknowledged)]


class Meddled:
    """A store in which something happens before and after each look at what waits."""

    def __init__(self, store: Store, meddle: Callable[[], Awaitable[None]]) -> None:
        """Look there."""
        self._store, self._meddle = store, meddle

    def backlog(self) -> Self:
        """Return the backlog, which is here too."""
        return self

    async def peek(self, conversation_id: str) -> Batch:
        """Look, with something before and something after it."""
        await self._meddle()
        batch = await self._store.backlog().peek(conversation_id)
        await self._meddle()
        return batch


async def test_what_is_archived_between_two_looks_is_neither_lost_nor_doubled(world: ArchiveWorld) -> None:
    """All that waits may be archived, and leave Redis, before and after the backlog is read."""
    handle, other = await world.cluster.handle(), await world.cluster.handle()
    said_so_far = 0

    async def meddle() -> None:
        nonlocal said_so_far
        await other.append(*said(f"m{said_so_far}", f"m{said_so_far + 1}"))
        said_so_far += 2
        await world.archive()

    world.cluster.store = cast("Store", Meddled(world.store, meddle))
    for newest_first in (False, True):
        known = said_so_far
        page = await handle.history(newest_first=newest_first)
        ordered = page.items[::-1] if newest_first else page.items
        assert [item.id for item in ordered] == [f"m{number}" for number in range(len(ordered))]
        assert len(ordered) >= known + 2


async def test_changes_that_wait_are_changes_of_what_is_archived(world: ArchiveWorld) -> None:
    """Items that are replaced, that come back, that are removed; and the database has it so a moment later."""
    handle = await world.cluster.handle()
    await handle.append(*said(*(f"m{number}" for number in range(8))))  # m0 and m1 leave the window
    await world.archive()
    await handle.append(*said("m5", text="replaced"))
    await handle.append(*said("m0", text="back"))  # m2 leaves for it
    await handle.remove("m6")
    expected = ["m1", "m2", "m3", "m4", "m5", "m7", "m0"]
    waiting = await whole(handle, limit=2)
    assert [item.id for item in waiting] == expected
    assert [item.text for item in waiting if item.id in {"m5", "m0"}] == ["replaced", "back"]
    assert await names(handle, limit=2, newest_first=True) == expected[::-1]
    await world.archive()
    assert await whole(handle, limit=3) == waiting


async def test_what_has_left_the_window_is_removed_too(world: ArchiveWorld) -> None:
    """By its id, from the archive and from what still waits; clearing takes it along though the window is empty."""
    handle = await world.cluster.handle()
    for number in range(WINDOW + 3):
        await handle.append(*said(f"m{number}", text=f"secret {number}"))
    await world.archive()
    await handle.remove("m0")
    before = await names(handle)
    await world.archive()
    assert before == await names(handle) == [f"m{number}" for number in range(1, WINDOW + 3)]
    assert not [row for row in await contents(world) if b"secret 0" in row]

    await handle.remove(*(item.id for item in handle.items))
    assert await names(handle) == ["m1", "m2"]
    await handle.clear_history()
    before = await names(handle)
    await world.archive()
    assert before == await names(handle) == []
    assert not [row for row in await contents(world) if b"secret" in row]


async def contents(world: ArchiveWorld) -> list[bytes]:
    """Return the bytes of all entries and items of the archive."""
    async with world.database.reading("look") as connection:
        found = [await connection.execute(select(table.c.data)) for table in (entries, items)]
        return [data for rows in found for (data,) in rows]


async def test_a_cleared_history_begins_anew(world: ArchiveWorld) -> None:
    """Nothing that was archived shows any more: neither while the clearing waits nor later."""
    handle = await world.cluster.handle()
    await handle.append(*said("a", "b"))
    await world.archive()
    await handle.clear_history()
    assert await names(handle) == []
    await handle.append(*said("b", "c"))
    assert await names(handle) == ["b", "c"]
    await world.archive()
    assert await names(handle, limit=1) == ["b", "c"]


async def test_a_cursor_is_of_one_life_and_of_one_direction(world: ArchiveWorld) -> None:
    """Any other text is refused by name, before anything is asked."""
    handle = await world.cluster.handle()
    await handle.append(*said("a", "b", "c"))
    cursor = (await handle.history(limit=1)).next_cursor
    assert cursor is not None
    with pytest.raises(InvalidInputError, match="newest_first=False"):
        await handle.history(cursor, newest_first=True)
    for arguments in ({"cursor": "x"}, {"cursor": 7}, {"limit": 0}, {"limit": 1001}, {"limit": True}, {"limit": 1.0}):
        with pytest.raises(InvalidInputError) as refused:
            await handle.history(**arguments)
        assert refused.value.field in arguments
    with pytest.raises(InvalidInputError, match="newest_first"):
        await handle.history(newest_first=1)  # type: ignore[arg-type]
    await world.archive()
    await world.store.delete(CONVERSATION, ttl=TTL)
    await world.cluster.kill()
    again = await world.cluster.handle()
    await again.append(*said("d"))
    with pytest.raises(ConflictError):
        await again.history(cursor)
    assert await names(again) == ["d"]
    await world.archive()
    assert await names(again) == ["d"]


async def test_a_deleted_conversation_has_no_history(world: ArchiveWorld) -> None:
    """As soon as its deletion waits, and when the archive has it."""
    handle = await world.cluster.handle()
    await handle.append(*said("a"))
    await world.archive()
    await world.store.delete(CONVERSATION, ttl=TTL)
    with pytest.raises(ConversationNotFoundError):
        await handle.history()
    await world.archive()
    with pytest.raises(ConversationNotFoundError):
        await handle.history()


async def test_a_row_that_cannot_be_read_is_named(world: ArchiveWorld) -> None:
    """By its table and its key."""
    handle = await world.cluster.handle()
    await handle.append(*said("a", "b"))
    await world.archive()
    for damaged in (b"\xff", b"[]", b"{}"):
        async with world.database.writing("a fault") as connection:
            await connection.execute(update(items).where(items.c.item_id == "b").values(data=damaged))
        with pytest.raises(CorruptStateError) as raised:
            await handle.history()
        assert raised.value.key == f"archive_items[{CONVERSATION!r}, 'b']"


async def test_a_backlog_that_has_everything_needs_no_database(tmp_path: Path) -> None:
    """One that lacks the beginning does: then it is the database's fault that nothing is shown."""
    settings = archived_at("postgresql+psycopg://nobody@127.0.0.1:1/none", timeout=timedelta(seconds=0.2))
    store: Store = MemoryStore(archive=archive_bounds(settings))
    async with archive_world(store, settings) as world:
        handle = await world.cluster.handle()
        await handle.append(*said("a"))
        await handle.append(*said("b", "c"))
        assert await names(handle, limit=2) == ["a", "b", "c"]
        batch = await store.backlog().take(CONVERSATION, archiver="x", ttl=TTL, most_bytes=1)
        assert batch is not None
        await world.settle(batch)
        with pytest.raises(ArchiveUnavailableError):
            await handle.history()


async def test_without_an_archive_there_is_no_history_to_ask_for() -> None:
    """It is the settings that lack it."""
    async with FakeCluster(MemoryStore(), brief()) as cluster:
        handle = await cluster.handle()
        with pytest.raises(ArchiveMisconfiguredError, match="CONVERSATION_ARCHIVE_URL"):
            await handle.history()
        await handle.aclose()
        with pytest.raises(InvalidInputError, match="closed"):
            await handle.history()
