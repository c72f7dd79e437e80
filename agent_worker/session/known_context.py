"""An agent's context as it is noted: looked at again and again, and described anew only if it has changed."""

from collections.abc import Collection
from enum import Enum
from typing import Any

from livekit.agents import Agent, AgentSession
from livekit.agents.llm import ChatItem

from agent_worker.session.context import Heard, brought_into, is_kept_apart


class Speaks(Enum):
    """Who speaks while a context is looked at."""

    OWN = "own"
    """The agent itself: it hears what is said."""
    TASK = "task"
    """A task that is noted by itself. What is said in it, the agent hears when it ends."""
    LENT = "lent"
    """Somebody in the agent's name: its context is noted as it was before."""


class HeldHistory:
    """A session's history, and whether it has left its beginning behind."""

    def __init__(self, session: AgentSession[Any], taken: Collection[str] = frozenset()) -> None:
        """Nothing has left. `taken`: the ids of what was taken out of the conversation."""
        self._session = session
        self.taken = taken
        self.oldest: str | None = None
        self.is_cut = False

    @property
    def ids(self) -> frozenset[str]:
        """The ids of all that is there."""
        return frozenset(item.id for item in self._session.history.items)

    def look(self) -> list[ChatItem]:
        """Return what the conversation has of it: without the handoffs that begin a session, and configuration."""
        items = self._session.history.items
        history = [item for item in items if not is_kept_apart(item) or _is_handed_over(item)]
        oldest = next((item.id for item in history if not is_kept_apart(item)), None)
        self.is_cut = self.is_cut or (self.oldest is not None and oldest != self.oldest)
        self.oldest = oldest
        return history


class KnownContext:
    """What is noted of one agent's context."""

    def __init__(self, held: HeldHistory) -> None:
        """Nothing is noted yet."""
        self._held = held
        self._heard = Heard()
        self._oldest = held.oldest
        self._seen: frozenset[str] = frozenset()
        self._told: dict[str, Any] = {}

    def begin(self) -> None:
        """Count what is said from now on as heard by the agent: it has just got the word."""
        self._seen = self._held.ids

    def look(self, agent: Agent, speaks: Speaks) -> dict[str, Any]:
        """Return what the context is made of, as it is noted."""
        history = self._held.look()
        if self._oldest is not None and self._held.oldest != self._oldest:
            self._heard = Heard()
        self._oldest = self._held.oldest
        if speaks is not Speaks.LENT:
            self._told = self._describe(agent, history, is_heard=speaks is Speaks.OWN)
        elif "brought" in self._told:
            left = [one for one in self._told["brought"] if one["item"].get("id") not in self._held.taken]
            self._told = {**self._told, "brought": left}
        return self._told

    def _describe(self, agent: Agent, history: list[ChatItem], *, is_heard: bool) -> dict[str, Any]:
        context, ids = agent.chat_ctx.items, {item.id for item in history}
        known = {item.id for item in context}
        if is_heard:
            # an item may be in one of them a moment before it is in the other
            known |= ids - self._seen
        self._seen = frozenset(ids)
        if not self._describes(history, known):
            self._heard = Heard.of(history, known, is_cut=self._held.is_cut)
        brought = brought_into(context, self._held.ids.union(self._held.taken))
        return {"heard": self._heard.to_dict(), "brought": [one.to_dict() for one in brought]}

    def _describes(self, history: list[ChatItem], known: set[str]) -> bool:
        """Whether what is noted of the history is true still."""
        if not self._told or (self._held.is_cut and self._heard.after is None):
            return False
        return {item.id for item in self._heard.choose(history) if not is_kept_apart(item)} == {
            item.id for item in history if item.id in known and not is_kept_apart(item)
        }


def _is_handed_over(item: ChatItem) -> bool:
    return item.type == "agent_handoff" and item.old_agent_id is not None
