"""Time as an activation knows it: the store's, carried on by a clock that nobody can set.

A node's own clock may be an hour wrong, and the next activation may run on another node. So what is stored is dated
by the store's clock, read once in the step that took the epoch, and how long something lasts is measured.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable

from conversation_actors.clock import uptime
from conversation_actors.state import ConversationState
from conversation_actors.store import Recovered

log = logging.getLogger(__name__)

SKEW_SECONDS = 2.0
"""Clocks that differ by more than this are worth a line in the log."""
_MARKS = 60
"""Into how many parts the request memory's age is divided: a request is forgotten by at most one part too late."""


def store_clock(recovered: Recovered, durable: ConversationState, elapsed: Callable[[], float]) -> Callable[[], float]:
    """Return a clock, in seconds since the epoch, that goes on from the store's time at the speed of `elapsed`.

    If the conversation is ahead of the store, whose clock was set back, it goes on from the conversation's last
    change: a lease that was taken there lasts as long as it was taken for, and not until the clock has caught up.
    """
    node_ahead, ahead = time.time() - recovered.at, durable.changed_at - recovered.at
    if abs(node_ahead) > SKEW_SECONDS:
        log.warning("this node's clock differs from the store's", extra={"seconds_ahead": round(node_ahead, 1)})
    if ahead > SKEW_SECONDS:
        log.warning("the conversation is ahead of the store's clock", extra={"seconds_ahead": round(ahead, 1)})
    began, base = elapsed(), max(recovered.at, durable.changed_at)
    return lambda: base + elapsed() - began


class ForgottenRequests:
    """Forgets requests by their age, counted from when this activation first had them: no clock makes them older."""

    def __init__(self, age: float, *, elapsed: Callable[[], float] = uptime) -> None:
        """Forget requests that are older than `age`, in seconds by `elapsed`."""
        self._age, self._elapsed = age, elapsed
        self._marks: deque[tuple[float, int]] = deque()

    def forget(self, states: Iterable[ConversationState]) -> None:
        """Drop, from states that are at most a write apart, the requests that are older. Call it now and then."""
        now, kept = self._elapsed(), list(states)
        if not self._marks or now - self._marks[-1][0] >= self._age / _MARKS:
            self._marks.append((now, max(state.seq for state in kept)))
        while self._marks and now - self._marks[0][0] >= self._age:
            _, seq = self._marks.popleft()
            for state in kept:
                state.forget_requests(through_seq=seq)
