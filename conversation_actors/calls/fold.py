"""A life's entries, one after another, as the happenings of its calls.

A call begins when somebody comes, an agent takes the lease `agent`, or something is said, and ends when the agent or
the conversation's closing says so, when everybody has left, or when nothing comes any more. What comes within `GRACE`
after that still belongs to it, unless the next call begins; after silence nothing does. Then its record is final.
"""

from typing import Self

from conversation_actors.calls.course import GRACE, Course
from conversation_actors.calls.fold_state import FoldState, read, write
from conversation_actors.calls.happenings import Happening
from conversation_actors.state import Entry

__all__ = ["GRACE", "CallFold"]


class CallFold:
    """The calls of one life of a conversation, as far as its entries were taken.

    The same entries lead to the same happenings, however often the fold was stored in between and whether time was
    told or not, as long as no time was told that is later than an entry still to come.
    """

    def __init__(self, conversation_id: str, life: str, *, idle: float, reports: bool = False) -> None:
        """Begin before the first entry. `idle`: seconds without an entry after which a call counts as over.

        `reports`: tell what a back end is told of, too. That changes no call, and no record.
        """
        self._course = Course(conversation_id, life, FoldState(), reports=reports)
        self._idle = idle

    @property
    def seq(self) -> int:
        """The position up to which entries were taken, or are missing."""
        return self._course.state.seq

    @property
    def due(self) -> float | None:
        """When `pass_time` has something to do if no entry comes: seconds since the epoch. None: there is no call."""
        state = self._course.state
        if state.call is None:
            return None
        if state.call.end is not None:
            return state.call.end.until
        silent = state.at + self._idle
        return silent if state.hold is None else max(silent, state.hold.expires_at)

    def take(self, entry: Entry) -> list[Happening]:
        """Take the next entry. One whose position is not above the last one changes nothing.

        Positions between the two are missing, as if `skip` had said so; before the first entry none are.
        """
        state = self._course.state
        if entry.seq <= state.seq:
            return []
        at = max(entry.at, state.at)
        self._let_pass(at)
        if state.seq:
            self.skip(state.seq + 1, entry.seq - 1)
        state.go_to(entry.seq)
        self._course.apply(entry.event, at)
        return self._course.told()

    def skip(self, from_seq: int, to_seq: int) -> None:
        """Be at `to_seq`: positions from `from_seq` up to there are missing. Those that were taken are not.

        Those before `from_seq` are nobody's: the life begins behind them.
        """
        state = self._course.state
        if to_seq > state.seq:
            first = max(from_seq, state.seq + 1)
            if first <= to_seq:
                gaps = state.gaps if state.call is None else state.call.gaps
                gaps.add(first, to_seq)
            state.go_to(to_seq)

    def rewind(self, seq: int) -> None:
        """Take other entries after `seq`, because those that were taken are superseded.

        What these have led to stays, and no happening of the new ones has an id of theirs.
        """
        state = self._course.state
        if seq >= state.seq:
            return
        state.edition += 1
        state.go_to(seq)
        state.gaps.cut(seq)
        if state.call is not None:
            state.call.gaps.cut(seq)

    def pass_time(self, now: float) -> list[Happening]:
        """End what is over at the time `now`: a call in which nothing comes any more, or the grace after an end.

        `now` must not be later than an entry that is still to come: else a call that goes on counts as over.
        """
        self._let_pass(now)
        return self._course.told()

    def to_json(self) -> str:
        """Return the fold, to be stored. It is bounded, except for the outcome and the summary of a call."""
        return write(self._course.state)

    @classmethod
    def from_json(cls, stored: str, conversation_id: str, life: str, *, idle: float, reports: bool = False) -> Self:
        """Return the fold that was stored. Raises `ValueError` if it cannot be read."""
        fold = cls(conversation_id, life, idle=idle)
        fold._course = Course(conversation_id, life, read(stored), reports=reports)
        return fold

    def _let_pass(self, now: float) -> None:
        while (due := self.due) is not None and due <= now:
            self._course.end_for_silence(due)
