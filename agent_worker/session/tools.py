"""Tools that wait until it is known that they were called.

A call is recorded before its tool runs; a tool that runs before the record is durable could be run again by
the next agent. So it waits, for the few milliseconds that this takes.
"""

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from livekit.agents import Agent
from livekit.agents.llm import FunctionTool, RawFunctionTool

_Tool = FunctionTool[..., Any] | RawFunctionTool[..., Any]


async def hold_tools_back(agent: Agent, until: Callable[[], Awaitable[None]]) -> None:
    """Have each of an agent's function tools await `until` before it runs; what that raises is its own business.

    For an agent that has not started. Toolsets, tools of the session, and agents that are handed over to later are
    left as they are.
    """
    tools = [
        _held_back(tool, until) if isinstance(tool, FunctionTool | RawFunctionTool) else tool for tool in agent.tools
    ]
    await agent.update_tools(tools)


def _held_back(tool: _Tool, until: Callable[[], Awaitable[None]]) -> _Tool:
    @functools.wraps(tool)
    async def run(*arguments: Any, **named: Any) -> Any:
        await until()
        result = tool(*arguments, **named)
        return await result if inspect.isawaitable(result) else result

    # LiveKit reads from it what the model may pass, and where the context goes
    run.__signature__ = inspect.signature(tool)  # type: ignore[attr-defined]
    if isinstance(tool, FunctionTool):
        return FunctionTool(run, tool.info)
    return RawFunctionTool(run, tool.info)
