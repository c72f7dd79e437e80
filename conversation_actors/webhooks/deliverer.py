"""A deliverer: it takes what is due from the outbox, lets a lane for each destination send it, and settles.

Any number of deliverers share the work, and none keeps anything that another one would miss: a cursor moves after the
receiver has taken what is before it, and what a deliverer has claimed is due again when the claim ends.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from conversation_actors.archive.outbox import Outbox, Taken
from conversation_actors.archive.outbox_news import News
from conversation_actors.archive.settling import Settlement, Settling
from conversation_actors.archive.stopping import until_stopped
from conversation_actors.backoff import Backoff
from conversation_actors.errors import ConversationError
from conversation_actors.failures import Failures
from conversation_actors.timing import TIMING, Timing
from conversation_actors.webhooks.lane import Lane, Work

logger = logging.getLogger(__name__)

TASK = "webhooks"
_GATHERING = 0.25
"""The part of the time between two looks in which what is finished gathers, to be settled at once."""


class Deliverer:
    """One deliverer. Belongs to one event loop; `failures` counts what it survived."""

    def __init__(
        self,
        outbox: Outbox,
        news: News,
        settling: Settling,
        lanes: Mapping[str, Lane],
        *,
        failures: Failures | None = None,
        timing: Timing = TIMING,
    ) -> None:
        """Deliver to these `lanes`, by the names of their destinations."""
        self._outbox, self._news, self._settling, self._lanes = outbox, news, settling, dict(lanes)
        self._timing, self.failures = timing, failures or Failures(timing=timing)
        self._running: set[asyncio.Task[None]] = set()
        self._finished: list[Settlement] = []
        self._has_finished = asyncio.Event()
        self._has_begun = False

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until `stop` is set, then wait a while for answers; what has none then is delivered again."""
        try:
            await until_stopped(stop, self._persist(self._step), self._persist(self._look_back()))
        finally:
            await self._leave()

    async def once(self) -> int:
        """Deliver what is due now, and return how many conversations that were. Raises what fails."""
        await self._news.begin()
        await self._news.sweep()
        count = 0
        while True:
            await self._exchange()
            if not self._running and not self._finished:
                return count
            count += len(self._running)
            await asyncio.gather(*self._running)

    async def _persist(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it again and again. While it fails: less and less often, and told once."""
        backoff, told = Backoff(self._timing.archive_again), ""
        while True:
            try:
                await work()
            except ConversationError as error:
                self.failures.count(TASK)
                if type(error).__name__ != told:
                    logger.warning("webhooks wait", extra={"reason": str(error)})
                told = type(error).__name__
                await backoff.wait()
            except Exception as error:  # noqa: BLE001  # whatever it is, what is to be delivered must not wait for ever
                self.failures.note(TASK, error)
                await backoff.wait()
            else:
                if told:
                    logger.info("webhooks are delivered again")
                told = ""
                backoff.reset()

    async def _step(self) -> None:
        """Settle and take once, and wait until there may be more to do."""
        if not self._has_begun:
            await self._news.begin()
            self._has_begun = True
        await self._exchange()
        pause = self._timing.webhook_look
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._has_finished.wait()
                await asyncio.sleep(pause * _GATHERING)

    async def _exchange(self) -> None:
        """Settle what is finished, and take what is due."""
        await self._settle()
        for name, lane in self._lanes.items():
            if lane.is_back:
                await self._news.wake(name)
                lane.woken()
        await self._news.look()
        free = {name: lane.free for name, lane in self._lanes.items() if lane.free}
        due = await self._outbox.due(free)
        if not due:
            return
        for taken in await self._outbox.take({name: free[name] for name in due}):
            self._begin(taken)

    async def _settle(self) -> None:
        self._has_finished.clear()
        finished = self._finished[:]
        if not finished:
            return
        held = await self._settling.settle(finished)
        del self._finished[: len(finished)]
        for one in finished:
            self._lanes[one.taken.destination].busy -= 1
        if held < len(finished):
            self.failures.count("webhooks claim")

    def _begin(self, taken: Taken) -> None:
        lane = self._lanes[taken.destination]
        lane.busy += 1
        task = asyncio.create_task(self._deliver(lane, lane.begin(taken)))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _deliver(self, lane: Lane, work: Work) -> None:
        try:
            await lane.deliver(work)
        finally:
            self._finished.append(work.done)
            self._has_finished.set()

    def _look_back(self) -> Callable[[], Awaitable[None]]:
        """Return what finds that which no look has seen: all of the outbox at first, what is recent again and again."""
        loop = asyncio.get_running_loop()
        often, recent = self._timing.webhook_recent
        sweeps = iter((0.0, recent))
        next_sweep = loop.time() + next(sweeps)

        async def look() -> None:
            nonlocal next_sweep
            if not self._has_begun:
                await asyncio.sleep(self._timing.webhook_look)
                return
            if loop.time() >= next_sweep:
                await self._news.sweep()
                next_sweep = loop.time() + next(sweeps, self._timing.webhook_sweep)
            else:
                await self._news.look_again()
            await asyncio.sleep(often)

        return look

    async def _leave(self) -> None:
        """Let what runs come to its end, for a while, and note how far everything is."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=self._timing.webhook_leave)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self.failures.once(TASK, self._settle)
