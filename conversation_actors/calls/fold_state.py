"""All that a fold remembers, as it is stored."""

from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b

from pydantic import TypeAdapter

from conversation_actors.calls.call import Call, Gaps

_MOST_SEEN, _MOST_SEEN_BETWEEN = 1024, 256
"""Items remembered while there is a call, and between two: for as long as the conversation is archived."""
_PLACES = 1 << 16
"""Happenings of one entry, at most: an entry has 1,000 items at most."""


@dataclass(slots=True)
class Hold:
    """Who has the lease of the role `agent`, and how long that is good."""

    holder: str
    expires_at: float


@dataclass(slots=True)
class Wish:
    """What a successor has asked of the agent of a role."""

    to: str
    is_agreed: bool = False
    """Whether the agent said that it goes, while this was asked."""


@dataclass(slots=True)
class FoldState:
    """Where a fold is in a life, and the call that it knows to go on, or to have ended a moment ago.

    A newer version's fields are left out when it is read.
    """

    seq: int = 0
    place: int = 0
    edition: int = 0
    """How often other entries came in the place of those that were taken."""
    at: float = 0.0
    """The time of the last entry."""
    told_at: float = 0.0
    """The time of the last entry that is more than a successor's wish."""
    number: int = 0
    call: Call | None = None
    hold: Hold | None = None
    wishes: dict[str, Wish] = field(default_factory=dict)
    """By role."""
    roles: dict[str, str] = field(default_factory=dict)
    """Who are the agents of other roles: holders by role."""
    seen: list[str] = field(default_factory=list)
    """Of the latest items that were counted: digests of their ids."""
    gaps: Gaps = field(default_factory=Gaps)
    """What is missing since the last call."""

    def go_to(self, seq: int) -> None:
        """Be at a position, from which nothing has followed yet."""
        self.seq, self.place = seq, self.edition * _PLACES

    def forget_call(self) -> None:
        """Be between two calls."""
        self.call = None
        del self.seen[:-_MOST_SEEN_BETWEEN]

    def is_news(self, item_id: str) -> bool:
        """Tell whether an item is not among the latest; it is from now on."""
        digest = blake2b(item_id.encode(), digest_size=6).hexdigest()
        if digest in self.seen:
            return False
        self.seen.append(digest)
        if len(self.seen) > _MOST_SEEN:
            del self.seen[0]
        return True


def write(state: FoldState) -> str:
    """Return the state as JSON."""
    return _adapter().dump_json(state).decode()


def read(stored: str) -> FoldState:
    """Return what `write` has written. Raises `ValueError` for anything else."""
    return _adapter().validate_json(stored)


@cache
def _adapter() -> TypeAdapter[FoldState]:
    return TypeAdapter(FoldState)
