"""The feed's own task beside an archiver: it follows what was archived just now, and finds what nobody told it of."""

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Protocol

from conversation_actors.archive.feed import FEED, Fed
from conversation_actors.archive.stopping import until_stopped
from conversation_actors.backoff import Backoff
from conversation_actors.clock import uptime
from conversation_actors.errors import ConversationError
from conversation_actors.failures import Failures
from conversation_actors.timing import TIMING, Timing

logger = logging.getLogger(__name__)

GROUP = 32
"""Conversations of a step."""
_RESERVED = 8
"""Those of a step that a look has found with entries, or with something due, while others were archived just now."""
_FOUND = 1000
"""Conversations with entries that looks have found and that wait for a step, beyond which no others are looked for."""
_MOST = 10_000
"""Conversations that wait for a step; of more, a look finds the entries later."""
_REST = 0.25
"""Seconds that the feed leaves to the archiver after a step at most: as long as the step took."""


class SteppingFeed(Protocol):
    """What `Feeding` needs of a `Feed`."""

    async def look(self) -> list[str]:
        """Return conversations that have entries to be read, or something that is due."""

    async def ahead(self) -> list[str]:
        """Return those of them that have entries to be read."""

    async def due(self) -> list[str]:
        """Return those of them of which something is due."""

    async def step(self, conversations: Collection[str]) -> Fed:
        """Read on in the lives of conversations, and write what that comes to."""


class Feeding:
    """Feeds until it is told to stop. What fails is counted and tried again; nobody who archives waits for it."""

    def __init__(
        self,
        feed: SteppingFeed,
        *,
        told: Callable[[Collection[str]], None] | None = None,
        failures: Failures,
        timing: Timing = TIMING,
    ) -> None:
        """Do nothing yet. `told` is called with conversations that have new happenings."""
        self._feed, self._told, self._failures, self._timing = feed, told, failures, timing
        self._fresh: dict[str, None] = {}
        self._due: dict[str, None] = {}
        self._found: dict[str, None] = {}
        self._resting: dict[str, tuple[float, Backoff]] = {}
        """Conversations that failed: until when each is left alone."""
        self._suspects: dict[str, None] = {}
        """Conversations of a step that failed as a whole: each has a step of its own next."""
        self._some = asyncio.Event()

    def wake(self, conversations: Collection[str]) -> None:
        """Learn of conversations that were archived just now. Never waits, never fails."""
        if len(self._fresh) < _MOST:
            self._fresh.update(dict.fromkeys(conversations))
        self._some.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Feed until `stop` is set. A step that is under way then is broken off: nothing of it is written."""
        await until_stopped(stop, self._failures.keep(FEED, self._go_on))

    async def once(self) -> int:
        """Feed until there is nothing to do, and return how many entries that were. Raises what keeps it from that."""
        entries = 0
        while names := [name for name in await self._feed.look() if name not in self._resting]:
            has_progress = False
            for first in range(0, len(names), GROUP):
                group = names[first : first + GROUP]
                fed = await self._feed.step(group)
                self._note(group, fed)
                entries += fed.entries
                has_progress |= fed.entries > 0 or bool(fed.told)
            if not has_progress:
                break
        return entries

    async def _go_on(self) -> None:
        pauses, next_look = Backoff(self._timing.archive_again), uptime()
        told: type[ConversationError] | None = None
        while True:
            try:
                if uptime() >= next_look:
                    await self._look()
                    next_look = uptime() + self._timing.archive_feed
                    pauses.reset()
                    told = None
                took = await self._step()
            except ConversationError as error:
                next_look = uptime()  # first of all it is to be seen whether the database answers at all
                self._failures.count(FEED)
                if type(error) is not told:
                    told = type(error)
                    logger.info("calls wait to be told of", extra={"reason": str(error)})
                await pauses.wait()
                continue
            if took is not None:
                await asyncio.sleep(min(took, _REST))
                continue
            self._some.clear()
            await _wait(self._some, next_look - uptime())

    async def _look(self) -> None:
        """Find what is due however much was found before: it may be the end of a call a moment ago."""
        if len(self._due) < _MOST:
            self._due.update(dict.fromkeys(await self._feed.due()))
        if len(self._found) < _FOUND:
            self._found.update(dict.fromkeys(await self._feed.ahead()))

    async def _step(self) -> float | None:
        """Do a step, and return the seconds that it took; None if there is nothing to do."""
        group = self._next_group()
        if not group:
            return None
        began = uptime()
        try:
            self._note(group, await self._feed.step(group))
        except ConversationError:
            self._blame(group)
            raise
        except Exception as error:  # noqa: BLE001  # one conversation must not keep the others from being fed
            self._failures.note(FEED, error)
            self._blame(group)
        return uptime() - began

    def _next_group(self) -> list[str]:
        now = uptime()
        if self._suspects:
            name = next(iter(self._suspects))
            del self._suspects[name]
            return [name]
        group: list[str] = []
        for_found = min(_RESERVED, len(self._found))
        for_due = min(_RESERVED, len(self._due))
        shares = ((self._fresh, GROUP - for_due - for_found), (self._due, GROUP - for_found), (self._found, GROUP))
        for queue, most in shares:
            for name in list(queue):
                if len(group) >= most:
                    break
                del queue[name]
                if self._resting.get(name, (0.0, None))[0] <= now and name not in group:
                    group.append(name)
        return group

    def _note(self, group: Collection[str], fed: Fed) -> None:
        for name in group:
            if name in fed.failed:
                self._rest(name)
            else:
                self._resting.pop(name, None)
        self._found.update(dict.fromkeys(fed.again - fed.failed))
        if fed.told and self._told is not None:
            self._told(fed.told)

    def _blame(self, group: Collection[str]) -> None:
        """Find out which conversation a step failed for; one that fails by itself is left alone for a while."""
        if len(group) > 1:
            self._suspects.update(dict.fromkeys(group))
        else:
            self._rest(next(iter(group)))

    def _rest(self, name: str) -> None:
        _, pauses = self._resting.get(name, (0.0, Backoff(self._timing.archive_faulty)))
        self._resting[name] = (uptime() + pauses.next(), pauses)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()
    except TimeoutError:
        return
