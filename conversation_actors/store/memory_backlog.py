"""MemoryBacklog: what waits for the archive, in one process's memory."""

import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice

from conversation_actors.store.backlog import Batch, Bounds, Lag, Record, Waiting, decode_record, forgets, written_at

_MICROSECONDS = 1_000_000


@dataclass(slots=True)
class _Queue:
    """The backlog of one conversation."""

    name: str = ""
    pusher: str = ""
    """The owner who pushed last."""
    records: deque[bytes] = field(default_factory=deque)
    removed: int = 0
    size: int = 0
    given_up: int = 0
    archiver: str = ""
    until: float = 0.0
    expires_at: float = 0.0

    def drop(self, count: int) -> None:
        """Take out the oldest records, as many as are there."""
        for _ in range(min(count, len(self.records))):
            self.size -= len(self.records.popleft())
            self.removed += 1

    def give_up(self, most: int) -> int:
        """Take out the oldest records beyond so many bytes, and return how many; see `Bounds`."""
        given_up, kept = 0, list[bytes]()
        while self.size > most and len(self.records) > 1:
            if forgets(self.records[0]):
                kept.append(self.records.popleft())
            else:
                self.drop(1)
                given_up += 1
        self.records.extendleft(reversed(kept))
        self.given_up += given_up
        return given_up


class MemoryBacklog:
    """A `Backlog` that ends with its process. `clock` gives seconds; `bounds` None: nobody archives."""

    def __init__(self, clock: Callable[[], float], bounds: Bounds | None) -> None:
        """Start empty."""
        self.bounds = bounds
        self._clock = clock
        self._queues: dict[str, _Queue] = {}
        self._marks: dict[str, int] = {}

    def push(self, conversation_id: str, header: bytes, entries: Sequence[bytes], *, pusher: str, anew: bool) -> int:
        """Add records, and return how many of the oldest were given up for them.

        The backlog gets another name where somebody else has pushed last, and when it is begun `anew`.
        """
        if self.bounds is None:
            return 0
        queue = self._joined(conversation_id, pusher=pusher, anew=anew)
        for entry in entries:
            queue.records.append(header + entry)
            queue.size += len(queue.records[-1])
        queue.expires_at = self._clock() + self.bounds.age.total_seconds()
        return queue.give_up(self.bounds.size)

    def push_deletion(self, conversation_id: str, deletion: Record) -> None:
        """Let a deletion take the place of all that waits."""
        queue = self._queues.get(conversation_id)
        if queue is not None:
            queue.drop(len(queue.records))
        self.push(conversation_id, deletion.header, [b""], pusher="", anew=True)

    def clear(self) -> None:
        """Lose everything, as a server without persistence does when it starts again."""
        self._queues.clear()
        self._marks.clear()

    def last(self, conversation_id: str) -> Record | None:
        """Return the record that came last, of those that wait."""
        queue = self._find(conversation_id)
        return decode_record(queue.records[-1]) if queue is not None and queue.records else None

    async def waiting(self) -> Sequence[Waiting]:
        """See `Backlog.waiting`."""
        listed = sorted(self._marks.items(), key=lambda entry: entry[1])
        return [Waiting(conversation_id, mark, self._records(conversation_id)) for conversation_id, mark in listed]

    async def take(self, conversation_id: str, *, archiver: str, ttl: timedelta, most_bytes: int) -> Batch | None:
        """See `Backlog.take`."""
        queue, now = self._find(conversation_id), self._clock()
        if queue is None:
            return Batch("", 0, ())
        if queue.archiver not in ("", archiver) and queue.until > now:
            return None
        if queue.records:
            queue.archiver, queue.until = archiver, now + ttl.total_seconds()
        taken, size = 0, 0
        for record in queue.records:
            size += len(record)
            if taken and size > most_bytes:
                break
            taken += 1
        return _batch(queue, taken)

    async def settle(self, conversation_id: str, *, backlog: str, through: int) -> None:
        """See `Backlog.settle`."""
        queue = self._find(conversation_id)
        if queue is None or queue.name != backlog or self.bounds is None:
            return
        queue.drop(max(0, through - queue.removed))
        queue.expires_at = self._clock() + self.bounds.age.total_seconds()

    async def release(self, conversation_id: str, *, archiver: str) -> None:
        """See `Backlog.release`."""
        queue = self._find(conversation_id)
        if queue is not None and queue.archiver == archiver:
            queue.archiver, queue.until = "", 0.0

    async def unlist(self, waiting: Waiting) -> bool:
        """See `Backlog.unlist`."""
        is_same = self._marks.get(waiting.conversation_id) == waiting.mark
        if not is_same or self._records(waiting.conversation_id):
            return False
        del self._marks[waiting.conversation_id]
        self._queues.pop(waiting.conversation_id, None)
        return True

    async def peek(self, conversation_id: str) -> Batch:
        """See `Backlog.peek`."""
        queue = self._find(conversation_id)
        return Batch("", 0, ()) if queue is None else _batch(queue, len(queue.records))

    async def lag(self, conversation_id: str | None = None) -> Lag:
        """See `Backlog.lag`."""
        total = Lag()
        for one in self._marks if conversation_id is None else [conversation_id]:
            queue = self._find(one)
            if queue is not None:
                at = written_at(queue.records[0]) if queue.records else None
                seconds = 0.0 if at is None else max(0.0, self._clock() - at)
                waits = len(queue.records)
                total += Lag(int(waits > 0), waits, queue.size, seconds, queue.given_up)
        return total

    async def relist(self) -> int:
        """See `Backlog.relist`."""
        lacking = [one for one in self._queues if one not in self._marks and self._records(one)]
        for conversation_id in lacking:
            self._enter(conversation_id)
        return len(lacking)

    def _joined(self, conversation_id: str, *, pusher: str, anew: bool) -> _Queue:
        """Return the backlog to push to, listed."""
        if conversation_id not in self._marks:
            self._enter(conversation_id)
        queue = self._find(conversation_id)
        if queue is None:
            queue = self._queues[conversation_id] = _Queue()
        if anew or not queue.name or queue.pusher != pusher:
            queue.name, queue.pusher = secrets.token_hex(8), pusher
        return queue

    def _enter(self, conversation_id: str) -> None:
        newest = max(self._marks.values(), default=0)
        self._marks[conversation_id] = max(newest + 1, int(self._clock() * _MICROSECONDS))

    def _find(self, conversation_id: str) -> _Queue | None:
        queue = self._queues.get(conversation_id)
        if queue is not None and queue.expires_at <= self._clock():
            del self._queues[conversation_id]
            return None
        return queue

    def _records(self, conversation_id: str) -> int:
        queue = self._find(conversation_id)
        return 0 if queue is None else len(queue.records)


def _batch(queue: _Queue, taken: int) -> Batch:
    records = tuple(islice(queue.records, taken))
    return Batch(queue.name, queue.removed, records, len(queue.records) - taken, queue.given_up)
