"""A client's wish to be told entries as they come, and what its line owes to it."""

import asyncio
from typing import Protocol

from conversation_actors.activation.journal import fitting
from conversation_actors.backoff import Backoff
from conversation_actors.errors import ConversationError, PositionLostError
from conversation_actors.line.answerer import Answerer
from conversation_actors.line.frames import FrameTooLargeError
from conversation_actors.line.messages import Ended, Push, Subscribe, ToClient
from conversation_actors.protocol import Seen
from conversation_actors.timing import Timing

PUSH_BYTES = 256 << 10
"""Entries in one push; one entry that is larger is pushed alone."""
MOST_CREDIT = 64
"""Pushes that a client may ask for ahead."""


class Outlet(Protocol):
    """The way to the client."""

    async def writable(self) -> None:
        """Return when the client takes what it is sent."""

    def send(self, message: ToClient) -> None:
        """Send, or drop it if nobody is there any more. Raises `FrameTooLargeError`."""


class Subscription:
    """What is pushed to one watcher, from its position on.

    No entries are queued here: the journal is the queue. A client that takes nothing costs one push at most, and is
    told that its position is lost if it begins again too late.
    """

    def __init__(self, asked: Subscribe, host: Answerer, outlet: Outlet, *, timing: Timing) -> None:
        """Take what was asked for; `run` does it."""
        self.number, self.watcher = asked.subscription, asked.watcher
        self._position, self._seen = asked.after_seq, asked.seen
        self.task: asyncio.Task[None] | None = None
        """What runs it, once something does."""
        self._credit = 0
        self._has_credit = asyncio.Event()
        self._host, self._outlet, self._timing = host, outlet, timing
        self.allow(asked.credit)

    def allow(self, credit: int) -> None:
        """Let so many more pushes leave before the client has to ask again."""
        self._credit = min(self._credit + credit, MOST_CREDIT)
        if self._credit > 0:
            self._has_credit.set()

    def has_reached(self, position: int, seen: Seen) -> None:
        """Push nothing up to a position of the history `seen`: the client has got there by another way."""
        if position > self._position and seen.life == self._seen.life:
            self._position, self._seen = position, seen

    async def run(self) -> None:
        """Push until cancelled, or until the host answers with an error, which the client is told."""
        crowded = Backoff(self._timing.line_crowded)
        loop = asyncio.get_running_loop()
        while True:
            while not self._credit:
                await self._has_credit.wait()
            await self._outlet.writable()
            began, asked = loop.time(), self._position
            polled = await self._host.poll(self.watcher, asked, self._seen, self._timing.line_poll)
            known = self._position - asked  # entries that the client has got by another way meanwhile
            if isinstance(polled, ConversationError):
                if known and isinstance(polled, PositionLostError):
                    continue
                self._outlet.send(Ended(self.number, polled))
                return
            if polled.entries:
                crowded.reset()
                if not self._push(polled.entries[known:], polled.owner):
                    return
            elif loop.time() - began < self._timing.line_poll:
                # Another poll of the same watcher took this one's place: two that are asked for at once must not do
                # nothing else.
                await crowded.wait()

    def _push(self, following: tuple[bytes, ...], owner: str) -> bool:
        """Push the first of these entries, if there are any; False if a line cannot carry the next one."""
        if not following:
            return True
        entries = fitting(following, PUSH_BYTES)
        try:
            self._outlet.send(Push(self.number, self._position, entries, owner))
        except FrameTooLargeError as error:
            # The state as a whole comes by Ray's call, if it has to.
            lost = PositionLostError(str(error), first_available=self._position + 1)
            self._outlet.send(Ended(self.number, lost))
            return False
        self._position += len(entries)
        self._seen = Seen(self._seen.life, owner)
        self._credit -= 1
        if not self._credit:
            self._has_credit.clear()
        return True
