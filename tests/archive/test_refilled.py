"""A conversation that came back from the back end, and the archive: which of both is asked, and what is archived of it.

Clients, owners, databases and HTTP are real. The store is this process's memory, or a Redis where a test says so.
"""

import secrets
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from conversation_actors import ConversationClient, ConversationHandle, ConversationNotFoundError, Message, Settings
from conversation_actors.archive.database import Database
from conversation_actors.archive.unknown import UnknownConversations
from conversation_actors.archive.writer import Writer
from conversation_actors.errors import ArchiveUnavailableError, BackendUnavailableError
from conversation_actors.failures import Failures
from conversation_actors.settings import ArchiveSettings
from conversation_actors.state import Limits
from conversation_actors.store import forget_memory, open_store
from tests.support.asked_backend import AskedBackend, answers, asked_backend, backend_settings, called, said
from tests.support.fakes import CONVERSATION, FakeCluster, until
from tests.support.late_client import LateClient
from tests.support.servers import Server

NOBODY = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"
PATIENT = timedelta(seconds=20)
Configure = Callable[..., Settings]


@pytest.fixture
async def backend() -> AsyncIterator[AskedBackend]:
    """A back end that knows of one conversation."""
    async with asked_backend() as made:
        made.messages[CONVERSATION] = [said(1), called(1), called(1, is_output=True), said(2)]
        yield made


@pytest.fixture
async def configured(backend: AskedBackend) -> AsyncIterator[Configure]:
    """Make settings with this back end, an archive, and one store until `lose` is called."""
    name = secrets.token_hex(4)

    def make(url: str, *, is_archive_required: bool = False, lose: bool = False, **values: Any) -> Settings:
        if lose:
            forget_memory(name)
        return Settings(
            redis_url=SecretStr(f"memory://{name}"),
            archive=ArchiveSettings(url=SecretStr(url), timeout=PATIENT, required=is_archive_required),
            backend=backend_settings(backend.url, **values),
        )

    yield make
    forget_memory(name)


async def archive(settings: Settings, database: Database, *, only_what_waits: bool = False) -> None:
    """Do what an archiver does: take what waits, and then what Redis has of conversations that lack something."""
    store, writer = open_store(settings), Writer(database, "default")
    unknown = UnknownConversations(store, database, writer, tenant="default", limits=Limits(), failures=Failures())
    backlog = store.backlog()
    while batch := await backlog.take(CONVERSATION, archiver="test", ttl=timedelta(minutes=1), most_bytes=1 << 20):
        if not batch.stored:
            break
        await writer.write(CONVERSATION, batch.stored)
        await backlog.settle(CONVERSATION, backlog=batch.backlog, through=batch.through)
    if not only_what_waits:
        await unknown.adopt_all()
        await unknown.fill_all()
    await store.aclose()


def say(number: int) -> Message:
    """One more message."""
    return Message(id=f"m{number}", role="user", content=f"more {number}")


def ids(handle: ConversationHandle) -> list[str]:
    """Ids of a handle's items."""
    return [item.id for item in handle.items]


async def history(handle: ConversationHandle) -> list[str]:
    """Ids of the whole history."""
    return [item.id for item in (await handle.history(limit=100)).items]


@pytest.mark.parametrize("goes_on", [True, False])
async def test_the_archive_adopts_it(
    configured: Configure,
    database_url: str,
    database: Database,
    backend: AskedBackend,
    goes_on: bool,  # noqa: FBT001
) -> None:
    """With all that came back, each item once; after the next loss the archive has it, and is all that is asked."""
    settings = configured(database_url)
    more = ["m1"] if goes_on else []
    async with ConversationClient(settings) as client:
        handle = await client.open(CONVERSATION)
        assert ids(handle) == ["u1", "f1", "o1", "u2"]
        if goes_on:
            await handle.append(say(1))
        await archive(settings, database)
        assert await history(handle) == ["u1", "f1", "o1", "u2", *more]
    backend.requests.clear()
    async with ConversationClient(configured(database_url, lose=True)) as client:
        again = await client.open(CONVERSATION)
        assert (ids(again), again.seq) == (["u1", "f1", "o1", "u2", *more], 4 + len(more))
        assert await history(again) == ["u1", "f1", "o1", "u2", *more]
    assert backend.requests == []


async def test_an_archiver_that_was_late_gets_all_of_it(
    configured: Configure, database_url: str, database: Database
) -> None:
    """What came after it had come back is archived first; what was before is taken from Redis then."""
    settings = configured(database_url)
    async with ConversationClient(settings) as client:
        handle = await client.open(CONVERSATION)
        await handle.append(say(1))
        await archive(settings, database, only_what_waits=True)
        await handle.append(say(2))
        await archive(settings, database)
        assert await history(handle) == ["u1", "f1", "o1", "u2", "m1", "m2"]


async def test_what_the_archive_has_is_asked_of_nobody_else(
    configured: Configure, database_url: str, database: Database, backend: AskedBackend
) -> None:
    """Also if the back end has more."""
    backend.messages.clear()
    settings = configured(database_url)
    async with ConversationClient(settings) as client:
        await (await client.open(CONVERSATION)).append(say(1))
        await archive(settings, database)
    backend.messages[CONVERSATION] = [said(1)]
    backend.requests.clear()
    async with ConversationClient(configured(database_url, lose=True)) as client:
        assert ids(await client.open(CONVERSATION)) == ["m1"]
    assert backend.requests == []


async def test_what_the_archive_remembers_as_deleted_does_not_come_back(
    configured: Configure, database_url: str, database: Database, backend: AskedBackend
) -> None:
    """Although Redis has forgotten that, and the back end has not taken the deletion."""
    settings = configured(database_url)
    async with ConversationClient(settings) as client:
        await client.open(CONVERSATION)
        await archive(settings, database)
        backend.answer = answers(503)
        with pytest.raises(BackendUnavailableError):
            await client.delete(CONVERSATION)
        backend.answer = None
    async with ConversationClient(configured(database_url, lose=True)) as client:
        with pytest.raises(ConversationNotFoundError):
            await client.open(CONVERSATION, create=False)
        assert ids(await client.open(CONVERSATION)) == []
    assert len(backend.messages[CONVERSATION]) == 4


async def test_a_deletion_reaches_all_three(
    configured: Configure, database_url: str, database: Database, backend: AskedBackend
) -> None:
    """The store, the archive, and then the back end; one that only the two others have too."""
    settings = configured(database_url)
    for lose in (False, True):
        backend.messages[CONVERSATION] = [said(1)]
        async with ConversationClient(settings) as client:
            await client.open(CONVERSATION)
            await archive(settings, database)
        async with ConversationClient(configured(database_url, lose=lose)) as client:
            await client.delete(CONVERSATION)
            assert backend.messages == {}
            assert await Writer(database, "default").lives(CONVERSATION) == ()
            with pytest.raises(ConversationNotFoundError):
                await client.delete(CONVERSATION)
        configured(database_url, lose=True)
        async with database.writing("forget the deletion") as connection:
            await connection.exec_driver_sql("DELETE FROM archive_lives")


@pytest.mark.parametrize("create", [True, False])
async def test_an_archive_that_is_away_keeps_nobody_from_the_back_end(configured: Configure, create: bool) -> None:  # noqa: FBT001
    """Unless it is required: it may have more."""
    async with ConversationClient(configured(NOBODY, is_archive_required=True)) as client:
        with pytest.raises(ArchiveUnavailableError):
            await client.open(CONVERSATION, create=create)
    async with ConversationClient(configured(NOBODY)) as client:
        assert ids(await client.open(CONVERSATION, create=create)) == ["u1", "f1", "o1", "u2"]
        assert client.failures == {"archive": 1}


async def test_nobody_is_told_that_it_is_not_there_while_one_is_away(
    configured: Configure, backend: AskedBackend
) -> None:
    """The one that answers has nothing; the other one may have it."""
    backend.messages.clear()
    async with ConversationClient(configured(NOBODY)) as client:
        with pytest.raises(ArchiveUnavailableError):
            await client.open(CONVERSATION, create=False)
        assert client.failures == {}
        assert ids(await client.open(CONVERSATION)) == []
        assert client.failures == {"archive": 1}


async def test_it_comes_back_into_redis(server: Server, configured: Configure, database_url: str) -> None:
    """A new life, the first epoch; several open it at once; a tombstone keeps it out."""
    redis = server.client()
    redis.flushall()
    redis.close()
    settings = configured(database_url).model_copy(update={"redis_url": SecretStr(server.url)})
    store = open_store(settings)
    async with FakeCluster(store, settings) as cluster:
        clients = [LateClient(cluster, settings) for _ in range(4)]
        for one in clients:
            one.may_join.set()
        try:
            opened = [await one.open(CONVERSATION, wait=bool(n % 2)) for n, one in enumerate(clients)]
            assert [ids(one) for one in opened] == [["u1", "f1", "o1", "u2"]] * 4
            await opened[0].append(say(1))
            stored = await store.read(CONVERSATION)
            assert (stored.epoch, stored.seq) == (1, 5)
            await store.delete(CONVERSATION, ttl=timedelta(minutes=1))
            await cluster.kill()
            clients.append(LateClient(cluster, settings))
            with pytest.raises(ConversationNotFoundError):
                await clients[-1].open(CONVERSATION, create=False)
        finally:
            for one in clients:
                await one.aclose()
    await store.aclose()


@pytest.mark.parametrize("wait", [True, False])
async def test_an_owner_that_lived_through_the_loss_is_asked_first(
    server: Server,
    configured: Configure,
    backend: AskedBackend,
    wait: bool,  # noqa: FBT001
) -> None:
    """It knows what nobody has told the back end yet: another life beside its own would be the end of that."""
    redis = server.client()
    redis.flushall()
    backend.messages.clear()
    settings = configured(NOBODY).model_copy(update={"redis_url": SecretStr(server.url)})
    store = open_store(settings)
    async with FakeCluster(store, settings) as cluster:
        clients = [LateClient(cluster, settings) for _ in range(2)]
        try:
            for one in clients:
                one.may_join.set()
            handle = await clients[0].open(CONVERSATION)
            await handle.append(say(1))
            backend.messages[CONVERSATION] = [said(1)]
            redis.flushall()
            again = await clients[1].open(CONVERSATION, create=False, wait=wait)
            await again.append(say(2))
            assert ids(again) == ["m1", "m2"]
            await until(lambda: ids(handle) == ["m1", "m2"])
        finally:
            for one in clients:
                await one.aclose()
    redis.close()
    await store.aclose()
