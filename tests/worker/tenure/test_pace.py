"""What is asked for again and again is done less and less often."""

import asyncio
from itertools import pairwise

from agent_worker.tenure.pace import Pace
from tests.support.fakes import until


async def test_a_wish_is_done_at_once_and_later_ones_after_pauses() -> None:
    """Each twice as long as the one before, up to the longest; what is asked for in a pause is done once, behind it."""
    loop = asyncio.get_running_loop()
    done: list[float] = []
    pace = Pace(lambda: done.append(loop.time()), pauses=(0.02, 0.08))
    for number in range(5):
        pace.ask()
        pace.ask()
        await until(lambda number=number: len(done) > number)  # type: ignore[misc]  # binds the loop's variable
    gaps = [later - earlier for earlier, later in pairwise(done)]
    assert len(done) == 5
    for gap, least in zip(gaps, (0.02, 0.04, 0.08, 0.08), strict=True):
        assert gap >= least * 0.9


async def test_after_a_while_without_a_wish_the_next_is_done_at_once() -> None:
    """What went wrong long ago slows nothing down."""
    done: list[bool] = []
    pace = Pace(lambda: done.append(True), pauses=(0.001, 0.002))
    for _ in range(4):
        pace.ask()
    await until(lambda: len(done) == 2)
    started = asyncio.get_running_loop().time()
    await until(lambda: asyncio.get_running_loop().time() - started > 0.01)
    pace.ask()
    assert len(done) == 3


async def test_a_stopped_pace_does_nothing_more() -> None:
    """What was still to be done is forgotten."""
    done: list[bool] = []
    pace = Pace(lambda: done.append(True), pauses=(0.01, 0.01))
    pace.ask()
    pace.ask()
    pace.stop()
    later: list[bool] = []
    asked_later = Pace(lambda: later.append(True), pauses=(0.01, 0.01))
    asked_later.ask()
    asked_later.ask()
    await until(lambda: later == [True, True])
    assert done == [True]
