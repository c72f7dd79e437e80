"""What is done once in a conversation's life, whoever dies meanwhile: its mark is durable before it begins."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from conversation_actors import ConversationHandle, Lease, LeaseLostError
from conversation_actors.errors import (
    ConflictError,
    ConversationClosedError,
    ConversationNotFoundError,
    InvalidInputError,
    RetryableError,
)
from conversation_actors.values import check_id

PREFIX = "livekit.once."
"""In front of the names of the attributes that hold the marks; they are every role's."""
MOST_NAME_CHARACTERS = 128
_BACKOFF = (0.05, 2.0)
_MENDED = (RetryableError, ConflictError, LeaseLostError, ConversationClosedError, ConversationNotFoundError)
"""What waiting mends, or ends: who lost the lease for good is told so by its own tenure."""

Held = tuple[ConversationHandle, Lease | None]
"""The conversation, and the lease in whose name is written; a job that stands by has none yet."""


@dataclass(frozen=True, slots=True)
class Todo:
    """Whether this job is the one that does it; false where it was done, or begun, before."""

    is_due: bool
    is_unknown: bool = False
    """It was begun, and nobody knows whether it was done: who began it died meanwhile, or is still at it."""

    def __bool__(self) -> bool:
        """Whether it is to be done now."""
        return self.is_due


def mark_name(name: object) -> str:
    """The attribute that tells of it. Raises `InvalidInputError`."""
    checked = check_id(name, "once")
    if len(checked) > MOST_NAME_CHARACTERS:
        message = f"once: {len(checked)} characters; the limit is {MOST_NAME_CHARACTERS}"
        raise InvalidInputError(message, field="once")
    return PREFIX + checked


class Mark:
    """The mark of one thing that is done once, and one job's try to be the one that does it."""

    def __init__(self, name: str, holder: str) -> None:
        """`name` is that of the attribute, `holder` whoever tries."""
        self.name = name
        self._begun = {"state": "begun", "by": holder, "token": uuid4().hex, "at": time.time()}

    @property
    def begun(self) -> Mapping[str, Any]:
        """The mark while it is being done."""
        return self._begun

    @property
    def done(self) -> Mapping[str, Any]:
        """The mark when it is done."""
        return {**self._begun, "state": "done", "at": time.time()}

    async def begin(self, held: Callable[[], Held | None]) -> Todo:
        """Write the mark where there is none; returns when that is durable, or who else was first.

        While the conversation does not answer this waits. `held` gives the conversation; None where this job is its
        agent no longer: then it is nobody's who asks here.
        """
        delay, longest = _BACKOFF
        while (now := held()) is not None:
            try:
                return await self._begin(*now)
            except _MENDED:
                await asyncio.sleep(delay)
                delay = min(delay * 2, longest)
        return Todo(is_due=False, is_unknown=True)

    async def _begin(self, handle: ConversationHandle, lease: Lease | None) -> Todo:
        seen = await handle.snapshot()
        there = seen.attributes.get(self.name)
        if there is None:
            # refused where any attribute has changed since: of two who see no mark one writes it
            await handle.set_attributes({self.name: self._begun}, expected_seq=seen.seq, lease=lease)
            return Todo(is_due=True)
        state = there.get("state") if isinstance(there, Mapping) else None
        if state == "begun" and there.get("token") == self._begun["token"]:
            return Todo(is_due=True)  # a try whose answer was lost
        return Todo(is_due=False, is_unknown=state != "done")
