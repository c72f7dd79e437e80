"""The output gate: nothing leaves an activation before the state it speaks of is durable."""

import asyncio
from collections import deque

from conversation_actors.errors import ConversationError


class OutputGate:
    """Holds answers until the position they speak of is durable; opened by the committer alone."""

    def __init__(self, seq: int) -> None:
        """Begin with everything up to `seq` durable."""
        self.durable_seq = seq
        self._closed: ConversationError | None = None
        # In the order of `seq`: positions are handed out by one decider and never go back.
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def __len__(self) -> int:
        """Return the number of answers that are held."""
        return len(self._waiting)

    async def passed(self, seq: int) -> None:
        """Return when `seq` is durable. Raises what the gate was closed with."""
        if seq <= self.durable_seq:
            return
        if self._closed is not None:
            raise self._closed
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((seq, future))
        await future

    def open_to(self, seq: int) -> None:
        """Let out every answer that speaks of `seq` or before."""
        self.durable_seq = seq
        while self._waiting and self._waiting[0][0] <= seq:
            _, future = self._waiting.popleft()
            if not future.done():  # done: its caller has given up
                future.set_result(None)

    def close(self, error: ConversationError) -> None:
        """Answer `error` to all who wait, and to all who come: nothing more will become durable here."""
        self._closed = error
        while self._waiting:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)
