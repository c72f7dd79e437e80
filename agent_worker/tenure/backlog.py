"""What a job has to tell its conversation besides items, until it is taken; bounded, whoever is away."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from typing import Any

from agent_worker.failures import Failures
from agent_worker.tenure.trouble import MAX_OWNER_FAILURES, is_trouble
from agent_worker.timing import TIMING, Timing
from conversation_actors import ConversationHandle, Lease, OverloadedError
from conversation_actors.errors import (
    InvalidInputError,
    OwnerFailedError,
)
from conversation_actors.values import encode

logger = logging.getLogger(__name__)

MAX_NOTES = 1000
"""Names of attributes; one too many is not kept."""
MAX_OPERATIONS = 1000
"""Operations that wait; with one too many all are dropped, and whoever put them has to look again."""
_BULKY_BYTES = 9 << 10
"""Of a value: what tells who has the call, what was heard, and what is done once, is smaller."""
_RESERVED_BYTES = 16 << 10
"""Of the room for attributes, for what is small; an eighth of it at most."""
_FAILED = "a change of the conversation failed"

Operation = Callable[[ConversationHandle, Lease], Awaitable[object]]
Batch = Mapping[str, tuple[int, Any]]
"""Values by name, each with the number under which it was noted."""


class Changes:
    """The latest value of each attribute, and operations in order.

    A change that is refused for its own sake is counted and dropped. If the conversation does not answer, or
    does not know this job as its agent, attributes wait as their latest values, and operations are dropped
    (`has_missed`): then nothing is tried before `resume`.
    """

    def __init__(
        self,
        failures: Failures,
        *,
        lease: Callable[[], Lease],
        on_trouble: Callable[[Exception], None],
        room: int,
        timing: Timing = TIMING,
    ) -> None:
        """`lease`: in whose name is written. `on_trouble` is told why nothing is tried any more.

        `room`: bytes that all attributes of a conversation may have together.
        """
        self.has_missed = False
        """Operations were dropped, and more are until `resume`: who put them has to look at what they were about."""
        self.dropped = 0
        """Operations that were."""
        self._failures, self._lease, self._on_trouble, self._timing = failures, lease, on_trouble, timing
        self._latest: dict[str, Any] = {}
        self._pending: dict[str, tuple[int, Any]] = {}
        self._operations: deque[tuple[int, Operation]] = deque()
        self._numbers = count(1)
        self._failed_notes: dict[str, int] = {}
        self._failed_operations = 0
        self._room, self._without_room = room - min(_RESERVED_BYTES, room // 8), set[str]()
        self._is_over = False
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._wake_notes, self._wake_operations, self._progress = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def __len__(self) -> int:
        """Return how many changes wait."""
        return len(self._pending) + len(self._operations)

    def note(self, name: str, value: Any) -> None:
        """Set an attribute; None removes it. What it was to be before is forgotten. Never raises."""
        if self._is_over:
            return
        if name not in self._latest and len(self._latest) >= MAX_NOTES:
            self._failures.count("notes", OverloadedError(f"{MAX_NOTES} attributes are noted; no other one is"))
            return
        self._latest[name] = value
        self._pending.pop(name, None)  # the latest is the last
        self._pending[name] = (next(self._numbers), value)
        self._wake_notes.set()

    def withdraw(self, name: str) -> None:
        """Set an attribute no more that was noted and is not written yet. Never raises."""
        self._latest.pop(name, None)
        self._pending.pop(name, None)
        self._note_progress()

    def put(self, operation: Operation) -> None:
        """Have something done, after the operations that were put before. Never raises."""
        if self._is_over:
            return
        if self.has_missed:
            self.dropped += 1
        elif len(self._operations) >= MAX_OPERATIONS:
            self.dropped += 1
            error = OverloadedError(f"{MAX_OPERATIONS} changes wait; they are dropped, and what they tell is looked up")
            self._failures.count("changes", error)
            self._miss(error)
        else:
            self._operations.append((next(self._numbers), operation))
            self._wake_operations.set()

    def resume(self, *, is_afresh: bool) -> None:
        """Go on, as the conversation answers again; `is_afresh`: it knows nothing of what was noted."""
        self.has_missed = False
        if is_afresh:
            for name, value in list(self._latest.items()):
                self.note(name, value)
        self._may_write.set()
        self._note_progress()

    def give_up(self) -> None:
        """Forget what waits: this job is the agent no longer."""
        self._is_over, self.has_missed = True, False
        self._latest.clear()
        self._pending.clear()
        self._operations.clear()
        self._note_progress()

    async def settled(self) -> None:
        """Return when all that was put so far is taken or refused; what was dropped, when it was looked up."""
        is_due = True
        while is_due:
            target, is_due, dropped = next(self._numbers), self.has_missed, self.dropped
            while self.has_missed or self._oldest < target:
                await self._progress.wait()
            # what takes the place of the dropped ones was put meanwhile, however short that was
            is_due = is_due or dropped != self.dropped

    async def notes_taken(self) -> None:
        """Return when all that was noted so far is taken or refused."""
        target = next(self._numbers)
        while min((number for number, _ in self._pending.values()), default=target) < target:
            await self._progress.wait()

    async def write_notes(self, handle: ConversationHandle) -> None:
        """Write what is noted, once there is something: as one change, or each by itself if that is refused."""
        await self._wake_notes.wait()
        await self._may_write.wait()
        self._wake_notes.clear()
        batch = self._with_room(handle.attributes, dict(self._pending))
        try:
            if batch:
                await self._write(handle, batch)
        except Exception as error:  # noqa: BLE001  # `_write` raises nothing but what waiting may mend
            self._failures.count("notes", error, "attributes wait for the conversation")
            self._wake_notes.set()
            await self._stop_trying(error)

    async def operate(self, handle: ConversationHandle) -> None:
        """Do one operation, once there is one. One that fails must not hold up those after it."""
        await self._wake_operations.wait()
        await self._may_write.wait()
        if not self._operations:
            self._wake_operations.clear()
            return
        first = self._operations[0]
        try:
            async with asyncio.timeout(self._timing.operation):
                await first[1](handle, self._lease())
        except Exception as error:  # noqa: BLE001  # see the docstring
            self._failures.count("changes", error, _FAILED)
            self._failed_operations = self._failed_operations + 1 if isinstance(error, OwnerFailedError) else 0
            if self._failed_operations >= MAX_OWNER_FAILURES:
                self._failed_operations = 0
            elif is_trouble(error):
                self._miss(error)
                await self._stop_trying(error)
        else:
            self._failed_operations = 0
        if self._operations and self._operations[0] is first:
            self._operations.popleft()
        self._note_progress()

    def _with_room(self, there: Mapping[str, Any], batch: Batch) -> Batch:
        """Return the batch without bulky values that have no room: what is small, and others', needs some too."""
        sizes = {name: _size(value) for name, (_, value) in batch.items()}
        bulky = {name: noted for name, noted in batch.items() if sizes[name] > _BULKY_BYTES}
        if not bulky:
            return batch
        taken, small = dict(batch), {name: value for name, (_, value) in batch.items() if name not in bulky}
        used = sum(_size(value) for value in {**there, **small}.values())
        for name, (number, value) in bulky.items():
            before = _size(there[name]) if name in there else 0
            if sizes[name] > before and used - before + sizes[name] > self._room:
                del taken[name]
                self._leave_out(name, (number, value))
            else:
                used += sizes[name] - before
                self._without_room.discard(name)
        return taken

    def _leave_out(self, name: str, noted: tuple[int, Any]) -> None:
        """Keep the value that is there; told once, until there is room again."""
        self._failures.add("notes")
        if name not in self._without_room:
            self._without_room.add(name)
            told = "there is no room for an attribute: its last value stays"
            logger.warning(told, extra={"attribute": name, "limit": self._room})
        self._settle(name, noted)
        self._note_progress()

    async def _write(self, handle: ConversationHandle, batch: Batch) -> None:
        """Write a batch. Raises nothing but trouble."""
        changes = {name: value for name, (_, value) in batch.items()}
        try:
            async with asyncio.timeout(self._timing.operation):
                await handle.set_attributes(changes, lease=self._lease())
        except Exception as error:
            has_owner_failed = isinstance(error, OwnerFailedError)
            if is_trouble(error) and not has_owner_failed:
                raise
            if len(batch) > 1:
                await self._write_singly(handle, batch)
                return
            if has_owner_failed and not self._has_failed_too_often(*batch):
                raise
            self._failures.count("notes", error, _FAILED)
        for name, noted in batch.items():
            self._failed_notes.pop(name, None)
            self._settle(name, noted)
        self._note_progress()

    async def _write_singly(self, handle: ConversationHandle, batch: Batch) -> None:
        """Write each by itself, as `_write` does; one that the owner fails at does not hold up the others."""
        failed: OwnerFailedError | None = None
        for name, noted in batch.items():
            try:
                await self._write(handle, {name: noted})
            except OwnerFailedError as error:
                failed = error
        if failed is not None:
            raise failed

    def _has_failed_too_often(self, name: str) -> bool:
        self._failed_notes[name] = self._failed_notes.get(name, 0) + 1
        return self._failed_notes[name] >= MAX_OWNER_FAILURES

    def _settle(self, name: str, noted: tuple[int, Any]) -> None:
        if self._pending.get(name, noted)[0] == noted[0]:
            self._pending.pop(name, None)
            if noted[1] is None:
                self._latest.pop(name, None)

    def _miss(self, error: Exception) -> None:
        self.dropped += len(self._operations)
        self._operations.clear()
        self.has_missed = True
        self._on_trouble(error)

    async def _stop_trying(self, error: Exception) -> None:
        self._may_write.clear()
        self._on_trouble(error)
        await asyncio.sleep(self._timing.backlog_pause)

    @property
    def _oldest(self) -> float:
        numbers = [number for number, _ in self._pending.values()]
        if self._operations:
            numbers.append(self._operations[0][0])
        return min(numbers, default=float("inf"))

    def _note_progress(self) -> None:
        progress, self._progress = self._progress, asyncio.Event()
        progress.set()


def _size(value: Any) -> int:
    """Bytes of an attribute; nothing for one that is removed, or that the owner refuses for itself."""
    if value is None:
        return 0
    try:
        return len(encode(value, "attribute"))
    except InvalidInputError:
        return 0
