"""The arithmetic of use and retention, without an owner around it."""

from datetime import timedelta

import pytest

from conversation_actors.activation.retention import Retention, Use
from conversation_actors.clock import uptime
from conversation_actors.errors import PassivatedError
from conversation_actors.state import ConversationState, Entry, Limits, RetentionChanged

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
SLACK = timedelta(seconds=5)
"""A test takes less."""


def unused_for(time: timedelta) -> Use:
    """Return a use that was so long ago."""
    return Use(uptime() - time.total_seconds())


def kept(use: Use, seconds: float | None = None) -> Retention:
    """Return the retention of a conversation for which this was set, where the settings say an hour."""
    durable = ConversationState(Limits())
    if seconds is not None:
        durable.apply(Entry(1, 1, 0.0, RetentionChanged(seconds)))
    return Retention(durable, use, ttl=HOUR)


def told(retention: Retention) -> tuple[bool, bool]:
    """Return whether the stored TTL is old, and whether it is to be written now."""
    return retention.is_ttl_old, retention.is_refresh_due


def test_use_lasts_until_the_last_user_has_gone() -> None:
    """While one of two is there, the last use is now; when both have left, it is when the second left."""
    use = unused_for(HOUR)
    assert use.ago >= HOUR
    with use.counted():
        with use.counted():
            assert use.ago == timedelta(0)
        assert use.ago == timedelta(0)
    assert timedelta(0) < use.ago < SLACK


def test_use_that_fails_is_use_all_the_same() -> None:
    """A call that raises has used the conversation, and does so no more."""
    use = unused_for(HOUR)
    with pytest.raises(RuntimeError), use.counted():
        raise RuntimeError
    assert timedelta(0) < use.ago < SLACK


def test_retention_of_the_conversation_goes_before_the_settings() -> None:
    """What was set for the conversation counts; without that, the settings do."""
    assert kept(unused_for(MINUTE)).kept == HOUR
    assert kept(unused_for(MINUTE), 60.0).kept == MINUTE


def test_the_last_of_several_changes_counts() -> None:
    """A batch that sets the retention twice is kept for as long as the second says; None is the settings'."""
    retention = kept(unused_for(MINUTE), 60.0)
    assert retention.kept_after([]) == MINUTE
    assert retention.kept_after([RetentionChanged(5.0), RetentionChanged(7.0)]) == timedelta(seconds=7)
    assert retention.kept_after([RetentionChanged(5.0), RetentionChanged(None)]) == HOUR


def test_ttl_runs_from_the_last_use() -> None:
    """What is written late lives for what is left, and for a second at least; in use, for all of it."""
    use = unused_for(10 * MINUTE)
    retention = kept(use)
    assert HOUR - 10 * MINUTE - SLACK < retention.left_of(HOUR) <= HOUR - 10 * MINUTE
    assert retention.left_of(MINUTE) == timedelta(seconds=1)
    with use.counted():
        assert retention.left_of(HOUR) == HOUR


def test_conversation_expires_when_its_time_is_up() -> None:
    """From then on whatever would write raises; one that is in use never expires."""
    use = unused_for(2 * HOUR)
    retention = kept(use)
    with pytest.raises(PassivatedError, match="nobody has used the conversation"):
        retention.raise_if_expired()
    with use.counted():
        assert not retention.has_expired
    kept(unused_for(MINUTE)).raise_if_expired()


def test_refresh_is_due_for_use_that_the_store_does_not_know_of() -> None:
    """An old TTL is written anew once there was a use; after that write, only when a quarter has passed."""
    use = unused_for(HOUR / 2)
    retention = kept(use)
    assert told(retention) == (True, False)  # nobody has used it since: its TTL ends no later
    with use.counted():
        pass
    assert told(retention) == (True, True)
    retention.left_of(retention.kept)
    retention.note_touch()
    assert told(retention) == (False, False)


def test_use_during_a_write_is_told_by_the_next() -> None:
    """The TTL that lands tells of the use at the time it was written, not of one that came meanwhile."""
    use = unused_for(HOUR / 2)
    retention = kept(use)
    retention.left_of(retention.kept)
    with use.counted():
        pass
    retention.note_touch()
    assert retention.is_refresh_due
