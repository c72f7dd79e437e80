"""What goes wrong in tasks that nobody awaits: counted where an operator looks, and never the end of the task."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from conversation_actors.errors import ConversationError

logger = logging.getLogger(__name__)

Value = TypeVar("Value")
_QUIET_SECONDS = 60.0
"""How long a task's failures of one kind are counted only, after one was logged."""


class Failures:
    """Counts what was swallowed, by the task that swallowed it: for a heartbeat's details, or for ``/health``."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing went wrong yet. `clock` gives seconds."""
        self.counts: dict[str, int] = {}
        """By task. Tasks are named in the code, so that there are few."""
        self._clock = clock
        self._logged: dict[tuple[str, str, str], float] = {}

    def count(self, task: str, error: BaseException, told: str = "a background task failed", **fields: Any) -> None:
        """Count a failure, and log it: an error of ours with its text, any other by its type, as it may quote.

        Of a task's failures that are told alike, and are of one type, one is logged a minute: its count tells of those
        before it.
        """
        what, number = type(error).__name__, self.add(task)
        if not self._is_told((task, told, what)):
            return
        reason = f"{what}: {error}" if isinstance(error, ConversationError) else what
        logger.warning(told, extra={"task": task, "count": number, "reason": reason, **fields})

    def _is_told(self, kind: tuple[str, str, str]) -> bool:
        """Return whether a failure of this kind is to be logged now."""
        now = self._clock()
        if now - self._logged.get(kind, float("-inf")) < _QUIET_SECONDS:
            return False
        self._logged[kind] = now
        return True

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

    async def at_most_once(self, task: str, work: Callable[[], Awaitable[object]]) -> None:
        """Do something that is not worth a second try; that it raised is counted, and all that becomes of it."""
        try:
            await work()
        except Exception as error:  # noqa: BLE001  # see above
            self.count(task, error)

    async def value_or(self, otherwise: Value, task: str, work: Awaitable[Value], *, told: str) -> Value:
        """Return what `work` gives; if it raises, count that, and return `otherwise`."""
        try:
            return await work
        except Exception as error:  # noqa: BLE001  # see above
            self.count(task, error, told)
            return otherwise


class Outage:
    """The failures of one task in a row, of which somebody else is the cause: all are counted, the first is logged."""

    def __init__(self, failures: Failures, task: str, told: str) -> None:
        """All is well. `task` and `told`: see `Failures.count`."""
        self._failures, self._task, self._told = failures, task, told
        self._is_on = False

    def failed(self, error: BaseException) -> None:
        """Count a failure; log it if it is the first since the last success."""
        if self._is_on:
            self._failures.add(self._task)
        else:
            self._failures.count(self._task, error, self._told)
        self._is_on = True

    def succeeded(self) -> None:
        """Note that all is well: the next failure is the first of another outage."""
        self._is_on = False
