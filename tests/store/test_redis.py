"""What is particular to Redis: damage, schema, cost, cancellation, and what the server itself refuses."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis import Redis
from redis.exceptions import NoPermissionError, OutOfMemoryError, ReadOnlyError

from conversation_actors.errors import (
    ConversationError,
    CorruptStateError,
    IncompatibleVersionError,
    StoreMisconfiguredError,
    StoreUnavailableError,
)
from conversation_actors.settings import ArchiveSettings, Durability, Settings
from conversation_actors.store import Claim, Outcome, open_store
from conversation_actors.store.durability import Acknowledgement
from conversation_actors.store.keys import Keys
from conversation_actors.store.redis import RedisStore
from conversation_actors.store.replies import translate
from tests.store.conftest import confirmed, make_store
from tests.support.servers import PATIENCE, Server, replica_of, wait_until

pytestmark = pytest.mark.asyncio

TTL = timedelta(minutes=10)
KEYS = Keys().conversation("c")
SMALLEST_BODY = 200


async def written(store: RedisStore, *, snapshot_at: int = 0) -> None:
    """Make a conversation "c" with three entries."""
    claim = (await store.activate("c", owner="o", create=True, ttl=TTL)).claim
    await store.append(claim, expected_seq=0, entries=[b"1", b"2", b"3"], ttl=TTL)
    if snapshot_at:
        await store.save_snapshot(claim, seq=snapshot_at, snapshot=b"s", ttl=TTL, participants=[])


async def activation_error(store: RedisStore) -> ConversationError:
    """Activate, and return the error that it must end with."""
    with pytest.raises(ConversationError) as caught:
        await store.activate("c", owner="o2", create=True, ttl=TTL)
    return caught.value


def restore_ttls(client: Redis) -> None:
    """Give keys that a test made by hand the TTL that the leak check wants."""
    for key in KEYS.as_tuple():
        client.pexpire(key, 60_000)


@pytest.mark.parametrize(
    ("damage", "key"),
    [
        (("DEL", KEYS.snapshot), KEYS.snapshot),
        (("DEL", KEYS.journal), KEYS.journal),
        (("DEL", KEYS.meta), KEYS.journal),
        (("RPOP", KEYS.journal), KEYS.journal),
        (("RPUSH", KEYS.journal, "x"), KEYS.journal),
        (("HDEL", KEYS.meta, "seq"), KEYS.meta),
        (("HDEL", KEYS.meta, "epoch"), KEYS.meta),
        (("HSET", KEYS.meta, "seq", "many"), KEYS.meta),
        (("HSET", KEYS.meta, "base", "99"), KEYS.meta),
        (("SET", KEYS.meta, "x"), KEYS.meta),
        (("SET", KEYS.journal, "x"), KEYS.journal),
    ],
)
async def test_damage_is_told_by_its_key_and_takes_no_epoch(
    server: Server, redis_store: RedisStore, damage: tuple[str, ...], key: str
) -> None:
    """Whatever contradicts itself is a CorruptStateError with the key, and no epoch is taken."""
    await written(redis_store, snapshot_at=1)
    client = server.client()
    client.execute_command(*damage)
    restore_ttls(client)
    error = await activation_error(redis_store)
    assert isinstance(error, CorruptStateError)
    assert error.key == key
    client.close()


async def test_wrong_type_of_snapshot_is_named(server: Server, redis_store: RedisStore) -> None:
    """A snapshot that is a list is named too."""
    await written(redis_store, snapshot_at=1)
    client = server.client()
    client.delete(KEYS.snapshot)
    client.rpush(KEYS.snapshot, "x")
    restore_ttls(client)
    error = await activation_error(redis_store)
    assert isinstance(error, CorruptStateError)
    assert (error.key, "list" in str(error)) == (KEYS.snapshot, True)
    client.close()


@pytest.mark.parametrize("lost", [KEYS.journal, KEYS.snapshot])
async def test_owner_heals_what_was_evicted(server: Server, redis_store: RedisStore, lost: str) -> None:
    """A running owner notices the loss with its next append, and its snapshot repairs it."""
    await written(redis_store, snapshot_at=1)
    client = server.client()
    client.delete(lost)
    claim = await written_claim(redis_store)
    assert await redis_store.append(claim, expected_seq=3, entries=[b"4"], ttl=TTL) is Outcome.GAP
    assert await redis_store.save_snapshot(claim, seq=3, snapshot=b"s3", ttl=TTL, participants=[]) is Outcome.OK
    assert await redis_store.append(claim, expected_seq=3, entries=[b"4"], ttl=TTL) is Outcome.OK
    assert (await redis_store.activate("c", owner="o2", create=False, ttl=TTL)).journal == (b"4",)
    client.close()


async def written_claim(store: RedisStore) -> Claim:
    """Return the claim of `written`."""
    head = await store.head("c")
    assert head is not None
    return Claim("c", head.epoch, head.owner, "o")


@pytest.mark.parametrize("damage", ["x", "[1]", '{"a":1}', '[["l",1]]', "null", "[[null,null,null,null]]"])
async def test_a_damaged_lineage_is_as_good_as_none(server: Server, redis_store: RedisStore, damage: str) -> None:
    """It keeps nobody from the conversation: what it would tell is only who may go on without starting anew."""
    await written(redis_store)
    client = server.client()
    client.hset(KEYS.meta, "lineage", damage)
    for number in range(3):
        recovered = await redis_store.activate("c", owner=f"o{number}", create=False, ttl=TTL)
        assert (recovered.claim.epoch, recovered.seq) == (number + 2, 3)
        again = await redis_store.activate("c", owner=f"o{number}", create=False, ttl=TTL)
        assert again.claim == recovered.claim
    client.close()


async def test_newer_layout_is_refused(server: Server, redis_store: RedisStore) -> None:
    """What a newer version wrote is neither activated nor deleted."""
    await written(redis_store)
    client = server.client()
    client.hset(KEYS.meta, "schema", "99")
    assert isinstance(await activation_error(redis_store), IncompatibleVersionError)
    with pytest.raises(IncompatibleVersionError):
        await redis_store.delete("c", ttl=TTL)
    client.close()


async def test_scripts_are_loaded_again(server: Server, redis_store: RedisStore) -> None:
    """A server that forgot the scripts gets them with the next call."""
    await written(redis_store)
    client = server.client()
    client.script_flush()
    client.close()
    assert (await redis_store.activate("c", owner="o2", create=False, ttl=TTL)).seq == 3


async def test_every_write_refreshes_all_ttls(server: Server, redis_store: RedisStore) -> None:
    """Append, snapshot and repeat leave the three keys with the full time to live."""
    await written(redis_store, snapshot_at=1)
    claim = await written_claim(redis_store)
    client = server.client()
    acts: list[Callable[[], Awaitable[Outcome]]] = [
        lambda: redis_store.append(claim, expected_seq=3, entries=[b"4"], ttl=TTL),
        lambda: redis_store.append(claim, expected_seq=3, entries=[b"4"], ttl=TTL),
        lambda: redis_store.append(claim, expected_seq=4, entries=[], ttl=TTL),
        lambda: redis_store.save_snapshot(claim, seq=2, snapshot=b"s", ttl=TTL, participants=[]),
        lambda: redis_store.save_snapshot(claim, seq=2, snapshot=b"s", ttl=TTL, participants=[]),
    ]
    for act in acts:
        restore_ttls(client)
        await act()
        assert all(client.pttl(key) > 500_000 for key in KEYS.as_tuple())
    client.close()


async def test_activation_gives_every_key_a_ttl(server: Server, redis_store: RedisStore) -> None:
    """One that has a time to live keeps it; one that lost it, by somebody's hand, gets that of the settings."""
    await written(redis_store, snapshot_at=1)
    client = server.client()
    restore_ttls(client)
    client.persist(KEYS.journal)
    await redis_store.activate("c", owner="o2", create=False, ttl=TTL)
    assert all(0 < client.pttl(key) <= 60_000 for key in (KEYS.meta, KEYS.snapshot))
    assert client.pttl(KEYS.journal) > 500_000
    client.close()


async def test_append_cost_does_not_grow(server: Server, redis_store: RedisStore) -> None:
    """At any history, an append is the same commands and the same bytes on the wire."""
    claim = (await redis_store.activate("c", owner="o", create=True, ttl=TTL)).claim
    client = server.client()
    costs = []
    seq = 0
    for history in (1010, 10_010, 20_010):
        await redis_store.append(claim, expected_seq=seq, entries=[b"x"] * (history - seq), ttl=TTL)
        await redis_store.append(claim, expected_seq=history, entries=[b"x" * 100], ttl=TTL)
        seq = history + 1
        client.config_resetstat()
        await redis_store.append(claim, expected_seq=seq, entries=[b"x" * 100], ttl=TTL)
        seq += 1
        received = client.info("stats")
        calls = {name: stat["calls"] for name, stat in client.info("commandstats").items() if "info" not in name}
        calls = {name: count for name, count in calls.items() if "config" not in name}
        costs.append((calls, received["total_net_input_bytes"] // 50))
    assert costs[1] == costs[2]
    assert costs[0][0] == costs[1][0]
    client.close()


async def test_memory_of_200_messages(server: Server, redis_store: RedisStore) -> None:
    """200 entries of 200 bytes take less than half as much again as their bytes."""
    claim = (await redis_store.activate("c", owner="o", create=True, ttl=TTL)).claim
    for seq in range(200):
        await redis_store.append(claim, expected_seq=seq, entries=[bytes(200)], ttl=TTL)
    client = server.client()
    used = sum(client.memory_usage(key, samples=0) or 0 for key in KEYS.as_tuple())
    client.close()
    assert 200 * 200 < used < 200 * 300


async def test_cancelled_call_does_not_poison_the_next(server: Server, redis_store: RedisStore) -> None:
    """Calls cancelled at any moment: what follows gets its own answers."""
    await written(redis_store)
    for number in range(50):
        task = asyncio.create_task(redis_store.head("other"))
        for _ in range(number % 7):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        head = await redis_store.head("c")
        assert head is not None
        assert head.seq == 3


async def test_hung_server_is_unavailable(binary: Path, tmp_path: Path) -> None:
    """A stopped server costs the timeout, not more, and afterwards the repeat is recognised."""
    with Server(binary, tmp_path) as server:
        store = RedisStore(server.url, durability=(Durability.REDIS, 0), timeout=timedelta(seconds=0.3))
        claim = (await confirmed(lambda: store.activate("c", owner="o", create=True, ttl=TTL))).claim
        server.pause()
        for _ in range(2):  # on the open connection, and on a new one
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(StoreUnavailableError) as caught:
                    await store.append(claim, expected_seq=0, entries=[b"1"], ttl=TTL)
            assert caught.value.__cause__ is not None
        server.resume()
        again = await confirmed(lambda: store.append(claim, expected_seq=0, entries=[b"1"], ttl=TTL))
        assert again in (Outcome.OK, Outcome.DUPLICATE)
        recovered = await confirmed(lambda: store.activate("c", owner="o", create=False, ttl=TTL))
        assert recovered.journal == (b"1",)
        await store.aclose()


async def test_dead_server_is_unavailable(binary: Path, tmp_path: Path) -> None:
    """A server that is gone is a retryable error; the store works again when it is back."""
    # By default, while its disk is slow, the server acknowledges up to two seconds before it writes to its file.
    with Server(binary, tmp_path, {"appendonly": "yes", "appendfsync": "always"}) as server:
        store = make_store(server.url)
        await written(store)
        server.kill()
        assert isinstance(await activation_error(store), StoreUnavailableError)
        await asyncio.to_thread(server.start)
        assert (await store.activate("c", owner="o2", create=False, ttl=TTL)).seq == 3
        await store.aclose()


@pytest.mark.parametrize("policy", ["noeviction"])
async def test_full_server_is_unavailable(server: Server, redis_store: RedisStore, policy: str) -> None:
    """Out of memory: nothing of the write is taken, and deleting still works."""
    await written(redis_store)
    claim = await written_claim(redis_store)
    client = server.client()
    client.config_set("maxmemory-policy", policy)
    client.config_set("maxmemory", "1")
    try:
        with pytest.raises(StoreUnavailableError):
            await redis_store.append(claim, expected_seq=3, entries=[b"4"], ttl=TTL)
        with pytest.raises(StoreUnavailableError):
            await redis_store.save_snapshot(claim, seq=3, snapshot=b"s", ttl=TTL, participants=[])
        assert isinstance(await activation_error(redis_store), StoreUnavailableError)
        assert client.hget(KEYS.meta, "seq") == b"3"
        assert client.llen(KEYS.journal) == 3
        assert await redis_store.delete("c", ttl=TTL)
    finally:
        client.config_set("maxmemory", "0")
        client.close()


async def test_read_only_replica_is_unavailable(binary: Path, tmp_path: Path) -> None:
    """A replica refuses writes for now: it may become the master."""
    with Server(binary, tmp_path / "master") as master, replica_of(master, tmp_path / "replica") as replica:
        store = make_store(replica.url)
        assert isinstance(await activation_error(store), StoreUnavailableError)
        await store.aclose()


async def test_busy_server_is_unavailable(binary: Path, tmp_path: Path) -> None:
    """A server that is occupied by a script of somebody else is a retryable error."""
    with Server(binary, tmp_path, {"lua-time-limit": "1"}) as server:
        client = server.client()
        store = make_store(server.url)
        await written(store)
        busy = asyncio.create_task(asyncio.to_thread(_occupy, server))
        try:
            await wait_until(lambda: _is_unavailable(store), "the server to be busy")
        finally:
            client.script_kill()
            await busy
            client.close()
            await store.aclose()


def _occupy(server: Server) -> None:
    client = server.client()
    with pytest.raises(Exception, match="killed"):
        client.eval("while true do end", 0)
    client.close()


async def _is_unavailable(store: RedisStore) -> bool:
    try:
        await store.head("c")
    except StoreUnavailableError:
        return True
    return False


@pytest.mark.parametrize("url", ["redis://:wrong@{}", "redis://nobody:wrong@{}", "redis://{}"])
async def test_refused_login_is_misconfigured(binary: Path, tmp_path: Path, url: str) -> None:
    """Wrong password, unknown user, no password: a person has to look. The text has no password in it."""
    with Server(binary, tmp_path, {"requirepass": "secret"}) as server:
        store = make_store(url.format(server.url.removeprefix("redis://")))
        error = await activation_error(store)
        assert isinstance(error, StoreMisconfiguredError)
        assert "wrong" not in str(error).lower().replace("wrongpass", "")
        await store.aclose()


async def test_user_with_all_it_needs(server: Server) -> None:
    """An ACL user limited to our keys passes the check and can do everything."""
    client = server.client()
    client.execute_command("ACL SETUSER agent on >p@ss resetkeys ~conv:* +@all -@admin -@dangerous +info")
    client.close()
    store = make_store(server.url.replace("redis://", "redis://agent:p%40ss@"))
    await store.check()
    await written(store, snapshot_at=1)
    await store.index("c", participants=["al"], ttl=TTL)
    assert await store.reindex() == 1
    assert [found.conversation_id async for found in store.list(participant="al")] == ["c"]
    await store.aclose()


@pytest.mark.parametrize(
    "rights", ["~conv:* +info", "~other:* +@all", "~conv:* +@all -rpush", "~conv:* +@all -evalsha"]
)
async def test_user_without_rights_fails_the_check(server: Server, rights: str) -> None:
    """A right that is missing, for a command, a key, or inside a script, is found by the check."""
    client = server.client()
    client.execute_command("ACL SETUSER limited reset on >p resetkeys " + rights)
    store = make_store(server.url.replace("redis://", "redis://limited:p@"))
    with pytest.raises(StoreMisconfiguredError):
        await store.check()
    await store.aclose()
    client.execute_command("ACL DELUSER limited")
    client.close()


async def server_time(client: Redis) -> float:
    """Return the server's clock, in ms."""
    seconds, microseconds = await asyncio.to_thread(client.time)
    return float(seconds) * 1000 + float(microseconds) / 1000


@pytest.mark.parametrize("participant", [None, "al"])
async def test_entry_drops_few_of_those_that_are_over(
    server: Server, redis_store: RedisStore, participant: str | None
) -> None:
    """However many entries are over, one that comes pays for 100 of them, in both keys of each listing; unread."""
    listing = Keys().active_index if participant is None else Keys().participant_index(participant)
    client = server.client()
    for number in range(150):
        await redis_store.index(f"over-{number}", participants=["al"], ttl=TTL)
    for keys in (Keys().active_index, Keys().participant_index("al")):  # as when their time had come
        client.zadd(keys.expiries, dict.fromkeys(client.zrange(keys.expiries, 0, -1), 1))
    await redis_store.index("fresh", participants=["al"], ttl=TTL)
    assert [client.zcard(key) for key in listing.as_tuple()] == [51, 51]
    await redis_store.index("fresh", participants=["al"], ttl=TTL)
    assert [client.zrange(key, 0, -1) for key in listing.as_tuple()] == [[b"fresh"], [b"fresh"]]
    client.close()


async def test_listings_keys_live_as_long_as_their_longest_entry(server: Server, redis_store: RedisStore) -> None:
    """A short entry shortens the TTL of neither key of a participant's listing."""
    client = server.client()
    for ttl in (TTL, timedelta(seconds=5)):
        await redis_store.index("c", participants=["al"], ttl=ttl)
    for key in Keys().participant_index("al").as_tuple():
        assert client.pttl(key) > 500_000
    client.close()


async def test_reindexed_entry_leaves_with_its_conversation(server: Server, redis_store: RedisStore) -> None:
    """Entered again from the conversation, an entry has what is left of that one's time."""
    await written(redis_store)
    client = server.client()
    assert await redis_store.reindex() == 1
    expiry, left = client.zscore(Keys().active_index.expiries, "c"), client.pttl(KEYS.meta)
    assert abs(expiry - left - await server_time(client)) < 5_000
    client.close()


async def test_check_leaves_nothing_listed(server: Server, redis_store: RedisStore) -> None:
    """The check's own conversation is never found, and goes by itself."""
    await redis_store.check()
    assert await redis_store.reindex() == 0
    client = server.client()
    assert all(0 < client.pttl(key) <= 10_000 for key in client.keys("*"))
    client.close()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru", "volatile-ttl"])
async def test_eviction_is_warned_of(
    server: Server, redis_store: RedisStore, policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    """All our keys have a TTL, so volatile policies evict acknowledged state as well."""
    client = server.client()
    client.config_set("maxmemory-policy", policy)
    try:
        with caplog.at_level(logging.WARNING):
            await redis_store.check()
    finally:
        client.config_set("maxmemory-policy", "noeviction")
        client.close()
    assert [getattr(record, "maxmemory_policy", None) for record in caplog.records] == [policy]


@pytest.mark.parametrize("info", [{"redis_version": "6.0.16"}, {"redis_version": "5.0.7"}, {}])
async def test_old_server_is_refused(info: dict[str, str]) -> None:
    """Redis before 6.2 is refused, with what to use instead."""
    with pytest.raises(StoreMisconfiguredError, match=r"6\.2 or newer"):
        Acknowledgement((Durability.REDIS, 0), timeout=1).check(info)


async def test_settings_make_a_store_that_works(server: Server) -> None:
    """The settings make a store that works, also one from which conversations are archived, within their bounds."""
    store = open_store(Settings(redis_url=SecretStr(server.url)))
    await store.check()
    await store.aclose()
    await store.aclose()
    archive = ArchiveSettings(url=SecretStr("sqlite+aiosqlite:///x"), backlog_age=timedelta(seconds=100))
    store = open_store(Settings(redis_url=SecretStr(server.url), archive=archive))
    await store.check()
    claim = (await store.activate("c", owner="o", create=True, ttl=TTL)).claim
    await store.append(claim, expected_seq=0, entries=[b"1"], ttl=TTL)
    client = server.client()
    assert 0 < client.pttl(KEYS.backlog) <= 100_000
    client.close()
    await store.aclose()


async def test_connections_have_no_name_of_a_library(server: Server, redis_store: RedisStore) -> None:
    """Whatever redis-py calls the option: telling the name would cost two commands for each connection."""
    client = server.client()
    client.config_resetstat()
    await redis_store.check()
    assert "cmdstat_eval" in " ".join(client.info("commandstats"))
    assert not [name for name in client.info("commandstats") if "setinfo" in name]
    client.close()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), "OOM command not allowed"),
        (ReadOnlyError("You can't write against a read only replica."), "READONLY You can't write"),
        (NoPermissionError("this user has no permissions"), "NOPERM this user"),
    ],
)
async def test_the_servers_word_is_told_whatever_redis_py_leaves_of_it(error: Exception, told: str) -> None:
    """Before 8, redis-py takes the code off the text of an error that has a class of its own."""
    assert told in str(translate(error, doing="append"))
