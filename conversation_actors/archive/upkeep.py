"""What an archiver does beside archiving, now and then."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from conversation_actors.archive.stopping import until_stopped
from conversation_actors.failures import Failures

logger = logging.getLogger(__name__)

Work = Callable[[], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Chore:
    """Something that is done at the start and then again, `every` so many seconds. It returns how much there was."""

    name: str
    work: Work
    every: float


class Upkeep:
    """Does chores until it is told to stop. A chore that fails is counted, and done again when its time comes."""

    def __init__(self, chores: Sequence[Chore], *, failures: Failures) -> None:
        """Do these, the first ones first when several are due."""
        self._chores, self._failures = tuple(chores), failures

    async def run(self, stop: asyncio.Event) -> None:
        """Do what is due until `stop` is set. A chore that is under way then is broken off: each may be repeated."""
        await until_stopped(stop, self._go_on())

    async def once(self) -> None:
        """Do each once. Raises what keeps it from that."""
        for chore in self._chores:
            await _do(chore)

    async def _go_on(self) -> None:
        loop = asyncio.get_running_loop()
        due = dict.fromkeys(range(len(self._chores)), loop.time())
        while due:
            for number, chore in enumerate(self._chores):
                if due[number] <= loop.time():
                    await self._failures.once(chore.name, partial(_do, chore))
                    due[number] = loop.time() + chore.every
            await asyncio.sleep(min(due.values()) - loop.time())


async def _do(chore: Chore) -> None:
    if count := await chore.work():
        logger.info("upkeep of the archive found something to do", extra={"task": chore.name, "count": count})
