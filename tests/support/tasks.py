"""What runs in the event loop of a test."""

import asyncio
from typing import Any


def running(function: str) -> list["asyncio.Task[Any]"]:
    """Return the tasks that run a coroutine function now, by its qualified name, as ``Opening._open_at_last``."""
    return [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__qualname__", "") == function]
