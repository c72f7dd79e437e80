"""A task that an agent's `on_enter` waits for, while it runs; and what that means for the agent that waits."""

from dataclasses import dataclass
from typing import Any, Protocol

from livekit.agents import Agent, AgentTask
from livekit.agents.llm import ChatContext

from agent_worker.session.had_the_word import HadTheWord, Path

_NOTHING = object()


class Follower(Protocol):
    """Whoever decides what is to be heard of an `on_enter` that runs again."""

    def replayed(self, path: Path, since: str | None) -> None:
        """Learn that a task in the `on_enter` at `path` was over at once; `since`: the handoff of its end."""

    def resumed(self, task: Agent, path: Path, had: HadTheWord) -> None:
        """Learn that a task is about to go on."""

    def ended(self, path: Path) -> None:
        """Learn that a task has ended in this job: what the `on_enter` at `path` does from now on is new."""


@dataclass(slots=True, eq=False)
class RunningTask:
    """A task that runs, and those that run in it are noted by themselves."""

    path: Path
    task: AgentTask[Any]
    parent: Agent
    instructions: object
    """Those that it was made with."""
    had: HadTheWord | None = None
    since: str | None = None
    has_begun: bool = False
    has_entered: bool = False
    outcome: dict[str, Any] | None = None
    """What it was completed with; None also when that cannot be stored."""
    came_to: object = _NOTHING

    @property
    def is_complete(self) -> bool:
        """Whether it has come to its end, as far as it is concerned."""
        return self.came_to is not _NOTHING

    @property
    def changed_instructions(self) -> str | None:
        """Those that it would not have by itself."""
        had, own = self.had, self.task.instructions
        is_changed = own != self.instructions or (had is not None and had.instructions is not None)
        return own if is_changed and isinstance(own, str) else None


async def merge(parent: Agent, task: Agent) -> None:
    """Give an agent what it gets of a task's context when that has ended."""
    merged = parent.chat_ctx.copy().merge(task.chat_ctx, exclude_function_call=True, exclude_instructions=True)
    await parent.update_chat_ctx(ChatContext(merged.items), exclude_invalid_function_calls=False)


def last_handoff(agent: Agent) -> str | None:
    """Return the handoff that gave the word to an agent last; None if the session is over."""
    try:
        items = agent.session.history.items
    except RuntimeError:
        return None
    handoffs = (item.id for item in reversed(items) if item.type == "agent_handoff" and item.new_agent_id == agent.id)
    return next(handoffs, None)
