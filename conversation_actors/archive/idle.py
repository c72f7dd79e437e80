"""Conversations that fall idle: they leave the listing, and have a checkpoint made, which keeps nobody waiting.

A checkpoint that cannot be made is not tried again before the conversation falls idle once more. Nothing is lost by
that: whoever brings the conversation back replays more entries on an older checkpoint, which only takes longer.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence

from conversation_actors.clock import uptime
from conversation_actors.failures import Failures
from conversation_actors.store.backlog import Backlog, Waiting
from conversation_actors.timing import TIMING, Timing

logger = logging.getLogger(__name__)

CHECKPOINT = "archive checkpoint"
"""What a failure of it is counted as."""
_AT_ONCE = 100
"""Conversations that leave the listing in one look: archiving waits for that."""
_MOST = 10_000
"""Conversations that wait for their checkpoint."""


class Idle:
    """Takes from the listing what has had nothing waiting for long enough, and does `work` for it afterwards."""

    def __init__(
        self,
        backlog: Backlog,
        work: Callable[[str], Awaitable[object]] | None,
        *,
        is_away: Callable[[], bool] = lambda: False,
        failures: Failures | None = None,
        timing: Timing = TIMING,
        at_once: int = _AT_ONCE,
        most: int = _MOST,
    ) -> None:
        """Do the work while the database is not away; for none but the first `most` of those that wait for it."""
        self._backlog, self._work, self._is_away, self._timing = backlog, work, is_away, timing
        self.failures = failures or Failures(timing=timing)
        self._at_once, self._most = at_once, most
        self._quiet: dict[str, tuple[int, float]] = {}
        self._waiting: dict[str, None] = {}
        self._some = asyncio.Event()

    async def unlist(self, listed: Sequence[Waiting], *, running: Collection[str]) -> None:
        """Take from the listing what has been quiet and is not `running`: some of it, as looks follow each other."""
        now, before, unlisted = uptime(), self._quiet, 0
        self._quiet = {}
        skipped = 0
        for one in listed:
            mark, since = before.get(one.conversation_id, (one.mark, now))
            if one.records or one.conversation_id in running or mark != one.mark:
                continue
            if now - since < self._timing.archive_quiet or unlisted >= self._at_once:
                self._quiet[one.conversation_id] = (mark, since)
                continue
            unlisted += 1
            if await self._backlog.unlist(one) and self._work is not None:
                skipped += not self._add(one.conversation_id)
        if skipped:
            logger.warning("conversations fell idle and have no new checkpoint", extra={"conversations": skipped})

    async def run(self) -> None:
        """Do the work, for one conversation at a time, until it is cancelled."""
        await self.failures.keep(CHECKPOINT, self._go_on)

    def _add(self, conversation_id: str) -> bool:
        if len(self._waiting) >= self._most and conversation_id not in self._waiting:
            self.failures.count(CHECKPOINT)
            return False
        self._waiting[conversation_id] = None
        self._some.set()
        return True

    async def _go_on(self) -> None:
        """Work until something fails; the conversation that it failed for waits no more."""
        while self._work is not None:
            await self._some.wait()
            while self._is_away():  # noqa: ASYNC110  # nobody tells when a server is back
                await asyncio.sleep(self._timing.archive_look[1])
            conversation_id = next(iter(self._waiting))
            del self._waiting[conversation_id]
            if not self._waiting:
                self._some.clear()
            await self._work(conversation_id)
