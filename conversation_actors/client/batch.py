"""One batch of commands on its way to the owner."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from conversation_actors.client.packing import Parcel, Queued
from conversation_actors.errors import ClusterUnavailableError, OutcomeUnknownError, RetryableError
from conversation_actors.protocol import Turn


@dataclass(slots=True, eq=False)
class Batch:
    """Commands that have left the queue together, and are not all settled."""

    before: "Batch | None"
    """The batch that was taken before this one, until it is settled."""
    taken: list[Queued] = field(default_factory=list)
    parcels: list[Parcel] = field(default_factory=list)
    """What is to be sent, or sent again."""
    number: int = 0
    """Its turn in the latest attempt that carried all of it; 0 before the first one."""
    is_whole: bool = True
    """Whether the next attempt carries all that was taken."""
    is_repeated: bool = False
    trouble: RetryableError | None = None
    """Why it is being repeated."""

    @property
    def may_be_followed(self) -> bool:
        """Whether it is on its way, and nothing is known to be wrong with it."""
        return self.number > 0 and self.is_whole and not self.is_repeated

    def compose_turn(self, sender: str, numbers: Iterator[int]) -> Turn:
        """Return the turn of one more attempt, later than all before.

        What must have happened before it is an attempt that carried the whole batch before. If that batch is sent in
        parts by now, no attempt of it does.
        """
        turn = Turn(sender, next(numbers), 0 if self.before is None else self.before.number)
        if self.is_whole:
            self.number = turn.number
        return turn


def late(queued: Queued, trouble: RetryableError | None) -> RetryableError:
    """Return what to tell a caller whose time is up, while `trouble` is the reason for repeats."""
    if queued.sent:
        return OutcomeUnknownError(f"no acknowledgement in time ({trouble or 'no answer'}); it may have happened")
    kind = ClusterUnavailableError if trouble is None else type(trouble)
    return kind(f"not sent, because what was sent before is not answered ({trouble or 'no answer'})")
