"""What an acknowledgement means under each durability. Skips the fsync tests without a server that has WAITAOF."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from conversation_actors.errors import StoreMisconfiguredError, StoreUnavailableError
from conversation_actors.settings import Durability
from conversation_actors.store import Outcome
from conversation_actors.store.redis import RedisStore
from tests.store.conftest import NO_SERVER, confirmed, make_store
from tests.support.servers import BINARIES, Server, replica_of

pytestmark = pytest.mark.asyncio

TTL = timedelta(minutes=10)
WITH_WAITAOF = [path for label, path in BINARIES.items() if "valkey" in label or label >= "redis-7.2"]
WITHOUT_WAITAOF = [path for label, path in BINARIES.items() if path not in WITH_WAITAOF]


@pytest.fixture
def modern() -> Path:
    """Make a server that has WAITAOF."""
    if not WITH_WAITAOF:
        pytest.skip(f"{NO_SERVER}; WAITAOF needs Valkey or Redis 7.2")
    return WITH_WAITAOF[0]


async def test_fsync_without_journal_is_refused(modern: Path, tmp_path: Path) -> None:
    """A server without an append-only file cannot promise fsync, and says what to change."""
    with Server(modern, tmp_path) as server:
        store = make_store(server.url, Durability.FSYNC)
        with pytest.raises(StoreMisconfiguredError, match="appendonly yes"):
            await store.check()
        await store.aclose()


@pytest.mark.skipif(not WITHOUT_WAITAOF, reason="no server without WAITAOF found (Redis 6.2 to 7.0)")
async def test_fsync_without_waitaof_is_refused(tmp_path: Path) -> None:
    """A server that is too old for WAITAOF is refused, and so is the write that asked for it."""
    with Server(WITHOUT_WAITAOF[0], tmp_path, {"appendonly": "yes"}) as server:
        store = make_store(server.url, Durability.FSYNC)
        with pytest.raises(StoreMisconfiguredError, match="WAITAOF"):
            await store.check()
        with pytest.raises(StoreMisconfiguredError):
            await store.activate("c", owner="o", create=True, ttl=TTL)
        await store.aclose()


async def test_fsync_survives_a_kill(modern: Path, tmp_path: Path) -> None:
    """What was acknowledged under fsync is there after SIGKILL."""
    with Server(modern, tmp_path, {"appendonly": "yes"}) as server:
        store = make_store(server.url, Durability.FSYNC)
        await store.check()
        claim = (await store.activate("c", owner="o", create=True, ttl=TTL)).claim
        assert await store.append(claim, expected_seq=0, entries=[b"1"], ttl=TTL) is Outcome.OK
        server.kill()
        await asyncio.to_thread(server.start)  # the loop goes on, and sees its old connection end
        assert (await store.activate("c", owner="o", create=False, ttl=TTL)).journal == (b"1",)
        await store.aclose()


async def test_fsync_that_does_not_happen_is_unavailable(modern: Path, tmp_path: Path) -> None:
    """A disk that is not written to in time leaves the outcome unknown; a repeat is recognised, and waits again."""
    with Server(modern, tmp_path, {"appendonly": "yes", "appendfsync": "no"}) as server:
        store = RedisStore(server.url, durability=(Durability.FSYNC, 0), timeout=timedelta(seconds=2))
        client = server.client()
        with pytest.raises(StoreUnavailableError, match="disk"):
            await store.activate("c", owner="o", create=True, ttl=TTL)
        client.config_set("appendfsync", "always")
        claim = (await confirmed(lambda: store.activate("c", owner="o", create=True, ttl=TTL))).claim
        assert claim.epoch == 1
        client.close()
        await store.aclose()


async def test_replicas_without_replica_is_refused(binary: Path, tmp_path: Path) -> None:
    """A server with fewer replicas than asked for is refused at the start."""
    with Server(binary, tmp_path) as server:
        store = make_store(server.url, Durability.REPLICAS, 1)
        with pytest.raises(StoreMisconfiguredError, match="the server has 0"):
            await store.check()
        await store.aclose()


async def test_hung_replica_makes_the_outcome_unknown(binary: Path, tmp_path: Path) -> None:
    """With its replica stopped every write is unconfirmed; each repeat waits again, until the replica is back."""
    with Server(binary, tmp_path / "master") as master, replica_of(master, tmp_path / "replica") as replica:
        store = RedisStore(master.url, durability=(Durability.REPLICAS, 1), timeout=timedelta(seconds=0.8))
        await store.check()
        claim = (await confirmed(lambda: store.activate("c", owner="o", create=True, ttl=TTL))).claim
        await confirmed(lambda: store.append(claim, expected_seq=0, entries=[b"1"], ttl=TTL))
        replica.pause()
        for _ in range(2):  # the repeat finds its entries there, and must not take that for confirmation
            with pytest.raises(StoreUnavailableError, match="0 of 1 replicas"):
                await store.append(claim, expected_seq=1, entries=[b"2"], ttl=TTL)
        with pytest.raises(StoreUnavailableError, match="0 of 1 replicas"):
            await store.save_snapshot(claim, seq=1, snapshot=b"s", ttl=TTL, participants=[])
        replica.resume()
        append = lambda: store.append(claim, expected_seq=1, entries=[b"2"], ttl=TTL)  # noqa: E731  # a def says no more
        save = lambda: store.save_snapshot(claim, seq=1, snapshot=b"s", ttl=TTL, participants=[])  # noqa: E731  # same
        assert await confirmed(append) is Outcome.DUPLICATE
        assert await confirmed(save) is Outcome.DUPLICATE
        await store.aclose()


async def test_repeat_on_a_new_connection_waits(binary: Path, tmp_path: Path) -> None:
    """WAIT speaks of its own connection's writes: a repeat through a new one must write, or WAIT confirms nothing."""
    with Server(binary, tmp_path / "master") as master, replica_of(master, tmp_path / "replica") as replica:
        stores = [
            RedisStore(master.url, durability=(Durability.REPLICAS, 1), timeout=timedelta(seconds=0.8))
            for _ in range(4)
        ]
        claim = (await confirmed(lambda: stores[0].activate("c", owner="o", create=True, ttl=TTL))).claim
        replica.pause()
        with pytest.raises(StoreUnavailableError):
            await stores[0].append(claim, expected_seq=0, entries=[b"1"], ttl=TTL)
        with pytest.raises(StoreUnavailableError, match="0 of 1 replicas"):
            await stores[1].append(claim, expected_seq=0, entries=[b"1"], ttl=TTL)
        with pytest.raises(StoreUnavailableError, match="0 of 1 replicas"):
            await stores[2].activate("c", owner="o", create=True, ttl=TTL)
        replica.resume()
        append = lambda: stores[3].append(claim, expected_seq=0, entries=[b"1"], ttl=TTL)  # noqa: E731  # same
        assert await confirmed(append) is Outcome.DUPLICATE
        for store in stores:
            await store.aclose()


async def test_repeated_delete_waits_again(binary: Path, tmp_path: Path) -> None:
    """Deleting is as durable as asked, a repeat of it too."""
    with Server(binary, tmp_path / "master") as master, replica_of(master, tmp_path / "replica") as replica:
        store = RedisStore(master.url, durability=(Durability.REPLICAS, 1), timeout=timedelta(seconds=0.8))
        await confirmed(lambda: store.activate("c", owner="o", create=True, ttl=TTL))
        replica.pause()
        for _ in range(2):
            with pytest.raises(StoreUnavailableError, match="0 of 1 replicas"):
                await store.delete("c", ttl=TTL)
        replica.resume()
        assert not await confirmed(lambda: store.delete("c", ttl=TTL))
        await store.aclose()


async def test_fenced_needs_no_confirmation(binary: Path, tmp_path: Path) -> None:
    """What wrote nothing has nothing to wait for: a fenced owner learns it although the replica hangs."""
    with Server(binary, tmp_path / "master") as master, replica_of(master, tmp_path / "replica") as replica:
        store = make_store(master.url, Durability.REPLICAS, 1)
        old = (await store.activate("c", owner="o1", create=True, ttl=TTL)).claim
        await store.activate("c", owner="o2", create=True, ttl=TTL)
        replica.pause()
        assert await store.append(old, expected_seq=0, entries=[b"x"], ttl=TTL) is Outcome.FENCED
        await store.aclose()
