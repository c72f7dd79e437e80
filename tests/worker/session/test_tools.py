"""A tool runs when it is known that it was called, and is to the model what it was."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, Literal, cast

import pytest
from livekit.agents import Agent, AgentSession, AgentTask, RunContext, function_tool
from livekit.agents.beta.toolsets import ToolSearchToolset
from livekit.agents.llm import (
    ChatContext,
    FunctionCall,
    FunctionCallOutput,
    FunctionTool,
    RawFunctionTool,
    ToolContext,
    ToolError,
    Toolset,
)
from livekit.agents.llm.async_toolset import AsyncToolset

from agent_worker.example.agent import SupportAgent
from agent_worker.session.tools import NOT_RECORDED, HeldTools, hold_tools_back, until_durable
from agent_worker.settings import ToolSettings
from tests.support.sessions.jobs import Jobs, NotedConversation, calls_when_asked


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
async def test_a_held_tool_looks_the_same_to_the_model(make: Callable[[], Agent]) -> None:
    """Names, descriptions and parameters stay as they were."""
    agent, other = make(), make()
    await hold_tools_back(agent, at_once)
    schemas = [ToolContext(one.tools).parse_function_tools("openai") for one in (agent, other)]
    assert schemas[0] == schemas[1]
    assert [tool.id for tool in agent.tools] == [tool.id for tool in other.tools]


async def test_a_held_tool_waits_for_the_gate_and_then_runs() -> None:
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


async def test_a_call_that_is_cancelled_while_it_waits_has_no_effect() -> None:
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


class Gate:
    """Counts who waited."""

    def __init__(self) -> None:
        """Nobody has."""
        self.count = 0

    async def __call__(self) -> None:
        """Wait for nothing."""
        self.count += 1


async def test_holding_tools_back_twice_changes_nothing() -> None:
    """Whoever holds an agent's tools back again changes nothing."""
    agent, gate = Raw(), Gate()
    await hold_tools_back(agent, gate)
    before = agent.tools
    await hold_tools_back(agent, gate)
    assert all(one is other for one, other in zip(agent.tools, before, strict=True))
    await agent.tools[1](context=object())  # type: ignore[operator]  # one of them is a function
    assert gate.count == 1


async def test_tools_that_an_agent_is_given_later_wait_too() -> None:
    """They wait too, and so do those that stay."""
    agent, gate = Raw(), Gate()
    await hold_tools_back(agent, gate)

    @function_tool
    async def later() -> str:
        """Come late."""
        return "late"

    await agent.update_tools([*agent.tools, later])
    called = ToolContext(agent.tools).function_tools["later"]
    assert isinstance(called, FunctionTool)
    assert await called() == "late"
    assert gate.count == 1


async def test_calls_of_tools_that_an_agent_does_not_have_stay_in_its_context() -> None:
    """An agent that was given calls of tools that it does not have keeps them."""
    agent = Raw()
    call = FunctionCall(call_id="c1", name="other", arguments="{}")
    output = FunctionCallOutput(call_id="c1", name="other", output="x", is_error=False)
    await agent.update_chat_ctx(ChatContext([call, output]), exclude_invalid_function_calls=False)
    await hold_tools_back(agent, Gate())
    assert agent.chat_ctx.items == [call, output]


class Late(Toolset):
    """Learns its tools when it is set up, as one on another server does."""

    async def setup(self) -> "Late":
        """Learn them."""
        self._tools = [tool_of("learnt")]
        return self


def tool_of(name: str) -> Any:
    """A tool that returns its name."""

    @function_tool(name=name)
    async def tool() -> str:
        """Return the name."""
        return name

    return tool


async def test_tools_in_nested_toolsets_wait_too() -> None:
    """Tools in toolsets wait, nested ones too, and those that are learnt later."""
    gate = Gate()
    nested = Toolset(id="outer", tools=[Toolset(id="inner", tools=[tool_of("nested")]), tool_of("outer_one")])
    late, background = Late(id="late"), AsyncToolset(id="background", tools=[tool_of("background")])
    agent = Agent(instructions="", tools=[nested, late, background])
    await hold_tools_back(agent, gate)
    await hold_tools_back(agent, gate)
    await late.setup()
    tools = ToolContext(agent.tools).function_tools
    assert sorted(tools) == ["background", "learnt", "nested", "outer_one"]
    for number, (name, tool) in enumerate(tools.items(), start=1):
        assert await tool() == name
        assert gate.count == number


async def test_a_toolset_is_set_up_as_its_maker_allows() -> None:
    """One with options of its own takes them still, such as to look again."""
    toolset = ToolSearchToolset(id="search", tools=[tool_of("found")])
    agent = Agent(instructions="", tools=[toolset])
    await hold_tools_back(agent, Gate())
    assert await toolset.setup() is toolset
    assert await toolset.setup(reload=True) is toolset


async def in_a_job(work: Coroutine[Any, Any, Any]) -> Any:
    """Do something as a job does it that is a thread of its worker."""
    return await asyncio.to_thread(asyncio.run, work)


@pytest.mark.parametrize("form", ["list", "toolset"])
async def test_a_shared_tool_waits_only_for_the_job_that_calls_it(form: str) -> None:
    """Each call waits for the record of the job that it is made in, and for nothing in a job that records nothing."""
    tools: list[Any] = [tool_of("shared")]
    shared: list[Any] = tools if form == "list" else [Toolset(id="set", tools=tools)]

    async def use() -> None:
        called = ToolContext(shared).function_tools["shared"]
        assert isinstance(called, FunctionTool)
        assert await called() == "shared"

    async def job(gate: Gate) -> None:
        session = SimpleNamespace(tools=shared, on=lambda *_: None, off=lambda *_: None)
        held = HeldTools(cast("AgentSession[Any]", session), gate)
        held.start()
        await use()
        began.set()
        await asyncio.to_thread(may_end.wait, 5)
        await use()
        held.stop()

    began, may_end = threading.Event(), threading.Event()
    first, second = Gate(), Gate()
    running = asyncio.create_task(in_a_job(job(first)))
    await asyncio.to_thread(began.wait, 5)
    assert (first.count, second.count) == (1, 0)
    await in_a_job(use())
    assert (first.count, second.count) == (1, 0)
    may_end.set()
    await in_a_job(job(second))
    await running
    assert (first.count, second.count) == (2, 2)
    await use()
    assert (first.count, second.count) == (2, 2)


async def test_tools_of_a_reused_agent_wait_for_the_job_that_it_serves_now() -> None:
    """Its tools wait for the job that it serves now; those that it is given then, too."""
    agent, first, second = Raw(), Gate(), Gate()
    await hold_tools_back(agent, first)
    await hold_tools_back(agent, second)
    await agent.update_tools([*agent.tools, tool_of("later")])
    tools = ToolContext(agent.tools).function_tools
    await cast("Any", tools["later"])()
    await cast("Any", tools["with_context"])(context=object())
    assert (first.count, second.count) == (0, 2)


class Passing(Agent):
    """Hands over, and begins tasks."""

    @function_tool
    async def hand_over(self) -> Agent:
        """Hand over to a colleague."""
        return Raw()

    @function_tool
    async def begin(self) -> str:
        """Begin a task."""
        return await Short(instructions="")


class Short(AgentTask[str]):
    """A task with one tool."""

    @function_tool
    async def end(self) -> None:
        """End it."""
        self.complete("done")


async def test_tools_of_every_agent_that_gets_the_word_wait_once() -> None:
    """Those handed over to, tasks, and the session's own tools: each call waits once."""
    gate = Gate()
    model = calls_when_asked("hand_over", "begin", "end", "with_context", "shared")
    async with Jobs(model) as jobs:
        job = await jobs.start(Passing(instructions=""), NotedConversation(), gate=gate, tools=[tool_of("shared")])
        counts = []
        for text in ("use shared", "use begin", "use end", "use hand_over", "use with_context", "use shared"):
            await job.say(text)
            counts.append(gate.count)
    assert counts == [1, 2, 3, 4, 5, 6]
    assert job.failures.counts == {}


def settings_of(unrecorded_tools: Literal["wait", "refuse", "run"], seconds: float = 5.0) -> ToolSettings:
    """Settings that differ in this from the default."""
    return ToolSettings(unrecorded_tools=unrecorded_tools, unrecorded_tools_wait=timedelta(seconds=seconds))


@pytest.mark.parametrize(("mode", "seconds"), [("wait", 5.0), ("refuse", 1.0), ("run", 1.0)])
@pytest.mark.parametrize("is_durable", [True, False])
async def test_a_setting_decides_what_becomes_of_a_call_that_is_not_durable(
    mode: Any, seconds: float, *, is_durable: bool
) -> None:
    """It is refused after the wait, at once, or runs; one that is durable runs in any case."""
    asked: list[float] = []

    async def durable(patience: float) -> bool:
        asked.append(patience)
        return is_durable

    gate = until_durable(durable, settings_of(mode))
    if is_durable or mode == "run":
        await gate()
    else:
        with pytest.raises(ToolError, match="not run"):
            await gate()
    assert asked == [seconds]


async def test_the_model_reads_that_a_tool_was_refused() -> None:
    """The tool has had no effect, the output says so and is recorded, and the agent answers."""

    async def never(_seconds: float) -> bool:
        return False

    agent = Raw()
    async with Jobs(calls_when_asked("with_context")) as jobs:
        gate = until_durable(never, settings_of("refuse"))
        job = await jobs.start(agent, NotedConversation(), gate=gate)
        await job.say("use with_context")
        [told] = [message["content"] for message in jobs.requests[-1]["messages"] if message["role"] == "tool"]
    assert told == NOT_RECORDED
    assert agent.ran == []
    [output] = [item.to_dict() for item in job.conversation.items if item.type == "function_call_output"]
    assert (output["output"], output["is_error"]) == (NOT_RECORDED, True)
    assert job.session.history.items[-1].text_content == "Done."  # type: ignore[union-attr]
