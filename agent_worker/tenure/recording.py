"""Items on their way into the conversation: sent at once, or kept until that can be done."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable

from agent_worker.failures import Failures
from agent_worker.tenure.role import tagged
from agent_worker.tenure.standing import Standing
from conversation_actors import ConversationHandle, Item, Lease, OverloadedError
from conversation_actors.errors import ConversationError

logger = logging.getLogger(__name__)

MAX_WAITING = 10_000
"""Items kept while the conversation is not open, or has missed earlier ones."""

OnMissed = Callable[[bool], None]
"""Told whether the conversation knows nothing at all any more (True), or may lack something."""
OnRemoved = Callable[[frozenset[str]], None]
"""Told the ids of what is taken out of the conversation."""


class Recording:
    """The items that one job records, in order.

    They are sent to a conversation that is open. While it is not, or has missed earlier items, they wait: then the
    earlier ones are recorded again first, by whoever has them (`on_missed`).
    """

    def __init__(
        self, standing: Standing, failures: Failures, *, item_bytes: int, on_trouble: Callable[[Exception], None]
    ) -> None:
        """Take the bound of one item (bytes), and whom to tell why an item was not taken."""
        self.lost = 0
        """Items that could not be kept: too many waited."""
        self.sent = 0
        """Items that the handle has taken so far."""
        self.tellings = 0
        """Times that what was missed was recorded again."""
        self.has_missed = False
        """Whether the conversation lacks items, which have to be recorded again before others are."""
        self.to_acknowledge = asyncio.Event()
        """Set when it is to be learnt what became of items that were sent."""
        self._standing, self._failures, self._on_trouble = standing, failures, on_trouble
        self._item_bytes = item_bytes
        self._waiting: deque[Item] = deque()
        self._telling: set[str] | None = None
        self._on_missed, self._on_removed = list[OnMissed](), list[OnRemoved]()

    @property
    def has_waiting(self) -> bool:
        """Whether an item waits."""
        return bool(self._waiting)

    def on_missed(self, callback: OnMissed) -> None:
        """Have `callback` record again what the conversation lacks, when it answers after having missed items."""
        self._on_missed.append(callback)

    def on_removed(self, callback: OnRemoved) -> None:
        """Have `callback` told of what is removed: at once if it is removed here, else before any telling."""
        self._on_removed.append(callback)

    def record(self, item: Item) -> None:
        """Send an item, or keep it. Raises what the item's form deserves, and `OverloadedError`."""
        item = tagged(item, self._standing.role)
        handle, tenure = self._standing.handle, self._standing.tenure
        if handle is None or tenure is None or self.has_missed:
            # refused now, as the handle would: what is refused later can no longer be shortened
            item.to_stored(limit=self._item_bytes)
            self._keep(item)
        else:
            self._send(handle, item, tenure.lease)
        if self._telling is not None:
            self._telling.add(item.id)

    def record_waiting(self) -> None:
        """Send what has waited, in order."""
        self._record_all(self._taken_out())

    def take_out(self, item_ids: Iterable[str]) -> None:
        """Forget items that wait, and tell those who would record them again."""
        gone = frozenset(item_ids)
        self._waiting = deque(item for item in self._waiting if item.id not in gone)
        self._tell_removed(gone)

    def forget_waiting(self) -> None:
        """Forget all that waits, and that anything was missed."""
        self._waiting.clear()
        self.has_missed = False

    def tell_again(self, *, is_afresh: bool) -> None:
        """Have recorded again what was missed, and after it what has waited for that."""
        self.tellings += 1
        waiting, told = self._taken_out(), set[str]()
        self._tell_removed(frozenset() if self._standing.view is None else frozenset(self._standing.view.removed))
        self._telling = told
        try:
            tell(self._on_missed, self._failures, self._standing, is_afresh=is_afresh)
        finally:
            self._telling = None
        self._record_all(item for item in waiting if item.id not in told)

    def _tell_removed(self, gone: frozenset[str]) -> None:
        for callback in self._on_removed if gone else ():
            try:
                callback(gone)
            except Exception as error:  # noqa: BLE001  # one that fails must not keep anything here
                self._failures.count("removed", error, conversation_id=self._standing.conversation_id)

    def _keep(self, item: Item) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self.lost += 1
            self.has_missed = True
            message = f"{len(self._waiting)} items wait for the conversation to open; this one was not kept"
            raise OverloadedError(message)
        self._waiting.append(item)

    def _send(self, handle: ConversationHandle, item: Item, lease: Lease) -> None:
        try:
            handle.record(item, lease=lease)
        except OverloadedError as error:
            self.lost += 1
            conversation_id = self._standing.conversation_id
            self._failures.count(
                "items", error, "an item does not fit into the outbox", conversation_id=conversation_id
            )
            self.has_missed = True
            self._on_trouble(error)
            raise
        self.sent += 1
        self.to_acknowledge.set()

    def _taken_out(self) -> Iterable[Item]:
        waiting, self._waiting = self._waiting, deque()
        return waiting

    def _record_all(self, items: Iterable[Item]) -> None:
        """Record items; one that is refused costs only itself: the call goes on."""
        for item in items:
            try:
                self.record(item)
            except ConversationError as error:
                fields = {"conversation_id": self._standing.conversation_id, "reason": str(error)}
                logger.warning("an item was not kept", extra=fields)


def tell(callbacks: list[OnMissed], failures: Failures, standing: Standing, *, is_afresh: bool) -> None:
    """Ask all to look for what the conversation lacks; one that fails holds up no other one."""
    for callback in callbacks:
        try:
            callback(is_afresh)
        except Exception as error:  # noqa: BLE001  # see the docstring
            failures.count("missed", error, conversation_id=standing.conversation_id)
