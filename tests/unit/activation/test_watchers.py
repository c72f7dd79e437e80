"""Parked polls: what wakes them, what ends them, and how many there may be."""

import asyncio

import pytest

from conversation_actors.activation.watchers import Watchers
from conversation_actors.errors import FencedError, OverloadedError
from tests.support.fakes import turns


def park(watchers: Watchers, watcher: str, after_seq: int = 0, timeout: float = 5.0) -> asyncio.Task[None]:
    """Start a poll."""
    return asyncio.create_task(watchers.park(watcher, after_seq, timeout))


async def test_woken_by_what_it_has_not_seen() -> None:
    """A poll wakes for a position behind its own, and sleeps through one that it has seen."""
    watchers = Watchers(10)
    early, late = park(watchers, "early", 1), park(watchers, "late", 5)
    await turns()
    assert len(watchers) == 2
    watchers.notify(5)
    await early
    await turns()
    assert not late.done()
    watchers.notify(6)
    await late
    assert len(watchers) == 0


async def test_poll_returns_after_its_time() -> None:
    """A poll returns after its time, and leaves nothing behind."""
    watchers = Watchers(10)
    await watchers.park("w", 0, 0.001)
    assert len(watchers) == 0


async def test_a_second_poll_ends_the_first() -> None:
    """A watcher has one poll: the older one returns, the younger one stays."""
    watchers = Watchers(10)
    first = park(watchers, "w")
    await turns()
    second = park(watchers, "w")
    await first
    await turns()
    assert (second.done(), len(watchers)) == (False, 1)
    watchers.notify(1)
    await second


async def test_a_cancelled_poll_is_forgotten() -> None:
    """Cancelling a poll frees its place, and not that of the poll which replaced it."""
    watchers = Watchers(10)
    first = park(watchers, "w")
    await turns()
    second = park(watchers, "w")
    first.cancel()
    await turns()
    assert len(watchers) == 1
    second.cancel()
    await turns()
    assert len(watchers) == 0


async def test_one_poll_too_many_is_refused_with_the_number() -> None:
    """One poll too many is refused with the number in the text; a watcher that polls again needs no second place."""
    watchers = Watchers(2)
    parked = [park(watchers, "a"), park(watchers, "b")]
    await turns()
    with pytest.raises(OverloadedError, match="2 watchers"):
        await watchers.park("c", 0, 5.0)
    again = park(watchers, "b")
    await turns()
    assert (len(watchers), parked[1].done(), again.done()) == (2, True, False)
    watchers.notify(1)
    await asyncio.gather(parked[0], again)


async def test_advance_spares_a_poll() -> None:
    """What a watcher got by another way does not wake its poll; what comes after that does."""
    watchers = Watchers(10)
    poll = park(watchers, "w", 1)
    await turns()
    watchers.advance("w", 3)
    watchers.advance("w", 2)
    watchers.advance("nobody", 9)
    watchers.notify(3)
    await turns()
    assert not poll.done()
    watchers.notify(4)
    await poll


async def test_closing_wakes_everybody_with_the_reason() -> None:
    """The end of the activation wakes everybody with its reason, and refuses whoever comes later."""
    watchers = Watchers(10)
    polls = [park(watchers, name) for name in "ab"]
    await turns()
    reason = FencedError("fenced")
    watchers.close(reason)
    assert await asyncio.gather(*polls, return_exceptions=True) == [reason, reason]
    with pytest.raises(FencedError):
        await watchers.park("c", 0, 5.0)
