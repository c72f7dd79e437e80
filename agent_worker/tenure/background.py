"""The tasks of one job that nobody awaits."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Background:
    """Tasks that run until they are done, or all of them are stopped."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin a task, and return it."""
        task = asyncio.create_task(work)
        self._tasks.append(task)
        return task

    async def stop(self) -> None:
        """Cancel all tasks; return when they have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
