"""How long a conversation is kept after its last use; and that what has expired stays gone."""

import asyncio
from datetime import timedelta

import pytest

from conversation_actors.activation import Activation, committer
from conversation_actors.errors import (
    ConversationError,
    ConversationNotFoundError,
    PassivatedError,
)
from conversation_actors.protocol import Request
from conversation_actors.state import SetRetention
from conversation_actors.store import Outcome
from tests.support.fakes import (
    CONVERSATION,
    PATIENCE,
    Activations,
    Fault,
    FaultyStore,
    append,
    brief,
    done,
    execute,
    turns,
    until,
)

HOUR, MINUTE = 3600.0, 60.0


class Clock:
    """The store's time, which stands still unless it is moved; the owner's last use is moved with it."""

    def __init__(self) -> None:
        """Begin at some time."""
        self.now = 1000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now

    def passes(self, seconds: float, *owners: Activation) -> None:
        """Let time pass in which nobody uses these owners, nor do they do anything."""
        self.now += seconds
        for owner in owners:
            owner._use.last -= seconds
            owner._retention._touched_at -= seconds
            owner._retention._told_use_at -= seconds


@pytest.fixture
def clock() -> Clock:
    """Return the store's clock."""
    return Clock()


@pytest.fixture
def store(clock: Clock) -> FaultyStore:
    """Make a store on it."""
    return FaultyStore(clock=clock)


def left(store: FaultyStore, clock: Clock) -> float:
    """Seconds until the store forgets the conversation, as whole ones: tests take milliseconds."""
    return float(round(store.inner._conversations[CONVERSATION].expires_at - clock.now))


def is_stored(store: FaultyStore, clock: Clock) -> bool:
    """Whether the conversation is there."""
    kept = store.inner._conversations.get(CONVERSATION)
    return kept is not None and kept.expires_at > clock.now


async def reason(owner: Activation) -> ConversationError:
    """Why it has stopped, soon."""
    async with asyncio.timeout(PATIENCE):
        return await asyncio.shield(owner.stopped)


async def keep(owner: Activation, seconds: float | None, *, request_id: str = "keep") -> None:
    """Set the retention."""
    await done(owner, Request(request_id, SetRetention(seconds)))


async def test_retention_is_the_ttl(start: Activations, store: FaultyStore, clock: Clock) -> None:
    """From the write that sets it on, longer or shorter than the settings'; None is what the settings say."""
    owner = await start(store, brief(ttl=HOUR))
    await done(owner, append("u0"))
    assert left(store, clock) == HOUR
    await keep(owner, 10 * MINUTE)
    assert left(store, clock) == 10 * MINUTE
    clock.passes(MINUTE, owner)
    await done(owner, append("u1"))
    assert left(store, clock) == 10 * MINUTE
    await keep(owner, 48 * HOUR, request_id="longer")
    assert left(store, clock) == 48 * HOUR
    await keep(owner, None, request_id="settings")
    assert left(store, clock) == HOUR


async def test_the_last_of_one_batch_counts(start: Activations, store: FaultyStore, clock: Clock) -> None:
    """And what is decided before it, in the same write, is kept no longer."""
    owner = await start(store, brief(ttl=HOUR))
    longer, shorter = Request("r1", SetRetention(48 * HOUR)), Request("r2", SetRetention(MINUTE))
    await execute(owner, append("u0"), longer, shorter, append("u1"))
    assert left(store, clock) == MINUTE


async def test_snapshots_are_kept_as_long(
    start: Activations, store: FaultyStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compaction says the same as the writes around it."""
    monkeypatch.setattr(committer, "COMPACT_ENTRIES", 8)
    owner = await start(store, brief(ttl=HOUR, items=4))
    await keep(owner, 10 * MINUTE)
    for number in range(12):
        await done(owner, append(f"u{number}"))
    await until(lambda: bool(store.snapshots))
    await turns()
    assert left(store, clock) == 10 * MINUTE


@pytest.mark.parametrize("end", ["passivated", "killed"])
async def test_being_activated_is_no_use(start: Activations, store: FaultyStore, clock: Clock, end: str) -> None:
    """An owner that Ray has restarted, and that nobody asks, changes no TTL: crashes keep nothing longer."""
    owner = await start(store, brief(ttl=HOUR))
    await keep(owner, 10 * MINUTE)
    await (owner.passivate() if end == "passivated" else owner.aclose())
    for remaining in (9, 6, 3):
        clock.passes(MINUTE if remaining == 9 else 3 * MINUTE)
        heir = await start(store, brief(ttl=HOUR))
        await heir._committer.upkeep()
        assert left(store, clock) == remaining * MINUTE
        await heir.aclose()


async def test_an_unused_activation_ends_in_time(start: Activations, store: FaultyStore, clock: Clock) -> None:
    """It knows how long ago the last use was, which another owner saw: what has expired is not brought back."""
    await keep(await start(store, brief(ttl=HOUR)), 10 * MINUTE)
    clock.passes(9 * MINUTE)
    heir = await start(store, brief(ttl=HOUR))
    clock.passes(MINUTE, heir)
    with pytest.raises(PassivatedError):
        await heir.read(fresh=False)
    assert not is_stored(store, clock)


async def test_the_first_use_tells_the_store_soon(start: Activations, store: FaultyStore, clock: Clock) -> None:
    """Of a conversation that is nearly forgotten no upkeep is waited for: a crash then must not cost it."""
    await keep(await start(store, brief(ttl=HOUR)), 10 * MINUTE)
    clock.passes(9 * MINUTE)
    heir = await start(store, brief(ttl=HOUR, idle=600.0))
    await heir.read(fresh=False)
    await until(lambda: left(store, clock) == 10 * MINUTE)


async def test_use_that_the_owner_does_not_see_is_use(start: Activations, store: FaultyStore, clock: Clock) -> None:
    """A job that cannot reach the owner keeps the conversation; what the owner writes does not shorten that."""
    owner = await start(store, brief(ttl=HOUR))
    await keep(owner, 10 * MINUTE)
    clock.passes(4 * MINUTE, owner)
    assert await store.keep(CONVERSATION, ttl=timedelta(hours=1)) == timedelta(minutes=10)
    await owner.passivate()
    assert left(store, clock) == 10 * MINUTE


async def test_another_retention_shortens_what_was_kept(start: Activations, store: FaultyStore, clock: Clock) -> None:
    """Only use is never taken back; how long a use counts may change."""
    owner = await start(store, brief(ttl=HOUR))
    await store.keep(CONVERSATION, ttl=timedelta(hours=1))
    await keep(owner, MINUTE)
    assert left(store, clock) == MINUTE
    assert await store.keep(CONVERSATION, ttl=timedelta(hours=1)) == timedelta(minutes=1)


async def test_a_poll_that_was_let_go_is_no_use(start: Activations, store: FaultyStore, clock: Clock) -> None:
    """Whoever closes a handle says so: the poll that is parked for it ends, and the time runs from then on."""
    owner = await start(store, brief(ttl=HOUR))
    await keep(owner, 10 * MINUTE)
    parked = asyncio.create_task(owner.poll(watcher="w", after_seq=1, timeout=600))
    await turns()
    owner.let_go(["another", "w"])
    assert (await parked).entries == ()
    clock.passes(4 * MINUTE, owner)
    await owner._committer.upkeep()
    assert left(store, clock) == 6 * MINUTE


async def test_passivation_is_no_use(start: Activations, store: FaultyStore, clock: Clock) -> None:
    """Its snapshot is kept for what is left since the last use."""
    owner = await start(store, brief(ttl=HOUR))
    await keep(owner, 10 * MINUTE)
    clock.passes(3 * MINUTE, owner)
    await owner.passivate()
    assert store.snapshots == [1]
    assert left(store, clock) == 7 * MINUTE


async def test_upkeep_is_no_use(start: Activations, store: FaultyStore, clock: Clock) -> None:
    """However often it comes, of what nobody uses no TTL ends later."""
    owner = await start(store, brief(ttl=HOUR))
    await keep(owner, 10 * MINUTE)
    for passed in (3, 6, 9):
        clock.passes(3 * MINUTE, owner)
        refreshed = len(store.answers)
        await owner._committer.upkeep()
        assert len(store.answers) == refreshed + 1
        assert left(store, clock) == (10 - passed) * MINUTE


async def test_a_read_is_use(start: Activations, store: FaultyStore, clock: Clock) -> None:
    """Also one that writes nothing: the next upkeep, or the passivation, tells the store."""
    owner = await start(store, brief(ttl=HOUR))
    await keep(owner, 10 * MINUTE)
    for refresh in (owner._committer.upkeep, owner.passivate):
        clock.passes(4 * MINUTE, owner)
        await owner.read(fresh=False)
        await refresh()
        assert left(store, clock) == 10 * MINUTE


async def test_passivation_tells_of_a_read_where_there_is_no_snapshot_to_save(
    start: Activations, store: FaultyStore, clock: Clock
) -> None:
    """A read after the last write is the last use, also where the state is in a snapshot already."""
    owner = await start(store, brief(ttl=HOUR))
    await keep(owner, 10 * MINUTE)
    await owner.passivate()
    heir = await start(store, brief(ttl=HOUR))
    clock.passes(4 * MINUTE, heir)
    await heir.read(fresh=False)
    await heir.passivate()
    assert store.snapshots == [1]
    assert left(store, clock) == 10 * MINUTE


async def test_being_watched_is_use(start: Activations, store: FaultyStore, clock: Clock) -> None:
    """As long as a poll is parked, and also when it is given up: the time begins then, not when it was parked."""
    owner = await start(store, brief(ttl=HOUR))
    await keep(owner, 10 * MINUTE)
    parked = asyncio.create_task(owner.poll(watcher="w", after_seq=1, timeout=600))
    await turns()
    clock.passes(9 * MINUTE, owner)
    await owner._committer.upkeep()
    assert left(store, clock) == 10 * MINUTE
    clock.passes(9 * MINUTE, owner)
    parked.cancel()
    await asyncio.wait({parked})
    await owner._committer.upkeep()
    assert left(store, clock) == 10 * MINUTE


async def test_a_read_during_a_refresh_is_told_by_the_next(
    start: Activations, store: FaultyStore, clock: Clock
) -> None:
    """What was on its way when somebody read tells of the use before it: that of the read is still to be told."""
    first = await start(store, brief(ttl=HOUR))
    await keep(first, 10 * MINUTE)
    await first.passivate()
    owner = await start(store, brief(ttl=HOUR))
    clock.passes(4 * MINUTE, owner)
    store.hold()
    refreshing = asyncio.create_task(owner._committer.upkeep())
    await turns()
    await owner.read(fresh=False)
    store.release()
    await refreshing
    await owner.passivate()
    assert left(store, clock) == 10 * MINUTE


async def test_waiting_for_an_answer_is_use(start: Activations, store: FaultyStore, clock: Clock) -> None:
    """What lands late, while its caller waits, is kept in full."""
    owner = await start(store, brief(ttl=HOUR))
    await keep(owner, 10 * MINUTE)
    store.hold()
    writing = asyncio.create_task(execute(owner, append("u0")))
    await turns()
    store.append_faults.append(Fault.BEFORE)  # so that the TTL is of after the wait
    clock.passes(9 * MINUTE, owner)
    store.release()
    await writing
    assert left(store, clock) == 10 * MINUTE


async def test_a_short_retention_is_in_time(start: Activations, store: FaultyStore) -> None:
    """Its owner passivates after half of it, however patient the settings are, and however long it would have slept."""
    owner = await start(store, brief(idle=600.0, ttl=2 * HOUR))
    await turns()
    await keep(owner, 1.0)
    assert isinstance(await reason(owner), PassivatedError)
    assert store.snapshots == [1]


async def test_a_short_retention_is_refreshed_in_time(start: Activations, store: FaultyStore, clock: Clock) -> None:
    """While somebody watches, as often as it needs."""
    owner = await start(store, brief(idle=600.0, ttl=2 * HOUR))
    await keep(owner, 1.0)
    parked = asyncio.create_task(owner.poll(watcher="w", after_seq=1, timeout=60))
    for _ in range(3):
        refreshed = len(store.answers)
        clock.now += 0.9
        await until(lambda seen=refreshed: len(store.answers) > seen)  # type: ignore[misc]
        assert left(store, clock) == 1.0
    assert not owner.stopped.done()
    parked.cancel()


# What has expired stays gone


async def expired(start: Activations, store: FaultyStore, clock: Clock) -> Activation:
    """Return an owner that did not notice, stopped as it was, that its conversation has expired."""
    owner = await start(store, brief(ttl=HOUR))
    await done(owner, append("u0"))
    await keep(owner, 10 * MINUTE)
    clock.passes(10 * MINUTE, owner)
    assert not is_stored(store, clock)
    return owner


async def test_upkeep_does_not_bring_it_back(start: Activations, store: FaultyStore, clock: Clock) -> None:
    """The owner stops instead."""
    owner = await expired(start, store, clock)
    with pytest.raises(PassivatedError):
        await owner._committer.upkeep()
    assert not is_stored(store, clock)


async def test_upkeep_does_not_prolong_what_is_over(start: Activations, store: FaultyStore, clock: Clock) -> None:
    """Where the store forgets a moment later than the owner, or its clock is slow, it is left to do so."""
    owner = await start(store, brief(ttl=HOUR))
    await keep(owner, 10 * MINUTE)
    clock.passes(10 * MINUTE, owner)
    clock.now -= 0.5
    writes = store.writes
    with pytest.raises(PassivatedError):
        await owner._committer.upkeep()
    assert store.writes == writes
    assert is_stored(store, clock)


async def test_its_owner_stops_by_itself(start: Activations, store: FaultyStore, clock: Clock) -> None:
    """At its next upkeep, and writes nothing."""
    owner = await start(store, brief(ttl=HOUR, idle=0.1))
    await keep(owner, 10 * MINUTE)
    clock.passes(10 * MINUTE, owner)
    assert isinstance(await reason(owner), PassivatedError)
    assert not is_stored(store, clock)
    assert store.snapshots == []


@pytest.mark.parametrize("call", ["execute", "read", "fresh read", "poll", "passivate"])
async def test_asking_does_not_bring_it_back(start: Activations, store: FaultyStore, clock: Clock, call: str) -> None:
    """Whoever asks too late is told that this owner is none any more; the next one finds nothing."""
    owner = await expired(start, store, clock)
    calls = {
        "execute": lambda: execute(owner, append("u1")),
        "read": lambda: owner.read(fresh=False),
        "fresh read": lambda: owner.read(fresh=True),
        "poll": lambda: owner.poll(watcher="w", after_seq=0, timeout=5),
        "passivate": owner.passivate,
    }
    with pytest.raises(PassivatedError):
        await calls[call]()
    assert isinstance(await reason(owner), PassivatedError)
    assert not is_stored(store, clock)
    with pytest.raises(ConversationNotFoundError):
        await start(store, create=False)


async def test_an_unanswered_write_does_not_bring_it_back(start: Activations, store: FaultyStore, clock: Clock) -> None:
    """What could not be stored until the conversation expired, and nobody waits for, is gone with it."""
    owner = await start(store, brief(ttl=HOUR, write=0.02))
    await keep(owner, 10 * MINUTE)
    store.is_down = True
    await execute(owner, append("u0"))
    clock.passes(10 * MINUTE, owner)
    store.is_down = False
    assert isinstance(await reason(owner), PassivatedError)
    assert not is_stored(store, clock)


async def test_a_passivation_that_came_too_late_does_not_bring_it_back(
    start: Activations, store: FaultyStore, clock: Clock
) -> None:
    """A snapshot that is on its way while the conversation expires finds nothing to replace, and restores nothing."""
    owner = await start(store, brief(ttl=HOUR))
    await keep(owner, 10 * MINUTE)
    store.hold()
    leaving = asyncio.create_task(owner.passivate())
    await until(lambda: bool(store.snapshots))
    clock.passes(10 * MINUTE, owner)
    store.release()
    with pytest.raises(PassivatedError):
        await leaving
    assert not is_stored(store, clock)
    assert isinstance(await reason(owner), PassivatedError)


async def test_what_the_store_lost_before_its_time_is_restored(
    start: Activations, store: FaultyStore, clock: Clock
) -> None:
    """By upkeep as by passivation, for what is left of its time: that was no expiry."""
    owner = await start(store, brief(ttl=HOUR))
    await keep(owner, 10 * MINUTE)
    clock.passes(4 * MINUTE, owner)
    store.lose_everything()
    await owner._committer.upkeep()
    assert left(store, clock) == 6 * MINUTE
    await done(owner, append("u0"))
    clock.passes(4 * MINUTE, owner)
    store.lose_everything()
    await owner.passivate()
    assert left(store, clock) == 6 * MINUTE
    assert store.answers[-2:] == [Outcome.GAP, Outcome.OK]
