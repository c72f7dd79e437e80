"""How long a handle may be used: until it is closed."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from conversation_actors.errors import InvalidInputError

Value = TypeVar("Value")


class Lifetime:
    """Whether a handle is closed. Whoever waits when it is closed waits no longer."""

    def __init__(self, conversation_id: str) -> None:
        """Begin open; the id is for the error that tells of the end."""
        self._conversation_id = conversation_id
        self._ended = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Whether the handle is closed."""
        return self._ended.is_set()

    def end(self) -> None:
        """Close the handle: every later call is refused."""
        self._ended.set()

    def refusal(self) -> InvalidInputError:
        """Return the error for whoever uses a closed handle."""
        reason = f"this handle of {self._conversation_id!r} was closed; open it again with `ConversationClient.open`"
        return InvalidInputError(f"conversation: {reason}", field="conversation")

    def check(self) -> None:
        """Raise `InvalidInputError` if the handle is closed."""
        if self.is_over:
            raise self.refusal()

    async def unless_over(self, waited: Coroutine[Any, Any, Value]) -> Value:
        """Return or raise what `waited` does. Raises `InvalidInputError` if the handle is closed before that."""
        work, ending = asyncio.create_task(waited), asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait({work, ending}, return_when=asyncio.FIRST_COMPLETED)
            is_answered = work.done() and not self.is_over
        finally:
            work.cancel()
            ending.cancel()
            await asyncio.gather(work, ending, return_exceptions=True)
        if not is_answered:
            raise self.refusal()
        return work.result()
