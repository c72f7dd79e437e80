"""Repeating a read of the store that may succeed later."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from conversation_actors.backoff import Backoff
from conversation_actors.errors import ArchiveUnavailableError, RetryableError

Value = TypeVar("Value")


async def patiently(read: Callable[[], Awaitable[Value]], *, seconds: float, pauses: tuple[float, float]) -> Value:
    """Repeat what may succeed later, for `seconds`; then raise why it has not.

    A database has had its time when it raises `ArchiveUnavailableError`: that is raised at once.
    """
    backoff = Backoff(pauses)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        try:
            return await read()
        except ArchiveUnavailableError:
            raise
        except RetryableError:
            pause = backoff.next()
            if loop.time() + pause >= deadline:
                raise
        await asyncio.sleep(pause)
