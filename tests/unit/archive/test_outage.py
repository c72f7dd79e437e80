"""When a server counts as away."""

import logging

import pytest

from conversation_actors.archive.outage import Outage
from conversation_actors.errors import ArchiveMisconfiguredError, ArchiveUnavailableError

AWAY = ArchiveUnavailableError("away")


class Clock:
    """Seconds that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        """Return them."""
        return self.now


def test_it_ends_with_the_step_that_failed() -> None:
    """A server that answers a question may refuse a write."""
    outage = Outage("it", (1.0, 8.0))
    outage.failed("write", AWAY)
    outage.done("look")
    assert outage.is_on is True
    outage.done("write")
    assert (outage.is_on, outage.pause) == (False, 0)


def test_pauses_grow_by_attempts_and_not_by_what_fails_with_them() -> None:
    """Eight that fail together are one attempt."""
    clock = Clock()
    outage = Outage("it", (1.0, 8.0), clock=clock)
    for _ in range(8):
        outage.failed("write", AWAY)
    assert 0.5 <= outage.pause <= 1
    clock.now = 2
    assert outage.pause == 0
    outage.failed("write", AWAY)
    assert 1 <= outage.pause <= 2
    outage.done("write")
    outage.failed("write", AWAY)
    assert 0.5 <= outage.pause <= 1


def test_it_is_told_once_for_each_kind_of_reason(caplog: pytest.LogCaptureFixture) -> None:
    """And its end, with its length."""
    caplog.set_level(logging.INFO, "conversation_actors")
    clock = Clock()
    outage = Outage("it", (1.0, 8.0), clock=clock)
    for error in (AWAY, AWAY, ArchiveMisconfiguredError("no right")):
        outage.failed("write", error)
        clock.now += 10
    outage.over()
    outage.over()
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR", "INFO"]
    assert vars(caplog.records[-1])["seconds"] == 30
