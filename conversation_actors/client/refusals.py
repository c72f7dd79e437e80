"""Refusals of commands that nobody waited for, kept until everybody concerned has been told."""

import asyncio
import copy
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from conversation_actors.errors import ConversationError

MAX_REFUSALS = 100
"""Refusals kept; of more, the two oldest become one."""

Task = asyncio.Task[Any]
_putter: ContextVar["weakref.ref[Task] | None"] = ContextVar("putter", default=None)
"""The task that has put commands, in its own context and those of the tasks it has started since."""


class _Refusal:
    """One refusal, or several that became one; a task that is to be told does not live longer for it."""

    def __init__(self, number: int, error: ConversationError, concerned: Iterable[Task], owner: Task | None) -> None:
        self.number, self.error, self.count = number, error, 1
        self.concerned = weakref.WeakSet(concerned)
        self.owners = weakref.WeakSet(() if owner is None else (owner,))
        """Who has put the commands, until a task that one of them has started was told in its place."""
        self.is_told = False

    @property
    def is_over(self) -> bool:
        """Whether nobody is left who must be told."""
        return self.is_told and all(task.done() for task in self.concerned)

    def concerns(self, task: Task, starter: Task | None) -> bool:
        return not self.is_told or task in self.concerned or starter in self.owners

    def tell(self, task: Task, starter: Task | None) -> None:
        self.is_told = True
        self.concerned.discard(task)
        self.owners.discard(task)
        if starter is not None:
            self.owners.discard(starter)

    def absorb(self, later: "_Refusal") -> None:
        self.count += later.count
        self.concerned |= later.concerned
        self.owners |= later.owners
        self.is_told = self.is_told and later.is_told


class Refusals:
    """Who has to hear of which refusal: who put the command, who was flushing it, or else whoever flushes next."""

    def __init__(self) -> None:
        """Nothing was refused."""
        self._kept: deque[_Refusal] = deque()
        self._flushing: dict[Task, int] = {}
        self._unfinished: weakref.WeakKeyDictionary[Task, int] = weakref.WeakKeyDictionary()
        """Tasks whose last flush ended before it could tell, and what it was waiting for."""

    def __len__(self) -> int:
        """Refusals that somebody is still to be told of."""
        return len(self._kept)

    @contextmanager
    def flushing(self, task: Task, target: int) -> Iterator[None]:
        """Inside, `task` waits for the commands up to number `target`, and is to be told which are refused."""
        self._flushing[task] = self._unfinished[task] = target
        try:
            yield
        finally:
            del self._flushing[task]
        del self._unfinished[task]

    def add(self, number: int, error: ConversationError, *, owner: Task | None) -> None:
        """Command `number`, which the task `owner` has put (None: no task has), was refused."""
        concerned = {task for task, target in self._unfinished.items() if target >= number}
        if owner is not None:
            concerned.add(owner)
        self._kept.append(_Refusal(number, error, concerned, owner))
        if len(self._kept) > MAX_REFUSALS:
            self._drop_told()
        if len(self._kept) > MAX_REFUSALS:
            oldest, later = self._kept.popleft(), self._kept.popleft()
            oldest.absorb(later)
            self._kept.appendleft(oldest)

    def raise_for(self, task: Task, target: int) -> None:
        """Raise the first refusal up to `target` that `task` is to be told of, with the number of the others."""
        starter = self._starter_of(task)
        telling = [refusal for refusal in self._kept if refusal.number <= target and refusal.concerns(task, starter)]
        if not telling:
            return
        for refusal in telling:
            refusal.tell(task, starter)
        self._drop_told()
        error = telling[0].error
        told = copy.copy(error)  # each who is told gets one to add notes and tracebacks to
        told.__cause__ = error.__cause__
        more = sum(refusal.count for refusal in telling) - 1
        if more:
            told.add_note(f"and {more} more refusals since the last flush")
        raise told

    @staticmethod
    def note_putter(task: Task | None) -> None:
        """Remember, in the task's context, that it puts commands: what it starts from now on flushes in its place."""
        known = _putter.get()
        if task is not None and (known is None or known() is not task):
            _putter.set(weakref.ref(task))

    @staticmethod
    def _starter_of(task: Task) -> Task | None:
        """Return the task for which this one flushes, as `asyncio.wait_for` and `gather` do; None if for itself."""
        known = _putter.get()
        starter = None if known is None else known()
        return None if starter is task else starter

    def _drop_told(self) -> None:
        self._kept = deque(refusal for refusal in self._kept if not refusal.is_over)
