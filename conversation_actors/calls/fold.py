"""A life's entries, one after another, as the happenings of its calls."""

from typing import Self

from conversation_actors.calls.happenings import Happening
from conversation_actors.state import Entry

GRACE = 10.0
"""Seconds after a call's end in which what comes late still belongs to the call."""


class CallFold:
    """The calls of one life of a conversation, as far as its entries were taken.

    The same entries lead to the same happenings, however often the fold was stored in between and whether time was
    told or not, as long as no time was told that is later than an entry still to come.
    """

    def __init__(self, conversation_id: str, life: str, *, idle: float) -> None:
        """Begin before the first entry. `idle`: seconds without an entry after which a call counts as lost."""
        raise NotImplementedError

    @property
    def seq(self) -> int:
        """The position up to which entries were taken, or are missing."""
        raise NotImplementedError

    @property
    def due(self) -> float | None:
        """When `pass_time` has something to do if no entry comes: seconds since the epoch. None: there is no call."""
        raise NotImplementedError

    def take(self, entry: Entry) -> list[Happening]:
        """Take the next entry. One whose position is not above the last one changes nothing."""
        raise NotImplementedError

    def skip(self, from_seq: int, to_seq: int) -> None:
        """Note that these positions, both inclusive, are missing."""
        raise NotImplementedError

    def rewind(self, seq: int) -> None:
        """Take other entries after `seq`, because those that were taken are superseded.

        What these have led to stays, and no happening of the new ones has an id of theirs.
        """
        raise NotImplementedError

    def pass_time(self, now: float) -> list[Happening]:
        """End what is over at the time `now`: a call that is lost, or the grace after an end.

        `now` must not be later than an entry that is still to come: else what is not over counts as lost.
        """
        raise NotImplementedError

    def to_json(self) -> str:
        """Return the fold, to be stored. It is bounded, except for the outcome and the summary of a call."""
        raise NotImplementedError

    @classmethod
    def from_json(cls, stored: str, conversation_id: str, life: str, *, idle: float) -> Self:
        """Return the fold that was stored. Raises `ValueError` if it cannot be read."""
        raise NotImplementedError
