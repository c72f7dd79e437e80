"""The warm pool's decisions, and what it does when nodes come, go, or cannot do what it wants."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.exceptions import ActorDiedError

from conversation_actors.runtime.starter import CleanStarts
from conversation_actors.runtime.warm_pool import EXTRA, RECENT_SECONDS, Pool, Stock, UnsupportedError, WarmPool
from conversation_actors.settings import PoolSettings
from conversation_actors.timing import Timing


class FakeNodes:
    """Nodes by name; their raylets do what `failure` says, or start what they are asked for."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.started: Counter[str] = Counter()
        self.taken: Counter[str] = Counter()
        self.kept: set[timedelta] = set()
        self.failure: dict[str, Exception] = {}
        self.looks = 0

    async def alive(self) -> dict[str, str]:
        """Those of `names`."""
        self.looks += 1
        return {name: f"{name}:1" for name in self.names}

    async def count(self, address: str) -> int:
        """Those that were started, less those that others have taken."""
        return self.started[address] - self.taken[address]

    async def start(self, address: str, count: int, *, keep: timedelta) -> None:
        """Count them, or fail."""
        if address in self.failure:
            raise self.failure[address]
        self.started[address] += count
        self.kept.add(keep)


AT_ONCE = Timing(pool_gather=0.0)
"""Pools of these tests do not wait for more openings before they refill."""


@asynccontextmanager
async def pool_of(
    nodes: FakeNodes, minimum: int = 2, maximum: int = 4, *, timing: Timing = AT_ONCE
) -> AsyncIterator[WarmPool]:
    """A pool of these nodes, stopped at the end."""
    pool = WarmPool(PoolSettings(minimum=minimum, maximum=maximum), nodes, timing=timing)
    try:
        yield pool
    finally:
        await pool.aclose()


async def until(condition: Callable[[], bool]) -> None:
    """Give the pool's task turns until it has done it."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # of the pool's state, which has no event for tests
            await asyncio.sleep(0)


def stock(minimum: int = 2, maximum: int = 5, keep_alive: float = 600.0) -> Stock:
    """A stock with bounds for these tests."""
    return Stock(minimum, maximum, keep_alive)


def test_an_empty_stock_misses_the_minimum() -> None:
    """Nothing was ever opened, nothing was ever started."""
    assert stock().missing(0.0) == 2


def test_what_was_started_is_not_missing() -> None:
    """Once asked for, it counts."""
    kept = stock()
    kept.add(2, 0.0)
    assert kept.missing(1.0) == 0


def test_an_opening_takes_one_and_asks_for_one_more() -> None:
    """What was taken is replaced, and as long as the opening is recent one more is kept ready."""
    kept = stock()
    kept.add(2, 0.0)
    kept.take(1.0, was_ready=True)
    assert kept.missing(1.0) == 2
    kept.add(2, 1.0)
    assert kept.missing(1.0 + RECENT_SECONDS + 0.1) == 0


def test_a_burst_is_bounded_by_the_maximum() -> None:
    """However many are opened, no more than the maximum is kept ready."""
    kept = stock()
    for number in range(100):
        kept.take(number / 100, was_ready=True)
    assert kept.missing(1.0) == 5


def test_workers_whose_time_is_up_are_replaced() -> None:
    """An unused worker ends by itself; the minimum is kept up."""
    kept = stock(keep_alive=60.0)
    kept.add(2, 0.0)
    assert kept.missing(59.9) == 0
    assert kept.missing(60.0) == 2


def test_openings_of_an_empty_stock_leave_no_debt() -> None:
    """What was started the slow way is not subtracted later from what was not there."""
    kept = stock()
    for _ in range(3):
        kept.take(0.0, was_ready=True)
    kept.add(2, RECENT_SECONDS + 1)
    assert kept.missing(RECENT_SECONDS + 2) == 0


def test_openings_elsewhere_take_nothing() -> None:
    """Owners that cannot use the stock (a runtime environment of their own) do not make it grow beyond its bounds."""
    kept = stock()
    started = 0
    for number in range(1000):
        kept.take(number / 5, was_ready=False)
        missing = kept.missing(number / 5)
        kept.add(missing, number / 5)
        started += missing
    assert started == 2
    kept.add(kept.missing(205.0), 205.0)
    assert len(kept.ready) == 5


def test_a_burst_that_finds_none_ready_is_left_alone() -> None:
    """While workers are being started for those who wait, only the minimum is started for later; the rest after it."""
    kept = stock(maximum=16)
    kept.add(2, 0.0)
    for number in range(10):
        kept.take(number / 10, was_ready=number < 2)
    assert kept.missing(1.0) == 2
    assert kept.missing(1.9) == 12
    alone = stock(minimum=0)
    alone.take(0.0, was_ready=False)
    assert alone.missing(0.5) == 1  # or a node that opens one after the other would never have one ready


def test_what_could_not_be_started_is_missing_again() -> None:
    """A node that did not answer is asked again at the next look, not when the workers' time would be up."""
    kept = stock()
    kept.add(2, 0.0)
    kept.withdraw(2)
    assert kept.missing(1.0) == 2


def test_a_count_corrects_the_belief() -> None:
    """What others have taken is replaced; what is there beyond the belief is not started once more."""
    kept = stock(minimum=3)
    kept.add(3, 0.0)
    kept.recount(1, 20.0)
    assert kept.missing(20.0) == 2
    kept.recount(3, 40.0)
    assert kept.missing(40.0) == 0


@given(
    minimum=st.integers(0, 5),
    extra=st.integers(0, 5),
    steps=st.lists(st.tuples(st.floats(0, 30), st.sampled_from([None, False, True])), max_size=60),
)
def test_the_stock_stays_within_its_bounds(minimum: int, extra: int, steps: list[tuple[float, bool | None]]) -> None:
    """Whatever happens when: after a refill there are at least the minimum, at most the maximum."""
    maximum = minimum + extra
    kept = Stock(minimum, maximum, keep_alive=20.0)
    now = 0.0
    for later, was_ready in steps:
        now += later
        if was_ready is not None:
            kept.take(now, was_ready=was_ready)
        kept.add(kept.missing(now), now)
        assert minimum <= len(kept.ready) <= maximum
        assert len(kept.opened) <= len(steps)


async def test_every_node_gets_its_minimum() -> None:
    """Each node is asked once, and told to keep them a little longer than they count."""
    nodes = FakeNodes("a", "b")
    async with pool_of(nodes) as pool:
        await until(lambda: len(nodes.started) == 2)
        assert nodes.started == {"a:1": 2, "b:1": 2}
        assert await pool.ready() == {"a": 2, "b": 2}
        assert min(nodes.kept) > PoolSettings().keep_alive


async def test_a_node_that_opens_gets_more() -> None:
    """An opening is answered by what it took, and one ahead; the other node stays as it is."""
    nodes = FakeNodes("a", "b")
    async with pool_of(nodes) as pool:
        await until(lambda: len(nodes.started) == 2)
        await pool.opened("a", True)
        await until(lambda: nodes.started["a:1"] == 4)
        assert nodes.started["b:1"] == 2


async def test_a_node_that_is_new_is_found_by_its_first_opening() -> None:
    """The look that finds nodes need not be waited for."""
    nodes = FakeNodes("a")
    async with pool_of(nodes) as pool:
        await until(lambda: bool(nodes.started))
        nodes.names.append("b")
        await pool.opened("b", True)
        await until(lambda: nodes.started["b:1"] == 2)


async def test_a_node_that_is_gone_is_forgotten() -> None:
    """Nobody is asked to start workers where there is no node."""
    nodes = FakeNodes("a", "b")
    async with pool_of(nodes) as pool:
        await until(lambda: len(nodes.started) == 2)
        nodes.names[:] = ["b", "c"]
        await pool.opened("c", True)
        await until(lambda: nodes.started["c:1"] == 2)
        assert set(await pool.ready()) == {"b", "c"}


async def test_a_node_that_fails_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """It is said, and the rest of the cluster is served."""
    nodes = FakeNodes("a", "b")
    nodes.failure["a:1"] = OSError("unreachable")
    async with pool_of(nodes) as pool:
        await until(lambda: bool(nodes.started))
        await pool.opened("b", True)
        await until(lambda: nodes.started["b:1"] == 4)
    assert "a node did not start workers" in caplog.text


async def test_without_the_call_it_says_so_once_and_rests(caplog: pytest.LogCaptureFixture) -> None:
    """A Ray that cannot start workers ahead of time is not asked again."""
    nodes = FakeNodes("a")
    nodes.failure["a:1"] = UnsupportedError("PrestartWorkers")
    async with pool_of(nodes) as pool:
        await until(lambda: "PrestartWorkers" in caplog.text)
        del nodes.failure["a:1"]
        await pool.opened("a", True)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not nodes.started
        assert await pool.ready() == {}
    assert caplog.text.count("PrestartWorkers") == 1


async def test_an_idle_pool_only_looks_for_nodes() -> None:
    """While nothing is opened nobody is asked for anything but who is there."""
    nodes = FakeNodes("a")
    async with pool_of(nodes, timing=replace(AT_ONCE, pool_look=0.01)):
        await until(lambda: nodes.looks >= 5)
        assert nodes.started == {"a:1": 2}


async def test_workers_that_others_took_are_replaced() -> None:
    """Nobody tells of them: the count at the next look does."""
    nodes = FakeNodes("a")
    async with pool_of(nodes, timing=replace(AT_ONCE, pool_look=0.01, pool_count=0.0)):
        await until(lambda: nodes.started["a:1"] == 2)
        nodes.taken["a:1"] = 2
        await until(lambda: nodes.started["a:1"] == 4)


async def test_an_owner_that_found_none_ready_has_them_counted() -> None:
    """If the pool believed in some, it does not wait for the next look."""
    nodes = FakeNodes("a")
    async with pool_of(nodes, timing=replace(AT_ONCE, pool_count=0.0)) as pool:
        await until(lambda: nodes.started["a:1"] == 2)
        nodes.taken["a:1"] = 2
        await pool.opened("a", False)
        await until(lambda: nodes.started["a:1"] == 4)
        await until(lambda: nodes.started["a:1"] == 5)  # by itself, when no other opening has come


async def test_workers_beyond_the_minimum_do_not_stay_for_long() -> None:
    """A burst is prepared for; when it is over, the node is not left with idle processes for ten minutes."""
    nodes = FakeNodes("a")
    async with pool_of(nodes) as pool:
        await until(lambda: nodes.started["a:1"] == 2)
        assert min(nodes.kept) > PoolSettings().keep_alive
        await pool.opened("a", True)
        await until(lambda: nodes.started["a:1"] == 4)
        assert min(nodes.kept) < EXTRA * 2


@pytest.mark.parametrize("error", [ActorDiedError(), Exception("Can't find actor 1. It might be dead")])
async def test_an_opening_does_not_fail_for_its_pool(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """It may have died, or be of a cluster that this process has left: Ray refuses such handles by plain exceptions."""

    def refuse(*_: object) -> None:
        raise error

    pool = Pool(PoolSettings(), CleanStarts())
    pool._actor = SimpleNamespace(opened=SimpleNamespace(remote=refuse))
    pool.opened("a", was_ready=True)
    assert "not told of an opening" in caplog.text
