"""Lives and lineage: whose writes are taken, and what may be healed, whatever numbers come again."""

import asyncio
import copy
from collections.abc import Callable
from datetime import timedelta

import pytest

from conversation_actors.store import Claim, MemoryStore, Outcome, Recovered, Store
from conversation_actors.store.keys import Keys
from conversation_actors.store.redis import RedisStore
from tests.store.conftest import make_store
from tests.support.servers import Server, wait_until

pytestmark = pytest.mark.asyncio

TTL = timedelta(minutes=10)
SHORT = timedelta(milliseconds=30)


async def opened(store: Store, owner: str, *, ttl: timedelta = TTL) -> Recovered:
    """Activate, and create where needed."""
    return await store.activate("c", owner=owner, create=True, ttl=ttl)


async def append(store: Store, claim: Claim, seq: int, *entries: bytes, ttl: timedelta = TTL) -> Outcome:
    """Append after a position."""
    return await store.append(claim, expected_seq=seq, entries=entries, ttl=ttl)


async def restore(store: Store, claim: Claim, seq: int) -> Outcome:
    """Save a snapshot that may heal."""
    return await store.save_snapshot(claim, seq=seq, snapshot=b"restored", ttl=TTL, participants=[])


async def grown_old(store: Store, *, ttl: timedelta = TTL) -> Claim:
    """Return the third claim of a life, which has two entries."""
    for owner in ("a1", "a2"):
        await opened(store, owner, ttl=ttl)
    claim = (await opened(store, "a3", ttl=ttl)).claim
    await append(store, claim, 0, b"old 1", b"old 2", ttl=ttl)
    return claim


async def expired(store: Store) -> None:
    """Wait until the conversation has expired."""

    async def is_gone() -> bool:
        return await store.head("c") is None

    await wait_until(is_gone, "the conversation to expire")


async def wiped(store: Store) -> None:
    """Lose all keys of the conversation, as FLUSHALL does."""
    if isinstance(store, MemoryStore):
        store._conversations.clear()
    else:
        assert isinstance(store, RedisStore)
        client = await store._servers.owner_of(Keys().conversation("c").meta)
        await client.flushall()


async def remember(store: Store) -> Callable[[], "asyncio.Future[None]"]:
    """Return what brings the conversation back as it is now: a failover to a replica that lagged."""
    if isinstance(store, MemoryStore):
        kept = copy.deepcopy(store._conversations)

        async def bring_back() -> None:
            store._conversations = copy.deepcopy(kept)

        return lambda: asyncio.ensure_future(bring_back())
    assert isinstance(store, RedisStore)
    keys = Keys().conversation("c").as_tuple()
    client = await store._servers.owner_of(keys[0])
    dumped = [(key, await client.dump(key), await client.pttl(key)) for key in keys]

    async def load() -> None:
        await client.delete(*keys)
        for key, data, ttl in dumped:
            if data is not None:
                await client.restore(key, ttl, data)

    return lambda: asyncio.ensure_future(load())


@pytest.mark.parametrize("end", ["expired", "wiped", "deleted", "forgotten after its deletion"])
async def test_an_old_life_is_fenced_by_a_new_one(store: Store, end: str) -> None:
    """An owner that slept through the end of its life writes nothing into the next, however high its epoch is."""
    old = await grown_old(store, ttl=SHORT if end == "expired" else TTL)
    if end == "expired":
        await expired(store)
    elif end == "wiped":
        await wiped(store)
    else:
        await store.delete("c", ttl=TTL if end == "deleted" else SHORT)
    if end == "forgotten after its deletion":
        await wait_until(lambda: _can_be_healed(store, old), "the tombstone to expire")
    young = await opened(store, "c1")
    assert young.created
    assert young.claim.life != old.life
    assert await append(store, young.claim, young.seq, b"new 1", b"new 2") is Outcome.OK
    for seq in (0, 1, 2, 9):
        assert await append(store, old, seq, b"zombie") is Outcome.FENCED
        assert await append(store, old, seq) is Outcome.FENCED
        assert await restore(store, old, seq) is Outcome.FENCED
    assert await append(store, young.claim, young.seq + 2, b"new 3") is Outcome.OK
    assert (await opened(store, "c2")).journal == (b"new 1", b"new 2", b"new 3")


async def _can_be_healed(store: Store, claim: Claim) -> bool:
    return await append(store, claim, 2) is Outcome.GAP


async def test_a_deleted_life_stays_deleted(store: Store) -> None:
    """Its owner can bring it back neither over the tombstone nor, once a new life was made, over that."""
    old = await grown_old(store)
    await store.delete("c", ttl=TTL)
    assert await append(store, old, 2, b"zombie") is Outcome.FENCED
    assert await restore(store, old, 2) is Outcome.FENCED


async def test_a_life_is_healed_over_nothing(store: Store) -> None:
    """What was lost with all keys, and nobody has made anew, its owner restores, life and lineage too."""
    claim = await grown_old(store)
    await wiped(store)
    assert await append(store, claim, 2, b"3") is Outcome.GAP
    assert await restore(store, claim, 2) is Outcome.OK
    assert await append(store, claim, 2, b"3") is Outcome.OK
    heir = (await opened(store, "a4")).claim
    assert (heir.life, heir.epoch) == (claim.life, claim.epoch + 1)
    assert heir.lineage == (*claim.lineage, (claim.life, claim.epoch, claim.owner, 3))


async def test_a_claim_whose_taking_was_lost_heals(store: Store) -> None:
    """A failover that lost an activation shows what the one before it has left: that is followed, and replaced."""
    before = await grown_old(store)
    fail_over = await remember(store)
    claim = (await opened(store, "a4")).claim
    await append(store, claim, 2, b"3")
    await fail_over()
    assert await append(store, claim, 3, b"4") is Outcome.GAP
    assert await restore(store, claim, 3) is Outcome.OK
    assert await append(store, claim, 3, b"4") is Outcome.OK
    assert await append(store, before, 2, b"zombie") is Outcome.FENCED


async def test_two_takings_that_were_lost_are_healed(store: Store) -> None:
    """A claim knows those before the one before it as well."""
    await grown_old(store)
    fail_over = await remember(store)
    await opened(store, "a4")
    claim = (await opened(store, "a5")).claim
    await fail_over()
    assert await append(store, claim, 2, b"3") is Outcome.GAP
    assert await restore(store, claim, 2) is Outcome.OK


@pytest.mark.parametrize("loss", ["failover", "everything"])
async def test_the_newest_claim_of_a_life_wins(store: Store, loss: str) -> None:
    """A deposed owner that wakes after a loss writes, as nobody is there to stop it; the one after it replaces that."""
    before = await grown_old(store)
    fail_over = await remember(store)
    claim = (await opened(store, "a4")).claim
    await append(store, claim, 2, b"3", b"4")
    if loss == "everything":
        await wiped(store)
        assert await restore(store, before, 2) is Outcome.OK
    else:
        await fail_over()
    assert await append(store, before, 2, b"zombie") is Outcome.OK
    assert await append(store, claim, 4, b"5") is Outcome.GAP
    assert await restore(store, claim, 4) is Outcome.OK
    assert await append(store, claim, 4, b"5") is Outcome.OK
    assert await append(store, before, 3, b"zombie again") is Outcome.FENCED
    heir = await opened(store, "a5")
    assert (heir.seq, heir.snapshot, heir.journal) == (5, b"restored", (b"5",))


async def test_a_claim_of_another_branch_is_not_replaced(store: Store) -> None:
    """After a failover somebody else has taken over, with a lower epoch than what was lost, which is fenced."""
    await grown_old(store)
    fail_over = await remember(store)
    await opened(store, "a4")
    lost = (await opened(store, "a5")).claim
    await fail_over()
    other = (await opened(store, "b4")).claim
    assert other.epoch < lost.epoch
    await append(store, other, 2, b"acknowledged")
    assert await append(store, lost, 2, b"3") is Outcome.FENCED
    assert await restore(store, lost, 2) is Outcome.FENCED
    assert await append(store, other, 3, b"4") is Outcome.OK


async def test_a_new_life_whose_making_was_lost_heals(store: Store) -> None:
    """A failover that lost it shows the tombstone that it was made over."""
    old = await grown_old(store)
    await store.delete("c", ttl=TTL)
    fail_over = await remember(store)
    young = await opened(store, "c1")
    await append(store, young.claim, young.seq, b"new")
    await fail_over()
    assert await append(store, young.claim, young.seq + 1, b"more") is Outcome.GAP
    assert await restore(store, young.claim, young.seq + 1) is Outcome.OK
    assert await append(store, old, 2, b"zombie") is Outcome.FENCED
    assert (await opened(store, "c2")).snapshot == b"restored"


async def test_the_lineage_is_bounded(store: Store) -> None:
    """Sixteen claims are remembered, the latest, each with where the next one took over."""
    for number in range(19):
        await append(store, (await opened(store, f"o{number}")).claim, number, b"x")
    claim = (await opened(store, "last")).claim
    told = [(one.owner, one.epoch, one.seq) for one in claim.lineage]
    assert told == [(f"o{number}", number + 1, number + 1) for number in range(3, 19)]
    assert [claim.end_of(owner) for owner in ("o18", "o2", "stranger")] == [19, None, None]


async def test_keep_counts_as_use(store: Store) -> None:
    """It keeps the conversation for as long as its retention says, needs no claim, and never shortens."""
    assert await store.keep("c", ttl=TTL) is None
    claim = (await opened(store, "o1")).claim
    await store.append(claim, expected_seq=0, entries=[b"1"], ttl=timedelta(seconds=1), kept=TTL)
    assert await store.keep("c", ttl=SHORT) == TTL
    assert (await opened(store, "o2")).left > TTL / 2
    await store.delete("c", ttl=TTL)
    assert await store.keep("c", ttl=TTL) is None


async def test_a_write_takes_no_use_back(store: Store) -> None:
    """An owner that does not know of a use writes a shorter TTL: the longer one stays, until the retention changes."""
    claim = (await opened(store, "o1")).claim
    await store.append(claim, expected_seq=0, entries=[b"1"], ttl=timedelta(seconds=1), kept=TTL)
    await store.keep("c", ttl=SHORT)
    moment = timedelta(seconds=1)
    await store.append(claim, expected_seq=1, entries=[b"2"], ttl=moment, kept=TTL)
    await store.save_snapshot(claim, seq=2, snapshot=b"s", participants=[], ttl=moment, kept=TTL)
    assert (await opened(store, "o1")).left > TTL / 2
    await store.append(claim, expected_seq=2, entries=[], ttl=timedelta(seconds=1), kept=timedelta(seconds=1))
    assert (await opened(store, "o1")).left <= timedelta(seconds=1)


async def test_the_store_tells_its_time(server: Server) -> None:
    """Seconds since the epoch, by the server's clock."""
    store = make_store(server.url)
    client = server.client()
    before, _ = client.time()
    at = (await opened(store, "o1")).at
    after, _ = client.time()
    assert before <= at < after + 1
    client.close()
    await store.aclose()
