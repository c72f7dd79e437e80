"""A write to a store that is away: repeated until the store decides, with a reason to tell meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from conversation_actors.activation.patience import Patience
from conversation_actors.errors import StoreMisconfiguredError, StoreUnavailableError
from conversation_actors.failures import Failures
from conversation_actors.store import Outcome
from conversation_actors.timing import Timing
from tests.support.fakes import until
from tests.support.quick import QUICK


def answering(*answers: Outcome | Exception) -> Callable[[], Awaitable[Outcome]]:
    """Return a write that gives one answer after the other, and the last one from then on."""
    left = list(answers)

    async def write() -> Outcome:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return write


async def test_write_is_repeated_until_the_store_decides() -> None:
    """Whatever it decides is the answer; each failure is counted, and the reason forgotten with the decision."""
    failures = Failures()
    patience = Patience(failures, QUICK)
    away = StoreUnavailableError("away")
    assert await patience.until_decided(answering(away, away, Outcome.GAP)) is Outcome.GAP
    assert failures.counts == {"write": 2}
    assert (patience.failing_for, patience.reason) == (0.0, "")


async def test_reason_can_be_told_while_a_write_fails() -> None:
    """From the first failure on it is known for how long the store has taken nothing, and why."""
    patience = Patience(Failures(), QUICK)
    patience.raise_if_failing_for(0.0)
    writing = asyncio.create_task(patience.until_decided(answering(StoreUnavailableError("full disk"))))
    await until(lambda: patience.failing_for > 0.01)
    with pytest.raises(StoreUnavailableError, match=r"has not taken a write for .* s: full disk"):
        patience.raise_if_failing_for(0.01)
    patience.raise_if_failing_for(600.0)
    writing.cancel()
    await asyncio.wait({writing})


async def test_write_that_is_given_up_is_failing_no_more() -> None:
    """Commands, refused while a write fails, are what finds the store well again; the reason is still to be told."""
    patience = Patience(Failures(), Timing(write=(60.0, 60.0)))
    with suppress(TimeoutError):
        async with asyncio.timeout(0.02):
            await patience.until_decided(answering(StoreUnavailableError("away")))
    assert (patience.failing_for, patience.reason) == (0.0, ": away")


async def test_what_no_repeat_mends_is_raised() -> None:
    """A store that is set up wrongly is asked once."""
    failures = Failures()
    with pytest.raises(StoreMisconfiguredError):
        await Patience(failures, QUICK).until_decided(answering(StoreMisconfiguredError("WRONGTYPE")))
    assert failures.counts == {}
