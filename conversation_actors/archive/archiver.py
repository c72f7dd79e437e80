"""An archiver: it takes what waits in the backlogs to the database, and settles it there when the database has it.

Any number of archivers share the work. None of them keeps anything that another one would miss: a record is dropped
from Redis after the database has it, and the database knows a record that comes twice.
"""

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Protocol, TypeVar

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
from conversation_actors.store.backlog import Backlog, Batch, Waiting
from conversation_actors.timing import TIMING, Timing

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

AT_ONCE = 2
"""Groups that are archived at the same time."""
GROUP = 32
"""Conversations of a group, which is archived in one transaction: a transaction for each would cost much more."""
_GROUP_BYTES, _LEAST_BYTES = 256 << 10, 8 << 10
"""Of one group, and of each of its conversations: reading more would keep everything else waiting for long."""
_PER_LISTED = 0.5e-3
"""Seconds that each conversation in the listing adds to the time between two looks."""
_OF_REDIS = (StoreUnavailableError, StoreMisconfiguredError)
_OF_DATABASE = (ArchiveUnavailableError, ArchiveMisconfiguredError)


class RecordWriter(Protocol):
    """What an archiver needs of a `Writer`."""

    async def write_all(self, batches: Mapping[str, Sequence[bytes]]) -> Mapping[str, Written]:
        """Write records of conversations in one transaction; those that are there already change nothing."""


class Checkpoints(Protocol):
    """Who keeps states to begin from, beside the entries."""

    async def note(self, conversation_id: str, written: Written) -> None:
        """Learn what was written of a conversation just now."""

    async def idle(self, conversation_id: str) -> None:
        """Learn that nothing has been written of a conversation for a while."""


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
        self._groups: set[asyncio.Task[None]] = set()
        self._running: set[str] = set()
        self._alone: set[str] = set()
        """Conversations that are written by themselves, because a group with them could not be."""
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
                    waiting = {stopped, *self._groups}
                    await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            await self._leave()

    async def once(self) -> int:
        """Archive until nothing waits, and return how many entries that were. Raises what keeps it from that."""
        entries = 0
        while waiting := [one.conversation_id for one in await self._backlog.waiting() if one.records]:
            taken = False
            for first in range(0, len(waiting), GROUP):
                batches = await self._take(waiting[first : first + GROUP])
                written = await self._write(batches)
                entries += sum(one.entries for one in written.values())
                taken = taken or bool(batches)
            if not taken:
                await asyncio.sleep(self._timing.archive_look[1])  # other archivers have them all
        return entries

    async def _look(self) -> float:
        """Queue what waits, take from the listing what has been quiet, and return the seconds until the next look."""
        shortest, longest = self._timing.archive_look
        began = uptime()
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
        pause = min(longest, shortest + len(listed) * _PER_LISTED) if listed else longest
        return max(pause, uptime() - began)

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
        """Begin with as many groups as may be archived at once; with one conversation, while a server is away."""
        if self._redis.pause or self._database.pause:
            return
        most, size = (1, 1) if self.is_away else (AT_ONCE, GROUP)
        while self._queue and len(self._groups) < most:
            group = self._next_group(size)
            self._running.update(group)
            task = asyncio.create_task(self._archive(group))
            self._groups.add(task)
            task.add_done_callback(self._groups.discard)

    def _next_group(self, size: int) -> list[str]:
        """Take from the front of the queue; what is to be written by itself is a group of its own."""
        group: list[str] = []
        while self._queue and len(group) < size:
            conversation_id = next(iter(self._queue))
            if conversation_id in self._alone and group:
                break
            del self._queue[conversation_id]
            group.append(conversation_id)
            if conversation_id in self._alone:
                break
        return group

    async def _archive(self, group: Sequence[str]) -> None:
        """Archive a batch of each conversation. What fails is tried again, and is never dropped."""
        again: Sequence[str] = ()
        try:
            batches = await self._take(group)
            await self._write(batches)
            again = [name for name, batch in batches.items() if batch.left]
            self._alone.difference_update(group)
            for name in group:
                self._faulty.pop(name, None)
        except (*_OF_REDIS, *_OF_DATABASE):
            again = group  # behind the others: it may be these alone that cannot be written
            self._alone.update(group)
        except Exception as error:  # noqa: BLE001  # one conversation must not keep the others from being archived
            if len(group) > 1:
                again = group
                self._alone.update(group)
            else:
                self._note_fault(group[0], error)
        finally:
            self._running.difference_update(group)
            self._queue.update(dict.fromkeys(again))

    def _note_fault(self, conversation_id: str, error: Exception) -> None:
        """Leave a conversation alone for a while."""
        self.failures.note("archive", error)
        backoff, _ = self._faulty.get(conversation_id) or (Backoff(self._timing.archive_faulty), 0.0)
        self._faulty[conversation_id] = (backoff, uptime() + backoff.next())

    async def _take(self, group: Sequence[str]) -> dict[str, Batch]:
        """Claim what no other archiver has, and return what waits there."""
        most = max(_LEAST_BYTES, _GROUP_BYTES // len(group))
        takes = [self._backlog.take(one, archiver=self._name, ttl=self._claim, most_bytes=most) for one in group]
        batches = await self._of_redis("take", all_of(takes))
        return {name: one for name, one in zip(group, batches, strict=True) if one is not None and one.stored}

    async def _write(self, batches: Mapping[str, Batch]) -> Mapping[str, Written]:
        """Write and settle batches, and give up the claims on them, whatever becomes of that."""
        if not batches:
            return {}
        try:
            written = await self._writer.write_all({name: one.stored for name, one in batches.items()})
            self._database.done("write")
            settles = [
                self._backlog.settle(name, backlog=one.backlog, through=one.through) for name, one in batches.items()
            ]
            await self._of_redis("settle", all_of(settles))
        except _OF_DATABASE as error:
            self._database.failed("write", error)
            raise
        finally:
            releases = [self._backlog.release(name, archiver=self._name) for name in batches]
            with suppress(*_OF_REDIS):  # the claims end by themselves
                await all_of(releases)
        for name, one in written.items():
            await self._tell(name, one)
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
        if not self._groups:
            return
        _, late = await asyncio.wait(self._groups, timeout=self._timing.archive_leave)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


async def all_of(calls: Sequence[Awaitable[Value]]) -> list[Value]:
    """Make all calls at once, and wait until none is under way; raise the first error, if there was one."""
    done = await asyncio.gather(*calls, return_exceptions=True)
    answers: list[Value] = []
    for answer in done:
        if isinstance(answer, BaseException):
            raise answer
        answers.append(answer)
    return answers
