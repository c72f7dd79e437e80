"""Failures that were survived are counted, and logged as loudly as somebody has to hear of them here."""

import logging

import pytest

from conversation_actors.errors import ArchiveMisconfiguredError, ArchiveUnavailableError
from conversation_actors.failures import Failures


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (ArchiveUnavailableError("away"), logging.INFO),
        (ArchiveMisconfiguredError("no right"), logging.WARNING),
        (ValueError("a fault"), logging.ERROR),
    ],
)
def test_what_is_told_elsewhere_warns_nobody(caplog: pytest.LogCaptureFixture, error: Exception, level: int) -> None:
    """It is counted, and in the log for who looks for it."""
    caplog.set_level(logging.INFO, "conversation_actors")
    failures = Failures(told_elsewhere=(ArchiveUnavailableError,))
    failures.note("chore", error)
    assert failures.counts == {"chore": 1}
    assert [record.levelno for record in caplog.records] == [level]


def test_a_foreseen_failure_warns(caplog: pytest.LogCaptureFixture) -> None:
    """Where nobody else tells of it."""
    Failures().note("chore", ArchiveUnavailableError("away"))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
