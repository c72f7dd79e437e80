"""What is done at the end of a job: LiveKit begins all of it at the same time."""

import asyncio
from typing import Any
from weakref import WeakSet

CALLBACK_TASK = "job_shutdown_callback"
"""LiveKit's name for the task of each callback that was added by ``ctx.add_shutdown_callback``."""
_waiting: "WeakSet[asyncio.Task[Any]]" = WeakSet()
"""Those that wait for the others: nobody waits for them."""


async def until_the_others_have_ended(seconds: float) -> None:
    """Return when the other callbacks of this job's end are done, or after so long; at once outside of a callback."""
    own = asyncio.current_task()
    if own is None or own.get_name() != CALLBACK_TASK:
        return
    _waiting.add(own)
    others = {task for task in asyncio.all_tasks() if task.get_name() == CALLBACK_TASK and task not in _waiting}
    if others:
        await asyncio.wait(others, timeout=seconds)
