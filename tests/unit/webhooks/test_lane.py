"""When a lane takes its destination for down and for back, and what counts as an attempt."""

import itertools
from dataclasses import replace

import pytest

from conversation_actors.archive.outbox import Queued, Taken
from conversation_actors.failures import Failures
from conversation_actors.webhooks.endpoint import Endpoint
from conversation_actors.webhooks.lane import Lane, Terms, Work
from conversation_actors.webhooks.sender import Parcel, Refusal
from tests.support.receivers import destination, webhooks

QUIET, LONGEST = 60.0, 900.0
TERMS = Terms(attempts=1000, again=(1.0, LONGEST), working=20.0, quiet=QUIET)
NO = Refusal("answered 500")


class Answers:
    """A sender whose receiver answers what a test sets."""

    refusal: Refusal | None = None

    async def send(self, _: Parcel) -> Refusal | None:
        """Answer that."""
        return self.refusal


class Street:
    """A lane, its receiver and its clock."""

    def __init__(self, terms: Terms = TERMS) -> None:
        self.now = 1000.0
        self.answers = Answers()
        recipient = Endpoint(destination("http://127.0.0.1/"), webhooks(), tenant="tenant")
        self.lane = Lane(
            recipient, self.answers, terms,  # type: ignore[arg-type]
            failures=Failures(), clock=lambda: self.now,
        )  # fmt: skip

    async def send(self, refusal: Refusal | None, *, attempts: int = 0, replay: int | None = None) -> Work:
        """Deliver one conversation's next happening, which was tried so often."""
        self.answers.refusal = refusal
        queued = Queued(7, "evt_7", "turn.completed", 1.0, "life.1", 1, "{}", replay)
        work = self.lane.begin(Taken("default", "c", "claim", 6, attempts, (queued,)))
        await self.lane.deliver(work)
        return work

    @property
    def is_down(self) -> bool:
        """Whether the lane takes its destination for down."""
        return bool(self.lane.is_down)

    async def refuse(self, times: int, refusal: Refusal = NO) -> None:
        """Refuse so many."""
        for _ in range(times):
            await self.send(refusal)


async def test_a_destination_that_takes_some_is_not_down() -> None:
    """However many it refuses in between: it does not come back again and again."""
    street = Street()
    await street.send(None)
    for _ in range(5):
        street.now += QUIET / 2
        await street.refuse(50)
        assert not street.is_down
        await street.send(None)
        assert not street.lane.is_back


async def test_a_destination_that_takes_nothing_for_a_while_is_down_until_it_takes_something() -> None:
    """Ten refusals, if it has not taken anything for long enough, or ever."""
    street = Street()
    found = []
    for times in (9, 1):
        await street.refuse(times)
        found.append(street.is_down)
    assert found == [False, True]
    await street.send(None)
    assert (street.is_down, street.lane.is_back) == (False, True)
    street.lane.woken()
    street.now += QUIET
    await street.refuse(10)
    assert street.is_down


async def test_what_waits_is_woken_less_and_less_often() -> None:
    """A destination that comes back again and again does not have everything tried again each time."""
    street, wakes = Street(), []
    for _ in range(200):
        await street.refuse(10)
        await street.send(None)
        if street.lane.is_back:
            wakes.append(street.now)
            street.lane.woken()
        street.now += QUIET
    between = [later - earlier for earlier, later in itertools.pairwise(wakes)]
    assert between == sorted(between)
    assert between[:4] == [QUIET, 2 * QUIET, 4 * QUIET, 8 * QUIET]
    assert set(between[4:]) == {LONGEST}


async def test_who_was_away_once_is_woken_at_once_the_next_time() -> None:
    """The time between two wakes is short again after a long time without one."""
    street = Street()
    for _ in range(3):
        await street.refuse(10)
        await street.send(None)
        assert street.lane.is_back
        street.lane.woken()
        street.now += 3 * LONGEST


async def test_nothing_is_woken_while_a_receiver_wants_to_be_left_alone() -> None:
    """It said when to come again."""
    street = Street()
    await street.refuse(10, Refusal("answered 429", pause=600.0))
    await street.send(None)
    assert not street.lane.is_back
    street.now += 600.0
    assert street.lane.is_back


async def test_what_a_destination_that_is_down_refuses_is_no_dead_letter() -> None:
    """Such attempts make the pauses longer, and that is all they count for."""
    street = Street()
    await street.refuse(10)
    work = await street.send(NO, attempts=999)
    assert (work.done.dead, work.done.attempts, work.done.delivered_id) == ((), 999, 6)
    early = await street.send(NO, attempts=3)
    assert early.done.attempts == 4
    await street.send(None)
    work = await street.send(NO, attempts=999)
    assert [one.attempts for one in work.done.dead] == [1000]


@pytest.mark.parametrize("bound", [1, 2, 5])
async def test_a_low_bound_makes_no_dead_letter_of_a_destination_that_is_down(bound: int) -> None:
    """Nor does it when it is reached before the pauses are the longest."""
    street = Street(replace(TERMS, attempts=bound))
    await street.refuse(10)
    attempts = 0
    for _ in range(10):
        work = await street.send(NO, attempts=attempts)
        assert work.done.dead == ()
        attempts = work.done.attempts


async def test_attempts_at_what_was_deleted_count_for_nothing() -> None:
    """Nothing of it is left to be sent: what comes next has not been tried."""
    lane = Street().lane
    once_more = Queued(3, "evt_3", "turn.completed", 1.0, "life.1", 1, "{}", 1)
    for queue in ((), (once_more,)):
        work = lane.begin(Taken("default", "c", "claim", 6, 9, queue))
        assert work.done.attempts == 0


async def test_a_replay_waits_as_long_as_the_receiver_wants() -> None:
    """It said when to come again."""
    work = await Street().send(Refusal("answered 503", pause=3000.0), replay=0)
    assert (work.done.retried, work.done.pause) == ((7,), 3000.0)
