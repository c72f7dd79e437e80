"""Failures in the background that were survived: counted where an operator looks, and logged."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

from conversation_actors.errors import ConversationError
from conversation_actors.timing import TIMING, Timing

logger = logging.getLogger(__name__)


class Failures:
    """Counts of failures, by the name of the task that survived them. Belongs to one event loop."""

    def __init__(self, *, timing: Timing = TIMING, told_elsewhere: tuple[type[ConversationError], ...] = ()) -> None:
        """Begin with none. Errors that are `told_elsewhere`, such as a server that is away, warn nobody here."""
        self._again, self._told_elsewhere = timing.again, told_elsewhere
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> Mapping[str, int]:
        """The number of failures up to now, by task."""
        return dict(self._counts)

    def count(self, task: str) -> None:
        """Count a failure that is logged elsewhere."""
        self._counts[task] += 1

    def note(self, task: str, error: BaseException) -> None:
        """Count a failure and log it: a `ConversationError` by its text, any other error with its traceback."""
        self.count(task)
        is_foreseen = isinstance(error, ConversationError)
        expected = logging.INFO if isinstance(error, self._told_elsewhere) else logging.WARNING
        logger.log(
            expected if is_foreseen else logging.ERROR,
            "a task in the background failed, and goes on",
            extra={"task": task, "reason": str(error) if is_foreseen else repr(error)},
            exc_info=None if is_foreseen else error,
        )

    async def keep(self, task: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` until it returns. If it raises, note the error, pause, and run it again."""
        while True:
            try:
                await work()
            except Exception as error:  # noqa: BLE001  # whatever the error is, a task that keeps things going must go on
                self.note(task, error)
                await asyncio.sleep(self._again)
            else:
                return

    async def once(self, task: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` once, because it is not worth a second try. If it raises, note the error."""
        try:
            await work()
        except Exception as error:  # noqa: BLE001  # as in `keep`
            self.note(task, error)
