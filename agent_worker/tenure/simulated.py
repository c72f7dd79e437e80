"""The conversation of a job that is none: LiveKit's console, and its fake jobs in tests."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pydantic import BaseModel

from agent_worker.settings import CallSettings
from agent_worker.tenure.assignment import Assignment
from agent_worker.tenure.backlog import Operation
from agent_worker.tenure.conversation import CallConversation
from agent_worker.tenure.once import Todo, mark_name
from agent_worker.tenure.post import Post
from conversation_actors import Item

logger = logging.getLogger(__name__)


class SimulatedConversation(CallConversation):
    """A conversation that is never opened: nothing is kept of what is told to it, and nobody follows its job.

    Whoever waits for it waits for nothing. Needs neither Ray nor Redis.
    """

    def __init__(
        self,
        conversation_id: str,
        *,
        holder: str,
        room: str,
        role: str,
        call: CallSettings | None,
        outcome: type[BaseModel] | None = None,
    ) -> None:
        """`room`: its name. An outcome is checked as in a call."""
        post = Post(room=room, agent_name="", agent_identity="")
        super().__init__(
            conversation_id, holder=holder, post=post, assignment=Assignment(), role=role, call=call, outcome=outcome
        )
        self._done: set[str] = set()
        logger.info(
            "a fake job: the agent runs as it is, nothing is recorded and nobody follows it",
            extra={"conversation_id": conversation_id},
        )

    async def open(self) -> bool:
        """Leave it closed."""
        return False

    async def wait_open(self) -> None:
        """Return at once: there is nothing to wait for."""

    def record(self, item: Item, /) -> None:
        """Forget the item."""

    def remove(self, *item_ids: str) -> None:
        """Do nothing: nothing is kept."""

    def later(self, operation: Operation) -> None:
        """Forget the operation."""

    def note(self, name: str, value: Any) -> None:
        """Forget the value."""

    async def is_durable(self, timeout: float) -> bool:  # noqa: ARG002, ASYNC109  # as in the real one
        """Hold nothing back."""
        return True

    async def confirm(self) -> bool:
        """Return True: nobody else can have it."""
        return True

    async def may_be_others(self) -> bool:
        """Return False: nobody else can have it."""
        return False

    @asynccontextmanager
    async def once(self, name: str) -> AsyncIterator[Todo]:
        """Do something once in this job, at once. See `CallConversation.once`."""
        mark = mark_name(name)
        is_due = mark not in self._done
        self._done.add(mark)
        try:
            yield Todo(is_due=is_due)
        except Exception:
            if is_due:
                self._done.discard(mark)
            raise
