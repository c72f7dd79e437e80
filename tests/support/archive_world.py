"""A conversation with its owner, a store and an archive, in one process; the test itself is the archiver."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from pydantic import SecretStr

from conversation_actors import ConversationHandle, Item, Message
from conversation_actors.archive.database import Database
from conversation_actors.archive.writer import Writer
from conversation_actors.settings import ArchiveSettings, Settings
from conversation_actors.store import Store
from conversation_actors.store.backlog import Batch
from tests.support.fakes import CONVERSATION, FakeCluster, brief

WINDOW = 6
"""Items that a handle of such a world has."""
_CLAIM = timedelta(minutes=10)
_PATIENCE = timedelta(seconds=20)


@dataclass
class ArchiveWorld:
    """What a test of the archive needs."""

    cluster: FakeCluster
    store: Store
    database: Database
    settings: Settings

    @property
    def writer(self) -> Writer:
        """Writes into the archive."""
        return Writer(self.database, self.settings.tenant)

    async def take(self, *, most_bytes: int = 1 << 20) -> Batch:
        """Write the first records of the backlog into the database; they still wait then."""
        batch = await self.store.backlog().take(CONVERSATION, archiver="test", ttl=_CLAIM, most_bytes=most_bytes)
        assert batch is not None
        await self.writer.write(CONVERSATION, batch.stored)
        return batch

    async def settle(self, batch: Batch) -> None:
        """Let a batch wait no longer."""
        await self.store.backlog().settle(CONVERSATION, backlog=batch.backlog, through=batch.through)

    async def archive(self) -> None:
        """Archive all that waits."""
        while (batch := await self.take()).stored:
            await self.settle(batch)


def archived_at(url: str, *, timeout: timedelta = _PATIENCE) -> Settings:
    """Return settings with a small window and this archive."""
    archive = ArchiveSettings(url=SecretStr(url), timeout=timeout)
    return brief(items=WINDOW).model_copy(update={"archive": archive})


@asynccontextmanager
async def archive_world(store: Store, settings: Settings) -> AsyncIterator[ArchiveWorld]:
    """Begin with an empty store, which archives, and an empty archive."""
    database = Database.of(settings)
    try:
        async with FakeCluster(store, settings) as cluster:
            yield ArchiveWorld(cluster, store, database, settings)
    finally:
        await database.aclose()


def said(*names: str, text: str = "hello") -> list[Message]:
    """Make messages with these ids."""
    return [Message(id=name, role="user", content=text, created_at=1.0) for name in names]


async def whole(handle: ConversationHandle, *, limit: int = 100, newest_first: bool = False) -> list[Item]:
    """Read all pages of a history."""
    page = await handle.history(limit=limit, newest_first=newest_first)
    found = list(page.items)
    while page.next_cursor is not None:
        assert len(page.items) == limit
        page = await handle.history(page.next_cursor, limit, newest_first=newest_first)
        found += page.items
    assert len(page.items) <= limit
    return found


async def names(handle: ConversationHandle, *, limit: int = 100, newest_first: bool = False) -> list[str]:
    """Read the ids of all items of a history."""
    return [item.id for item in await whole(handle, limit=limit, newest_first=newest_first)]
