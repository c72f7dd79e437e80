"""Follow an agent's `on_enter`. If it runs again, what it put into the agent's context before is there already."""

import functools
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from livekit.agents import Agent
from livekit.agents.llm import ChatContext

from agent_worker.session.awaited_tasks import AwaitedTasks
from agent_worker.session.task_awaits import until_over

_FOLLOWED = "followed_by_entrance"


@dataclass(slots=True)
class _Entrance:
    """One run of `on_enter`. Tasks that it starts may outlive it; they see here whether it is over."""

    is_over: bool = False


_entrance: ContextVar[_Entrance | None] = ContextVar("entrance", default=None)


def keep_context_on_enter(agent: Agent) -> None:
    """Ignore what the agent's `on_enter` does to the agent's context while it runs for the first time."""
    enter, update = agent.on_enter, agent.update_chat_ctx
    entrance = _Entrance()

    @functools.wraps(enter)
    async def on_enter() -> None:
        if entrance.is_over:
            await enter()
            return
        token = _entrance.set(entrance)
        try:
            await enter()
        finally:
            entrance.is_over = True
            _entrance.reset(token)

    async def update_chat_ctx(chat_ctx: ChatContext, **named: Any) -> None:
        if entrance.is_over or _entrance.get() is not entrance:
            await update(chat_ctx, **named)

    agent.on_enter = on_enter  # type: ignore[method-assign]
    agent.update_chat_ctx = update_chat_ctx  # type: ignore[method-assign]


class Entrance:
    """What is known about an agent's `on_enter`: whether it is over, what it waits for, and whom to tell."""

    def __init__(self, agent: Agent) -> None:
        """Begin with an agent that has not entered."""
        self.is_over = False
        self.tasks = AwaitedTasks(agent)
        self._listeners: list[Callable[[Agent], None]] = []

    def tell(self, listener: Callable[[Agent], None]) -> None:
        """Call the listener at each end of `on_enter` from now on. Registering it again changes nothing."""
        if listener not in self._listeners:
            self._listeners.append(listener)

    def end(self, agent: Agent) -> None:
        """Note the end of `on_enter`.

        If the session may be closing, postpone this until it is known not to be, because the end of the session may
        have ended a task that `on_enter` waited for.
        """
        if self.tasks.is_closing:
            self.tasks.when_alive = functools.partial(self.end, agent)
            return
        self.is_over = True
        for listener in self._listeners:
            listener(agent)


def entrance_of(agent: Agent) -> Entrance:
    """Follow the agent's `on_enter` from now on. Return the same entrance each time.

    An `on_enter` that was cut off is not over; see `until_over`.
    """
    enter = agent.on_enter
    known = getattr(enter, _FOLLOWED, None)
    if isinstance(known, Entrance):
        return known
    entrance = Entrance(agent)

    @functools.wraps(enter)
    async def on_enter() -> None:
        entrance.is_over = False
        with until_over(lambda: entrance.end(agent)), entrance.tasks.entering():
            await enter()

    setattr(on_enter, _FOLLOWED, entrance)
    agent.on_enter = on_enter  # type: ignore[method-assign]
    return entrance
