"""At SIGTERM, a program that does nothing about it sends what it has recorded, and ends by that signal.

A program that has a handler of its own, or ignores SIGTERM, is left alone; so is one that sets a handler later, which
replaces this one: `signal.signal(signal.SIGTERM, signal.SIG_DFL)` has it end at once, as without a conversation.
"""

import asyncio
import logging
import os
import signal
import threading
from types import FrameType
from typing import Protocol
from weakref import WeakKeyDictionary

logger = logging.getLogger(__name__)


class Flushable(Protocol):
    """What may hold something that was not sent yet."""

    def __len__(self) -> int:
        """How much."""

    async def flush(self) -> None:
        """Return when it is sent."""


class _LastWords:
    """A handler of SIGTERM: gives whoever is registered some seconds to send, and ends the process.

    A second SIGTERM ends it at once; so does the end of the seconds, whatever the event loop is busy with.
    """

    def __init__(self) -> None:
        """Know nobody."""
        self._registered: WeakKeyDictionary[Flushable, tuple[asyncio.AbstractEventLoop, float]] = WeakKeyDictionary()
        self._flushing: set[asyncio.Task[None]] = set()
        self._process = os.getpid()

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        """Begin to end."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        holding = [(one, *how) for one, how in self._registered.items() if len(one) and how[0].is_running()]
        if not holding or os.getpid() != self._process:  # what a forked child has is its parent's to send
            _end()
            return
        latest = threading.Timer(max(seconds for _, _, seconds in holding) + 0.5, _end)
        latest.daemon = True
        latest.start()
        for one, loop, seconds in holding:
            loop.call_soon_threadsafe(self._begin, one, seconds)

    def add(self, one: Flushable, seconds: float) -> None:
        """Register one, of the running loop."""
        self._registered[one] = (asyncio.get_running_loop(), seconds)

    def remove(self, one: Flushable) -> None:
        """Forget one; with the last one, SIGTERM is what it was."""
        self._registered.pop(one, None)
        is_main = threading.current_thread() is threading.main_thread()
        if not self._registered and is_main and signal.getsignal(signal.SIGTERM) is self:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _begin(self, one: Flushable, seconds: float) -> None:
        task = asyncio.get_running_loop().create_task(_flush(one, seconds))
        self._flushing.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._flushing.discard(task)
        if not self._flushing:
            _end()


def flushed_at_sigterm(one: Flushable, *, seconds: float) -> _LastWords | None:
    """Have it sent at SIGTERM, until it is removed from what is returned; None where SIGTERM is the program's own.

    Or where this is not the main thread, which alone may choose a handler. `one` is held weakly.
    """
    if threading.current_thread() is not threading.main_thread():
        return None
    handler = signal.getsignal(signal.SIGTERM)
    if handler is signal.SIG_DFL:
        handler = _LastWords()
        signal.signal(signal.SIGTERM, handler)
    if not isinstance(handler, _LastWords):
        return None
    handler.add(one, seconds)
    return handler


async def _flush(one: Flushable, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await one.flush()
    except Exception as error:  # noqa: BLE001  # the process ends, whatever it was
        reason = str(error) or f"no answer in {seconds:g} s"
        logger.warning("ended by SIGTERM with unacknowledged commands: %d (%s)", len(one), reason)


def _end() -> None:
    """End by the signal, as whoever has sent it expects; its handler is the system's by now."""
    os.kill(os.getpid(), signal.SIGTERM)
