"""Session → conversation: what the models of a job have been used for, as a shared attribute."""

import time
from collections.abc import Callable
from typing import Any

from livekit.agents import AgentSession, AgentStateChangedEvent
from livekit.agents.voice.events import SessionUsageUpdatedEvent
from pydantic_core import to_jsonable_python

from agent_worker.failures import Failures
from agent_worker.session.handlers import total
from agent_worker.session.notes import NoteTaker
from conversation_actors.calls.names import USAGE


class UsageNotes:
    """What the session's models have used so far, all in all: `USAGE`, with the job (`holder`) whose models these are.

    Written when the agent stops to listen, and by `tell`. Models are in use until the session has closed.
    """

    def __init__(
        self, session: AgentSession[Any], conversation: NoteTaker, failures: Failures | None = None, *, holder: str
    ) -> None:
        """Nothing is noted before `start`. What goes wrong in a handler is counted in `failures`."""
        counted = failures or Failures()

        def safely(handler: Callable[[Any], None]) -> Callable[[Any], None]:
            return total(handler, counted, "usage", "what the models used was not noted")

        self._session, self._conversation, self._holder = session, conversation, holder
        self._used: dict[str, Any] | None = None
        self._handlers: dict[Any, Callable[[Any], None]] = {
            "session_usage_updated": safely(self._on_usage),
            "agent_state_changed": safely(self._on_agent_state),
        }

    def start(self) -> None:
        """Note from now on."""
        for name, handler in self._handlers.items():
            self._session.on(name, handler)

    def stop(self) -> None:
        """Note no more."""
        for name, handler in self._handlers.items():
            self._session.off(name, handler)

    def tell(self) -> None:
        """Note what was used since it was noted last, if anything was."""
        if self._used is not None:
            used, self._used = self._used, None
            self._conversation.note(USAGE, used)

    def _on_usage(self, event: SessionUsageUpdatedEvent) -> None:
        models = [to_jsonable_python(used) for used in event.usage.model_usage]
        self._used = {"holder": self._holder, "models": models, "at": time.time()}

    def _on_agent_state(self, event: AgentStateChangedEvent) -> None:
        if event.new_state == "listening":
            self.tell()
