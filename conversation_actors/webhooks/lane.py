"""One destination's part of the work: what was taken is sent in order, and what became of it is told.

A lane has its own connections, names and places. A destination that hangs takes up its own lane and no other.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from conversation_actors.archive.outbox import Queued, Taken
from conversation_actors.archive.settling import Dead, Settlement
from conversation_actors.backoff import Backoff
from conversation_actors.failures import Failures
from conversation_actors.webhooks.payload import UnsendableError
from conversation_actors.webhooks.recipient import Recipient
from conversation_actors.webhooks.sender import Refusal, Sender

logger = logging.getLogger(__name__)

PLACES = 32
"""Conversations of a destination that are delivered at the same time."""
_PLACES_WHEN_DOWN = 2
_DOWN = 10
"""So many requests in a row that were not taken, after a time in which none was, and a destination counts as down: few
requests find out when it is back."""
_REPLAYS = 5
"""How often a happening is tried once more, by a command, before it is a dead letter (again)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What holds for a destination. `again` are the bounds of pauses; `working` is how long a claim is used.

    A destination that refuses is down if it has not taken anything for `quiet` seconds.
    """

    attempts: int
    again: tuple[float, float]
    working: float
    quiet: float

    @property
    def most_counted_when_down(self) -> int:
        """Attempts that count while a destination is down: they make pauses the longest, and no dead letter."""
        first, longest = self.again
        doublings = math.ceil(math.log2(max(1.0, longest / first)))
        return max(1, min(doublings + 1, self.attempts - 1))


class Lane:
    """Delivers to one destination. `counts` has what became of requests."""

    def __init__(
        self,
        recipient: Recipient,
        sender: Sender,
        terms: Terms,
        *,
        failures: Failures,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.recipient, self._sender, self._terms = recipient, sender, terms
        self._failures, self._clock = failures, clock
        self.counts: Counter[str] = Counter()
        self.busy = 0
        self.is_down = False
        """Whether the destination refuses, and has not taken anything for a while."""
        self._refused_in_a_row = 0
        self._taken_at = self._woken_at = -math.inf
        self._waits_for_waking = False
        self._may_wake_at = -math.inf
        self._between_wakes = 0.0

    @property
    def is_back(self) -> bool:
        """Whether the destination has come back, and what waits for it may be made due, which nobody has done yet."""
        return self._waits_for_waking and self._clock() >= self._may_wake_at

    def woken(self) -> None:
        """Note that what waits was made due. The next time is not soon, and later and later while this goes on."""
        now, longest = self._clock(), self._terms.again[1]
        is_long_ago = now - self._woken_at > 2 * longest
        self._between_wakes = self._terms.quiet if is_long_ago else min(2 * self._between_wakes, longest)
        self._waits_for_waking, self._woken_at = False, now
        self._may_wake_at = max(self._may_wake_at, now + self._between_wakes)

    @property
    def free(self) -> int:
        """How many conversations more it may be given."""
        return max(0, (_PLACES_WHEN_DOWN if self.is_down else PLACES) - self.busy)

    async def deliver(self, work: "Work") -> None:
        """Send what was taken, in order, up to the first that is not taken; `work` is told what becomes of it."""
        until = self._clock() + self._terms.working
        for queued in work.taken.queue:
            if self._clock() >= until:
                break
            refusal = await self._send(work.taken, queued)
            if queued.replay is not None:
                work.replay(queued, refusal)
            elif not work.go_on(queued, refusal):
                break

    async def _send(self, taken: Taken, queued: Queued) -> Refusal | None:
        if not self.recipient.wants(queued.type):
            return None
        try:
            refusal = await self._sender.send(self.recipient.parcel(queued, taken.conversation_id))
        except UnsendableError as error:
            return Refusal(str(error), is_final=True)
        except Exception as error:  # noqa: BLE001  # one happening must not keep others from being delivered
            self._failures.note("webhooks", error)
            refusal = Refusal(f"failed ({type(error).__name__})")
        self._note(refusal)
        return refusal

    def _note(self, refusal: Refusal | None) -> None:
        """Count, and tell once when the destination goes down and once when it is back."""
        self.counts["delivered" if refusal is None else "refused"] += 1
        about = {"destination": self.recipient.name, "endpoint": self.recipient.shown}
        now, was_down = self._clock(), self.is_down
        if refusal is None:
            self._refused_in_a_row, self._taken_at, self.is_down = 0, now, False
            if was_down:
                self._waits_for_waking = True
                logger.info("a destination takes what is sent to it again", extra=about)
            return
        self._refused_in_a_row += 1
        if refusal.pause:
            self._may_wake_at = max(self._may_wake_at, now + refusal.pause)
        is_quiet = now - self._taken_at >= self._terms.quiet
        if not was_down and is_quiet and self._refused_in_a_row >= _DOWN:
            self.is_down, self._waits_for_waking = True, False
            logger.warning("a destination takes nothing that is sent to it", extra={**about, "reason": refusal.reason})

    def begin(self, taken: Taken) -> "Work":
        """Return the work on what was taken, of which nothing is done yet."""
        return Work(taken, self)

    @property
    def terms(self) -> Terms:
        """What holds for this destination."""
        return self._terms


class Work:
    """What has become of what was taken, so far. Broken off at any time, `done` is true."""

    def __init__(self, taken: Taken, lane: Lane) -> None:
        self.taken, self._lane, self._terms, self._counts = taken, lane, lane.terms, lane.counts
        is_anything_next = any(queued.replay is None for queued in taken.queue)
        self.done = Settlement(taken, taken.delivered_id, taken.attempts if is_anything_next else 0)

    def go_on(self, queued: Queued, refusal: Refusal | None) -> bool:
        """Note what became of the next happening; tell whether the one after it may be sent."""
        if refusal is None:
            self.done = replace(self.done, delivered_id=queued.id, attempts=0)
            return True
        attempts, is_bounded = self.done.attempts + 1, True
        if self._lane.is_down:  # that is no fault of this happening's
            attempts, is_bounded = max(self.done.attempts, min(attempts, self._terms.most_counted_when_down)), False
        if refusal.is_final or (is_bounded and attempts >= self._terms.attempts):
            self._bury(queued, attempts, refusal.reason)
            self.done = replace(self.done, delivered_id=queued.id, attempts=0)
            return True
        pause = max(self.done.pause, _pause(self._terms.again, attempts), refusal.pause)
        self.done = replace(self.done, attempts=attempts, reason=refusal.reason, pause=pause)
        return False

    def replay(self, queued: Queued, refusal: Refusal | None) -> None:
        """Note what became of a happening that is delivered once more. Whatever that is, the others go on."""
        attempts = (queued.replay or 0) + 1
        if refusal is None:
            self.done = replace(self.done, replayed=(*self.done.replayed, queued.id))
        elif refusal.is_final or attempts >= _REPLAYS:
            self._bury(queued, attempts, refusal.reason)
            self.done = replace(self.done, replayed=(*self.done.replayed, queued.id))
        else:
            pause = max(self.done.pause, _pause(self._terms.again, attempts), refusal.pause)
            self.done = replace(self.done, retried=(*self.done.retried, queued.id), pause=pause)

    def _bury(self, queued: Queued, attempts: int, reason: str) -> None:
        self._counts["dead letters"] += 1
        self.done = replace(self.done, dead=(*self.done.dead, Dead(queued.id, attempts, reason)))
        about = {"destination": self.taken.destination, "conversation_id": self.taken.conversation_id}
        told = {**about, "event_id": queued.event_id, "type": queued.type, "attempts": attempts, "reason": reason}
        logger.error("a happening was not taken, and is a dead letter", extra=told)


def _pause(bounds: tuple[float, float], attempts: int) -> float:
    """Return how long to wait after so many attempts."""
    first, longest = bounds
    return Backoff((min(first * 2.0 ** min(attempts - 1, 60), longest), longest)).next()
