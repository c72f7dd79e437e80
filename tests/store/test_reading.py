"""Reading without being the owner, on real servers: whole, fresh, without a trace, and with the rights of a reader."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis.exceptions import ResponseError

from conversation_actors import ConversationClient, Message, Settings
from conversation_actors.errors import (
    ConversationNotFoundError,
    CorruptStateError,
    IncompatibleVersionError,
    StoreMisconfiguredError,
    StoreUnavailableError,
)
from conversation_actors.settings import Durability
from conversation_actors.store import Claim, Outcome
from conversation_actors.store.keys import Keys
from conversation_actors.store.redis import RedisStore
from tests.store.conftest import NO_SERVER, TIMEOUT, confirmed, make_store
from tests.support.fakes import CONVERSATION, FakeCluster, brief
from tests.support.late_client import LateClient
from tests.support.servers import HOST, Cluster, Server, newest, replica_of, wait_until

pytestmark = pytest.mark.asyncio

TTL = timedelta(minutes=10)
KEYS = Keys().conversation("c")
READER = "redis://reader:p@"


def with_reader(server: Server, rights: str = "+@read") -> str:
    """Make a user that may only read, and return the URL to log in with."""
    client = server.client()
    client.execute_command("ACL", "SETUSER", "reader", "reset", "on", ">p", "~conv:*", *rights.split())
    client.close()
    return server.url.replace("redis://", READER)


async def written(store: RedisStore) -> Claim:
    """Make a conversation "c": three entries, the first of them in a snapshot."""
    claim = (await store.activate("c", owner="o", create=True, ttl=TTL)).claim
    await store.append(claim, expected_seq=0, entries=[b"1", b"2", b"3"], ttl=TTL)
    await store.save_snapshot(claim, seq=1, snapshot=b"s", ttl=TTL, participants=["al"])
    await store.index("c", participants=["al"], ttl=TTL)
    return claim


@pytest.fixture(params=["any user", "a user that may only read"])
async def reader(request: pytest.FixtureRequest, server: Server) -> AsyncIterator[RedisStore]:
    """Make a store to read from, as either user."""
    made = make_store(server.url if request.param == "any user" else with_reader(server))
    yield made
    await made.aclose()


async def test_reader_gets_what_the_next_owner_would_recover(redis_store: RedisStore, reader: RedisStore) -> None:
    """What the next owner would recover, and who the last one was."""
    claim = await written(redis_store)
    read = await reader.read("c")
    assert (read.life, read.epoch, read.owner) == (claim.life, 1, "o")
    assert (read.seq, read.snapshot_seq, read.snapshot, read.journal) == (3, 1, b"s", (b"2", b"3"))
    assert timedelta(0) < read.left <= TTL
    assert read.lag == timedelta(0)
    recovered = await redis_store.activate("c", owner="o2", create=False, ttl=TTL)
    assert await reader.read("c") == recovered.stored


@pytest.mark.parametrize("before", ["crashed", "asleep"])
async def test_a_handle_shows_what_is_stored_after_one_call(
    server: Server, redis_store: RedisStore, before: str
) -> None:
    """And the owner that comes then leads on from there: nothing is missing, and nothing comes twice."""
    async with FakeCluster(redis_store, brief()) as cluster:
        writer = await cluster.handle()
        for name in ("u0", "u1"):
            await writer.append(Message(id=name, role="user", content="hello"))
        await (cluster.kill() if before == "crashed" else writer.passivate())
        await writer.aclose()
        await redis_store.read(CONVERSATION)  # from now on the server knows the script
        client, scripts = LateClient(cluster), _scripts(server)
        handle = await client.open(CONVERSATION, wait=False)
        assert [item.id for item in handle.items] == ["u0", "u1"]
        assert _scripts(server) == scripts + 1
        async with aclosing(handle.watch()) as watching:
            client.may_join.set()
            receipt = await handle.append(Message(id="u2", role="user", content="hello"))
            assert (await anext(watching)).seq == receipt.seq == 3
        assert [item.id for item in handle.items] == ["u0", "u1", "u2"]
        await client.aclose()


def _scripts(server: Server) -> int:
    """How many scripts the server has run."""
    client = server.client()
    told = client.info("commandstats")
    client.close()
    return sum(stats["calls"] for name, stats in told.items() if name.startswith("cmdstat_eval"))


async def test_a_read_leaves_no_trace(server: Server, redis_store: RedisStore, reader: RedisStore) -> None:
    """No key, no field and no time to live is another than before."""
    await written(redis_store)
    client = server.client()

    for name in client.keys("*"):
        client.pexpire(name, 60_000)
    before = {name: client.dump(name) for name in client.keys("*")}
    for _ in range(3):
        await reader.read("c")
        assert [found.conversation_id async for found in reader.list(participant="al")] == ["c"]
    assert {name: client.dump(name) for name in client.keys("*")} == before
    assert all(0 < client.pttl(name) <= 60_000 for name in before)
    client.close()


async def test_what_is_not_there(redis_store: RedisStore, reader: RedisStore) -> None:
    """Never made, deleted or expired: each is no conversation."""
    await written(redis_store)
    await redis_store.delete("c", ttl=TTL)
    await redis_store.activate("brief", owner="o", create=True, ttl=timedelta(milliseconds=30))

    async def is_gone() -> bool:
        return await redis_store.head("brief") is None

    await wait_until(is_gone, "it to expire")
    for name in ("never", "c", "brief"):
        with pytest.raises(ConversationNotFoundError, match=name):
            await reader.read(name)


@pytest.mark.parametrize(
    ("damage", "key"),
    [
        (("DEL", KEYS.snapshot), KEYS.snapshot),
        (("HDEL", KEYS.meta, "snapshot"), KEYS.snapshot),
        (("DEL", KEYS.journal), KEYS.journal),
        (("DEL", KEYS.meta), KEYS.meta),
        (("RPOP", KEYS.journal), KEYS.journal),
        (("RPUSH", KEYS.journal, "x"), KEYS.journal),
        (("HDEL", KEYS.meta, "seq"), KEYS.meta),
        (("HSET", KEYS.meta, "seq", "many"), KEYS.meta),
        (("HSET", KEYS.meta, "base", "99"), KEYS.meta),
        (("HSET", KEYS.meta, "owner", b"\xff"), KEYS.meta),
        (("SET", KEYS.meta, "x"), KEYS.meta),
        (("SET", KEYS.journal, "x"), KEYS.journal),
    ],
)
async def test_damage_is_told_to_readers_by_its_key(
    server: Server, redis_store: RedisStore, reader: RedisStore, damage: tuple[str, ...], key: str
) -> None:
    """Whatever contradicts itself is a CorruptStateError with the key, as it is for an owner."""
    await written(redis_store)
    client = server.client()
    client.execute_command(*damage)
    for name in KEYS.as_tuple():
        client.pexpire(name, 60_000)
    with pytest.raises(CorruptStateError) as caught:
        await reader.read("c")
    assert caught.value.key == key
    client.close()


async def test_newer_layout_is_refused(server: Server, redis_store: RedisStore, reader: RedisStore) -> None:
    """What a newer version has written is not read by an older one."""
    await written(redis_store)
    client = server.client()
    client.hset(KEYS.meta, "schema", 99)
    with pytest.raises(IncompatibleVersionError, match="layout 99"):
        await reader.read("c")
    client.close()


async def test_a_read_is_of_one_moment(redis_store: RedisStore, reader: RedisStore) -> None:
    """However much is written and compacted meanwhile: no read is damaged, none goes back, each has what was before."""
    claim = await written(redis_store)
    acknowledged, is_over = 3, asyncio.Event()

    async def write() -> None:
        nonlocal acknowledged
        for seq in range(3, 300):
            outcome = await redis_store.append(claim, expected_seq=seq, entries=[b"%d" % (seq + 1)], ttl=TTL)
            assert outcome is Outcome.OK
            acknowledged = seq + 1
            if seq % 7 == 0:
                snapshot = b"s" * (seq % 50 * 1000)
                await redis_store.save_snapshot(
                    claim, seq=seq + 1, snapshot=snapshot, ttl=TTL, participants=[], keep=seq % 5
                )
        is_over.set()

    writing = asyncio.create_task(write())
    reads = 0
    while not is_over.is_set():
        known = acknowledged
        read = await reader.read("c")
        assert read.seq >= known
        first = read.seq - len(read.journal) + 1
        assert first <= read.snapshot_seq + 1
        assert read.journal == tuple(b"%d" % seq for seq in range(first, read.seq + 1))
        reads += 1
    await writing
    assert reads > 10


@pytest.mark.parametrize("rights", ["+@read", "+@read +@connection", "+@read +@scripting"])
async def test_a_client_that_may_only_read(server: Server, redis_store: RedisStore, rights: str) -> None:
    """It enters, reads and lists, also past what has vanished; what writes tells which right is missing."""
    await redis_store.index("vanished", participants=[], ttl=TTL)
    settings = Settings(redis_url=SecretStr(with_reader(server, rights)), ray_address=f"{HOST}:1")
    await redis_store.activate("c", owner="o", create=True, ttl=TTL)
    await redis_store.index("c", participants=[], ttl=TTL)
    async with ConversationClient(settings) as client:
        assert (await client.read("c")).epoch == 1
        assert [found.conversation_id async for found in client.list()] == ["c"]
        for call in (client.open("c"), client.delete("c")):
            with pytest.raises(StoreMisconfiguredError, match="does not allow"):
                await call
    assert (await redis_store.read("c")).epoch == 1


async def test_no_more_is_granted_than_reading(server: Server, redis_store: RedisStore) -> None:
    """Other people's keys, and a user who may do nothing, are refused."""
    await written(redis_store)
    for rights in ("resetkeys ~other:* +@read", "-@all"):
        store = make_store(with_reader(server, rights))
        with pytest.raises(StoreMisconfiguredError, match="does not allow read"):
            await store.read("c")
        await store.aclose()


async def test_a_replica_is_read(binary: Path, tmp_path: Path) -> None:
    """It tells how long ago it last heard from its primary; a user that may not ask it that learns nothing of it."""
    with Server(binary, tmp_path / "primary") as primary, replica_of(primary, tmp_path / "replica") as replica:
        store = make_store(primary.url)
        await written(store)
        copy = RedisStore(replica.url, durability=(Durability.REDIS, 0), timeout=TIMEOUT, is_replica=True)

        async def has_come() -> bool:
            try:
                return (await copy.read("c")).seq == 3
            except ConversationNotFoundError:
                return False

        await wait_until(has_come, "the replica to have it")
        read = await copy.read("c")
        assert read == await store.read("c")
        assert read.lag is not None
        assert timedelta(0) <= read.lag < timedelta(seconds=20)
        primary.pause()

        async def is_behind() -> bool:
            lag = (await copy.read("c")).lag
            return lag is not None and lag >= timedelta(seconds=2)

        await wait_until(is_behind, "the lag to show")
        primary.kill()

        async def is_alone() -> bool:
            client = replica.client()
            status = client.info("replication")["master_link_status"]
            client.close()
            return bool(status == "down")

        await wait_until(is_alone, "the link to be down")
        assert (await copy.read("c")).lag is not None
        limited = RedisStore(with_reader(replica), durability=(Durability.REDIS, 0), timeout=TIMEOUT, is_replica=True)
        assert (await limited.read("c")).lag is None
        for made in (store, copy, limited):
            await made.aclose()


async def test_a_primary_that_is_named_as_replica_has_no_lag(server: Server, redis_store: RedisStore) -> None:
    """A failover makes a replica one; what it shows is the newest there is."""
    await written(redis_store)
    copy = RedisStore(server.url, durability=(Durability.REDIS, 0), timeout=TIMEOUT, is_replica=True)
    assert (await copy.read("c")).lag == timedelta(0)
    await copy.aclose()


@pytest.mark.parametrize("rights", ["", "+@read +publish +wait &conv:*"])
async def test_what_may_still_vanish_is_not_shown(binary: Path, tmp_path: Path, rights: str) -> None:
    """Where acknowledged means "on a replica", an entry that no replica has is not shown, by whatever user."""
    with Server(binary, tmp_path / "primary") as primary, replica_of(primary, tmp_path / "replica") as replica:
        durability, timeout = (Durability.REPLICAS, 1), timedelta(seconds=0.8)
        store = RedisStore(primary.url, durability=durability, timeout=timeout)
        url = with_reader(primary, rights) if rights else primary.url
        reader = RedisStore(url, durability=durability, timeout=timeout)
        claim = (await confirmed(lambda: store.activate("c", owner="o", create=True, ttl=TTL))).claim
        await confirmed(lambda: store.append(claim, expected_seq=0, entries=[b"1"], ttl=TTL))
        assert (await confirmed(lambda: reader.read("c"))).seq == 1
        replica.pause()
        with pytest.raises(StoreUnavailableError):
            await store.append(claim, expected_seq=1, entries=[b"2"], ttl=TTL)
        with pytest.raises(StoreUnavailableError, match="0 of 1 replicas"):
            await reader.read("c")
        replica.resume()
        assert (await confirmed(lambda: reader.read("c"))).seq == 2
        await store.aclose()
        await reader.aclose()


@pytest.mark.parametrize("rights", ["", "+@read +publish +waitaof &conv:*"])
async def test_what_is_read_is_on_the_disk(tmp_path: Path, rights: str) -> None:
    """Where acknowledged means "on the disk", a read waits for that as a write does, by whatever user."""
    binary = newest("valkey")
    if binary is None:
        pytest.skip(NO_SERVER)
    with Server(binary, tmp_path / "server", {"appendonly": "yes", "appendfsync": "everysec"}) as server:
        careless = make_store(server.url)
        await written(careless)
        reader = make_store(with_reader(server, rights) if rights else server.url, Durability.FSYNC)
        client = server.client()
        client.config_resetstat()
        assert (await reader.read("c")).seq == 3
        assert client.info("commandstats")["cmdstat_waitaof"]["calls"] > 0
        client.close()
        await reader.aclose()
        await careless.aclose()


async def test_reading_in_a_cluster(binary: Path, tmp_path: Path) -> None:
    """The right server is asked, for all of them; while a slot is on its way, and when it has moved."""
    with Cluster(binary, tmp_path) as cluster:
        store = make_store(cluster.url)
        for number in range(20):
            await store.activate(f"c-{number}", owner="o", create=True, ttl=TTL)
            assert (await store.read(f"c-{number}")).epoch == 1
        await written(store)
        clients = [node.client() for node in cluster.nodes]
        slot = clients[0].execute_command("CLUSTER KEYSLOT", KEYS.meta)
        source = next(number for number in range(3) if number * 16384 // 3 <= slot < (number + 1) * 16384 // 3)
        target = (source + 1) % 3
        names = [client.execute_command("CLUSTER MYID").decode() for client in clients]
        clients[target].execute_command(f"CLUSTER SETSLOT {slot} IMPORTING {names[source]}")
        clients[source].execute_command(f"CLUSTER SETSLOT {slot} MIGRATING {names[target]}")
        assert (await store.read("c")).seq == 3
        keys = clients[source].execute_command("CLUSTER GETKEYSINSLOT", slot, 100)
        clients[source].execute_command("MIGRATE", HOST, cluster.nodes[target].port, "", 0, 5000, "KEYS", *keys)
        assert (await store.read("c")).seq == 3
        for number in (target, source):
            clients[number].execute_command(f"CLUSTER SETSLOT {slot} NODE {names[target]}")
        assert (await store.read("c")).seq == 3
        for client in clients:
            client.close()
        await store.aclose()


async def test_reading_from_a_clusters_replica(binary: Path, tmp_path: Path) -> None:
    """It answers for its master's slots, and tells its lag."""
    with Cluster(binary, tmp_path) as cluster, Server(binary, tmp_path / "r", {"cluster-enabled": "yes"}) as replica:
        store = make_store(cluster.url)
        await written(store)
        clients = [node.client() for node in cluster.nodes]
        slot = clients[0].execute_command("CLUSTER KEYSLOT", KEYS.meta)
        source = next(number for number in range(3) if number * 16384 // 3 <= slot < (number + 1) * 16384 // 3)
        master = clients[source].execute_command("CLUSTER MYID").decode()
        client = replica.client()
        client.execute_command("CLUSTER MEET", HOST, cluster.nodes[0].port)
        await wait_until(lambda: _done(client, f"CLUSTER REPLICATE {master}"), "the replica to know its master")

        async def is_listed() -> bool:
            told = [one.execute_command("CLUSTER SLOTS") for one in clients]
            return all(any(len(servers) > 1 for _, _, *servers in ranges) for ranges in told)

        await wait_until(is_listed, "every node to list the replica")
        copy = RedisStore(cluster.url, durability=(Durability.REDIS, 0), timeout=TIMEOUT, is_replica=True)

        async def has_come() -> bool:
            try:
                return (await copy.read("c")).seq == 3
            except (ConversationNotFoundError, StoreUnavailableError):
                return False

        await wait_until(has_come, "the replica to have it")
        assert client.info("commandstats")["cmdstat_lrange"]["calls"] > 0
        for one in (client, *clients):
            one.close()
        await store.aclose()
        await copy.aclose()


async def _done(client: Any, command: str) -> bool:
    try:
        client.execute_command(command)
    except ResponseError:  # it does not know the other one yet
        return False
    return True
