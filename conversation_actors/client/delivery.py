"""Batches of queued commands on their way to the owner: two at most, each repeated until it is answered.

A batch is repeated, with the same request ids, until each of its commands is answered or its caller's time is up: so a
crash of the owner in between neither loses nor doubles nor reorders anything. How these repeats go with those of a
call is told in `client/owner.py`.

The second batch follows while the first one is on its way, so that neither side waits for the other. Each attempt says
which attempt of the first batch must have happened before it (`Turn`), and an owner to which that has not happened
decides nothing. Then the second batch waits until the first one is settled, and goes once more. What is repeated for
any other reason waits for that as well, and nothing new follows a batch that is being repeated.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import count

from conversation_actors.backoff import Backoff
from conversation_actors.client.batch import Batch, late
from conversation_actors.client.packing import GROUP_LEAST, Packer, Parcel, Queued, queued_in
from conversation_actors.errors import (
    ClusterUnavailableError,
    ConversationError,
    OwnerFailedError,
    RefusedError,
    RetryableError,
)
from conversation_actors.failures import Failures
from conversation_actors.protocol import Executed, Reply, Request, Turn
from conversation_actors.settings import Settings
from conversation_actors.state.facts import MIN_REQUESTS
from conversation_actors.timing import Timing

logger = logging.getLogger(__name__)

BATCH_COMMANDS = 2000
BATCH_BYTES = 512 << 10
"""Bounds of one call to the owner, beside `MIN_REQUESTS`."""
MOST_UNDER_WAY = 2

Send = Callable[[Sequence[Request], float, Callable[[], Turn]], Awaitable[Executed]]
Settle = Callable[[Queued, Reply | None], None]


class Delivery:
    """Takes commands out of the outbox's queue, in order, and has each of them settled."""

    def __init__(
        self,
        queue: deque[Queued],
        send: Send,
        settings: Settings,
        *,
        settle: Settle,
        on_progress: Callable[[], None],
        failures: Failures,
        timing: Timing,
    ) -> None:
        """Tell `settle` what became of each command, and call `on_progress` whenever a batch is settled."""
        self._queue, self._send, self._settle, self._on_progress = queue, send, settle, on_progress
        self._failures, self._timing = failures, timing
        self._write_seconds = settings.timeouts.write.total_seconds()
        self._most_seconds = settings.timeouts.command.total_seconds()
        self._packer = Packer(settings)
        self._numbers = count(1)
        self._under_way: list[Batch] = []
        self._idle: deque[asyncio.Event] = deque()
        self._progress = asyncio.Event()

    @property
    def trouble(self) -> RetryableError | None:
        """Why the oldest batch that is being repeated is; None while all is well."""
        return next((batch.trouble for batch in self._under_way if batch.trouble is not None), None)

    def abandon(self) -> list[Queued]:
        """Return, in order, the commands that have left the queue, and forget them; `run` is ending."""
        left, self._under_way = [queued for batch in self._under_way for queued in batch.taken], []
        return left

    @property
    def first_number(self) -> int | None:
        """The number of the first command that has left the queue and may not be settled; None if all are."""
        return next((batch.taken[0].number for batch in self._under_way if batch.taken), None)

    async def run(self) -> None:
        """Send what comes, until cancelled.

        A failure that nobody foresaw is counted as `sending`, and told to whoever's commands were on their way; what
        comes after them goes on.
        """
        others = [asyncio.create_task(self._send_all()) for _ in range(MOST_UNDER_WAY - 1)]
        try:
            await self._send_all()
        finally:
            for other in others:
                other.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    def rouse(self) -> None:
        """Something may be sent: have it sent by one that has nothing to do."""
        if self._idle and self._may_send():
            self._idle.popleft().set()

    def _may_send(self) -> bool:
        if not self._queue or len(self._under_way) >= MOST_UNDER_WAY:
            return False
        return all(batch.may_be_followed for batch in self._under_way) and self._requests_left() >= GROUP_LEAST

    def _requests_left(self) -> int:
        """Return how many requests may be sent now.

        With those on their way they are no more than the smallest request memory holds: all may have to be recognised.
        """
        return MIN_REQUESTS - sum(len(batch.parcels) for batch in self._under_way)

    async def _send_all(self) -> None:
        """Deliver one batch after the other."""
        wake = asyncio.Event()
        self._idle.append(wake)
        self.rouse()  # what was put before this ran
        while True:
            await wake.wait()
            wake.clear()
            while self._may_send():
                batch = Batch(self._under_way[-1] if self._under_way else None)
                most = self._requests_left()
                self._under_way.append(batch)
                try:
                    self._fill(batch, most)
                    await self._deliver(batch)
                except Exception as error:  # noqa: BLE001  # what comes after it must not wait for ever
                    self._give_up(batch, error)
                self._finish(batch)
            self._idle.append(wake)

    def _finish(self, batch: Batch) -> None:
        self._under_way = [other for other in self._under_way if other is not batch]
        for later in self._under_way:
            later.before = None
        progress, self._progress = self._progress, asyncio.Event()
        progress.set()
        self._on_progress()

    def _give_up(self, batch: Batch, error: Exception) -> None:
        """Tell those whose commands have left the queue that they may have happened."""
        self._failures.note("sending", error)
        if not batch.taken:
            batch.taken.append(self._queue.popleft())  # or it would fail for ever
        for queued in batch.taken:
            self._settle(queued, OwnerFailedError(f"sending failed: {error!r}"))

    def _fill(self, batch: Batch, most: int) -> None:
        """Take commands from the queue into the batch, as many as make `most` requests."""
        parcels, run = batch.parcels, self._packer.run()
        number = size = 0
        # A run that is no group makes up to that many requests.
        while self._queue and number < BATCH_COMMANDS and len(parcels) <= most - GROUP_LEAST:
            first = self._queue[0]
            if number and size + first.size > BATCH_BYTES:
                break
            batch.taken.append(self._queue.popleft())
            if first.answer is not None and first.answer.cancelled():
                self._settle(first, None)  # its caller left before it was sent: it never happened
                continue
            first.sent = True
            number += 1
            size += first.size
            if not run.take(first):
                parcels += self._packer.parcels(run)
                run = self._packer.run()
                if not run.take(first):
                    parcels.append(self._packer.single(first))
        parcels += self._packer.parcels(run)

    async def _deliver(self, batch: Batch) -> None:
        """Repeat until every command of the batch is settled."""
        backoff = Backoff(self._timing.outbox)
        while batch.parcels:
            if batch.is_repeated and batch.before is not None:
                await self._wait_for_turn(batch)
                if not batch.parcels:
                    return
            # No more than the smallest request memory holds, which a refused group that is sent singly may be.
            parcels = batch.parcels[:MIN_REQUESTS]
            is_first = batch.before is None
            has_replies = await self._attempt(batch, parcels)
            self._expire(batch)
            batch.is_repeated = True
            if batch.parcels and (batch.trouble or (is_first and not has_replies)):
                await backoff.wait()

    async def _attempt(self, batch: Batch, parcels: Sequence[Parcel]) -> bool:
        """Send once; return whether the owner has decided anything of it, or says why not."""
        seconds = self._seconds_for(batch)

        def turn() -> Turn:
            is_sent = batch.number > 0
            made = batch.compose_turn(self._packer.name, self._numbers)
            if not is_sent:
                self.rouse()  # from now on another one may follow
            return made

        try:
            executed = await self._send([parcel.request for parcel in parcels], seconds, turn)
        except RetryableError as error:
            # Cut short by a deadline, an attempt has nothing to say: what the owner said before stands.
            is_short = isinstance(error, ClusterUnavailableError) and seconds < self._write_seconds
            batch.trouble = (batch.trouble if is_short else None) or error
        except ConversationError as error:
            self._settle_all(batch.parcels, error)
        except Exception as error:  # noqa: BLE001  # what comes after it must not wait for ever
            self._failures.note("sending", error)
            self._settle_all(batch.parcels, OwnerFailedError(f"the call failed: {error!r}"))
        else:
            batch.trouble = None
            self._take_replies(batch, executed.replies)
            return bool(executed.replies)
        return True

    async def _wait_for_turn(self, batch: Batch) -> None:
        """Return when the batch before is settled, or nobody waits for this one any more."""
        while batch.before is not None and batch.parcels:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds_for(batch)):
                    await self._progress.wait()
            self._expire(batch)

    def _take_replies(self, batch: Batch, replies: Sequence[Reply]) -> None:
        """Settle what is decided; leave, in order, what is to be sent once more."""
        left: list[Parcel] = []
        for parcel, reply in zip(batch.parcels, replies, strict=False):
            if isinstance(reply, RetryableError):
                batch.trouble = reply
                left.append(parcel)
            elif parcel.request.is_group and isinstance(reply, RefusedError):
                left.extend(map(self._packer.single, parcel.queued))
            else:
                self._settle_all([parcel], reply)
        if replies:
            batch.is_whole = False
            batch.parcels = [*left, *batch.parcels[len(replies) :]]

    def _settle_all(self, parcels: Sequence[Parcel], reply: Reply) -> None:
        for queued in queued_in(parcels):
            self._settle(queued, reply)

    def _seconds_for(self, batch: Batch) -> float:
        """How long the owner may be looked for: until the first of those who wait gives up."""
        deadlines = [queued.deadline for queued in queued_in(batch.parcels) if queued.deadline is not None]
        left = min(deadlines) - time.monotonic() if deadlines else self._most_seconds
        return max(min(self._most_seconds, left), 0.05)

    def _expire(self, batch: Batch) -> None:
        """Answer those whose time is up, and drop what is settled."""
        now, reason = time.monotonic(), batch.trouble or self.trouble
        for queued in queued_in(batch.parcels):
            if not queued.settled and queued.deadline is not None and now >= queued.deadline:
                error = late(queued, reason)
                error.__cause__ = reason
                self._settle(queued, error)
        unsettled = [parcel for parcel in batch.parcels if not all(queued.settled for queued in parcel.queued)]
        batch.is_whole = batch.is_whole and len(unsettled) == len(batch.parcels)
        batch.parcels = unsettled
