"""Everything a handle sends, in order, one batch at a time.

While a batch is on its way the next one gathers. A batch is repeated, with the same request ids, until
each of its commands is answered or its caller's time is up: so a crash of the owner in between neither
loses nor doubles nor reorders anything.

Many appends that nobody waits for go as one: for the owner that is one entry to decide, store and tell
of, instead of hundreds. Such a group is all or nothing, so if it is refused, its appends are sent again one
by one, to find out which of them is at fault; what is behind it has waited, and follows them.
"""

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count

from conversation_actors.backoff import Backoff
from conversation_actors.client.digest import digest_of
from conversation_actors.client.refusals import Refusals, Task
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
from conversation_actors.items import StoredItem, bytes_of
from conversation_actors.protocol import Done, Executed, Reply, Request, Seen
from conversation_actors.settings import Settings
from conversation_actors.state import (
    AppendItems,
    Command,
    Guard,
    JoinParticipant,
    SetAttributes,
    SetSummary,
    UpdateParticipant,
)
from conversation_actors.state.facts import LEAST_REQUESTS, MOST_ITEMS
from conversation_actors.timing import TIMING, Timing
from conversation_actors.values import encode_checked

log = logging.getLogger(__name__)

BATCH_COMMANDS = 2000
BATCH_BYTES = 512 << 10
"""Bounds of one call to the owner, beside `LEAST_REQUESTS`."""
GROUP_LEAST = 8
"""Fewer appends go each by itself: one entry for each is easier to follow, and costs little."""
GROUP_BYTES = 128 << 10
"""Bound of one group, beside the window's own: what is appended at once must not be more than is kept."""
OUTBOX_BYTES = 64 << 20
"""Bytes of commands that wait, beside the number that `Settings.outbox_items` bounds."""

Send = Callable[[Sequence[Request], float], Awaitable[Executed]]


@dataclass(slots=True, eq=False)
class _Queued:
    number: int
    command: Command
    request_id: str | None
    lease: Guard | None
    size: int
    deadline: float | None
    answer: asyncio.Future[Done] | None
    seen: Seen | None = None
    owner: Task | None = None
    digest: str | None = None
    sent: bool = False
    settled: bool = False


@dataclass(frozen=True, slots=True)
class _Parcel:
    """One request, and the commands it stands for: one, or a group of appends."""

    request: Request
    queued: Sequence[_Queued]


def _queued_in(parcels: Sequence[_Parcel]) -> list[_Queued]:
    return [queued for parcel in parcels for queued in parcel.queued]


class _Run:
    """Neighbours that may go as one append: nobody waits for them, and no item is there twice.

    An item that is appended twice in a row is to be seen twice by who watches.
    """

    def __init__(self, most_items: int, most_bytes: int) -> None:
        self.members: list[_Queued] = []
        self.items: list[StoredItem] = []
        self._most_items, self._most_bytes = most_items, most_bytes
        self._size = 0
        self._ids: set[str] = set()

    def take(self, queued: _Queued) -> bool:
        """Take it in, if it may be."""
        command = queued.command
        if queued.answer is not None or not isinstance(command, AppendItems):
            return False
        if self.members and queued.lease != self.members[0].lease:
            return False
        ids = {item.id for item in command.items}
        size = self._size + queued.size
        if size > self._most_bytes or len(self._ids) + len(ids) > self._most_items or not self._ids.isdisjoint(ids):
            return False
        self.members.append(queued)
        self.items += command.items
        self._size = size
        self._ids |= ids
        return True


class Outbox:
    """A bounded queue of commands and the task that sends it."""

    def __init__(
        self, send: Send, settings: Settings, failures: Failures | None = None, *, timing: Timing = TIMING
    ) -> None:
        """Send with `send`, which takes requests and a number of seconds, and returns the owner's `Executed`."""
        self._send, self._settings, self._timing = send, settings, timing
        self._failures = failures or Failures(timing=timing)
        self._taken: list[_Queued] = []
        self._most = settings.outbox_items
        self._group_items = min(settings.history.items, MOST_ITEMS)
        self._group_bytes = min(settings.history.bytes, GROUP_BYTES)
        self._write_seconds = settings.timeouts.write.total_seconds()
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Queued] = deque()
        self._batch: Sequence[_Parcel] = ()
        self._closed: ConversationError | None = None
        self._size = 0
        self._numbers = count(1)
        self._last_number = 0
        self._settled_through = 0
        self._progress = asyncio.Event()
        self._wake = asyncio.Event()
        self._ids = secrets.token_hex(6)
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
            # The batch it is in looks after the deadline; this is for what waits behind a batch that doesn't end.
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
        is behind them goes on.
        """
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                try:
                    self._batch = self._next_batch()
                    if self._batch:
                        await self._deliver(self._batch)
                except Exception as error:  # noqa: BLE001  # what comes behind it must not wait for ever
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
        for queued in (*_queued_in(self._batch), *self._queue):
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
    ) -> _Queued:
        if self._closed is not None:
            raise self._closed
        size = _size_of(command)
        if self._last_number - self._settled_through >= self._most or self._size + size > OUTBOX_BYTES:
            message = f"{len(self)} commands ({self._size} bytes) wait to be sent; nothing was taken"
            raise OverloadedError(message)
        digest = None if request_id is None else digest_of(command)
        number = next(self._numbers)
        queued = _Queued(number, command, request_id, lease, size, deadline, answer, digest=digest)
        self._queue.append(queued)
        self._last_number = number
        self._size += size
        self._wake.set()
        return queued

    def _next_batch(self) -> list[_Parcel]:
        self._taken = []
        batch: list[_Parcel] = []
        run = self._run()
        count = size = 0
        # A run that is no group makes up to that many requests.
        while self._queue and count < BATCH_COMMANDS and len(batch) <= LEAST_REQUESTS - GROUP_LEAST:
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
                batch += self._parcels(run)
                run = self._run()
                if not run.take(first):
                    batch.append(self._single(first))
        return batch + self._parcels(run)

    def _run(self) -> _Run:
        return _Run(self._group_items, self._group_bytes)

    def _parcels(self, run: _Run) -> list[_Parcel]:
        members = run.members
        if len(members) < GROUP_LEAST:
            return [self._single(queued) for queued in members]
        name = f"{self._ids}.{members[0].number}-{members[-1].number}"
        return [_Parcel(Request(name, AppendItems(tuple(run.items)), members[0].lease, is_group=True), members)]

    def _single(self, queued: _Queued) -> _Parcel:
        name = queued.request_id or f"{self._ids}.{queued.number}"
        return _Parcel(Request(name, queued.command, queued.lease, seen=queued.seen, digest=queued.digest), (queued,))

    async def _deliver(self, batch: Sequence[_Parcel]) -> None:
        """Repeat until every command of the batch is settled."""
        backoff = Backoff(self._timing.outbox)
        while batch:
            # No more than the smallest request memory holds, which a refused group that is sent singly may be.
            requests = [parcel.request for parcel in batch[:LEAST_REQUESTS]]
            seconds = self._seconds_for(batch)
            try:
                executed = await self._send(requests, seconds)
            except RetryableError as error:
                # Cut short by a deadline, an attempt has nothing to say: what the owner said before stands.
                is_short = isinstance(error, ClusterUnavailableError) and seconds < self._write_seconds
                self.trouble = (self.trouble if is_short else None) or error
            except ConversationError as error:
                self._settle_all(batch, error)
            except Exception as error:  # noqa: BLE001  # what comes behind it must not wait for ever
                self._failures.note("sending", error)
                self._settle_all(batch, OwnerFailedError(f"the call failed: {error!r}"))
            else:
                batch = self._answered(batch, executed.replies)
            self._expire(batch)
            batch = [parcel for parcel in batch if not all(queued.settled for queued in parcel.queued)]
            if batch and self.trouble:
                await backoff.wait()
        self.trouble = None

    def _answered(self, batch: Sequence[_Parcel], replies: Sequence[Reply]) -> list[_Parcel]:
        """Settle what is decided; return, in order, what is to be sent once more."""
        self.trouble = None
        left: list[_Parcel] = []
        for parcel, reply in zip(batch, replies, strict=False):
            if isinstance(reply, RetryableError):
                self.trouble = reply
                left.append(parcel)
            elif parcel.request.is_group and isinstance(reply, RefusedError):
                left.extend(map(self._single, parcel.queued))
            else:
                self._settle_all([parcel], reply)
        return [*left, *batch[len(replies) :]]

    def _settle_all(self, parcels: Sequence[_Parcel], reply: Reply) -> None:
        for queued in _queued_in(parcels):
            self._settle(queued, reply)

    def _seconds_for(self, batch: Sequence[_Parcel]) -> float:
        """How long the owner may be looked for: until the first of those who wait gives up."""
        most = self._settings.timeouts.command.total_seconds()
        deadlines = [queued.deadline for queued in _queued_in(batch) if queued.deadline is not None]
        return max(min([most, *(deadline - time.monotonic() for deadline in deadlines)]), 0.05)

    def _expire(self, batch: Sequence[_Parcel]) -> None:
        now = time.monotonic()
        for queued in _queued_in(batch):
            if not queued.settled and queued.deadline is not None and now >= queued.deadline:
                error = self._late(queued)
                error.__cause__ = self.trouble
                self._settle(queued, error)

    def _late(self, queued: _Queued) -> RetryableError:
        """What to tell a caller whose time is up."""
        if queued.sent:
            return OutcomeUnknownError(
                f"no acknowledgement in time ({self.trouble or 'no answer'}); it may have happened"
            )
        kind = ClusterUnavailableError if self.trouble is None else type(self.trouble)
        return kind(f"not sent, because what was sent before is not answered ({self.trouble or 'no answer'})")

    def _settle(self, queued: _Queued, reply: Reply | None) -> None:
        if queued.settled:
            return
        queued.settled = True
        owner, queued.owner = queued.owner, None  # batches are looked at for longer than a task may live
        self._size -= queued.size
        if queued.answer is None:
            if isinstance(reply, ConversationError):
                self._refused.add(queued.number, reply, owner=owner)
                log.warning("a recorded item was refused", extra={"reason": type(reply).__name__})
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


def _size_of(command: Command) -> int:
    """Bytes of what may be large in a command."""
    if isinstance(command, AppendItems):  # first: nearly all commands are this one
        return bytes_of(command.items)
    match command:
        case SetAttributes(changes):
            return len(encode_checked(dict(changes)))
        case JoinParticipant(metadata=metadata):
            return len(encode_checked(metadata and dict(metadata)))
        case UpdateParticipant(metadata=metadata, context=context):
            return len(encode_checked([metadata and dict(metadata), context and dict(context)]))
        case SetSummary(text):
            return len(text.encode())
        case _:
            return 0
