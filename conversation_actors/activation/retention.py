"""How long a conversation is kept after its last use, and what the store has been told of that."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from conversation_actors.clock import uptime
from conversation_actors.errors import PassivatedError
from conversation_actors.state import ConversationState, Event, RetentionChanged

_SHORTEST_TTL = timedelta(seconds=1)


class Use:
    """Whether the conversation is in use, and when it was last."""

    def __init__(self, last: float) -> None:
        """Begin unused; `last` is the `uptime` of the last use."""
        self.last = last
        self._users = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the enclosed block as use of the conversation while it runs."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            self.last = uptime()

    @property
    def last_at(self) -> float:
        """The `uptime` of the last use, which is now while the conversation is in use."""
        return uptime() if self._users else self.last

    @property
    def ago(self) -> timedelta:
        """How long ago the last use was."""
        return timedelta(0) if self._users else timedelta(seconds=uptime() - self.last)


class Retention:
    """The time for which the conversation is kept after its last use, and the use that the stored TTL tells of."""

    def __init__(self, durable: ConversationState, use: Use, *, ttl: timedelta) -> None:
        """Follow what `durable` says, whose None is `ttl`. The stored TTL tells of the last use until now."""
        self.upkeep_due = asyncio.Event()
        """Set when the retention has changed, or the stored TTL tells of an old use only; whoever waits clears it."""
        self._durable, self._use, self._ttl = durable, use, ttl
        self._touched_at = uptime()
        self._told_use_at = self._telling_use_at = use.last_at
        """`uptime` at the last use that the stored TTL tells of."""

    @property
    def kept(self) -> timedelta:
        """How long the conversation is kept after its last use."""
        return kept_for(self._durable.retention, ttl=self._ttl)

    def kept_after(self, events: Sequence[Event]) -> timedelta:
        """Return how long it is kept from these events on: also the write that shortens it is kept no longer."""
        changes = [event for event in events if isinstance(event, RetentionChanged)]
        return kept_for(changes[-1].seconds, ttl=self._ttl) if changes else self.kept

    @property
    def unused_for(self) -> timedelta:
        """How long ago the last use was."""
        return self._use.ago

    @property
    def has_expired(self) -> bool:
        """Whether its time is up, whatever the store says: it is not to come back."""
        return self.unused_for >= self.kept

    def raise_if_expired(self) -> None:
        """Tell a conversation that is gone because nobody used it from one that the store has lost."""
        if self.has_expired:
            message = f"nobody has used the conversation for {self.unused_for}; it was kept for {self.kept}"
            raise PassivatedError(message)

    @property
    def quarter(self) -> timedelta:
        """How old the stored TTL and an entry in the listings may get: both are renewed four times in a retention."""
        return self.kept / 4

    @property
    def is_ttl_old(self) -> bool:
        """Whether the stored TTL is to be refreshed, if the conversation is in use."""
        return self._is_due(self._told_use_at)

    @property
    def is_refresh_due(self) -> bool:
        """Whether the TTL is to be written now: it was written long ago, or tells of an old use only."""
        return self._is_due(self._touched_at) or (self.is_ttl_old and self._use.last_at > self._told_use_at)

    def left_of(self, kept: timedelta) -> timedelta:
        """Return the TTL of what is written now: `kept` from the last use on, which the write itself is not."""
        self._telling_use_at = self._use.last_at
        return max(kept - self.unused_for, _SHORTEST_TTL)

    def note_touch(self) -> None:
        """Remember of which use the stored TTL tells: while it was being written there may have been another one."""
        self._touched_at, self._told_use_at = uptime(), self._telling_use_at

    def _is_due(self, last: float) -> bool:
        """Tell whether what happened last at this `uptime` is to happen again."""
        return uptime() - last > self.quarter.total_seconds()


def kept_for(seconds: float | None, *, ttl: timedelta) -> timedelta:
    """Return how long a conversation of this retention is kept; None is as long as the settings' `ttl`."""
    return ttl if seconds is None else timedelta(seconds=seconds)
