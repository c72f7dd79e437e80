"""Watching one lease's holder until it is known whether it lives."""

import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

from conversation_actors import HeartbeatRecord, Heartbeats
from conversation_actors.client.silence import GAP_SHARE

_DOUBTFUL = 2
"""A holder that asks to be believed for longer than this many times what its watcher would is believed."""


class Vigil:
    """Watches the heartbeat of one holder of a conversation's lease.

    Dead is who was claimed by somebody, or was seen silent, or without a record, for as long as a heartbeat is
    believed. Only time in which Redis has answered counts: a record that Redis has lost is written anew by the next
    beat of a living holder, and one that Redis cannot take for a while is on its way.
    """

    def __init__(
        self,
        heartbeats: Heartbeats,
        conversation_id: str,
        holder: str,
        *,
        valid_for: timedelta,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`valid_for`: how long somebody without a record is believed to live; `clock` gives seconds."""
        self._heartbeats, self._conversation_id, self._holder = heartbeats, conversation_id, holder
        self._valid_for, self._clock = valid_for, clock
        self._first: HeartbeatRecord | None = None
        self._absent_since: float | None = None
        self._answered = 0.0

    async def is_dead(self, pause: Callable[[], Awaitable[bool]]) -> bool:
        """Look until it is known; raises as `Heartbeats.find` does.

        `pause` is awaited between two looks, of which there have to be four while a heartbeat is believed. It returns
        True where nobody needs to know any more: then this is False.
        """
        while (verdict := await self._look()) is None:
            if await pause():
                return False
        return verdict

    async def _look(self) -> bool | None:
        """Whether it is dead; None while that is not known."""
        sent = self._clock()
        record = await self._heartbeats.find(self._conversation_id)
        before, self._answered = self._answered, sent
        if record is None or record.holder != self._holder:
            return self._is_absent(sent, gap=self._clock() - before)
        self._absent_since = None
        first, self._first = self._first or record, record
        if record.claimant is not None or record.is_silent:
            return True
        has_beaten = record.beat != first.beat
        return False if has_beaten or record.silent_for >= self._valid_for * _DOUBTFUL else None

    def _is_absent(self, sent: float, *, gap: float) -> bool | None:
        self._first = None
        if self._absent_since is None or gap > self._valid_for.total_seconds() * GAP_SHARE:
            self._absent_since = self._clock()
        return True if sent - self._absent_since >= self._valid_for.total_seconds() else None
