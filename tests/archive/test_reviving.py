"""Opening a conversation that Redis has no more: it goes on where it was, from the archive and what waits for it.

Redis, the databases, owners, handles and clients are real; the owners run in this process.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from conversation_actors import ConversationClient, ConversationHandle, Message
from conversation_actors.archive.checkpoints import Checkpoints
from conversation_actors.archive.database import Database
from conversation_actors.archive.writer import Writer
from conversation_actors.errors import (
    ArchiveUnavailableError,
    ConversationNotFoundError,
    PositionLostError,
    StoreUnavailableError,
)
from conversation_actors.protocol import Seen
from conversation_actors.settings import ArchiveSettings, Settings
from conversation_actors.store import Store, Stored, open_store
from conversation_actors.store.keys import Keys
from tests.support.fakes import CONVERSATION, FakeCluster, brief, until
from tests.support.late_client import LateClient
from tests.support.servers import Server

LIMITS = brief().history.limits()


@pytest.fixture
def settings(server: Server, database_url: str) -> Settings:
    """Settings with an archive, and with a short history."""
    return configured(server, database_url)


def configured(server: Server, database_url: str, *, required: bool = False, seconds: float = 20.0) -> Settings:
    """Settings with this archive, which is waited for so long."""
    archive = ArchiveSettings(url=SecretStr(database_url), required=required, timeout=timedelta(seconds=seconds))
    return brief(items=20).model_copy(update={"redis_url": SecretStr(server.url), "archive": archive})


@pytest.fixture
async def store(server: Server, settings: Settings) -> AsyncIterator[Store]:
    """An empty Redis, whose owners archive."""
    wipe(server)
    made = open_store(settings)
    yield made
    await made.aclose()


@pytest.fixture
async def cluster(store: Store, settings: Settings) -> AsyncIterator[FakeCluster]:
    """Where the conversation's owner runs."""
    async with FakeCluster(store, settings) as made:
        yield made


class World:
    """The conversation, and what happens to the servers that have it."""

    def __init__(self, cluster: FakeCluster, database: Database, server: Server) -> None:
        """Nothing has happened."""
        self.cluster, self.database, self.server, self.store = cluster, database, server, cluster.store
        self._clients: list[LateClient] = []

    def client(self, settings: Settings | None = None) -> LateClient:
        """One more client, which has joined."""
        made = LateClient(self.cluster, settings or self.cluster.settings)
        made.may_join.set()
        self._clients.append(made)
        return made

    async def archive(self) -> None:
        """Take all that waits to the database."""
        backlog, writer = self.store.backlog(), Writer(self.database, "default")
        while batch := await backlog.take(CONVERSATION, archiver="test", ttl=timedelta(minutes=1), most_bytes=1 << 20):
            if not batch.stored:
                return
            await writer.write(CONVERSATION, batch.stored)
            await backlog.settle(CONVERSATION, backlog=batch.backlog, through=batch.through)

    async def wipe(self) -> None:
        """Kill the owner, and lose everything that is in Redis."""
        await self.cluster.kill()
        wipe(self.server)

    async def expire(self) -> None:
        """End the owner; the conversation's time in Redis is up, but not that of what waits for the archive."""
        await self.cluster.kill()
        keys, redis = Keys().conversation(CONVERSATION), self.server.client()
        redis.delete(keys.meta, keys.snapshot, keys.journal)
        redis.close()

    async def stored(self) -> Stored:
        """What Redis has."""
        return await self.store.read(CONVERSATION)

    def claims(self) -> list[tuple[str, int]]:
        """The claims before the present one, as Redis knows them: each with the position at which it ended."""
        redis: Any = self.server.client()
        told = json.loads(redis.hget(Keys().conversation(CONVERSATION).meta, "lineage"))
        redis.close()
        return [(owner, seq) for _, _, owner, seq in told]

    async def aclose(self) -> None:
        """Close the clients."""
        for client in self._clients:
            await client.aclose()


@pytest.fixture
async def world(cluster: FakeCluster, database: Database, server: Server) -> AsyncIterator[World]:
    """All of it."""
    made = World(cluster, database, server)
    yield made
    await made.aclose()


def wipe(server: Server) -> None:
    """Lose everything that is in Redis."""
    redis = server.client()
    redis.flushall()
    redis.close()


def say(number: int) -> Message:
    """One of many messages."""
    return Message(id=f"u{number}", role="user", content=f"message {number}")


async def talk(handle: ConversationHandle, first: int, last: int) -> None:
    """Append messages, one entry each."""
    for number in range(first, last + 1):
        await handle.append(say(number))


def ids(handle: ConversationHandle) -> list[str]:
    """Ids of a handle's items."""
    return [item.id for item in handle.items]


def seen(handle: ConversationHandle) -> dict[str, Any]:
    """All that a handle shows of its conversation, except what belongs to a process or a lease."""
    return {
        "seq": handle.seq,
        "items": [item.to_dict() for item in handle.items],
        "participants": dict(handle.participants),
        "attributes": dict(handle.attributes),
        "summary": handle.summary,
        "retention": handle.retention,
    }


async def test_it_goes_on_where_it_was(world: World) -> None:
    """Same life and position, next epoch; last items, people, attributes, summary, retention, totals; no lease."""
    handle = await world.client().open(CONVERSATION)
    await talk(handle, 1, 23)
    await handle.join("alice", name="Alice", device_id="phone")
    await handle.leave("alice", device_id="phone")
    await handle.set_attributes({"language": "de"})
    await handle.set_summary("They said hello.", through_seq=handle.seq)
    await handle.set_retention(timedelta(hours=2))
    before, stored, info = seen(handle), await world.stored(), await handle.info()
    lease = await handle.acquire_lease("agent", holder="worker-1", duration=timedelta(hours=1))
    await world.archive()
    await world.wipe()
    again = await world.client().open(CONVERSATION)
    assert seen(again) == {**before, "seq": before["seq"] + 1}
    assert ids(again) == [f"u{number}" for number in range(4, 24)]
    assert dict(again.leases) == {}
    now, facts = await world.stored(), await again.info()
    assert (now.life, now.epoch) == (stored.life, stored.epoch + 1)
    assert (facts.total_items, facts.has_counted_all) == (info.total_items, True) == (23, True)
    taken = await again.acquire_lease("agent", holder="worker-2", duration=timedelta(hours=1))
    assert taken.token > lease.token
    await again.append(say(24))
    assert again.seq == before["seq"] + 4


async def test_it_goes_on_for_as_long_as_it_said(world: World) -> None:
    """The conversation's own retention is its time to live again, and the listing has it."""
    handle = await world.client().open(CONVERSATION)
    await talk(handle, 1, 1)
    await handle.set_retention(timedelta(hours=2))
    await world.archive()
    await world.wipe()
    await world.client().open(CONVERSATION, wait=False)
    left = (await world.stored()).left
    assert timedelta(hours=1) < left <= timedelta(hours=2)


async def test_whoever_watched_goes_on_watching(world: World) -> None:
    """A position from before the loss is one of the same history; a watch misses nothing and is told nothing twice."""
    handle = await world.client().open(CONVERSATION)
    await talk(handle, 1, 3)
    async with aclosing(handle.watch(after_seq=2)) as entries:
        assert (await anext(entries)).seq == 3
        await world.archive()
        await world.wipe()
        again = await world.client().open(CONVERSATION)
        await talk(again, 4, 5)
        assert [(await anext(entries)).seq, (await anext(entries)).seq] == [4, 5]
    await until(lambda: handle.seq == 5)
    assert ids(handle) == ["u1", "u2", "u3", "u4", "u5"]


async def test_a_position_that_was_lost_is_refused(world: World) -> None:
    """The archive was behind when Redis was wiped: what a reader has seen since is none of this history."""
    handle = await world.client().open(CONVERSATION)
    await talk(handle, 1, 3)
    await world.archive()
    before = await world.stored()
    await talk(handle, 4, 5)
    await world.wipe()
    again = await world.client().open(CONVERSATION)
    assert (again.seq, (await world.stored()).life) == (3, before.life)
    await talk(again, 6, 8)
    owner = world.cluster.owner()
    lost = Seen(before.life, before.owner)
    with pytest.raises(PositionLostError):
        await owner.poll("reader", 5, lost)
    polled = await owner.poll("reader", 3, lost)
    assert polled is not None
    assert len(polled.entries) == 3
    await until(lambda: ids(handle) == ["u1", "u2", "u3", "u6", "u7", "u8"])


async def test_what_still_waits_is_a_part_of_it(world: World) -> None:
    """The conversation's time was up in Redis before the archiver had all of it, or anything."""
    handle = await world.client().open(CONVERSATION)
    await talk(handle, 1, 3)
    await world.archive()
    await talk(handle, 4, 6)
    before = await world.stored()
    await handle.passivate()
    await world.cluster.kill()
    second = await world.client().open(CONVERSATION)
    await talk(second, 7, 7)
    between = await world.stored()
    await world.expire()
    again = await world.client().open(CONVERSATION)
    assert (again.seq, ids(again)) == (7, ["u1", "u2", "u3", "u4", "u5", "u6", "u7"])
    now = await world.stored()
    assert now.epoch == 3
    assert world.claims() == [(before.owner, 6), (between.owner, 7)]
    await talk(again, 8, 8)
    await world.archive()
    await world.wipe()
    last = await world.client().open(CONVERSATION)
    assert (last.seq, ids(last)) == (8, ["u1", "u2", "u3", "u4", "u5", "u6", "u7", "u8"])
    assert (await world.stored()).life == now.life
    assert world.claims() == [(before.owner, 6), (between.owner, 7), (now.owner, 8)]


async def test_it_comes_back_although_nothing_is_archived_yet(world: World) -> None:
    """All of it waits: the database knows nothing of it."""
    handle = await world.client().open(CONVERSATION)
    await talk(handle, 1, 2)
    before = await world.stored()
    await world.expire()
    again = await world.client().open(CONVERSATION)
    assert ((await world.stored()).life, again.seq, len(again.items)) == (before.life, 2, 2)


async def test_a_checkpoint_makes_no_difference(world: World) -> None:
    """What it has is not replayed; what came after it is."""
    handle = await world.client().open(CONVERSATION)
    await talk(handle, 1, 4)
    await world.archive()
    await Checkpoints(world.database, "default", limits=LIMITS).idle(CONVERSATION)
    await talk(handle, 5, 7)
    before = seen(handle)
    await world.archive()
    await world.wipe()
    assert seen(await world.client().open(CONVERSATION)) == before


async def test_two_clients_open_the_same(world: World) -> None:
    """At the same moment, with and without waiting; one of them brings it back."""
    handle = await world.client().open(CONVERSATION)
    await talk(handle, 1, 3)
    before = await world.stored()
    await world.archive()
    await world.wipe()
    clients = [world.client() for _ in range(4)]
    opened = await asyncio.gather(*(one.open(CONVERSATION, wait=bool(n % 2)) for n, one in enumerate(clients)))
    assert [len(one.items) for one in opened] == [3] * 4
    await asyncio.gather(*(one.append(say(10 + n)) for n, one in enumerate(opened)))
    now = await world.stored()
    assert (now.life, now.epoch, now.seq) == (before.life, 2, before.seq + 4)


async def test_without_waiting_it_is_shown_before_its_owner_runs(world: World) -> None:
    """Its owner is found out about later."""
    handle = await world.client().open(CONVERSATION)
    await talk(handle, 1, 3)
    await world.archive()
    await world.wipe()
    client = world.client()
    client.may_join.clear()
    early = await client.open(CONVERSATION, wait=False, create=False)
    assert (ids(early), early.seq) == (["u1", "u2", "u3"], 3)
    client.may_join.set()
    assert (await early.append(say(4))).epoch == 2


async def test_it_need_not_be_created(world: World) -> None:
    """Whoever opens only what there is gets it too; and nobody gets what was never there."""
    with pytest.raises(ConversationNotFoundError):
        await world.client().open(CONVERSATION, create=False)
    assert world.cluster.actors == []
    handle = await world.client().open(CONVERSATION)
    await talk(handle, 1, 1)
    await world.archive()
    await world.wipe()
    assert (await world.client().open(CONVERSATION, create=False)).seq == 1


@pytest.mark.parametrize("is_archived", [True, False])
async def test_what_was_deleted_does_not_come_back(world: World, is_archived: bool) -> None:  # noqa: FBT001
    """Neither while a tombstone is there, nor when that is gone: the deletion is archived, or waits."""
    client = world.client()
    handle = await client.open(CONVERSATION)
    await talk(handle, 1, 3)
    await world.archive()
    await world.store.delete(CONVERSATION, ttl=timedelta(minutes=1))
    if is_archived:
        await world.archive()
    for lose in (world.cluster.kill, world.expire):
        await lose()
        with pytest.raises(ConversationNotFoundError):
            await world.client().open(CONVERSATION, create=False)
    new = await world.client().open(CONVERSATION)
    assert list(new.items) == []


async def test_a_later_life_comes_back_and_not_an_earlier_one(world: World) -> None:
    """After a deletion the id was used again."""
    handle = await world.client().open(CONVERSATION)
    await talk(handle, 1, 3)
    await world.archive()
    await world.store.delete(CONVERSATION, ttl=timedelta(minutes=1))
    await world.cluster.kill()
    new = await world.client().open(CONVERSATION)
    await talk(new, 7, 8)
    before = await world.stored()
    await world.archive()
    await world.wipe()
    again = await world.client().open(CONVERSATION)
    assert (ids(again), (await world.stored()).life) == (["u7", "u8"], before.life)


async def test_an_owner_that_lived_through_the_loss_knows_more(world: World) -> None:
    """It has in memory what the archive had not: what comes back beside it is not taken for the truth."""
    handle = await world.client().open(CONVERSATION)
    await talk(handle, 1, 3)
    await world.archive()
    await talk(handle, 4, 5)
    wipe(world.server)
    again = await world.client().open(CONVERSATION)
    await talk(again, 6, 6)
    assert (again.seq, ids(again)) == (6, ["u1", "u2", "u3", "u4", "u5", "u6"])
    await world.archive()
    await world.wipe()
    last = await world.client().open(CONVERSATION)
    assert (last.seq, ids(last)) == (6, ["u1", "u2", "u3", "u4", "u5", "u6"])


async def test_nothing_new_is_made_when_the_store_was_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could not be looked for in Redis, and Redis came back empty: the archive is asked all the same."""
    handle = await world.client().open(CONVERSATION)
    await talk(handle, 1, 2)
    await world.archive()
    await world.wipe()

    async def away(_conversation_id: str) -> None:
        message = "away"
        raise StoreUnavailableError(message)

    monkeypatch.setattr(world.store, "head", away)
    assert ids(await world.client().open(CONVERSATION)) == ["u1", "u2"]


async def test_it_comes_back_into_another_store(database_url: str, database: Database) -> None:
    """A client as programs have it, without Redis and Ray: the archive of one store is opened from another one."""
    archive = ArchiveSettings(url=SecretStr(database_url), timeout=timedelta(seconds=20))
    first, second = (
        Settings(redis_url=SecretStr(f"memory://{secrets.token_hex(4)}"), archive=archive) for _ in range(2)
    )
    async with ConversationClient(first) as client:
        await talk(await client.open(CONVERSATION), 1, 3)
        backlog = open_store(first).backlog()
        batch = await backlog.take(CONVERSATION, archiver="test", ttl=timedelta(minutes=1), most_bytes=1 << 20)
        assert batch is not None
        await Writer(database, "default").write(CONVERSATION, batch.stored)
    async with ConversationClient(second) as client:
        again = await client.open(CONVERSATION, create=False)
        assert (again.seq, ids(again)) == (3, ["u1", "u2", "u3"])
        assert (await again.append(say(4))).seq == 4


class TestAway:
    """The archive's database does not answer."""

    @pytest.fixture
    def database_url(self) -> str:
        """Nobody listens there."""
        return "postgresql+psycopg://nobody@127.0.0.1:1/nothing"

    @pytest.fixture
    async def database(self) -> None:
        """There is none."""

    async def test_a_new_conversation_begins(self, world: World) -> None:
        """Unless the archive is required; the client counts it."""
        client = world.client()
        assert (await client.open(CONVERSATION)).seq == 0
        assert client.failures["archive"] == 1

    @pytest.mark.parametrize("wait", [True, False])
    async def test_a_required_archive_is_waited_for(self, world: World, server: Server, wait: bool) -> None:  # noqa: FBT001
        """It raises, and nothing is begun."""
        client = world.client(configured(server, "postgresql+psycopg://nobody@127.0.0.1:1/nothing", required=True))
        with pytest.raises(ArchiveUnavailableError):
            await client.open(CONVERSATION, wait=wait)
        assert await world.store.head(CONVERSATION) is None
        assert client.failures == {}

    async def test_nobody_is_told_that_it_is_not_there(self, world: World) -> None:
        """Whether the conversation exists, nobody can say now, required or not."""
        with pytest.raises(ArchiveUnavailableError):
            await world.client().open(CONVERSATION, create=False)

    async def test_what_redis_has_needs_no_archive(self, world: World, server: Server) -> None:
        """Also where one is required."""
        await talk(await world.client().open(CONVERSATION), 1, 2)
        required = configured(server, "postgresql+psycopg://nobody@127.0.0.1:1/nothing", required=True)
        for wait in (True, False):
            assert (await world.client(required).open(CONVERSATION, wait=wait)).seq == 2


@pytest.mark.parametrize("is_cleared", [True, False])
async def test_what_was_forgotten_stays_counted(world: World, is_cleared: bool) -> None:  # noqa: FBT001
    """The archive has no word of what was removed, and still the totals, and the requests that it had answered."""
    handle = await world.client().open(CONVERSATION)
    await talk(handle, 1, 3)
    await handle.append(say(4), request_id="the fourth")
    await world.archive()
    await (handle.clear_history() if is_cleared else handle.remove("u1", "u4"))
    await talk(handle, 5, 5)
    before, info = seen(handle), await handle.info()
    await world.archive()
    await world.wipe()
    again = await world.client().open(CONVERSATION)
    facts = await again.info()
    assert (seen(again), facts.total_items, facts.has_counted_all) == (before, info.total_items, True)
    await again.append(say(4), request_id="the fourth")
    assert ids(again) == (["u5"] if is_cleared else ["u2", "u3", "u5"])


async def test_a_checkpoint_of_what_redis_has_lost_is_dropped(world: World) -> None:
    """Redis went back to an earlier state, and another owner wrote other entries: they are what comes back."""
    handle = await world.client().open(CONVERSATION)
    await talk(handle, 1, 2)
    keys, redis = Keys().conversation(CONVERSATION), world.server.client()
    earlier = {key: redis.dump(key) for key in (keys.meta, keys.snapshot, keys.journal)}
    await talk(handle, 3, 5)
    await world.archive()
    await Checkpoints(world.database, "default", limits=LIMITS).idle(CONVERSATION)
    await world.cluster.kill()
    for key, data in earlier.items():
        redis.delete(key)
        if data is not None:
            redis.restore(key, 60_000, data)
    redis.close()
    second = await world.client().open(CONVERSATION)
    await talk(second, 6, 9)
    await world.archive()
    await world.wipe()
    again = await world.client().open(CONVERSATION)
    assert (again.seq, ids(again)) == (6, ["u1", "u2", "u6", "u7", "u8", "u9"])
