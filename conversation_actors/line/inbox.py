"""What an owner has pushed for one watcher and nobody has taken yet: bounded, in order, and without a gap."""

import asyncio
from collections import deque

from conversation_actors.errors import ConversationError
from conversation_actors.line.frames import FrameError
from conversation_actors.line.messages import Push
from conversation_actors.protocol import Polled, Seen

CREDIT = 8
"""Pushes that an owner may send ahead of who takes them."""
_AGAIN = CREDIT // 2
"""Pushes that are taken before the owner is told: a message for each one would be as many as the pushes."""


class Inbox:
    """The client's side of a subscription. Belongs to one event loop."""

    def __init__(self, number: int, watcher: str, *, after_seq: int, seen: Seen) -> None:
        """Begin empty, with entries after a position of the history `seen` to come."""
        self.number, self.watcher = number, watcher
        self.error: ConversationError | None = None
        """Why nothing comes any more."""
        self._seen, self._position = seen, after_seq
        self._reached = 0
        self._pushes: deque[Push] = deque()
        self._taken = 0
        self._waiter: asyncio.Future[bool] | None = None

    def leads_on(self, after_seq: int, seen: Seen, *, owner: str | None) -> bool:
        """Whether what comes here follows a position of the history `seen`. `owner` is who pushes, if that is known."""
        position = self._pushes[0].after_seq if self._pushes else self._position
        is_known = seen.owner in {self._seen.owner, owner}
        return seen.life == self._seen.life and is_known and position <= max(after_seq, self._reached)

    def has_reached(self, position: int, seen: Seen) -> None:
        """Expect nothing up to a position of the history `seen`: the owner was told that the watcher has got there."""
        if position > self._reached and seen.life == self._seen.life:
            self._reached = position

    def put(self, push: Push) -> None:
        """Take what the owner has pushed. Raises `FrameError` if it pushes more than it may."""
        if len(self._pushes) + self._taken >= CREDIT:
            message = f"more than {CREDIT} pushes that were not asked for"
            raise FrameError(message)
        self._pushes.append(push)
        self._wake(is_news=True)

    def end(self, error: ConversationError) -> None:
        """Let whoever waits, or will wait, know why nothing comes any more."""
        self.error = error
        self._wake(is_news=True)

    def take(self, after_seq: int) -> Polled | None:
        """Return the next entries after a position that `leads_on` was asked about; None if none are here.

        A watcher that `has_reached` a later position has the entries up to there already.
        """
        after_seq = max(after_seq, self._reached)
        while self._pushes and self._pushes[0].after_seq <= after_seq:
            push = self._pushes.popleft()
            self._taken += 1
            self._position = push.after_seq + len(push.entries)
            entries = push.entries[after_seq - push.after_seq :]
            if entries:  # else all of it came by another way
                return Polled(entries, push.owner)
        return None

    def credit(self) -> int:
        """Return how many pushes the owner may be told to send more; 0 while that is not worth a message."""
        if self._taken < _AGAIN:
            return 0
        taken, self._taken = self._taken, 0
        return taken

    async def news(self, seconds: float) -> bool:
        """Return True when something has come, or False after so many `seconds`, or when somebody else waits.

        Raises what `fail` is told.
        """
        self._wake(is_news=False)
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiter = waiter
        ending = loop.call_later(seconds, _settle, waiter, False)
        try:
            return await waiter
        finally:
            ending.cancel()
            if self._waiter is waiter:
                self._waiter = None

    def fail(self, error: Exception) -> None:
        """Raise `error` where news are waited for."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    def _wake(self, *, is_news: bool) -> None:
        if self._waiter is not None:
            _settle(self._waiter, is_news)


def _settle(waiter: "asyncio.Future[bool]", is_news: bool) -> None:  # noqa: FBT001  # as `call_later` hands it on
    if not waiter.done():
        waiter.set_result(is_news)
