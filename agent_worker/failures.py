"""What goes wrong in tasks that nobody awaits: counted where an operator looks, and never the end of the task."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from conversation_actors.errors import ConversationError

logger = logging.getLogger(__name__)


class Failures:
    """Counts what was swallowed, by the task that swallowed it: for a heartbeat's details, or for ``/health``."""

    def __init__(self) -> None:
        """Nothing went wrong yet."""
        self.counts: dict[str, int] = {}
        """By task. Tasks are named in the code, so that there are few."""

    def count(self, task: str, error: BaseException, told: str = "a background task failed", **fields: Any) -> None:
        """Count a failure, and log it: an error of ours with its text, any other by its type, as it may quote."""
        what = type(error).__name__
        reason = f"{what}: {error}" if isinstance(error, ConversationError) else what
        logger.warning(told, extra={"task": task, "count": self.add(task), "reason": reason, **fields})

    def add(self, task: str) -> int:
        """Count a failure that is logged elsewhere; return which one of its task it is."""
        self.counts[task] = self.counts.get(task, 0) + 1
        return self.counts[task]

    async def forever(self, task: str, step: Callable[[], Awaitable[object]], *, pause: float) -> None:
        """Do a step again and again, until cancelled. One that raises is counted, and followed by a pause (seconds)."""
        while True:
            await self.until_done(task, step, pause=pause)

    async def until_done(self, task: str, step: Callable[[], Awaitable[object]], *, pause: float) -> None:
        """Do a step until it succeeds. Each time it raises is counted, and followed by a pause (seconds)."""
        while True:
            try:
                await step()
            except Exception as error:  # noqa: BLE001  # what looks after things goes on, whatever went wrong once
                self.count(task, error)
                await asyncio.sleep(pause)
            else:
                return

    async def at_most_once(self, task: str, work: Awaitable[object]) -> None:
        """Await something that is not worth a second try; that it raised is counted, and all that becomes of it."""
        try:
            await work
        except Exception as error:  # noqa: BLE001  # see above
            self.count(task, error)
