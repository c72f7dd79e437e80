"""An agent that enters, and one that enters again: what its `on_enter` put into its context is there already."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from livekit.agents import Agent
from livekit.agents.llm import ChatContext


@dataclass(slots=True)
class _Entrance:
    """One run of `on_enter`; tasks that it begins outlive it, and know when it is over."""

    is_over: bool = False


_entrance: ContextVar[_Entrance | None] = ContextVar("entrance", default=None)


def keep_context_on_enter(agent: Agent) -> None:
    """Have the agent's context stay as it is while its `on_enter` runs for the first time."""
    enter, update = agent.on_enter, agent.update_chat_ctx
    entrance = _Entrance()

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


def tell_when_entered(agent: Agent, told: Callable[[], None]) -> None:
    """Have `told` be called each time the agent's `on_enter` is over, whatever became of it."""
    enter = agent.on_enter

    async def on_enter() -> None:
        try:
            await enter()
        finally:
            told()

    agent.on_enter = on_enter  # type: ignore[method-assign]
