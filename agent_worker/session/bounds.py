"""Keep what a session remembers within bounds; LiveKit itself never forgets anything."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from livekit.agents import AgentSession, AgentStateChangedEvent
from livekit.agents.llm import ChatContext, ChatItem, FunctionCall, FunctionCallOutput

from agent_worker.failures import Failures
from agent_worker.session.beginnings import newest
from agent_worker.session.recorder import RESERVED_PREFIX
from conversation_actors.items import PINNED_ROLES

logger = logging.getLogger(__name__)

_MAX_SHARE, _KEPT_SHARE = 0.95, 0.75
"""Shares of the bound: a history larger than the first is cut to the second. If one item were cut at every turn, no
request to a model would find its beginning in the model's cache. The next turn's items also have to fit, or a successor
would be told less than this agent knows."""


def cut(items: Sequence[ChatItem], most: int) -> list[ChatItem]:
    """Return at most the newest `most` items, and at their places the newest `most` system messages.

    LiveKit's own system messages are kept even if they are older. In the result no tool is called before the caller's
    first turn, and no output is left whose call has been cut off: see `agent_worker.session.beginnings`.
    """
    others = [item for item in items if not _is_pinned(item)]
    pinned = [item for item in items if _is_pinned(item)]
    calls = {item.call_id for item in others[:-most] if isinstance(item, FunctionCall)}
    kept = newest(others[-most:])
    calls -= {item.call_id for item in kept if isinstance(item, FunctionCall)}
    left = {id(item) for item in kept if not (isinstance(item, FunctionCallOutput) and item.call_id in calls)}
    left |= {id(item) for item in pinned if item.id.startswith(RESERVED_PREFIX)} | {id(item) for item in pinned[-most:]}
    return [item for item in items if id(item) in left]


def _is_pinned(item: ChatItem) -> bool:
    return item.type == "message" and item.role in PINNED_ROLES


class SessionBounds:
    """The bounds of a session's history and of its agent's context, kept when the agent falls silent.

    System messages stay, and do not count.
    """

    def __init__(self, session: AgentSession[Any], items: int, failures: Failures | None = None) -> None:
        """Cut nothing before `start`. A cut that fails is counted in `failures` and tried again after the next turn."""
        self._failures = failures or Failures()
        self._session, self._items = session, items
        self._cutting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Check the bounds after each turn from now on."""
        self._session.on("agent_state_changed", self._on_agent_state)

    def stop(self) -> None:
        """Stop checking the bounds, and cancel a cut that is under way."""
        self._session.off("agent_state_changed", self._on_agent_state)
        if self._cutting is not None:
            self._cutting.cancel()

    def _on_agent_state(self, event: AgentStateChangedEvent) -> None:
        if event.new_state != "listening" or (self._cutting is not None and not self._cutting.done()):
            return
        try:
            self._cutting = asyncio.get_running_loop().create_task(self._cut())
        except RuntimeError as error:  # there is no event loop any more: the session is being torn down
            logger.debug("not cut", extra={"reason": str(error)})

    async def _cut(self) -> None:
        most, kept = int(self._items * _MAX_SHARE), int(self._items * _KEPT_SHARE)
        try:
            history, agent = self._session.history, self._session.current_agent
            if max(_size(history.items), _size(agent.chat_ctx.items)) <= most:
                return
            # both together, because a successor's context is made from the history
            history.items[:] = cut(history.items, kept)
            shorter = cut(agent.chat_ctx.items, kept)
            # by default, LiveKit would drop the calls of tools that this agent does not have
            await agent.update_chat_ctx(ChatContext(shorter), exclude_invalid_function_calls=False)
        except Exception as error:  # noqa: BLE001  # a longer memory than wished for costs nobody the call
            self._failures.count("bounds", error, "the session's history was not cut")


def _size(items: Sequence[ChatItem]) -> int:
    return sum(1 for item in items if not _is_pinned(item))
