"""LiveKit's groups of tasks: what a group tells of a task that has ended, it tells once."""

import functools
import importlib
from collections.abc import Awaitable, Callable
from typing import Any

from agent_worker.session.task_awaits import current_scope

_FOLLOWED = "followed_by_task_groups"
Callback = Callable[[Any], Awaitable[None]]


def follow_groups() -> None:
    """Have the groups that are made from now on leave out what was told; once in a process.

    Without effect but in an `on_enter` that runs again.
    """
    try:
        groups: Any = importlib.import_module("livekit.agents.beta.workflows").TaskGroup
    except (ImportError, AttributeError):  # it is in LiveKit's beta
        return
    plain = groups.__init__
    if hasattr(plain, _FOLLOWED):
        return

    @functools.wraps(plain)
    def followed(group: Any, *, on_task_completed: Callback | None = None, **named: Any) -> None:
        told = None if on_task_completed is None else _told_once(on_task_completed)
        plain(group, on_task_completed=told, **named)

    setattr(followed, _FOLLOWED, plain)
    groups.__init__ = followed


def _told_once(callback: Callback) -> Callback:
    @functools.wraps(callback)
    async def told(event: Any) -> None:
        scope = current_scope()
        if scope is None:
            await callback(event)
            return
        path = scope.last_path
        if not scope.tasks.is_told(path):
            await callback(event)
            scope.tasks.tell(path)

    return told
