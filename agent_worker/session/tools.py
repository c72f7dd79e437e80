"""Tools that wait until it is known that they were called.

A call is recorded before its tool runs; a tool that runs before the record is durable could be run again by
the next agent. So it waits, for the few milliseconds that this takes; what becomes of a call that cannot be
recorded is decided by `ToolSettings`.
"""

import functools
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from livekit.agents import Agent, AgentSession, ConversationItemAddedEvent
from livekit.agents.llm import FunctionTool, RawFunctionTool, Tool, ToolError, Toolset

from agent_worker.failures import Failures
from agent_worker.session.handlers import total
from agent_worker.settings import ToolSettings

NOT_RECORDED = "The tool was not run: it could not be recorded."
"""What the model reads as the output of a call that was refused."""
_PROMPT_SECONDS = 1.0
"""How long a call may take to become durable if nothing is to wait for it."""
_MARK = "held_back"
"""Attribute of what holds back: what it stands for, and its gate."""

Gate = Callable[[], Awaitable[None]]
"""Awaited before each run of a tool; what it raises becomes the output of the call."""
_Function = FunctionTool[..., Any] | RawFunctionTool[..., Any]


class _OfThisJob(threading.local):
    """The gate of the job that runs in this thread: LiveKit gives each job a process or a thread of its own."""

    gate: Gate | None = None


_of_this_job = _OfThisJob()


async def _current_gate() -> None:
    """Wait as the job does in which a tool is called: what jobs share must not wait for one of them."""
    if _of_this_job.gate is not None:
        await _of_this_job.gate()


def until_durable(is_durable: Callable[[float], Awaitable[bool]], settings: ToolSettings) -> Gate:
    """Make the gate that `settings` ask for; `is_durable` is given the seconds for which it may wait."""
    patience = settings.unrecorded_tools_wait.total_seconds()
    seconds = patience if settings.unrecorded_tools == "wait" else min(_PROMPT_SECONDS, patience)

    async def gate() -> None:
        if not await is_durable(seconds) and settings.unrecorded_tools != "run":
            raise ToolError(NOT_RECORDED)

    return gate


async def hold_tools_back(agent: Agent, gate: Gate) -> None:
    """Have each of an agent's tools await `gate` before it runs, those too that it is given later. Idempotent.

    Of a toolset, those tools are held back which it keeps in a list of its own. No call in the agent's context is
    lost by it, whether or not the agent has its tool.
    """
    _of_this_job.gate = gate
    _follow_updates(agent, gate)
    held = [_held_back(tool, gate) for tool in agent.tools]
    if all(new is old for new, old in zip(held, agent.tools, strict=True)):
        return
    # what is not asked for drops calls of tools that the agent does not have
    context = agent.chat_ctx.copy()
    await agent.update_tools(held)
    await agent.update_chat_ctx(context, exclude_invalid_function_calls=False)


class HeldTools:
    """Holds back the tools of a session, and those of each agent that gets the word in it."""

    def __init__(self, session: AgentSession[Any], gate: Gate, failures: Failures | None = None) -> None:
        """Nothing is held back before `start`. What goes wrong is counted in `failures`."""
        self._session, self._gate = session, gate
        told = "an agent's tools do not wait"
        self._handler = total(self._on_item, failures or Failures(), "tools", told)

    def start(self) -> None:
        """Hold back the session's own tools now, and from now on those of whoever the word is handed to."""
        _of_this_job.gate = self._gate
        _hold_in_place(self._session.tools)
        self._session.on("conversation_item_added", self._handler)

    def stop(self) -> None:
        """Follow handoffs no more; what agents have is held back still, what jobs may share is not."""
        self._session.off("conversation_item_added", self._handler)
        if _of_this_job.gate is self._gate:
            _of_this_job.gate = None

    def _on_item(self, event: ConversationItemAddedEvent) -> None:
        if event.item.type == "agent_handoff":
            # its activity begins after this handler, and looks at its tools at once
            _at_once(hold_tools_back(self._session.current_agent, self._gate))


def _at_once(work: Coroutine[Any, Any, None]) -> None:
    """Do what does not wait for anything. Raises `RuntimeError` if it would have to."""
    try:
        work.send(None)
    except StopIteration:
        return
    work.close()
    message = "an agent that runs already cannot be changed at once"
    raise RuntimeError(message)


def _follow_updates(agent: Agent, gate: Gate) -> None:
    original, held_by = getattr(agent.update_tools, _MARK, (agent.update_tools, None))
    if held_by is gate:
        return

    async def update_tools(tools: list[Tool | Toolset]) -> None:
        await original([_held_back(tool, gate) for tool in tools])

    setattr(update_tools, _MARK, (original, gate))
    agent.update_tools = update_tools  # type: ignore[method-assign]


def _held_back(tool: Any, gate: Gate) -> Any:
    """Return the tool, holding back; itself if it does so already, or is nothing that runs here."""
    if isinstance(tool, Toolset):
        _hold_toolset_back(tool)
        return tool
    if not isinstance(tool, FunctionTool | RawFunctionTool):
        return tool
    original, held_by = getattr(tool, _MARK, (tool, None))
    if held_by in {gate, _current_gate}:
        return tool
    return _function_held_back(original, gate)


def _hold_toolset_back(toolset: Toolset) -> None:
    """Hold its tools back in its own list, and again when it has been set up: some learn their tools only then."""
    _hold_in_place(toolset.tools)
    if hasattr(toolset.setup, _MARK):
        return
    original = toolset.setup

    @functools.wraps(original)
    async def setup(*arguments: Any, **named: Any) -> Toolset:
        ready = await original(*arguments, **named)
        _hold_in_place(toolset.tools)
        return ready

    setattr(setup, _MARK, (original, _current_gate))
    toolset.setup = setup  # type: ignore[method-assign]


def _hold_in_place(tools: Sequence[Tool | Toolset]) -> None:
    """Hold tools back in a list that the application, and so another job, may have too."""
    if isinstance(tools, list):  # else it is made anew at each look, and what was put there would be lost
        tools[:] = [_held_back(tool, _current_gate) for tool in tools]


def _function_held_back(tool: _Function, gate: Gate) -> _Function:
    @functools.wraps(tool)
    async def run(*arguments: Any, **named: Any) -> Any:
        await gate()
        result = tool(*arguments, **named)
        return await result if inspect.isawaitable(result) else result

    # LiveKit reads from it what the model may pass, and where the context goes
    run.__signature__ = inspect.signature(tool)  # type: ignore[attr-defined]
    # the tool made of it takes over its attributes
    setattr(run, _MARK, (tool, gate))
    if isinstance(tool, FunctionTool):
        return FunctionTool(run, tool.info)
    return RawFunctionTool(run, tool.info)
