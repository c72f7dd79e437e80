"""A tool runs when it is known that it was called, and is to the model what it was."""

from collections.abc import Callable
from typing import Any

import pytest
from livekit.agents import Agent, RunContext, function_tool
from livekit.agents.llm import FunctionTool, RawFunctionTool, ToolContext

from agent_worker.example.agent import SupportAgent
from agent_worker.session.tools import hold_tools_back


class Raw(Agent):
    """An agent with tools of all forms."""

    def __init__(self) -> None:
        """Nothing has run."""
        super().__init__(instructions="")
        self.ran: list[str] = []

    @function_tool(raw_schema={"name": "raw", "description": "Raw.", "parameters": {"type": "object"}})
    async def raw(self, raw_arguments: dict[str, Any]) -> str:
        """Take what comes."""
        self.ran.append(f"raw {raw_arguments}")
        return "raw"

    @function_tool
    async def with_context(self, context: RunContext[None], day: str = "Monday") -> str:
        """Use the context."""
        self.ran.append(f"{type(context).__name__} {day}")
        return day


async def at_once() -> None:
    """Wait for nothing."""


@pytest.mark.parametrize("make", [SupportAgent, Raw])
async def test_the_model_sees_no_difference(make: Callable[[], Agent]) -> None:
    """Names, descriptions and parameters stay as they were."""
    agent, other = make(), make()
    await hold_tools_back(agent, at_once)
    schemas = [ToolContext(one.tools).parse_function_tools("openai") for one in (agent, other)]
    assert schemas[0] == schemas[1]
    assert [tool.id for tool in agent.tools] == [tool.id for tool in other.tools]


async def test_it_waits_and_then_runs() -> None:
    """What is to be known first is known first, each time."""
    agent = Raw()

    async def until() -> None:
        agent.ran.append("known")

    await hold_tools_back(agent, until)
    [raw, with_context] = sorted(agent.tools, key=lambda tool: tool.id)
    assert isinstance(raw, RawFunctionTool)
    assert isinstance(with_context, FunctionTool)
    assert await raw(raw_arguments={"a": 1}) == "raw"
    assert await with_context(context=object(), day="Friday") == "Friday"
    assert agent.ran == ["known", "raw {'a': 1}", "known", "object Friday"]


async def test_no_run_where_waiting_is_cancelled() -> None:
    """A call that is taken back while it waits has had no effect."""
    agent = Raw()

    async def until() -> None:
        raise TimeoutError

    await hold_tools_back(agent, until)
    [raw, _] = sorted(agent.tools, key=lambda tool: tool.id)
    assert isinstance(raw, RawFunctionTool)
    with pytest.raises(TimeoutError):
        await raw(raw_arguments={})
    assert agent.ran == []
