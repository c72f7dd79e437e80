"""What waits for the archive, on Redis: races with the listing in its other slot, losses, servers that refuse."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable
from datetime import timedelta
from itertools import combinations
from typing import Any

import pytest

from conversation_actors.errors import CorruptStateError, StoreMisconfiguredError, StoreUnavailableError
from conversation_actors.store import Claim, Outcome, Waiting, decode_record
from conversation_actors.store.keys import Keys
from conversation_actors.store.redis import RedisStore
from conversation_actors.store.redis_queueing import UnarchivedListing
from conversation_actors.store.scripts import conversation_script
from tests.store.conftest import BOUNDS, make_store
from tests.support.fakes import Activations, append, done
from tests.support.servers import Server

pytestmark = pytest.mark.asyncio

TTL = timedelta(minutes=10)
KEYS = Keys().conversation("c")


@pytest.fixture
async def owner(server: Server) -> AsyncIterator[RedisStore]:
    """A store on `server` from which conversations are archived."""
    store = make_store(server.url, archive=BOUNDS)
    yield store
    await store.aclose()


@pytest.fixture
async def archiver(server: Server) -> AsyncIterator[RedisStore]:
    """Another one, as an archiver's process has it."""
    store = make_store(server.url, archive=BOUNDS)
    yield store
    await store.aclose()


async def opened(store: RedisStore, conversation_id: str = "c", *, owner: str = "o1") -> Claim:
    """Activate, and create where needed."""
    return (await store.activate(conversation_id, owner=owner, create=True, ttl=TTL)).claim


async def settled(store: RedisStore, conversation_id: str = "c") -> None:
    """Have all that waits archived."""
    batch = await store.backlog().take(conversation_id, archiver="a", ttl=TTL, most_bytes=1 << 20)
    assert batch is not None
    await store.backlog().settle(conversation_id, backlog=batch.backlog, through=batch.through)


async def records(store: RedisStore, conversation_id: str = "c") -> list[bytes | None]:
    """Return the entries that wait."""
    return [decode_record(stored).data for stored in (await store.backlog().peek(conversation_id)).stored]


# Nothing waits that is not listed


class Turnstile:
    """Lets the calls that stores make on Redis through one at a time, in an order of names."""

    def __init__(self, **stores: RedisStore) -> None:
        """Guard the stores; nobody has to wait yet."""
        self._order: list[str] = []
        self._moved = asyncio.Condition()
        for name, store in stores.items():
            self._guard(store, name)

    async def run(self, order: Iterable[str], **calls: Awaitable[object]) -> None:
        """Make the calls in turns: one call on Redis for each name in `order`, and whatever comes afterwards."""
        self._order = list(order)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for name, call in calls.items():
                group.create_task(self._ending(name, call))

    def _guard(self, store: RedisStore, name: str) -> None:
        redirected = store._calls._redirected

        async def in_turn(*arguments: Any, **named: Any) -> Any:
            async with self._moved:
                await self._moved.wait_for(lambda: not self._order or self._order[0] == name)
                reply = await redirected(*arguments, **named)
                del self._order[:1]
                self._moved.notify_all()
            return reply

        store._calls._redirected = in_turn  # type: ignore[method-assign]

    async def _ending(self, name: str, call: Awaitable[object]) -> None:
        """Make a call, and then leave the turns to the others."""
        try:
            await call
        finally:
            async with self._moved:
                self._order = [other for other in self._order if other != name]
                self._moved.notify_all()


async def unlisted(store: RedisStore, conversation_id: str) -> None:
    """Take a conversation out of the listing as an archiver does that finds nothing waiting."""
    for waiting in await store.backlog().waiting():
        if waiting.conversation_id == conversation_id:
            await store.backlog().unlist(waiting)


async def pushed_before(store: RedisStore, conversation_id: str, state: str) -> tuple[Claim, int]:
    """Bring a conversation, of which nothing waits, in a state; return the claim and the position to go on with."""
    claim = await opened(store, conversation_id)
    if state == "new":
        return claim, 0
    if state == "entered":
        await UnarchivedListing(store._calls, store._keys).enter(conversation_id)
        return claim, 0
    await store.append(claim, expected_seq=0, entries=[b"1"], ttl=TTL)
    await settled(store, conversation_id)
    if state == "followed":
        claim = await opened(store, conversation_id, owner="o2")
    return claim, 1


@pytest.mark.parametrize("state", ["new", "pushed", "entered", "followed"])
async def test_no_order_of_steps_leaves_a_record_unlisted(owner: RedisStore, archiver: RedisStore, state: str) -> None:
    """An owner appends while an archiver finds nothing waiting and takes the conversation out of the listing.

    Each has its steps, in two slots; they are made in every order. The conversation is new, or its owner has pushed
    before, or entered the listing and died, or was followed by another one.
    """
    turnstile = Turnstile(owner=owner, archiver=archiver)
    for first, second, third in combinations(range(8), 3):
        conversation_id = f"c{first}{second}{third}"
        claim, seq = await pushed_before(owner, conversation_id, state)
        order = ["archiver" if turn in (first, second, third) else "owner" for turn in range(8)]
        appending = owner.append(claim, expected_seq=seq, entries=[b"2"], ttl=TTL)
        await turnstile.run(order, owner=appending, archiver=unlisted(archiver, conversation_id))
        assert await records(owner, conversation_id) == [b"2"]
        (waiting,) = await owner.backlog().waiting()
        assert (waiting.conversation_id, waiting.records) == (conversation_id, 1)
        await settled(owner, conversation_id)
        assert await owner.backlog().unlist(waiting)


async def test_a_late_step_of_an_archiver_takes_out_no_later_entry(owner: RedisStore, archiver: RedisStore) -> None:
    """The second step of one that was stopped in between: by its mark it is of an earlier stay."""
    claim = await opened(owner)
    await owner.append(claim, expected_seq=0, entries=[b"1"], ttl=TTL)
    await settled(owner)
    (waiting,) = await archiver.backlog().waiting()
    assert await archiver.backlog().unlist(waiting)
    await owner.append(claim, expected_seq=1, entries=[b"2"], ttl=TTL)
    assert not await archiver._backlog._listing.leave("c", waiting.mark)
    assert [waiting.records for waiting in await owner.backlog().waiting()] == [1]
    assert await records(owner) == [b"2"]


async def test_a_mark_is_later_than_all_before(owner: RedisStore) -> None:
    """Also when the clock of the listing's server goes back."""
    listing = UnarchivedListing(owner._calls, owner._keys)
    first = await listing.enter("c")
    ahead = await listing.enter("c", after=2 * first)
    assert ahead == 2 * first + 1
    assert await listing.enter("c") == ahead + 1
    assert not await listing.leave("c", ahead)
    assert await listing.leave("c", ahead + 1)


async def test_an_owner_that_crashed_after_entering_is_taken_out(owner: RedisStore, archiver: RedisStore) -> None:
    """And its push, should it still come, is let in under no mark that was taken out."""
    await opened(owner)
    assert owner._queueing is not None
    mark = await owner._queueing._listing.enter("c")
    (waiting,) = await archiver.backlog().waiting()
    assert waiting == Waiting("c", mark, 0)
    assert await archiver.backlog().unlist(waiting)
    assert await archiver.backlog().waiting() == []
    late = await owner._calls.on_conversation(
        *(conversation_script("append"), KEYS, "o1", 1, "o1", 0, 600_000, 600_000, ""),
        *(mark, 1, b"[]\n", "name", 1000, 600_000, b"late"),
        names=KEYS.with_backlog,
    )
    assert late[0] == b"UNLISTED"
    assert await owner.head("c") is not None
    assert await records(owner) == []


async def test_a_push_whose_answer_was_lost_enters_anew(owner: RedisStore, archiver: RedisStore) -> None:
    """Its repeat finds it done; the next push comes under a mark that nobody has taken out meanwhile."""
    claim = await opened(owner)
    on_conversation = owner._calls.on_conversation

    async def lose_the_answer(*arguments: Any, **named: Any) -> Any:
        await on_conversation(*arguments, **named)
        message = "the answer did not arrive"
        raise StoreUnavailableError(message)

    owner._calls.on_conversation = lose_the_answer  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailableError):
        await owner.append(claim, expected_seq=0, entries=[b"1"], ttl=TTL)
    owner._calls.on_conversation = on_conversation  # type: ignore[method-assign]
    await settled(archiver)
    (waiting,) = await archiver.backlog().waiting()
    assert await archiver.backlog().unlist(waiting)
    assert await owner.append(claim, expected_seq=0, entries=[b"1"], ttl=TTL) is Outcome.DUPLICATE
    assert await records(owner) == []
    await owner.append(claim, expected_seq=1, entries=[b"2"], ttl=TTL)
    assert [waiting.records for waiting in await owner.backlog().waiting()] == [1]


async def test_the_listing_is_entered_once(owner: RedisStore, server: Server) -> None:
    """An owner that goes on writing makes one call for each append."""
    claim = await opened(owner)
    await owner.append(claim, expected_seq=0, entries=[b"1"], ttl=TTL)
    (before,) = await owner.backlog().waiting()
    client = server.client()
    client.config_resetstat()
    for seq in range(1, 6):
        await owner.append(claim, expected_seq=seq, entries=[b"x"], ttl=TTL)
    calls = client.info("commandstats")
    client.close()
    assert calls["cmdstat_evalsha"]["calls"] == 5
    assert "cmdstat_zadd" not in calls
    (after,) = await owner.backlog().waiting()
    assert (after.mark, after.records) == (before.mark, 6)


# Losses


async def test_an_owner_lets_what_redis_lost_wait_again(owner: RedisStore, server: Server) -> None:
    """All that it remembers, before it restores the conversation; and what was being written after that."""
    async with Activations() as start:
        activation = await start(owner)
        for number in range(3):
            await done(activation, append(f"u{number}"))
        before = await records(owner)
        client = server.client()
        client.flushall()
        client.close()
        await done(activation, append("u3"))
        found = await records(owner)
        assert found[:3] == before
        assert len(found) == 4
        (waiting,) = await owner.backlog().waiting()
        assert waiting.records == 4


# Servers that refuse


async def test_a_full_server_is_emptied(owner: RedisStore, server: Server) -> None:
    """Out of memory nothing more is written, not even in part; what waits can be taken and settled, and deleted."""
    claim = await opened(owner)
    await owner.append(claim, expected_seq=0, entries=[b"1", b"2"], ttl=TTL)
    client = server.client()
    client.config_set("maxmemory", "1")
    try:
        with pytest.raises(StoreUnavailableError):
            await owner.append(claim, expected_seq=2, entries=[b"3"], ttl=TTL)
        assert (await records(owner), client.llen(KEYS.journal)) == ([b"1", b"2"], 2)
        await settled(owner)
        assert await records(owner) == []
        for waiting in await owner.backlog().waiting():
            assert await owner.backlog().unlist(waiting)
        assert await owner.delete("c", ttl=TTL)
        assert await records(owner) == [None]
    finally:
        client.config_set("maxmemory", "0")
        client.close()


@pytest.mark.parametrize("name", ["backlog", "archive"])
async def test_a_key_of_another_type_is_named(owner: RedisStore, server: Server, name: str) -> None:
    """Nothing is written, neither there nor in the journal, and other backlogs are found all the same."""
    other = await opened(owner, "other")
    await owner.append(other, expected_seq=0, entries=[b"1"], ttl=TTL)
    claim = await opened(owner)
    await owner.append(claim, expected_seq=0, entries=[b"1"], ttl=TTL)
    client = server.client()
    key = getattr(KEYS, name)
    client.set(key, "no backlog", ex=600)
    with pytest.raises(CorruptStateError) as caught:
        await owner.append(claim, expected_seq=1, entries=[b"2"], ttl=TTL)
    assert caught.value.key == key
    with pytest.raises(CorruptStateError):
        await owner.backlog().take("c", archiver="a", ttl=TTL, most_bytes=1)
    with pytest.raises(CorruptStateError):
        await owner.delete("c", ttl=TTL)
    assert client.llen(KEYS.journal) == 1
    assert [waiting.conversation_id for waiting in await owner.backlog().waiting()] == ["other", "c"]
    client.close()


@pytest.mark.parametrize("rights", ["-lpop", "-zadd"])
async def test_the_check_finds_a_right_that_an_archive_needs(server: Server, rights: str) -> None:
    """Who archives needs more than who does not."""
    client = server.client()
    client.execute_command(f"ACL SETUSER limited reset on >p resetkeys ~conv:* +@all {rights}")
    store = make_store(server.url.replace("redis://", "redis://limited:p@"), archive=BOUNDS)
    with pytest.raises(StoreMisconfiguredError):
        await store.check()
    await store.aclose()
    client.execute_command("ACL DELUSER limited")
    client.close()


async def test_the_check_leaves_nothing(owner: RedisStore, server: Server) -> None:
    """Neither in the listing nor for longer than some seconds, with no more rights than a user of our keys has."""
    client = server.client()
    client.execute_command("ACL SETUSER agent on >p resetkeys ~conv:* +@all -@admin -@dangerous +info")
    store = make_store(server.url.replace("redis://", "redis://agent:p@"), archive=BOUNDS)
    await store.check()
    assert await store.backlog().waiting() == []
    assert all(0 < client.pttl(key) <= 10_000 for key in client.keys("*"))
    await store.aclose()
    client.close()


async def test_a_reader_sees_what_waits(owner: RedisStore, server: Server) -> None:
    """With the rights of reading, and nothing else."""
    claim = await opened(owner)
    await owner.append(claim, expected_seq=0, entries=[b"1"], ttl=TTL)
    client = server.client()
    client.execute_command("ACL SETUSER reader reset on >p ~conv:* +@read")
    client.close()
    store = make_store(server.url.replace("redis://", "redis://reader:p@"))
    assert await records(store) == [b"1"]
    await store.aclose()


async def test_a_conversation_of_the_layout_before_has_a_beginning(owner: RedisStore, server: Server) -> None:
    """That is where its snapshot was when it was next activated, and stays so."""
    claim = await opened(owner)
    await owner.append(claim, expected_seq=0, entries=[b"1", b"2", b"3"], ttl=TTL)
    await owner.save_snapshot(claim, seq=2, snapshot=b"s", ttl=TTL, participants=[])
    client = server.client()
    client.hdel(KEYS.meta, "start")
    client.hset(KEYS.meta, "schema", 2)
    client.close()
    claim = await opened(owner, owner="o2")
    assert claim.start == 2
    await owner.save_snapshot(claim, seq=3, snapshot=b"s", ttl=TTL, participants=[])
    assert (await opened(owner, owner="o3")).start == 2


async def test_each_key_lives_for_as_long_as_it_should(owner: RedisStore, server: Server) -> None:
    """What waits lives for its own time, whatever the conversation's is; that is counted from the latest push."""
    client = server.client()
    claim = await opened(owner)
    await owner.append(claim, expected_seq=0, entries=[b"1"], ttl=TTL)
    await owner.keep("c", ttl=TTL)
    for key in KEYS.queue:
        assert 3_500_000 < client.pttl(key) <= 3_600_000
        client.pexpire(key, 100_000)
    await opened(owner, owner="o1")
    await owner.append(claim, expected_seq=1, entries=[], ttl=TTL)
    assert [client.pttl(key) <= 100_000 for key in KEYS.queue] == [True, True]
    await owner.append(claim, expected_seq=1, entries=[b"2"], ttl=TTL)
    assert [client.pttl(key) > 3_500_000 for key in KEYS.queue] == [True, True]
    assert all(client.pttl(key) <= 600_000 for key in KEYS.as_tuple() if client.exists(key))
    for key in KEYS.queue:
        client.pexpire(key, 100_000)
    batch = await owner.backlog().take("c", archiver="a", ttl=TTL, most_bytes=1)
    assert batch is not None
    assert [client.pttl(key) <= 100_000 for key in KEYS.queue] == [True, True]
    await owner.backlog().settle("c", backlog=batch.backlog, through=batch.through)
    assert [client.pttl(key) > 3_500_000 for key in KEYS.queue] == [True, True]
    client.close()
