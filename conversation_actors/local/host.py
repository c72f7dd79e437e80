"""One owner in the process of its clients, which can end as a process does."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from conversation_actors.activation.activation import Place
from conversation_actors.activation.host import Host
from conversation_actors.port import PeerFailedError, PeerLostError
from conversation_actors.settings import Settings
from conversation_actors.store import Store
from conversation_actors.timing import TIMING, Timing

Value = TypeVar("Value")

_GONE = "the owner has ended"
MEMORY_NODE = "memory"
"""Stands where `ActivationInfo.node_id` has the id of Ray's node."""
_LEAVE_SECONDS = 5.0
"""How long an owner may take to save its snapshot when the last client of its event loop leaves."""
_LOOK_SECONDS = 0.2
"""How often a call from another loop looks whether the host's own loop runs still."""


class LocalHost(Host):
    """A `Host` that belongs to the event loop in which it was started, and ends with it.

    What is asked of it goes on when whoever asked gives up, and ends without an answer when the host is killed: as with
    a process of its own.
    """

    def __init__(self, conversation_id: str, settings: Settings, store: Store, *, timing: Timing = TIMING) -> None:
        """Run in the running loop from now on."""
        self.loop = asyncio.get_running_loop()
        self._process = os.getpid()
        self._ended: asyncio.Future[None] = self.loop.create_future()
        self._answering: set[asyncio.Task[Any]] = set()
        self._crossing: set[asyncio.Task[None]] = set()
        """Calls that another loop waits for."""
        super().__init__(conversation_id, settings, store, timing=timing)

    @property
    def is_running(self) -> bool:
        """Whether it may answer: it has not ended, nor has its loop, nor is it what a fork has copied."""
        return not self._ended.done() and self._process == os.getpid() and self.loop.is_running()

    @property
    def is_leaving(self) -> bool:
        """Whether its activation has stopped: it gives its last answers, and ends."""
        return self._activation is not None and self._activation.stopped.done()

    def when_ended(self, tell: Callable[[], None]) -> None:
        """Call `tell` in the host's loop soon after the host has ended, unless the loop ends first."""
        self._ended.add_done_callback(lambda _: tell())

    async def ask(self, call: Callable[[], Awaitable[Value]]) -> Value:
        """Return what a call of one of this host's methods returns; to be awaited in any loop.

        Raises `PeerLostError` if the host ends first, and `PeerFailedError` for what nobody foresaw.
        """
        return await self.in_own_loop(lambda: self._ask(call))

    async def in_own_loop(self, work: Callable[[], Awaitable[Value]]) -> Value:
        """Await `work` where the host runs. Raises `PeerLostError` if that loop ends first."""
        if self.loop is asyncio.get_running_loop():
            return await work()
        answered: Future[Value] = Future()
        try:
            self.loop.call_soon_threadsafe(self._begin, work, answered)
        except RuntimeError as error:  # it was closed
            raise PeerLostError(_GONE) from error
        waiting = asyncio.wrap_future(answered)
        try:
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=_LOOK_SECONDS)
                if not (waiting.done() or self.loop.is_running()):  # a loop that ends tells nobody
                    raise PeerLostError(_GONE)
        finally:
            waiting.cancel()
        return waiting.result()

    def _begin(self, work: Callable[[], Awaitable[Value]], answered: "Future[Value]") -> None:
        """Begin what another loop waits for, unless it waits no longer."""
        if answered.set_running_or_notify_cancel():
            crossing = self.loop.create_task(_settle(work, answered))
            self._crossing.add(crossing)
            crossing.add_done_callback(self._crossing.discard)

    async def _ask(self, call: Callable[[], Awaitable[Value]]) -> Value:
        if self._ended.done():
            raise PeerLostError(_GONE)
        work = asyncio.ensure_future(call())
        self._answering.add(work)
        work.add_done_callback(self._answered)
        first: set[asyncio.Future[Any]] = {work, self._ended}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if not work.done() or work.cancelled():
            raise PeerLostError(_GONE)
        if (error := work.exception()) is not None:
            raise PeerFailedError(error) from error
        return work.result()

    async def retire(self) -> None:
        """Save a snapshot if there is something to save, and end."""
        try:
            if self._activation is not None:
                await self._failures.once("snapshot at the end", self._leave_orderly)
        finally:
            await self.kill()

    async def kill(self) -> None:
        """End at once: nothing more is written, and nobody is answered."""
        self._end()
        ending = [*self._answering, *self._tasks]
        for task in ending:
            task.cancel()
        if self._activation is not None:
            await self._activation.aclose()
        await asyncio.gather(*ending, return_exceptions=True)

    async def _leave_orderly(self) -> None:
        async with asyncio.timeout(_LEAVE_SECONDS):
            await self.passivate()

    def _place(self) -> Place:
        return Place(self._process, MEMORY_NODE)

    def _was_ready(self) -> bool:
        return False

    def _on_restart(self) -> None:
        """Do nothing: no process was taken from a pool."""

    async def _exit(self) -> None:
        self._end()

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _answered(self, work: "asyncio.Task[Any]") -> None:
        self._answering.discard(work)
        if not work.cancelled():
            work.exception()  # it was told, or nobody waits any more


async def _settle(work: Callable[[], Awaitable[Value]], answered: "Future[Value]") -> None:
    """Do the work, and hand its outcome to another thread."""
    try:
        answered.set_result(await work())
    except asyncio.CancelledError:
        answered.set_exception(PeerLostError(_GONE))
        raise
    except Exception as error:  # noqa: BLE001  # it is raised where it is waited for
        answered.set_exception(error)
