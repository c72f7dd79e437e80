"""Watching one lease's holder until it is known whether it lives."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

from agent_worker.tenure.role import AGENT_ROLE, record_role
from conversation_actors import HeartbeatRecord, Heartbeats
from conversation_actors.client.silence import GAP_SHARE
from conversation_actors.clock import uptime

logger = logging.getLogger(__name__)

_DOUBTFUL = 2
"""A holder that asks to be believed for longer than this many times what its watcher would is believed."""
_LONGEST = 4
"""A watch without a verdict ends after so many times what a heartbeat is believed for; a gap counts as one at most."""


class Vigil:
    """Watches the heartbeat of one holder of a conversation's lease.

    Dead is who was claimed by somebody, or was seen silent, or without a record, for as long as a heartbeat is
    believed. Only time in which Redis has answered counts: a record that Redis has lost is written anew by the next
    beat of a living holder, and one that Redis cannot take for a while is on its way. If Redis answers so slowly
    that every look begins the count anew, nobody is known to be dead, and the watch ends.
    """

    def __init__(
        self,
        heartbeats: Heartbeats,
        conversation_id: str,
        holder: str,
        *,
        valid_for: timedelta,
        role: str = AGENT_ROLE,
        clock: Callable[[], float] = uptime,
    ) -> None:
        """`valid_for`: how long somebody without a record is believed to live; `clock` gives seconds."""
        self._heartbeats, self._conversation_id, self._holder = heartbeats, conversation_id, holder
        self._valid_for, self._clock, self._role = valid_for, clock, record_role(role)
        self._first: HeartbeatRecord | None = None
        self._absent_since: float | None = None
        self._answered = 0.0

    async def is_dead(self, pause: Callable[[], Coroutine[Any, Any, bool]]) -> bool:
        """Look until it is known; False if it cannot be known in time. Raises as `Heartbeats.find` does.

        `pause` runs beside each look, so that slow answers make no longer gaps; the next look begins when both are
        done. There have to be six pauses while a heartbeat is believed. It returns True if nobody needs to know any
        more: then this is False.
        """
        spent, looked = 0.0, self._clock()
        while spent < self._valid_for.total_seconds() * _LONGEST:
            verdict = await self._look_beside(pause())
            if verdict is not None:
                return verdict
            before, looked = looked, self._clock()
            spent += min(looked - before, self._valid_for.total_seconds())
        fields = {"conversation_id": self._conversation_id, "holder": self._holder}
        logger.warning("nobody can tell whether an agent lives: Redis is too slow", extra=fields)
        return False

    async def _look_beside(self, pause: Coroutine[Any, Any, bool]) -> bool | None:
        """Look once, and pause meanwhile; False also if nobody needs to know any more."""
        pausing = asyncio.create_task(pause)
        try:
            verdict = await self._look()
            return False if verdict is None and await pausing else verdict
        finally:
            pausing.cancel()

    async def _look(self) -> bool | None:
        """Whether it is dead; None while that is not known."""
        sent = self._clock()
        record = await self._heartbeats.find(self._conversation_id, role=self._role)
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
