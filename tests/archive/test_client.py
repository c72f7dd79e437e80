"""What a client does with an archive besides pages: how far it is behind, deletion, and reading what Redis lost."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import pytest
from pydantic import SecretStr

from conversation_actors import ConversationClient, ConversationHandle
from conversation_actors.archive.database import Database
from conversation_actors.archive.writer import Writer
from conversation_actors.errors import (
    ArchiveMisconfiguredError,
    ArchiveUnavailableError,
    ConversationNotFoundError,
    InvalidInputError,
)
from conversation_actors.settings import ArchiveSettings, Settings
from conversation_actors.store import Store, forget_memory, open_store
from conversation_actors.testing import crash
from tests.support.archive_world import archived_at, names, said

ID = "support-42"


@dataclass
class Place:
    """An archive, and a store in this process that can lose everything; the test is the archiver."""

    settings: Settings
    database: Database
    name: str

    @property
    def store(self) -> Store:
        """The store of all clients here."""
        return open_store(self.settings.in_memory(self.name))

    def client(self, url: str | None = None) -> ConversationClient:
        """Make a client, which may have another idea of where the archive is."""
        archive = self.settings.archive
        if url is not None:
            archive = ArchiveSettings(url=SecretStr(url), timeout=timedelta(seconds=0.2))
        return ConversationClient.local(self.settings.model_copy(update={"archive": archive}), name=self.name)

    async def archive(self) -> None:
        """Archive all that waits."""
        backlog = self.store.backlog()
        batch = await backlog.peek(ID)
        await Writer(self.database, self.settings.tenant).write(ID, batch.stored)
        await backlog.settle(ID, backlog=batch.backlog, through=batch.through)

    async def lives(self) -> int:
        """Count what the archive has of the conversation."""
        return len(await Writer(self.database, self.settings.tenant).lives(ID))

    async def lose(self) -> None:
        """Have the store lose everything, after all was archived."""
        await self.archive()
        forget_memory(self.name)


@pytest.fixture
async def place(database_url: str, database: Database) -> AsyncIterator[Place]:
    """An empty store and an empty archive."""
    name = secrets.token_hex(8)
    yield Place(archived_at(database_url), database, name)
    forget_memory(name)


NOBODY = "postgresql+psycopg://nobody@127.0.0.1:1/none"


async def test_the_lag_is_what_waits(place: Place) -> None:
    """For one conversation and for all; a conversation without a backlog has none."""
    async with place.client() as client:
        conversation = await client.open(ID)
        await conversation.append(*said("a"))
        lag = await client.archive_lag(ID)
        assert (lag.conversations, lag.records) == (1, 1)
        assert (await client.archive_lag()).records == 1
        assert (await client.archive_lag("another")).records == 0
        await place.archive()
        assert (await client.archive_lag()).records == 0
        with pytest.raises(InvalidInputError):
            await client.archive_lag("")


async def test_deletion_is_in_the_archive_at_once(place: Place) -> None:
    """No archiver runs. What was archived, and what still waited, are gone."""
    async with place.client() as client:
        conversation = await client.open(ID)
        await conversation.append(*said("a"))
        await place.archive()
        await conversation.append(*said("b"))
        await client.delete(ID)
        assert await place.lives() == 0
        assert (await client.archive_lag()).records == 0
        with pytest.raises(ConversationNotFoundError):
            await client.read(ID)
        with pytest.raises(ConversationNotFoundError):
            await client.delete(ID)


async def test_deletion_waits_for_an_archive_that_is_away(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """It is no error: an archiver deletes what there is when it has caught up."""
    async with place.client() as client:
        await (await client.open(ID)).append(*said("a"))
        await place.archive()
    async with place.client(NOBODY) as client:
        await client.delete(ID)
    assert "an archiver has to delete" in caplog.text
    assert await place.lives() == 1
    await place.archive()
    assert await place.lives() == 0


async def test_what_only_the_archive_has_is_read_there_and_deleted_there(place: Place) -> None:
    """As it was acknowledged last; with the archive away nobody can tell."""
    async with place.client() as client:
        conversation = await client.open(ID)
        await conversation.append(*said("a", "b"))
        await conversation.set_attributes({"mood": "calm"})
        seq = conversation.seq
    await place.lose()
    async with place.client(NOBODY) as client:
        with pytest.raises(ArchiveUnavailableError):
            await client.read(ID)
        with pytest.raises(ArchiveUnavailableError):
            await client.delete(ID)
    async with place.client() as client:
        snapshot = await client.read(ID)
        assert [item.id for item in snapshot.items] == ["a", "b"]
        assert (snapshot.seq, snapshot.attributes) == (seq, {"mood": "calm"})
        await client.delete(ID)
        assert await place.lives() == 0
        for call in (client.read, client.delete):
            with pytest.raises(ConversationNotFoundError):
                await call(ID)


@pytest.mark.parametrize("is_lost", [False, True])
async def test_deletion_leaves_a_conversation_that_begins_meanwhile(
    place: Place, monkeypatch: pytest.MonkeyPatch, *, is_lost: bool
) -> None:
    """Somebody opens the id anew, and is archived, after Redis has forgotten it and before the archive has."""
    async with place.client() as client:
        await (await client.open(ID)).append(*said("old"))
        await crash(ID)
    if is_lost:
        await place.lose()

    async with place.client() as other, place.client() as client:
        begun: list[ConversationHandle] = []

        async def begin(_: str) -> None:
            begun.append(await other.open(ID))
            await begun[0].append(*said("new"))
            await place.archive()

        monkeypatch.setattr(client, "_tell_of_deletion", begin)
        await client.delete(ID)
        await place.archive()
        assert await names(begun[0]) == ["new"]
        assert await place.lives() == 1


async def test_without_an_archive_nothing_is_asked_of_one() -> None:
    """Reading and deleting what is not there are as ever."""
    async with ConversationClient.local(name=secrets.token_hex(8)) as client:
        with pytest.raises(ArchiveMisconfiguredError):
            await client.archive_lag()
        for call in (client.read, client.delete):
            with pytest.raises(ConversationNotFoundError):
                await call(ID)
