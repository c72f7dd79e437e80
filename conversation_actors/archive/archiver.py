"""An archiver: it takes what waits in the backlogs to the database, and settles it there when the database has it.

Any number of archivers share the work. None of them keeps anything that another one would miss: a record is dropped
from Redis after the database has it, and the database knows a record that comes twice.
"""

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Protocol, TypeVar

from conversation_actors.archive.claims import OF_REDIS, Claims, all_of
from conversation_actors.archive.idle import CHECKPOINT, Idle
from conversation_actors.archive.outage import Outage
from conversation_actors.archive.suspects import GROUP_BYTES, Suspects
from conversation_actors.archive.writer import Written
from conversation_actors.clock import uptime
from conversation_actors.errors import ArchiveMisconfiguredError, ArchiveUnavailableError
from conversation_actors.failures import Failures
from conversation_actors.store.backlog import Backlog, Batch
from conversation_actors.timing import TIMING, Timing

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

AT_ONCE = 2
"""Groups that are archived at the same time."""
GROUP = 32
"""Conversations of a group, which is archived in one transaction: a transaction for each would cost much more."""
_LEAST_BYTES = 8 << 10
"""Of each conversation of a group, however many there are."""
_PER_LISTED = 0.5e-3
"""Seconds that each conversation in the listing adds to the time between two looks."""
_OF_DATABASE = (ArchiveUnavailableError, ArchiveMisconfiguredError)


def _size(waiting: int, groups: int) -> int:
    """Return how many conversations a group has: one is read from Redis while the database has another."""
    return max(1, min(GROUP, math.ceil(waiting / groups)))


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
        when_written: Callable[[Collection[str]], None] | None = None,
        failures: Failures | None = None,
        timing: Timing = TIMING,
    ) -> None:
        """Take from `backlog`, write with `writer`.

        `when_lacking` is told of a conversation whose records do not follow on those that are archived, `when_written`
        of conversations that the database has something new of: it must not fail, and nothing waits for it.
        """
        self._backlog, self._writer, self._checkpoints = backlog, writer, checkpoints
        self._when_lacking, self._when_written, self._timing = when_lacking, when_written, timing
        self.failures = failures or Failures(timing=timing)
        self._claims = Claims(backlog, ttl=timedelta(seconds=timing.archive_claim), failures=self.failures)
        self._queue: OrderedDict[str, None] = OrderedDict()
        self._groups: set[asyncio.Task[None]] = set()
        self._running: set[str] = set()
        self._suspects = Suspects(timing.archive_faulty)
        self._redis = Outage("Redis", timing.archive_again)
        self._database = Outage("the archive's database", timing.archive_again)
        self._idle = Idle(
            backlog,
            None if checkpoints is None else checkpoints.idle,
            is_away=lambda: self._database.is_on,
            failures=self.failures,
            timing=timing,
        )

    @property
    def is_away(self) -> bool:
        """Whether a server does not do what is asked of it now."""
        return self._redis.is_on or self._database.is_on

    async def run(self, stop: asyncio.Event) -> None:
        """Archive until `stop` is set, then finish what has begun; what is not finished in time stays in Redis."""
        stopped = asyncio.ensure_future(stop.wait())
        idle = asyncio.create_task(self._idle.run())
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
            idle.cancel()
            await self._leave()
            await asyncio.gather(stopped, idle, return_exceptions=True)

    async def once(self) -> int:
        """Archive until nothing waits, and return how many entries that were. Raises what keeps it from that."""
        entries = 0
        while waiting := [one.conversation_id for one in await self._backlog.waiting() if one.records]:
            size = _size(len(waiting), AT_ONCE)
            groups = [waiting[first : first + size] for first in range(0, len(waiting), size)]
            taken = 0
            for first in range(0, len(groups), AT_ONCE):
                for written in await all_of([self._once(group) for group in groups[first : first + AT_ONCE]]):
                    taken += len(written)
                    entries += sum(one.entries for one in written.values())
            if not taken:
                await asyncio.sleep(self._timing.archive_look[1])  # other archivers have them all
        return entries

    async def _once(self, group: Sequence[str]) -> Mapping[str, Written]:
        return await self._write(await self._take(group))

    async def _look(self) -> float:
        """Queue what waits, take from the listing what has been quiet, and return the seconds until the next look."""
        shortest, longest = self._timing.archive_look
        began = uptime()
        try:
            listed = await self._backlog.waiting()
            self._redis.done("look")
            await self._idle.unlist(listed, running=self._running)
            self._redis.done("unlist")
        except OF_REDIS as error:
            self._redis.failed("look", error)
            return max(shortest, self._redis.pause)
        except Exception as error:  # noqa: BLE001  # whatever it is, the next look may succeed
            self.failures.note("archive look", error)
            return longest
        if not any(one.records for one in listed) and not self._running:
            self._redis.over()
            self._database.over()
        waiting = {one.conversation_id: None for one in listed if one.records}
        self._suspects.keep(waiting)
        for name in waiting:
            if name not in self._running and not self._suspects.is_resting(name):
                self._queue.setdefault(name)
        pause = min(longest, shortest + len(listed) * _PER_LISTED) if listed else longest
        return max(pause, uptime() - began)

    def _start_some(self) -> None:
        """Begin with as many groups as may be archived at once; with one conversation, while a server is away."""
        if self._redis.pause or self._database.pause:
            return
        most = 1 if self.is_away else AT_ONCE
        while (free := most - len(self._groups)) > 0:
            group = self._next_group(1 if self.is_away else _size(len(self._queue), free))
            if not group:
                return
            self._running.update(group)
            task = asyncio.create_task(self._archive(group))
            self._groups.add(task)
            task.add_done_callback(self._groups.discard)

    def _next_group(self, size: int) -> list[str]:
        """Take from the front of the queue; a suspect is a group of its own, and those at fault take turns."""
        group: list[str] = []
        is_trying = any(map(self._suspects.is_faulty, self._running))
        for name in self._queue:
            if is_trying and self._suspects.is_faulty(name):
                continue
            if group and name in self._suspects:
                break
            group.append(name)
            if len(group) == size or name in self._suspects:
                break
        for name in group:
            del self._queue[name]
        return group

    async def _archive(self, group: Sequence[str]) -> None:
        """Archive a batch of each conversation. What fails is tried again, and is never dropped."""
        again: Sequence[str] = ()
        batches: Mapping[str, Batch] = {}
        began = self._suspects.written
        try:
            batches = await self._take(group)
            await self._write(batches)
            again = [name for name, batch in batches.items() if batch.left]
            self._suspects.archived(group, batches)
        except _OF_DATABASE as error:
            if self._suspects.refused(batches, began=began):
                self.failures.note("archive", error)
            else:
                self._database.failed("write", error)
                again = list(batches)  # behind the others
        except OF_REDIS:
            again = group  # as above: it may be these alone that Redis refuses
            self._suspects.enter(group)
        except Exception as error:  # noqa: BLE001  # one conversation must not keep the others from being archived
            if len(group) > 1:
                again = group
                self._suspects.enter(group)
            else:
                self.failures.note("archive", error)
                self._suspects.blame(group[0])
        finally:
            self._running.difference_update(group)
            self._queue.update(dict.fromkeys(again))

    async def _take(self, group: Sequence[str]) -> dict[str, Batch]:
        """Claim what no other archiver has, and return what waits there."""
        share = max(_LEAST_BYTES, GROUP_BYTES // len(group))
        most_bytes = {name: self._suspects.most_bytes(name, share) for name in group}
        return await self._of_redis("take", self._claims.take(most_bytes))

    async def _write(self, batches: Mapping[str, Batch]) -> Mapping[str, Written]:
        """Write and settle batches, and give up the claims on them, whatever becomes of that."""
        if not batches:
            return {}
        async with self._claims.held(batches):
            written = await self._writer.write_all({name: one.stored for name, one in batches.items()})
            self._database.done("write")
            if self._when_written is not None:
                self._when_written([name for name, one in written.items() if one.entries])
            settles = [
                self._backlog.settle(name, backlog=one.backlog, through=one.through) for name, one in batches.items()
            ]
            await self._of_redis("settle", all_of(settles))
        for name, one in written.items():
            await self._tell(name, one)
        return written

    async def _of_redis(self, step: str, work: Awaitable[Value]) -> Value:
        try:
            answer = await work
        except OF_REDIS as error:
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
            await self._after(CHECKPOINT, lambda name: checkpoints.note(name, written), conversation_id)

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
