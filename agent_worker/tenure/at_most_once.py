"""What an application does at most once in a conversation's life, as its job asks for it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from agent_worker.tenure.once import Held, Mark, Marks, Todo, mark_name
from agent_worker.tenure.opening import Opening
from agent_worker.tenure.standing import Standing
from agent_worker.timing import TIMING, Timing


class AtMostOnce:
    """Waits for the conversation, marks that something begins, and what became of it: see `CallConversation.once`."""

    def __init__(self, standing: Standing, marks: Marks, opening: Opening, *, timing: Timing = TIMING) -> None:
        """Take the conversation's `marks`."""
        self._standing, self._marks, self._opening, self._timing = standing, marks, opening, timing

    @asynccontextmanager
    async def do(self, name: str) -> AsyncIterator[Todo]:
        """Enclose what is done once; a body that raises an `Exception` has not done it."""
        mark = Mark(mark_name(name), self._standing.holder)
        await self._opening.until_told_whose()
        todo = await self._marks.begin(mark, self._held_now)
        if not todo:
            yield todo
            return
        try:
            yield todo
        except Exception:
            await self._settle(mark, None)
            raise
        await self._settle(mark, mark.done)

    def _held_now(self) -> Held | None:
        return None if self._standing.is_closing else self._standing.held_to_tell

    async def _settle(self, mark: Mark, value: Mapping[str, Any] | None) -> None:
        """Say what became of it; returns when that is durable, or after a while: it is told as soon as it can be."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timing.flush):
                await self._marks.settle(mark, value)
