"""An agent that enters, and one that enters again: what its `on_enter` put into its context is there already."""

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
    """One run of `on_enter`; tasks that it begins outlive it, and know when it is over."""

    is_over: bool = False


_entrance: ContextVar[_Entrance | None] = ContextVar("entrance", default=None)


def keep_context_on_enter(agent: Agent) -> None:
    """Have the agent's context stay as it is while its `on_enter` runs for the first time."""
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
    """What is known of an agent's `on_enter`: whether it is over, what it waits for, and who is to be told."""

    def __init__(self, agent: Agent) -> None:
        """Follow an agent that has not entered."""
        self.is_over = False
        self.tasks = AwaitedTasks(agent)
        self._listeners: list[Callable[[Agent], None]] = []

    def tell(self, listener: Callable[[Agent], None]) -> None:
        """Have a listener be told each time from now on; once, however often that is asked for."""
        if listener not in self._listeners:
            self._listeners.append(listener)

    def end(self, agent: Agent) -> None:
        """Note the end of `on_enter`, unless the end of the session has ended a task that it waited for."""
        if self.tasks.is_closing:
            self.tasks.when_alive = functools.partial(self.end, agent)
            return
        self.is_over = True
        for listener in self._listeners:
            listener(agent)


def entrance_of(agent: Agent) -> Entrance:
    """Follow the agent's `on_enter` from now on; the same entrance each time it is asked for.

    One that was cut off is not over; see `until_over`.
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
