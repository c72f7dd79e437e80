"""Everything a handle sends, in order, one batch at a time.

While a batch is on its way the next one gathers. A batch is repeated, with the same request ids, until each of its
commands is answered or its caller's time is up: so a crash of the owner in between neither loses nor doubles nor
reorders anything. How these repeats go with those of a call is told in `client/owner.py`.

Many appends that nobody waits for go as one (see `client/packing.py`): the owner decides, stores and tells one entry
instead of hundreds. Such a group is all or nothing. If it is refused, its appends are sent again one by one, to find
out which of them is at fault; what came after the group has waited, and follows them.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import count

from conversation_actors.backoff import Backoff
from conversation_actors.client.digest import digest_of
from conversation_actors.client.packing import GROUP_LEAST, Packer, Parcel, Queued, queued_in, size_of
from conversation_actors.client.refusals import Refusals
from conversation_actors.errors import (
    ClusterUnavailableError,
    ConversationError,
    OutcomeUnknownError,
    OverloadedError,
    OwnerFailedError,
    RefusedError,
    RetryableError,
)
from conversation_actors.failures import Failures
from conversation_actors.protocol import Done, Executed, Reply, Request, Seen
from conversation_actors.settings import Settings
from conversation_actors.state import (
    Command,
    Guard,
)
from conversation_actors.state.facts import MIN_REQUESTS
from conversation_actors.timing import TIMING, Timing

logger = logging.getLogger(__name__)

BATCH_COMMANDS = 2000
BATCH_BYTES = 512 << 10
"""Bounds of one call to the owner, beside `MIN_REQUESTS`."""
OUTBOX_BYTES = 64 << 20
"""Bytes of commands that wait, beside the number that `Settings.outbox_items` bounds."""

Send = Callable[[Sequence[Request], float], Awaitable[Executed]]


class Outbox:
    """A bounded queue of commands and the task that sends it."""

    def __init__(
        self, send: Send, settings: Settings, failures: Failures | None = None, *, timing: Timing = TIMING
    ) -> None:
        """Send with `send`, which takes requests and a number of seconds, and returns the owner's `Executed`."""
        self._send, self._settings, self._timing = send, settings, timing
        self._failures = failures or Failures(timing=timing)
        self._taken: list[Queued] = []
        self._most = settings.outbox_items
        self._packer = Packer(settings)
        self._write_seconds = settings.timeouts.write.total_seconds()
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Queued] = deque()
        self._batch: Sequence[Parcel] = ()
        self._closed: ConversationError | None = None
        self._size = 0
        self._numbers = count(1)
        self._last_number = 0
        self._settled_through = 0
        self._progress = asyncio.Event()
        self._wake = asyncio.Event()
        self._refused = Refusals()
        self.trouble: RetryableError | None = None
        """Why the batch on its way is being repeated; None while all is well."""

    def __len__(self) -> int:
        """Commands that are not settled yet."""
        return self._last_number - self._settled_through

    def put(self, command: Command, *, lease: Guard | None = None) -> None:
        """Queue a command that nobody waits for; `flush` tells what became of it. Raises `OverloadedError`."""
        task = asyncio.current_task(self._loop)
        self._put(command, None, lease, None, None).owner = task
        self._refused.note_putter(task)

    async def ask(
        self, command: Command, request_id: str | None, *, lease: Guard | None = None, seen: Seen | None = None
    ) -> Done:
        """Queue a command and wait for its answer. `seen`: see `Request`.

        Raises the owner's refusal; `OverloadedError` when the queue is full; `OutcomeUnknownError` when
        `timeouts.command` is over and it had been sent, or the reason why it could not be.
        """
        answer: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        seconds = self._settings.timeouts.command.total_seconds()
        queued = self._put(command, request_id, lease, time.monotonic() + seconds, answer)
        queued.seen = seen
        try:
            # The batch it is in looks after the deadline; this is for what waits for a batch that doesn't end.
            async with asyncio.timeout(seconds + self._timing.outbox_grace):
                return await answer
        except TimeoutError:
            raise self._late(queued) from self.trouble

    async def flush(self) -> None:
        """Return when everything put so far is settled.

        Raises the first refusal (of a command that was put before this, and that nobody waited for) which this
        task has not been told of yet, if this task has put the command, if a flush of this task was waiting for it, or
        if nobody at all was told; or `OutcomeUnknownError` after `timeouts.command`: what is queued stays queued.
        """
        target, task = self._last_number, asyncio.current_task()
        assert task is not None  # asyncio.timeout needs one as well
        seconds = self._settings.timeouts.command.total_seconds()
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
        """Send what comes, until cancelled.

        A failure that nobody foresaw is counted as `sending`, and told to whoever's commands were on their way; what
        comes after them goes on.
        """
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                try:
                    self._batch = self._next_batch()
                    if self._batch:
                        await self._deliver(self._batch)
                except Exception as error:  # noqa: BLE001  # what comes after it must not wait for ever
                    self._give_up(error)
                self._note_progress()

    def _give_up(self, error: Exception) -> None:
        """Tell those whose commands have left the queue that they may have happened."""
        self._failures.note("sending", error)
        self.trouble = None
        if not self._taken:
            self._taken.append(self._queue.popleft())  # or it would fail for ever
        for queued in self._taken:
            self._settle(queued, OwnerFailedError(f"sending failed: {error!r}"))

    def close(self, error: ConversationError) -> None:
        """Answer `error` to everybody who comes, and to who still waits what became of it; `run` must have ended."""
        self._closed = error
        reason = self.trouble or "no answer"
        for queued in (*queued_in(self._batch), *self._queue):
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
    ) -> Queued:
        if self._closed is not None:
            raise self._closed
        size = size_of(command)
        if self._last_number - self._settled_through >= self._most or self._size + size > OUTBOX_BYTES:
            message = f"{len(self)} commands ({self._size} bytes) wait to be sent; nothing was taken"
            raise OverloadedError(message)
        digest = None if request_id is None else digest_of(command)
        number = next(self._numbers)
        queued = Queued(number, command, request_id, lease, size, deadline, answer, digest=digest)
        self._queue.append(queued)
        self._last_number = number
        self._size += size
        self._wake.set()
        return queued

    def _next_batch(self) -> list[Parcel]:
        self._taken = []
        batch: list[Parcel] = []
        run = self._packer.run()
        count = size = 0
        # A run that is no group makes up to that many requests.
        while self._queue and count < BATCH_COMMANDS and len(batch) <= MIN_REQUESTS - GROUP_LEAST:
            first = self._queue[0]
            if count and size + first.size > BATCH_BYTES:
                break
            self._taken.append(self._queue.popleft())
            if first.answer is not None and first.answer.cancelled():
                self._settle(first, None)  # its caller left before it was sent: it never happened
                continue
            first.sent = True
            count += 1
            size += first.size
            if not run.take(first):
                batch += self._packer.parcels(run)
                run = self._packer.run()
                if not run.take(first):
                    batch.append(self._packer.single(first))
        return batch + self._packer.parcels(run)

    async def _deliver(self, batch: Sequence[Parcel]) -> None:
        """Repeat until every command of the batch is settled."""
        backoff = Backoff(self._timing.outbox)
        while batch:
            # No more than the smallest request memory holds, which a refused group that is sent singly may be.
            requests = [parcel.request for parcel in batch[:MIN_REQUESTS]]
            seconds = self._seconds_for(batch)
            try:
                executed = await self._send(requests, seconds)
            except RetryableError as error:
                # Cut short by a deadline, an attempt has nothing to say: what the owner said before stands.
                is_short = isinstance(error, ClusterUnavailableError) and seconds < self._write_seconds
                self.trouble = (self.trouble if is_short else None) or error
            except ConversationError as error:
                self._settle_all(batch, error)
            except Exception as error:  # noqa: BLE001  # what comes after it must not wait for ever
                self._failures.note("sending", error)
                self._settle_all(batch, OwnerFailedError(f"the call failed: {error!r}"))
            else:
                batch = self._answered(batch, executed.replies)
            self._expire(batch)
            batch = [parcel for parcel in batch if not all(queued.settled for queued in parcel.queued)]
            if batch and self.trouble:
                await backoff.wait()
        self.trouble = None

    def _answered(self, batch: Sequence[Parcel], replies: Sequence[Reply]) -> list[Parcel]:
        """Settle what is decided; return, in order, what is to be sent once more."""
        self.trouble = None
        left: list[Parcel] = []
        for parcel, reply in zip(batch, replies, strict=False):
            if isinstance(reply, RetryableError):
                self.trouble = reply
                left.append(parcel)
            elif parcel.request.is_group and isinstance(reply, RefusedError):
                left.extend(map(self._packer.single, parcel.queued))
            else:
                self._settle_all([parcel], reply)
        return [*left, *batch[len(replies) :]]

    def _settle_all(self, parcels: Sequence[Parcel], reply: Reply) -> None:
        for queued in queued_in(parcels):
            self._settle(queued, reply)

    def _seconds_for(self, batch: Sequence[Parcel]) -> float:
        """How long the owner may be looked for: until the first of those who wait gives up."""
        most = self._settings.timeouts.command.total_seconds()
        deadlines = [queued.deadline for queued in queued_in(batch) if queued.deadline is not None]
        return max(min([most, *(deadline - time.monotonic() for deadline in deadlines)]), 0.05)

    def _expire(self, batch: Sequence[Parcel]) -> None:
        now = time.monotonic()
        for queued in queued_in(batch):
            if not queued.settled and queued.deadline is not None and now >= queued.deadline:
                error = self._late(queued)
                error.__cause__ = self.trouble
                self._settle(queued, error)

    def _late(self, queued: Queued) -> RetryableError:
        """Return what to tell a caller whose time is up."""
        if queued.sent:
            return OutcomeUnknownError(
                f"no acknowledgement in time ({self.trouble or 'no answer'}); it may have happened"
            )
        kind = ClusterUnavailableError if self.trouble is None else type(self.trouble)
        return kind(f"not sent, because what was sent before is not answered ({self.trouble or 'no answer'})")

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
        self._settled_through = self._queue[0].number - 1 if self._queue else self._last_number
        progress, self._progress = self._progress, asyncio.Event()
        progress.set()
