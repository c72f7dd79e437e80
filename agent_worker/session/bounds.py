"""Keeps what a session remembers within bounds; LiveKit itself never forgets anything."""

import asyncio
import logging
from typing import Any

from livekit.agents import AgentSession, AgentStateChangedEvent

from agent_worker.failures import Failures

logger = logging.getLogger(__name__)

_SLACK = 1.25
"""Cutting off one item at every turn would make each request to a model new to its cache."""


class SessionBounds:
    """Cuts the session's history, and its agent's context, to `items` when the agent falls silent."""

    def __init__(self, session: AgentSession[Any], items: int, failures: Failures | None = None) -> None:
        """Nothing is cut before `start`. What could not be is counted in `failures`, and tried after the next turn."""
        self._failures = failures or Failures()
        self._session, self._items = session, items
        self._cutting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look after each turn from now on."""
        self._session.on("agent_state_changed", self._on_agent_state)

    def stop(self) -> None:
        """Look no more."""
        self._session.off("agent_state_changed", self._on_agent_state)
        if self._cutting is not None:
            self._cutting.cancel()

    def _on_agent_state(self, event: AgentStateChangedEvent) -> None:
        if event.new_state != "listening" or (self._cutting is not None and not self._cutting.done()):
            return
        try:
            self._cutting = asyncio.get_running_loop().create_task(self._cut())
        except RuntimeError as error:  # no loop any more: the session is being torn down
            logger.debug("not cut", extra={"reason": str(error)})

    async def _cut(self) -> None:
        most = int(self._items * _SLACK)
        try:
            if len(self._session.history.items) > most:
                self._session.history.truncate(max_items=self._items)
            agent = self._session.current_agent
            if len(agent.chat_ctx.items) > most:
                shorter = agent.chat_ctx.copy().truncate(max_items=self._items)
                # the default would drop calls of tools which this agent does not have
                await agent.update_chat_ctx(shorter, exclude_invalid_function_calls=False)
        except Exception as error:  # noqa: BLE001  # a longer memory than wished for costs nobody the call
            self._failures.count("bounds", error, "the session's history was not cut")
