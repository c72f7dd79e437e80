"""What went wrong in the background and was survived: counted where an operator looks, and logged."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

from conversation_actors.errors import ConversationError
from conversation_actors.timing import TIMING, Timing

log = logging.getLogger(__name__)


class Failures:
    """Failures by the name of the task that has survived them. Belongs to one event loop."""

    def __init__(self, *, timing: Timing = TIMING) -> None:
        """Begin with none."""
        self._again = timing.again
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> Mapping[str, int]:
        """How many there were, by task; as of now."""
        return dict(self._counts)

    def count(self, task: str) -> None:
        """Count one that is logged elsewhere."""
        self._counts[task] += 1

    def note(self, task: str, error: BaseException) -> None:
        """Count one and log it: one of our own errors by its text, any other with its traceback."""
        self.count(task)
        is_foreseen = isinstance(error, ConversationError)
        log.log(
            logging.WARNING if is_foreseen else logging.ERROR,
            "a task in the background failed, and goes on",
            extra={"task": task, "reason": str(error) if is_foreseen else repr(error)},
            exc_info=None if is_foreseen else error,
        )

    async def keep(self, task: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` until it returns; if it raises, note that and run it again, after a pause."""
        while True:
            try:
                await work()
            except Exception as error:  # noqa: BLE001  # whatever it was: what looks after things must go on
                self.note(task, error)
                await asyncio.sleep(self._again)
            else:
                return

    async def once(self, task: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run what is not worth a second try; if it raises, note that."""
        try:
            await work()
        except Exception as error:  # noqa: BLE001  # as in `keep`
            self.note(task, error)
