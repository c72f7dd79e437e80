"""For how long records were silent, as one reader has seen it. Pure: times are given, of that reader's own clock.

No two machines' clocks are compared, and a server that hangs, or steps its clock, makes nobody seem dead. A record
stands at a numbered beat; it is silent for as long as a reader sees it stand there. That counts from the moment at
which the first answer that proves it was received, to the moment at which the last question was sent, and only while
the reader's questions are answered: a gap between two answers may be one in which nobody could be heard, and begins
the count anew. So does a question without an answer, another incarnation of the beats, and a count that goes back.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from conversation_actors.store import Beat

LOOK_BACK = 1.0
"""Seconds for which a record has been silent before it is read at all; living ones are not."""
GAP_SHARE = 1 / 3
"""The part of a record's `valid_for` that may lie between two answers: less than its holder may be silent for, and
twice the sixth in which readers look, so that an answer may take as long as that."""
_MARKS = 1024


@dataclass(frozen=True, slots=True)
class Read:
    """One question that was answered: when it was sent, and when the answer was there, in seconds."""

    sent: float
    received: float


@dataclass(frozen=True, slots=True)
class _Mark:
    """All records whose beats are not later than `last` have stood there since `read`, those that still do."""

    read: Read
    last: Beat


@dataclass(frozen=True, slots=True)
class _Sighting:
    beat: Beat
    since: float
    read: Read
    gap: float

    @property
    def seconds(self) -> float:
        return max(0.0, self.read.sent - self.since)


class Silence:
    """What one reader knows of one lease's records. Nothing it says is about the time before its first look."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self._marks: deque[_Mark] = deque(maxlen=_MARKS)
        self._sightings: dict[str, _Sighting] = {}
        self._cut: Read | None = None
        self.gaps = 0
        """Reads before which there was a gap that had something counted anew: as long as they go on nobody is found."""

    def until(self, now: float) -> int:
        """Return the last beat that is worth reading: of records that were silent ever since a while ago."""
        return next((mark.last.number for mark in reversed(self._marks) if mark.read.received <= now - LOOK_BACK), 0)

    def mark(self, read: Read, last: Beat) -> None:
        """Note that `last` was the last of all beats when this was read."""
        before = next((mark for mark in reversed(self._marks) if mark.read.received <= read.sent), None)
        if before is not None and (before.last.incarnation != last.incarnation or before.last.number > last.number):
            self.interrupt()
        self._marks.append(_Mark(read, last))
        while len(self._marks) > 2 and self._marks[1].read.received <= read.received - 2 * LOOK_BACK:  # noqa: PLR2004
            self._marks.popleft()

    def see(self, read: Read, name: str, beat: Beat, *, valid_for: float) -> float:
        """Note that a record stood at a beat when this was read; for how many seconds it is known to stand there."""
        gap = valid_for * GAP_SHARE
        since = self._marked_since(read, beat, gap)
        before = self._sightings.pop(name, None)
        if before is not None and before.beat == beat and read.received - before.read.sent <= gap:
            since = min(since, before.since)
        if since == read.received and (self._is_marked_before(read, beat) or (before and before.beat == beat)):
            self._count_gap(read)
        # the one seen last is the last one
        seen = self._sightings[name] = _Sighting(beat, since, read, gap)
        self._forget_before(read)
        return seen.seconds

    def interrupt(self) -> None:
        """Begin anew: a question was not answered, or what was counted is no more what it was."""
        self._marks.clear()
        self._sightings.clear()

    def _marked_since(self, read: Read, beat: Beat, gap: float) -> float:
        """Since when the marks tell that a record stands where it stood in this read."""
        since, later = read.received, read
        for mark in self._marks_before(read, beat):
            if later.received - mark.read.sent > gap:
                break
            since, later = mark.read.received, mark.read
        return since

    def _marks_before(self, read: Read, beat: Beat) -> Iterator[_Mark]:
        """Return the marks, from this read's own back to the first one that knows of the beat."""
        for mark in reversed(self._marks):
            if mark.read.received > read.received:
                continue
            if mark.last.incarnation != beat.incarnation or mark.last.number < beat.number:
                return
            yield mark

    def _is_marked_before(self, read: Read, beat: Beat) -> bool:
        """Whether another read's mark tells that a record stood where it stands."""
        return any(mark.read != read for mark in self._marks_before(read, beat))

    def _count_gap(self, read: Read) -> None:
        """Count the gap before a read once, however many records it tells of."""
        if read != self._cut:
            self._cut, self.gaps = read, self.gaps + 1

    def _forget_before(self, read: Read) -> None:
        """Drop what has not been looked at for so long that it tells nothing."""
        while self._sightings:
            name, oldest = next(iter(self._sightings.items()))
            if read.received - oldest.read.sent <= oldest.gap:
                return
            del self._sightings[name]
