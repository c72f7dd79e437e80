"""An archiver's surroundings in memory, which a test has in its hands: a backlog, a database and checkpoints."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

from conversation_actors.archive.archiver import Archiver
from conversation_actors.archive.writer import Gap, Written
from conversation_actors.errors import ArchiveUnavailableError, StoreUnavailableError
from conversation_actors.store.backlog import Batch, Bounds, Record
from conversation_actors.store.memory_backlog import MemoryBacklog
from conversation_actors.timing import Timing

QUICK = Timing(
    archive_look=(0.001, 0.005),
    archive_again=(0.005, 0.01),
    archive_faulty=(0.01, 0.02),
    archive_claim=60.0,
    archive_quiet=3600.0,
)
AWAY = ArchiveUnavailableError("the database is away")
NOTHING = Written(entries=0, repeated=0, items=0, gaps=(), superseded=0, deleted=0)


class Writer:
    """A database in memory: it knows a record that comes twice, and can fail before or after it has written."""

    def __init__(self) -> None:
        """Empty, and healthy."""
        self.records: dict[str, list[bytes]] = defaultdict(list)
        self.attempts: list[str] = []
        self.groups: list[int] = []
        self.faults: dict[str, Exception] = {}
        self.fault: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.gaps: tuple[Gap, ...] = ()
        self.running = self.most_running = 0
        self.most_records: dict[str, int] = {}
        """Of a conversation: with more in one transaction, its time is up."""
        self.hanging: dict[str, asyncio.Event] = {}
        """Of a conversation: until when a transaction with it hangs."""

    async def write_all(self, batches: Mapping[str, Sequence[bytes]]) -> dict[str, Written]:
        """Write what is new, in order; nothing at all if one of them cannot be written."""
        self.attempts += batches
        self.groups.append(len(batches))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(0)
            await self.gate.wait()
            for name, records in batches.items():
                if name in self.hanging:
                    await self.hanging[name].wait()
                if error := self.fault or self.faults.get(name):
                    raise error
                if len(records) > self.most_records.get(name, len(records)):
                    raise AWAY
            return {name: self._write(name, records) for name, records in batches.items()}
        finally:
            self.running -= 1

    def _write(self, conversation_id: str, records: Sequence[bytes]) -> Written:
        kept = self.records[conversation_id]
        new = [record for record in records if record not in kept]
        kept.extend(new)
        return replace(NOTHING, entries=len(new), repeated=len(records) - len(new), gaps=self.gaps)


class Backlog(MemoryBacklog):
    """A backlog of which single calls can fail."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Empty."""
        super().__init__(clock, Bounds(1 << 30, timedelta(days=1)))
        self.faults: dict[str, Exception] = {}
        self.most_bytes = 200
        self.takes = 0

    async def settle(self, conversation_id: str, *, backlog: str, through: int) -> None:
        """Fail if told so."""
        if error := self.faults.get("settle"):
            raise error
        await super().settle(conversation_id, backlog=backlog, through=through)

    async def take(self, conversation_id: str, *, archiver: str, ttl: timedelta, most_bytes: int) -> Batch | None:
        """Take some bytes only, so that there are many batches."""
        self.takes += 1
        if error := self.faults.get("take"):
            raise error
        return await super().take(
            conversation_id, archiver=archiver, ttl=ttl, most_bytes=min(most_bytes, self.most_bytes)
        )

    def fill(self, conversation_id: str, count: int, *, first: int = 1) -> list[bytes]:
        """Let entries wait, and return their records."""
        header = Record("life", 0, 1, "owner", b"x").header
        entries = [b"entry %d" % number for number in range(first, first + count)]
        self.push(conversation_id, header, entries, pusher="owner", anew=False)
        return [header + entry for entry in entries]

    async def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not any(one.records for one in await self.waiting())


class Way:
    """One archiver's way to a backlog that others use too: once it is cut, nothing that this archiver does arrives."""

    def __init__(self, backlog: Backlog) -> None:
        """Open."""
        self._backlog = backlog
        self.is_cut = False

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        """Return the backlog's method."""

        async def call(*arguments: Any, **named: Any) -> Any:
            if self.is_cut:
                raise StoreUnavailableError(name)
            return await getattr(self._backlog, name)(*arguments, **named)

        return call


@asynccontextmanager
async def running(archiver: Archiver) -> AsyncIterator[asyncio.Event]:
    """Run an archiver, and end it in order."""
    stop = asyncio.Event()
    task = asyncio.create_task(archiver.run(stop))
    try:
        yield stop
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)


class Checkpoints:
    """Told of everything."""

    def __init__(self) -> None:
        """Told of nothing yet."""
        self.noted: list[str] = []
        self.idled: list[str] = []
        self.fault: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def note(self, conversation_id: str, written: Written) -> None:
        """Fail if told so."""
        assert written.entries
        if self.fault:
            raise self.fault
        self.noted.append(conversation_id)

    async def idle(self, conversation_id: str) -> None:
        """Note it, and hang if told so."""
        self.idled.append(conversation_id)
        await self.gate.wait()
