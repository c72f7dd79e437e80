"""Knowing of each ``await Task()`` in an `on_enter` that is followed; LiveKit has no event for it."""

import asyncio
import functools
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from livekit.agents import Agent, AgentTask
from livekit.agents.llm import ToolError

from agent_worker.session.had_the_word import Path

_FOLLOWED = "followed_by_awaited_tasks"


class Awaits(Protocol):
    """Whoever decides what an awaited task comes to."""

    async def run(self, task: AgentTask[Any], scope: "Scope") -> Any:
        """Do what ``await task`` does, in the `on_enter` of that scope."""

    def is_told(self, path: Path) -> bool:
        """Whether a group has told of that task."""

    def tell(self, path: Path) -> None:
        """Note that a group has told of that task."""


@dataclass(slots=True)
class Scope:
    """One run of an `on_enter`, of the agent itself or of a task that it waits for."""

    tasks: Awaits
    path: Path
    agent: Agent
    runner: asyncio.Task[Any] | None
    count: int = 0

    def next_path(self) -> Path:
        """Return where the task stands that is awaited now."""
        path = (*self.path, self.count)
        self.count += 1
        return path

    @property
    def last_path(self) -> Path:
        """Where the task stands that was awaited last."""
        return (*self.path, self.count - 1)


scope_of_on_enter: ContextVar[Scope | None] = ContextVar("the on_enter that runs", default=None)


def current_scope() -> Scope | None:
    """Return the scope of the running code: tools, and what `on_enter` begins, inherit it, and are not in it."""
    scope = scope_of_on_enter.get()
    return scope if scope is not None and asyncio.current_task() is scope.runner else None


@contextmanager
def until_over(end: Callable[[], None]) -> Iterator[None]:
    """Call `end` when the `on_enter` that runs in it has returned, or raised; not if it was cut off.

    It is, with its session, or with the task that it waited for.
    """
    try:
        yield
    except (asyncio.CancelledError, ToolError):
        raise
    except Exception:
        end()
        raise
    end()


class Plain:
    """A task, awaited as LiveKit has it."""

    def __init__(self, task: AgentTask[Any]) -> None:
        """Nothing is awaited yet."""
        self._task = task

    def __await__(self) -> Generator[Any, None, Any]:
        """Await it."""
        return getattr(AgentTask.__await__, _FOLLOWED, AgentTask.__await__)(self._task)


async def _awaited(task: AgentTask[Any]) -> Any:
    scope = current_scope()
    if scope is None:
        return await Plain(task)
    return await scope.tasks.run(task, scope)


def follow_awaits() -> None:
    """Know of each task that is awaited, once in a process; without effect but in an `on_enter` that is followed."""
    plain = AgentTask.__await__
    if hasattr(plain, _FOLLOWED):
        return

    @functools.wraps(plain)
    def followed(task: AgentTask[Any]) -> Generator[Any, None, Any]:
        return _awaited(task).__await__()

    setattr(followed, _FOLLOWED, plain)
    AgentTask.__await__ = followed  # type: ignore[method-assign, assignment]
