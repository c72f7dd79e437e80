"""Conversations that the database refused: each is written by itself, less and less of it, and keeps nobody back."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from conversation_actors.backoff import Backoff
from conversation_actors.clock import uptime
from conversation_actors.store.backlog import Batch

GROUP_BYTES = 256 << 10
"""What is written in one transaction: reading more would keep everything else waiting for long."""


@dataclass(slots=True)
class _Suspect:
    """What is known of one. `since` is how many writes there had been when it failed last."""

    since: int
    most_bytes: int = GROUP_BYTES
    has_failed_alone: bool = False
    backoff: Backoff | None = None
    """Of one that is known to be at fault itself."""
    rests_until: float = 0.0


class Suspects:
    """Tells a conversation that cannot be written from a database that is away.

    A group that fails makes suspects of all in it. A suspect that fails by itself has half as much to be written at
    once the next time. It is at fault if others were written after it had failed, or while it was tried, and the
    database has failed for nobody else since.
    """

    def __init__(self, pauses: tuple[float, float], *, clock: Callable[[], float] = uptime) -> None:
        """Begin without any. `pauses` are the bounds between two attempts with one that is at fault."""
        self._pauses, self._clock = pauses, clock
        self._ones: dict[str, _Suspect] = {}
        self._is_well = False
        """Whether the database did what it was asked last, apart from what it was asked for those at fault."""
        self.written = 0
        """How many writes there have been."""

    def __contains__(self, conversation_id: str) -> bool:
        """Whether a conversation is to be written by itself."""
        return conversation_id in self._ones

    def is_faulty(self, conversation_id: str) -> bool:
        """Whether a conversation is known to be at fault itself."""
        one = self._ones.get(conversation_id)
        return one is not None and one.backoff is not None

    def is_resting(self, conversation_id: str) -> bool:
        """Whether a conversation is left alone for now."""
        one = self._ones.get(conversation_id)
        return one is not None and self._clock() < one.rests_until

    def most_bytes(self, conversation_id: str, share: int) -> int:
        """Return how much of a conversation is to be written at once, where others have a `share`."""
        one = self._ones.get(conversation_id)
        return share if one is None else min(share, one.most_bytes)

    def enter(self, names: Collection[str]) -> None:
        """Let conversations be written by themselves, as something else than the database failed with all of them."""
        for name in names:
            self._ones.setdefault(name, _Suspect(self.written))

    def refused(self, batches: Mapping[str, Batch], *, began: int) -> bool:
        """Note that the database did not take these, tried after `began` writes; tell whether it is their own fault."""
        if len(batches) > 1:
            self._is_well = False
            for name, batch in batches.items():
                self._ones[name] = _Suspect(self.written, most_bytes=_size(batch))
            return False
        [(name, batch)] = batches.items()
        one = self._ones.setdefault(name, _Suspect(began))
        one.most_bytes, one.has_failed_alone = max(1, _size(batch) // 2), True
        was_faulty = one.backoff is not None
        is_faulty = was_faulty or (self._is_well and self.written > one.since)
        one.since = self.written
        if is_faulty:
            self._rest(one)
        if not was_faulty:
            self._is_well = False
        return is_faulty

    def blame(self, conversation_id: str) -> None:
        """Leave a conversation alone for a while, with which something else than the database failed."""
        self._rest(self._ones.setdefault(conversation_id, _Suspect(self.written)))

    def archived(self, group: Sequence[str], batches: Mapping[str, Batch]) -> None:
        """Note what of a group was written; nothing was to be taken of the others.

        One that has failed by itself may have twice as much the next time, and is none any more when nothing of it
        waits, or it may have as much as a whole group: to forget it at once would have it fail for each batch anew.
        """
        for name in group:
            one, batch = self._ones.get(name), batches.get(name)
            if one is None or (batch is None and one.backoff is not None):
                continue
            one.most_bytes *= 2
            one.backoff, one.rests_until = None, 0.0
            if batch is None or not batch.left or not one.has_failed_alone or one.most_bytes >= GROUP_BYTES:
                del self._ones[name]
        if batches:
            self.written += 1
            self._is_well = True

    def keep(self, waiting: Collection[str]) -> None:
        """Forget those of which nothing waits any more."""
        for name in [name for name in self._ones if name not in waiting]:
            del self._ones[name]

    def _rest(self, one: _Suspect) -> None:
        one.backoff = one.backoff or Backoff(self._pauses)
        one.rests_until = self._clock() + one.backoff.next()


def _size(batch: Batch) -> int:
    return sum(map(len, batch.stored))
