"""The feed's task: what wakes it, whom it serves first, and what becomes of failures. Nobody who archives waits."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from conversation_actors.archive.archiver import Archiver
from conversation_actors.archive.feed import Fed
from conversation_actors.archive.feeding import GROUP, Feeding
from conversation_actors.errors import ArchiveMisconfiguredError, ArchiveUnavailableError
from conversation_actors.failures import Failures
from conversation_actors.timing import Timing
from tests.support.archiver_fakes import QUICK, Backlog, Writer
from tests.support.waiting import wait_until

SOON = Timing(archive_feed=0.01, archive_again=(0.005, 0.01), archive_faulty=(0.01, 0.02), again=0.01)
SELDOM = Timing(archive_feed=3600.0, archive_again=(0.005, 0.01), archive_faulty=(0.01, 0.02))
AWAY = ArchiveUnavailableError("the database is away")


class FakeFeed:
    """A feed in memory: `missed` is what its looks find, `faults` are what steps with a conversation raise."""

    def __init__(self) -> None:
        """With nothing to do."""
        self.missed: set[str] = set()
        self.late: set[str] = set()
        """Those of which something is due."""
        self.faults: dict[str, Exception] = {}
        self.failing: set[str] = set()
        self.away: Exception | None = None
        self.groups: list[list[str]] = []
        self.fed: list[str] = []
        self.looks = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def look(self) -> list[str]:
        """Find what was missed, and what is due."""
        return [*await self.ahead(), *await self.due()]

    async def ahead(self) -> list[str]:
        """Find what was missed."""
        self.looks += 1
        if self.away is not None:
            raise self.away
        return sorted(self.missed)

    async def due(self) -> list[str]:
        """Find what is due."""
        if self.away is not None:
            raise self.away
        return sorted(self.late)

    async def step(self, conversations: Collection[str]) -> Fed:
        """Feed them, all or none, but for those that are `failing`."""
        self.groups.append(list(conversations))
        await self.gate.wait()
        if self.away is not None:
            raise self.away
        for name in conversations:
            if name in self.faults:
                raise self.faults[name]
        good = [name for name in conversations if name not in self.failing]
        self.fed += good
        self.missed -= set(good)
        self.late -= set(good)
        return Fed(len(good), told=frozenset(good), failed=frozenset(set(conversations) - set(good)))


@asynccontextmanager
async def running(feeding: Feeding) -> AsyncIterator[None]:
    """Run it, and see that it ends when it is told to."""
    stop = asyncio.Event()
    task = asyncio.create_task(feeding.run(stop))
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(20):
            await task


async def until_fed(feed: FakeFeed, *names: str) -> None:
    """Wait until these were fed."""
    await wait_until(lambda: asyncio.sleep(0, set(names) <= set(feed.fed)), "the feed")


async def test_what_is_archived_is_fed_at_once_and_told_of() -> None:
    """Without a look, and without a repeat."""
    feed, told = FakeFeed(), list[str]()
    feeding = Feeding(feed, told=told.extend, failures=Failures(), timing=SELDOM)
    async with running(feeding):
        feeding.wake(["a", "b"])
        await until_fed(feed, "a", "b")
        feeding.wake(["c"])
        await until_fed(feed, "c")
    assert feed.fed == sorted(told) == ["a", "b", "c"]
    assert feed.looks == 1


async def test_what_nobody_told_of_is_found() -> None:
    """What another archiver wrote that died, at the start and later."""
    feed = FakeFeed()
    feed.missed = {"a"}
    async with running(Feeding(feed, failures=Failures(), timing=SOON)):
        await until_fed(feed, "a")
        feed.missed = {"b"}
        await until_fed(feed, "b")


async def test_a_backlog_of_old_lives_keeps_no_fresh_ones_waiting() -> None:
    """What was archived just now is in the next step, and the old ones go on beside it."""
    feed = FakeFeed()
    feed.missed = {f"old-{number}" for number in range(10 * GROUP)}
    feed.gate.clear()
    feeding = Feeding(feed, failures=Failures(), timing=SELDOM)
    async with running(feeding):
        await wait_until(lambda: asyncio.sleep(0, feed.groups), "the first step")
        fresh = [f"new-{number}" for number in range(2 * GROUP)]
        feeding.wake(fresh)
        feed.gate.set()
        await until_fed(feed, *fresh)
    first, second = feed.groups[:2]
    assert all(name.startswith("old") for name in first)
    assert {name.partition("-")[0] for name in second} == {"new", "old"}
    assert len(second) == GROUP
    assert len([name for name in second if name.startswith("new")]) > GROUP // 2


async def test_the_end_of_a_call_is_told_while_very_many_old_lives_wait() -> None:
    """After the migration of a large archive, say; and while others are archived all the time."""
    feed = FakeFeed()
    feed.missed = {f"old-{number}" for number in range(100 * GROUP)}
    feed.gate.clear()
    feeding = Feeding(feed, failures=Failures(), timing=replace(SELDOM, archive_feed=0.0))
    async with running(feeding):
        await wait_until(lambda: asyncio.sleep(0, feed.groups), "the first step")
        feed.late = {"over"}
        feeding.wake([f"new-{number}" for number in range(2 * GROUP)])
        feed.gate.set()
        await until_fed(feed, "over")
    assert "over" in feed.groups[1]
    assert {name.partition("-")[0] for name in feed.groups[1]} == {"new", "old", "over"}


@pytest.mark.parametrize("fault", [ValueError("a bug"), AWAY, ArchiveMisconfiguredError("no right")])
async def test_one_conversation_that_fails_keeps_no_others_waiting(fault: Exception) -> None:
    """It is found out, counted, left alone for a while and tried again."""
    feed, failures = FakeFeed(), Failures()
    feed.missed = {"a", "bad", "c"}
    feed.faults["bad"] = fault
    async with running(Feeding(feed, failures=failures, timing=SOON)):
        await until_fed(feed, "a", "c")
        assert failures.counts["feed"] >= 1
        del feed.faults["bad"]
        await until_fed(feed, "bad")


async def test_a_conversation_that_cannot_be_read_is_not_tried_all_the_time() -> None:
    """Its turn comes again; the others' comes every time."""
    feed = FakeFeed()
    feed.failing = {"bad"}
    slow = Timing(archive_feed=0.005, archive_faulty=(3600.0, 3600.0))
    feeding = Feeding(feed, failures=Failures(), timing=slow)
    async with running(feeding):
        for number in range(5):
            feed.missed |= {"bad", f"good-{number}"}
            await until_fed(feed, f"good-{number}")
    assert len([group for group in feed.groups if "bad" in group]) == 1


@pytest.mark.parametrize("fault", [AWAY, ArchiveMisconfiguredError("no right"), RuntimeError("a bug")])
async def test_a_feed_that_can_do_nothing_goes_on_when_it_can(fault: Exception) -> None:
    """What it was told meanwhile is found by the next look."""
    feed, failures = FakeFeed(), Failures(timing=SOON)
    feed.away = fault
    feeding = Feeding(feed, failures=failures, timing=SOON)
    async with running(feeding):
        feeding.wake(["a"])
        await wait_until(lambda: asyncio.sleep(0, failures.counts.get("feed", 0) >= 3), "failures to be counted")
        feed.missed, feed.away = {"a", "b"}, None
        await until_fed(feed, "a", "b")


async def test_an_archiver_does_not_wait_for_a_feed_that_hangs() -> None:
    """Nor for more conversations than the feed remembers."""
    feed = FakeFeed()
    feed.gate.clear()
    backlog, writer = Backlog(), Writer()
    feeding = Feeding(feed, failures=Failures(), timing=SELDOM)
    archiver = Archiver(backlog, writer, when_written=feeding.wake, timing=QUICK)
    stop = asyncio.Event()
    async with running(feeding):
        task = asyncio.create_task(archiver.run(stop))
        for number in range(20):
            backlog.fill(f"c{number}", 20)
        await wait_until(backlog.is_empty, "everything to be archived")
        assert feed.fed == []
        stop.set()
        async with asyncio.timeout(20):
            await task
    assert len(writer.records) == 20


async def test_once_does_all_there_is_to_do() -> None:
    """And comes to an end although something fails, or is due and must wait."""
    feed = FakeFeed()
    feed.missed = {f"c{number}" for number in range(3 * GROUP)} | {"bad"}
    feed.failing = {"bad"}

    assert await Feeding(feed, failures=Failures(), timing=SOON).once() == 3 * GROUP
    assert feed.missed == {"bad"}
