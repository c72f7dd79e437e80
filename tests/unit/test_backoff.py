"""Pauses between repeats: longer each time, never beyond a bound, and spread by chance."""

import asyncio

from conversation_actors.backoff import Backoff


def test_each_pause_is_twice_the_one_before_up_to_the_longest() -> None:
    """Each pause lies between half and all of 1, 2, 4, 5, 5 seconds."""
    backoff = Backoff((1.0, 5.0))

    for whole in (1.0, 2.0, 4.0, 5.0, 5.0):
        assert whole / 2 <= backoff.next() <= whole


def test_a_reset_begins_with_the_first_pause_again() -> None:
    """After a success the next trouble is met with a short pause."""
    backoff = Backoff((1.0, 100.0))
    for _ in range(5):
        backoff.next()

    backoff.reset()

    assert backoff.next() <= 1.0


def test_two_who_wait_do_not_come_back_together() -> None:
    """The pauses of many differ, although all began at once."""
    assert len({Backoff((1.0, 5.0)).next() for _ in range(20)}) > 1


async def test_waiting_takes_the_pause() -> None:
    """A pause that is over lets its waiter go on, and counts as one pause."""
    backoff = Backoff((0.001, 0.004))

    async with asyncio.timeout(20):
        await backoff.wait()

    assert 0.001 <= backoff.next() <= 0.002
