"""Everything a handle sends, in order: a bounded queue, and who is told what became of it.

Many appends that nobody waits for go as one (see `client/packing.py`): the owner decides, stores and tells one entry
instead of hundreds. Such a group is all or nothing. If it is refused, its appends are sent again one by one, to find
out which of them is at fault; what came after the group has waited, and follows them. How all of it is sent, and sent
again, is told in `client/delivery.py`.
"""

import asyncio
import logging
import time
from collections import deque

from conversation_actors.client.batch import late
from conversation_actors.client.delivery import Delivery, Send
from conversation_actors.client.digest import digest_of
from conversation_actors.client.packing import Queued, size_of
from conversation_actors.client.refusals import Refusals
from conversation_actors.errors import (
    ClusterUnavailableError,
    ConversationError,
    OutcomeUnknownError,
    OverloadedError,
    RetryableError,
)
from conversation_actors.failures import Failures
from conversation_actors.protocol import Done, Reply, Seen
from conversation_actors.settings import Settings
from conversation_actors.state import (
    Command,
    Guard,
)
from conversation_actors.timing import TIMING, Timing

logger = logging.getLogger(__name__)

OUTBOX_BYTES = 64 << 20
"""Bytes of commands that wait, beside the number that `Settings.outbox_items` bounds."""


class Outbox:
    """A bounded queue of commands and the task that sends it."""

    def __init__(
        self, send: Send, settings: Settings, failures: Failures | None = None, *, timing: Timing = TIMING
    ) -> None:
        """Send with `send`.

        It takes requests, a number of seconds and what makes the turn of each attempt, and returns the owner's
        `Executed`.
        """
        self._timing, self._most = timing, settings.outbox_items
        self._command_seconds = settings.timeouts.command.total_seconds()
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Queued] = deque()
        self._delivery = Delivery(
            self._queue,
            send,
            settings,
            settle=self._settle,
            on_progress=self._note_progress,
            failures=failures or Failures(timing=timing),
            timing=timing,
        )
        self._closed: ConversationError | None = None
        self._size = 0
        self._last_number = 0
        self._settled_through = 0
        self._progress = asyncio.Event()
        self._refused = Refusals()

    @property
    def trouble(self) -> RetryableError | None:
        """Why a batch on its way is being repeated; None while all is well."""
        return self._delivery.trouble

    def __len__(self) -> int:
        """Commands that are not settled yet."""
        return self._last_number - self._settled_through

    def put(self, command: Command, *, lease: Guard | None = None) -> None:
        """Queue a command that nobody waits for; `flush` tells what became of it. Raises `OverloadedError`."""
        task = asyncio.current_task(self._loop)
        self._put(command, None, lease, None, None).owner = task
        self._refused.note_putter(task)

    async def ask(
        self,
        command: Command,
        request_id: str | None,
        *,
        lease: Guard | None = None,
        seen: Seen | None = None,
        digest: str | None = None,
    ) -> Done:
        """Queue a command and wait for its answer. `seen`: see `Request`. `digest`: see `_put`.

        Raises the owner's refusal; `OverloadedError` when the queue is full; `OutcomeUnknownError` when
        `timeouts.command` is over and it had been sent, or the reason why it could not be.
        """
        answer: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        seconds = self._command_seconds
        queued = self._put(command, request_id, lease, time.monotonic() + seconds, answer, digest=digest)
        queued.seen = seen
        try:
            # The batch it is in looks after the deadline; this is for what waits for a batch that doesn't end.
            async with asyncio.timeout(seconds + self._timing.outbox_grace):
                return await answer
        except TimeoutError:
            raise late(queued, self.trouble) from self.trouble

    async def flush(self) -> None:
        """Return when everything put so far is settled.

        Raises the first refusal (of a command that was put before this, and that nobody waited for) which this
        task has not been told of yet, if this task has put the command, if a flush of this task was waiting for it, or
        if nobody at all was told; or `OutcomeUnknownError` after `timeouts.command`: what is queued stays queued.
        """
        target, task = self._last_number, asyncio.current_task()
        assert task is not None  # asyncio.timeout needs one as well
        seconds = self._command_seconds
        try:
            with self._refused.flushing(task, target):
                async with asyncio.timeout(seconds):
                    while self._settled_through < target:
                        await self._progress.wait()
        except TimeoutError:
            message = f"{len(self)} commands are not acknowledged after {seconds} s ({self.trouble or 'no answer'})"
            raise OutcomeUnknownError(message) from self.trouble
        self._refused.raise_for(task, target)

    async def run(self) -> None:
        """Send what comes, until cancelled; see `Delivery.run`."""
        await self._delivery.run()

    def close(self, error: ConversationError) -> None:
        """Answer `error` to everybody who comes, and to who still waits what became of it; `run` must have ended."""
        self._closed = error
        reason = self.trouble or "no answer"
        for queued in (*self._delivery.abandon(), *self._queue):
            if queued.sent:
                left: RetryableError = OutcomeUnknownError(f"closed before it was acknowledged ({reason})")
            else:
                left = ClusterUnavailableError(f"closed before it was sent ({reason})")
            self._settle(queued, left)
        self._queue.clear()
        self._note_progress()

    def _put(
        self,
        command: Command,
        request_id: str | None,
        lease: Guard | None,
        deadline: float | None,
        answer: asyncio.Future[Done] | None,
        *,
        digest: str | None = None,
    ) -> Queued:
        """Queue a command. `digest` is that of what its caller has given, if the command says the same otherwise."""
        if self._closed is not None:
            raise self._closed
        size = size_of(command)
        if self._last_number - self._settled_through >= self._most or self._size + size > OUTBOX_BYTES:
            message = f"{len(self)} commands ({self._size} bytes) wait to be sent; nothing was taken"
            raise OverloadedError(message)
        digest = None if request_id is None else digest or digest_of(command)
        number = self._last_number + 1
        queued = Queued(number, command, request_id, lease, size, deadline, answer, digest=digest)
        self._queue.append(queued)
        self._last_number = number
        self._size += size
        self._delivery.rouse()
        return queued

    def _settle(self, queued: Queued, reply: Reply | None) -> None:
        if queued.settled:
            return
        queued.settled = True
        owner, queued.owner = queued.owner, None  # batches are looked at for longer than a task may live
        self._size -= queued.size
        if queued.answer is None:
            if isinstance(reply, ConversationError):
                self._refused.add(queued.number, reply, owner=owner)
                logger.warning("a recorded item was refused", extra={"reason": type(reply).__name__})
            return
        if queued.answer.done():
            return
        if isinstance(reply, ConversationError):
            queued.answer.set_exception(reply)
        elif reply is not None:
            queued.answer.set_result(reply)

    def _note_progress(self) -> None:
        first = self._delivery.first_number or (self._queue[0].number if self._queue else None)
        self._settled_through = self._last_number if first is None else first - 1
        progress, self._progress = self._progress, asyncio.Event()
        progress.set()
