"""Work that goes on until it is told to stop."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def until_stopped(stop: asyncio.Event, *work: Coroutine[Any, Any, None]) -> None:
    """Do this side by side until `stop` is set or one of it ends, then break off the rest. Raises no error of it."""
    stopped = asyncio.create_task(stop.wait())
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (stopped, *tasks):
            task.cancel()
        await asyncio.gather(stopped, *tasks, return_exceptions=True)
