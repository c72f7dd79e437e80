"""Who is greeted, and how long a conversation is kept: decided from two moments of a participant."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_worker.call.welcome import GREETED, greeted_context, retention, welcome
from agent_worker.lines import Welcome
from conversation_actors import Participant

GRACE = timedelta(seconds=30)
STEPS = (timedelta(minutes=5), timedelta(minutes=10), timedelta(minutes=30))


def person(**fields: Any) -> Participant:
    """Alice, connected by her first device since the beginning."""
    told: dict[str, Any] = {"identity": "alice", "connected": True, "devices": ("d1",), "last_seen": 100.0}
    return Participant(**{**told, **fields})


def gone(**fields: Any) -> Participant:
    """Alice, greeted once, and gone."""
    return person(**{"connected": False, "devices": (), "context": {GREETED: 0}, **fields})


def decided(before: Participant | None, now_here: Participant, device: str = "d2") -> Welcome:
    """The decision."""
    return welcome(before, now_here, device=device, grace=GRACE)


def test_who_was_never_greeted_is_welcomed_as_new() -> None:
    """Nothing was known, or nobody has greeted so far."""
    assert decided(None, person()) is Welcome.FIRST
    assert decided(person(connected=False, devices=()), person(reconnect_count=1)) is Welcome.FIRST
    assert decided(person(), person(devices=("d1", "d2"))) is Welcome.FIRST


@pytest.mark.parametrize("noted", ["1", None, 1.0, [0], {}])
def test_a_note_that_is_no_number_is_none(noted: object) -> None:
    """Another program may have written the context."""
    assert decided(None, person(context={GREETED: noted})) is Welcome.FIRST


@pytest.mark.parametrize(("away", "wanted"), [(29.9, Welcome.NOTHING), (30.0, Welcome.BACK), (9e9, Welcome.BACK)])
def test_who_was_away_is_welcomed_back(away: float, wanted: Welcome) -> None:
    """From the grace on."""
    back = person(last_seen=100.0 + away, reconnect_count=1, context={GREETED: 0})
    assert decided(gone(), back) is wanted


def test_each_return_is_welcomed_once() -> None:
    """A second agent that sees the same return says nothing."""
    back = person(last_seen=1000.0, reconnect_count=1, context={GREETED: 1})
    assert decided(gone(context={GREETED: 1}), back) is Welcome.NOTHING


def test_who_follows_nobody_is_not_back() -> None:
    """An agent of another role has let the caller in, and greeted it, or has not."""
    decide = partial(welcome, device="d1", grace=GRACE, is_restart=False)
    assert decide(person(context={GREETED: 0}), person(context={GREETED: 0})) is Welcome.NOTHING
    assert decide(person(), person()) is Welcome.FIRST


def test_a_second_device_is_no_return() -> None:
    """Nor is a page that is reloaded, when the new connection comes before the old one goes."""
    for comes in (0, 1):
        noted = {"context": {GREETED: 0}, "reconnect_count": comes}
        both = person(devices=("d1", "d2"), last_seen=1000.0, **noted)
        assert decided(person(**noted), both) is Welcome.NOTHING


def test_a_clock_that_went_back_welcomes_nobody() -> None:
    """The owner moved to a node whose clock is two hours behind."""
    back = person(last_seen=100.0 - 7200.0, reconnect_count=1, context={GREETED: 0})
    assert decided(gone(), back) is Welcome.NOTHING


def test_a_device_that_was_there_has_lost_its_agent() -> None:
    """Greeted or not: it is not new."""
    for context in ({}, {GREETED: 0}):
        before = person(context=context)
        assert decided(before, before, "d1") is Welcome.RESUME


def test_the_note_keeps_what_else_is_in_the_context() -> None:
    """It belongs to the application."""
    assert greeted_context(person(context={"a": 1, GREETED: 0}, reconnect_count=3)) == {"a": 1, GREETED: 3}


_befores = st.builds(
    lambda devices, seen, comes: person(
        devices=devices, connected=bool(devices), last_seen=seen, reconnect_count=comes, context={GREETED: comes}
    ),
    st.sampled_from([(), ("d1",), ("d2",)]),
    st.floats(0, 1e10),
    st.integers(0, 9),
)


@given(st.none() | _befores, st.floats(0, 1e10), st.integers(0, 9), st.sampled_from(["d1", "d2"]))
def test_nobody_is_greeted_twice(before: Participant | None, seen: float, comes: int, device: str) -> None:
    """With a greeting noted, the same arrival calls for none, whatever was before."""
    here = person(last_seen=seen, reconnect_count=comes)
    noted = replace(here, context=greeted_context(here))
    assert decided(before, noted, device) in {Welcome.NOTHING, Welcome.RESUME}


@pytest.mark.parametrize(("comes", "minutes"), [([], 5), ([0], 5), ([1], 10), ([2], 30), ([9], 30), ([0, 1, 0], 10)])
def test_the_more_often_somebody_came_back_the_longer_it_is_kept(comes: list[int], minutes: int) -> None:
    """The most faithful counts."""
    people = [person(identity=f"p{number}", reconnect_count=count) for number, count in enumerate(comes)]
    assert retention(people, STEPS) == timedelta(minutes=minutes)


def test_a_single_retention_step_is_for_everybody() -> None:
    """However often they come."""
    assert retention([person(reconnect_count=7)], STEPS[:1]) == STEPS[0]
