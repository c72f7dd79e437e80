"""An archiver: it takes what waits in the backlogs to the database, and settles it there when the database has it.

Any number of archivers share the work. None of them keeps anything that another one would miss: a record is dropped
from Redis after the database has it, and the database knows a record that comes twice.
"""

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import NamedTuple, Protocol, TypeVar

from conversation_actors.archive.outage import Outage
from conversation_actors.archive.writer import Written
from conversation_actors.backoff import Backoff
from conversation_actors.clock import uptime
from conversation_actors.errors import (
    ArchiveMisconfiguredError,
    ArchiveUnavailableError,
    StoreMisconfiguredError,
    StoreUnavailableError,
)
from conversation_actors.failures import Failures
from conversation_actors.store.backlog import Backlog, Waiting
from conversation_actors.timing import TIMING, Timing

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

AT_ONCE = 8
"""Conversations that are archived at the same time."""
_BATCH_BYTES = 1 << 20
_PER_LISTED = 20e-6
"""Seconds that each conversation in the listing adds to the time between two looks."""
_OF_REDIS = (StoreUnavailableError, StoreMisconfiguredError)
_OF_DATABASE = (ArchiveUnavailableError, ArchiveMisconfiguredError)


class RecordWriter(Protocol):
    """What an archiver needs of a `Writer`."""

    async def write(self, conversation_id: str, records: Sequence[bytes]) -> Written:
        """Write records in one transaction, of which those that are there already change nothing."""


class Checkpoints(Protocol):
    """Who keeps states to begin from, beside the entries."""

    async def note(self, conversation_id: str, written: Written) -> None:
        """Learn what was written of a conversation just now."""

    async def idle(self, conversation_id: str) -> None:
        """Learn that nothing has been written of a conversation for a while."""


class _Done(NamedTuple):
    """What became of one batch: what was written, and whether more waits."""

    written: Written
    is_more: bool


class Archiver:
    """One archiver. Belongs to one event loop; `failures` counts what it survived, by task."""

    def __init__(
        self,
        backlog: Backlog,
        writer: RecordWriter,
        *,
        checkpoints: Checkpoints | None = None,
        when_lacking: Callable[[str], Awaitable[object]] | None = None,
        failures: Failures | None = None,
        timing: Timing = TIMING,
    ) -> None:
        """Take from `backlog`, write with `writer`.

        `when_lacking` is told of a conversation whose records do not follow on those that are archived.
        """
        self._backlog, self._writer, self._checkpoints = backlog, writer, checkpoints
        self._when_lacking, self._timing = when_lacking, timing
        self.failures = failures or Failures(timing=timing)
        self._name = secrets.token_hex(8)
        self._claim = timedelta(seconds=timing.archive_claim)
        self._queue: OrderedDict[str, None] = OrderedDict()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._faulty: dict[str, tuple[Backoff, float]] = {}
        self._quiet: dict[str, tuple[int, float]] = {}
        self._redis = Outage("Redis", timing.archive_again)
        self._database = Outage("the archive's database", timing.archive_again)

    @property
    def is_away(self) -> bool:
        """Whether a server does not do what is asked of it now."""
        return self._redis.is_on or self._database.is_on

    async def run(self, stop: asyncio.Event) -> None:
        """Archive until `stop` is set, then finish what has begun; what is not finished in time stays in Redis."""
        stopped = asyncio.ensure_future(stop.wait())
        loop = asyncio.get_running_loop()
        try:
            while not stop.is_set():
                next_look = loop.time() + await self._look()
                while not stop.is_set() and (left := next_look - loop.time()) > 0:
                    self._start_some()
                    waiting = {stopped, *self._running.values()}
                    await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            await self._leave()

    async def once(self) -> int:
        """Archive until nothing waits, and return how many entries that were. Raises what keeps it from that."""
        entries = 0
        while waiting := [one for one in await self._backlog.waiting() if one.records]:
            done = [await self._one_batch(one.conversation_id) for one in waiting]
            entries += sum(one.written.entries for one in done if one is not None)
            if not any(done):
                await asyncio.sleep(self._timing.archive_look[1])  # other archivers have them all
        return entries

    async def _look(self) -> float:
        """Queue what waits, take from the listing what has been quiet, and return the seconds until the next look."""
        shortest, longest = self._timing.archive_look
        try:
            listed = await self._backlog.waiting()
            self._redis.done("look")
            await self._unlist_quiet(listed)
            self._redis.done("unlist")
        except _OF_REDIS as error:
            self._redis.failed("look", error)
            return max(shortest, self._redis.pause)
        except Exception as error:  # noqa: BLE001  # whatever it is, the next look may succeed
            self.failures.note("archive look", error)
            return longest
        if not any(one.records for one in listed) and not self._running:
            self._redis.over()
            self._database.over()
        for one in listed:
            if one.records and one.conversation_id not in self._running and not self._has_failed(one.conversation_id):
                self._queue.setdefault(one.conversation_id)
        return min(longest, shortest + len(listed) * _PER_LISTED) if listed else longest

    async def _unlist_quiet(self, listed: Sequence[Waiting]) -> None:
        """Take from the listing what has had nothing waiting for long enough."""
        now, before = uptime(), self._quiet
        self._quiet = {}
        for one in listed:
            mark, since = before.get(one.conversation_id, (one.mark, now))
            if one.records or one.conversation_id in self._running or mark != one.mark:
                continue
            if now - since < self._timing.archive_quiet:
                self._quiet[one.conversation_id] = (mark, since)
            elif await self._backlog.unlist(one) and self._checkpoints is not None:
                await self._after("archive checkpoint", self._checkpoints.idle, one.conversation_id)

    def _has_failed(self, conversation_id: str) -> bool:
        """Tell whether a conversation could not be archived a moment ago, although others could."""
        _, until = self._faulty.get(conversation_id, (None, 0.0))
        return uptime() < until

    def _start_some(self) -> None:
        """Begin with as many conversations as may be archived at once: with one, while a server is away."""
        if self._redis.pause or self._database.pause:
            return
        most = 1 if self.is_away else AT_ONCE
        while self._queue and len(self._running) < most:
            conversation_id, _ = self._queue.popitem(last=False)
            self._running[conversation_id] = asyncio.create_task(self._archive(conversation_id))

    async def _archive(self, conversation_id: str) -> None:
        """Archive one batch of one conversation. What fails is tried again, and is never dropped."""
        again = False
        try:
            done = await self._one_batch(conversation_id)
            again = done is not None and done.is_more
            self._faulty.pop(conversation_id, None)
        except (*_OF_REDIS, *_OF_DATABASE):
            again = True  # behind the others: it may be this one alone that cannot be written
        except Exception as error:  # noqa: BLE001  # one conversation must not keep the others from being archived
            self.failures.note("archive", error)
            backoff, _ = self._faulty.get(conversation_id) or (Backoff(self._timing.archive_faulty), 0.0)
            self._faulty[conversation_id] = (backoff, uptime() + backoff.next())
        finally:
            del self._running[conversation_id]
            if again:
                self._queue.setdefault(conversation_id)

    async def _one_batch(self, conversation_id: str) -> _Done | None:
        """Take, write and settle one batch; None if nothing waits, or another archiver has it."""
        batch = await self._of_redis(
            "take",
            self._backlog.take(conversation_id, archiver=self._name, ttl=self._claim, most_bytes=_BATCH_BYTES),
        )
        if batch is None:
            return None
        try:
            if not batch.stored:
                return None
            written = await self._write(conversation_id, batch.stored)
            settling = self._backlog.settle(conversation_id, backlog=batch.backlog, through=batch.through)
            await self._of_redis("settle", settling)
        finally:
            with suppress(*_OF_REDIS):  # the claim ends by itself
                await self._backlog.release(conversation_id, archiver=self._name)
        await self._tell(conversation_id, written)
        return _Done(written, is_more=batch.left > 0)

    async def _write(self, conversation_id: str, records: Sequence[bytes]) -> Written:
        try:
            written = await self._writer.write(conversation_id, records)
        except _OF_DATABASE as error:
            self._database.failed("write", error)
            raise
        self._database.done("write")
        return written

    async def _of_redis(self, step: str, work: Awaitable[Value]) -> Value:
        try:
            answer = await work
        except _OF_REDIS as error:
            self._redis.failed(step, error)
            raise
        self._redis.done(step)
        return answer

    async def _tell(self, conversation_id: str, written: Written) -> None:
        """Tell of what was written, which is archived whatever becomes of this."""
        if written.gaps:
            logger.warning(
                "entries of a conversation are missing in the archive",
                extra={"conversation_id": conversation_id, "gaps": len(written.gaps)},
            )
            if self._when_lacking is not None:
                await self._after("archive filling", self._when_lacking, conversation_id)
        if self._checkpoints is not None:
            checkpoints = self._checkpoints
            await self._after("archive checkpoint", lambda name: checkpoints.note(name, written), conversation_id)

    async def _after(self, task: str, work: Callable[[str], Awaitable[object]], conversation_id: str) -> None:
        """Do what is good to have, but nothing depends on."""
        try:
            await work(conversation_id)
        except Exception as error:  # noqa: BLE001  # the records are archived; this can be done another time
            self.failures.note(task, error)

    async def _leave(self) -> None:
        """Let what runs come to its end, for a while."""
        self._queue.clear()
        if not self._running:
            return
        _, late = await asyncio.wait(list(self._running.values()), timeout=self._timing.archive_leave)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
