"""Watching a holder: dead is who was claimed, or not heard of for long enough while Redis answered."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from agent_worker.tenure.vigil import Vigil
from conversation_actors import HeartbeatRecord, Heartbeats
from conversation_actors.errors import StoreUnavailableError
from tests.support.sessions.fakes_call import Clock, ShakyStore

VALID_FOR = timedelta(seconds=3)
HOUR = timedelta(hours=1)


class Watcher:
    """Keeps a vigil over "job-1", by its clock; what happens at which pause is told beforehand."""

    def __init__(self, heartbeats: Heartbeats, clock: Clock) -> None:
        """Nothing happens."""
        self.heartbeats, self.clock = heartbeats, clock
        self.began = clock.now
        self.looks = 0
        self.at: dict[int, Callable[[], object]] = {}
        self.step = 0.25
        self.vigil = Vigil(heartbeats, "c", "job-1", valid_for=VALID_FOR, clock=clock)

    async def is_dead(self) -> bool:
        """The verdict."""
        return await self.vigil.is_dead(self.pause)

    async def pause(self) -> bool:
        """Let time go by."""
        self.looks += 1
        self.clock.now += self.step
        happening = self.at.get(self.looks)
        if happening is not None:
            return happening() is True
        return False

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.clock.now - self.began


@pytest.fixture
def watcher(heartbeats: Heartbeats, clock: Clock) -> Watcher:
    """A watcher."""
    return Watcher(heartbeats, clock)


async def live(heartbeats: Heartbeats, holder: str = "job-1", *, valid_for: timedelta = VALID_FOR) -> None:
    """Be the agent."""
    await heartbeats.start("c", holder, valid_for=valid_for)


async def test_who_is_silent_is_dead(watcher: Watcher, heartbeats: Heartbeats) -> None:
    """After as long as its heartbeat is believed, and not before."""
    await live(heartbeats)
    assert await watcher.is_dead()
    assert watcher.seconds == VALID_FOR.total_seconds()


@pytest.mark.parametrize("other", [None, "job-0"])
async def test_who_does_not_show_itself_is_dead(watcher: Watcher, heartbeats: Heartbeats, other: str | None) -> None:
    """Without a record, or with one of another holder: after as long as a heartbeat is believed."""
    if other is not None:
        await live(heartbeats, other)
    assert await watcher.is_dead()
    assert watcher.seconds == VALID_FOR.total_seconds()


async def test_who_was_claimed_is_dead(watcher: Watcher, heartbeats: Heartbeats) -> None:
    """At the first look: somebody knows."""
    await live(heartbeats)
    assert await heartbeats.claim("c", "w", hold=HOUR, holder="job-1") is not None
    assert await watcher.is_dead()
    assert watcher.looks == 0


async def test_who_beats_lives(watcher: Watcher, store: ShakyStore, heartbeats: Heartbeats) -> None:
    """With the first beat that is heard."""
    await live(heartbeats)
    record = await heartbeats.find("c")
    assert record is not None
    watcher.at[7] = lambda: store.agents._put(record)
    assert not await watcher.is_dead()
    assert watcher.looks == 7


async def test_who_shows_itself_after_a_loss_lives(watcher: Watcher, store: ShakyStore, heartbeats: Heartbeats) -> None:
    """Its record was lost; it is there anew before a heartbeat's time is over, and beats again."""
    await live(heartbeats)
    record = await heartbeats.find("c")
    assert record is not None
    store.agents._kept.clear()
    watcher.at[11] = lambda: store.agents._put(record)
    watcher.at[13] = lambda: store.agents._put(record)
    assert not await watcher.is_dead()
    assert watcher.looks == 13


async def test_a_record_that_is_lost_begins_the_watch_anew(
    watcher: Watcher, store: ShakyStore, heartbeats: Heartbeats
) -> None:
    """Silent for long, then lost: not until it was missing for as long."""
    await live(heartbeats)
    watcher.at[10] = store.agents._kept.clear
    assert await watcher.is_dead()
    assert watcher.seconds == 10 * watcher.step + VALID_FOR.total_seconds()


async def test_a_gap_begins_the_watch_anew(watcher: Watcher) -> None:
    """Nobody could have been heard in it."""
    watcher.at[10] = lambda: setattr(watcher.clock, "now", watcher.clock.now + 2)
    assert await watcher.is_dead()
    assert watcher.seconds == 10 * watcher.step + 2 + VALID_FOR.total_seconds()


SLOW = {
    "slow": (0.4, True, True),
    "slow, without a record": (0.4, False, True),
    "too slow": (0.8, True, False),
    "too slow, without a record": (0.8, False, False),
}
"""What a look takes, whether there is a record, and the verdict."""


@pytest.mark.parametrize("case", SLOW)
async def test_slow_answers_hide_no_death_but_too_slow_ones_end_the_watch(
    watcher: Watcher,
    store: ShakyStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    case: str,
) -> None:
    """Slow answers hide no death; so slow that each look is a gap, nobody is known to be dead, and the watch ends."""
    seconds, has_record, is_dead = SLOW[case]
    if has_record:
        await live(watcher.heartbeats)
    find, clock = store.agents.find, watcher.clock

    async def find_slowly(conversation_id: str) -> HeartbeatRecord | None:
        answered = clock.now + seconds
        found = await find(conversation_id)
        await asyncio.sleep(0)  # whatever runs beside this has its turn
        clock.now = max(clock.now, answered)
        return found

    monkeypatch.setattr(store.agents, "find", find_slowly)
    watcher.at[200] = lambda: pytest.fail("it goes on for ever")
    assert await watcher.is_dead() is is_dead
    assert watcher.seconds <= 5 * VALID_FOR.total_seconds()
    assert is_dead is not any("too slow" in line.getMessage() for line in caplog.records)


async def test_one_long_gap_ends_no_watch(watcher: Watcher, heartbeats: Heartbeats) -> None:
    """The watcher's machine was suspended: the watch begins anew, and finds out."""
    await live(heartbeats)
    watcher.at[10] = lambda: setattr(watcher.clock, "now", watcher.clock.now + 3600)
    assert await watcher.is_dead()


async def test_redis_away_is_raised(watcher: Watcher, store: ShakyStore) -> None:
    """It says nothing about the agent."""
    watcher.at[2] = lambda: setattr(store.agents, "trouble", StoreUnavailableError("away"))
    with pytest.raises(StoreUnavailableError):
        await watcher.is_dead()


async def test_who_asks_to_be_believed_for_long_is(watcher: Watcher, heartbeats: Heartbeats) -> None:
    """Nobody waits for an hour to learn it: twice the time of a heartbeat is enough."""
    await live(heartbeats, valid_for=HOUR)
    assert not await watcher.is_dead()
    assert watcher.seconds == 2 * VALID_FOR.total_seconds()


async def test_a_watch_that_nobody_needs_ends(watcher: Watcher, heartbeats: Heartbeats) -> None:
    """The lease is free: that is no death."""
    await live(heartbeats)
    watcher.at[3] = lambda: True
    assert not await watcher.is_dead()
    assert watcher.looks == 3
