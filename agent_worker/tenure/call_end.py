"""How a call ended in order: what is noted of it in the conversation, for its session record."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from livekit.agents import CloseReason

from conversation_actors import Participant
from conversation_actors.calls.names import COMPLETED, LEFT

NOBODY_HERE = "nobody is in the room"
"""Ours for the end of a job in whose room nobody is left, or has come."""
_MAX_REASON_CHARACTERS = 500
_NOT_THE_APPLICATIONS = frozenset(
    {"", "user requested", "simulation completed", NOBODY_HERE, *(reason.value for reason in CloseReason)}
)
"""What ``ctx.shutdown`` is told by LiveKit's own tools and defaults, and by this package."""


@dataclass(frozen=True, slots=True)
class CallEnd:
    """The end of a call: why, and when that was known."""

    ended: str
    """`COMPLETED`, or `LEFT`."""
    reason: str = ""
    """The application's own words; empty if it gave none."""
    at: float = field(default_factory=time.time)
    """Seconds since the epoch."""

    @classmethod
    def by_application(cls, reason: str) -> Self | None:
        """Return the end that an application gives a job; None if it says nothing of the call by that."""
        if reason in _NOT_THE_APPLICATIONS:
            return None
        return cls(COMPLETED, reason[:_MAX_REASON_CHARACTERS])

    @classmethod
    def by_participants(cls, participants: Mapping[str, Participant]) -> Self:
        """Return the end of a call of which nothing else is known: people who came have left, or they have not."""
        has_emptied = bool(participants) and not any(one.connected for one in participants.values())
        return cls(LEFT if has_emptied else COMPLETED)

    def and_then(self, later: "CallEnd | None") -> "CallEnd":
        """Return this end, with the words of a later one if it has none of its own."""
        return self if later is None or self.reason else replace(self, reason=later.reason)

    def note(self, holder: str) -> dict[str, Any]:
        """Return what the attribute `CALL` is to be."""
        told = {"ended": self.ended, "at": self.at, "holder": holder}
        return {**told, "reason": self.reason} if self.reason else told
