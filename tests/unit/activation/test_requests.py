"""Deciding, without a store: from requests to replies, and the entries that are handed on."""

from collections.abc import Sequence

import pytest

from conversation_actors.activation.requests import Decided, Decider
from conversation_actors.errors import ConflictError
from conversation_actors.protocol import Done, Request
from conversation_actors.state import AppendItems, ConversationState, Entry, Guard, Limits, SetAttributes
from conversation_actors.store import Claim
from tests.support.fakes import append, ids
from tests.support.strategies import message


class Desk:
    """A decider on an empty conversation, and all that it handed on."""

    def __init__(self, **limits: int) -> None:
        """Begin."""
        self.entries: list[Entry] = []
        self.failure: Exception | None = None
        self.decider = Decider(
            ConversationState(Limits(**limits)), Claim("c", 3, "me"), clock=lambda: 1000.0, submit=self._take
        )

    def decide(self, *requests: Request) -> Decided:
        """Decide them."""
        return self.decider.decide(requests)

    def _take(self, entries: Sequence[Entry]) -> None:
        if self.failure is not None:
            raise self.failure
        self.entries += entries


def group(*identities: str, request_id: str = "group") -> Request:
    """Return appends that are all or nothing, and come in the name of a lease that nobody has."""
    command = AppendItems(tuple(map(message, identities)))
    return Request(request_id, command, Guard("agent", 7, "me", ""), is_group=True)


def test_replies_wait_for_what_they_speak_of() -> None:
    """Each reply has the position that was decided by then, a refusal's too."""
    first, wrong = (Request(name, SetAttributes({"a": name}, expected_seq=0)) for name in ("first", "wrong"))
    decided = Desk().decide(first, wrong, append("u1"))
    assert [seq for seq, _ in decided.replies] == [1, 1, 2]
    assert isinstance(decided.replies[1][1], ConflictError)
    assert decided.seq == 2
    assert Desk().decide().seq == 0


def test_repeat_is_answered_and_decides_nothing() -> None:
    """The same request has the first answer again, also in the same call."""
    desk = Desk()
    first, second = desk.decide(append("u0"), append("u0")).replies
    assert first == second == (1, Done(1, 3))
    assert len(desk.entries) == 1


def test_nothing_is_decided_after_a_refused_group() -> None:
    """Its sender goes through it singly: what follows the group has to follow its members."""
    desk = Desk()
    decided = desk.decide(append("u0"), group("u1", "u2"), append("u3"))
    assert len(decided.replies) == 2
    assert ids(desk.decider.working) == ["u0"]


def test_what_cannot_be_handed_on_leaves_no_trace() -> None:
    """An entry that cannot be encoded raises, and the working state is as before."""
    desk = Desk()
    desk.failure = ValueError("cannot be encoded")
    with pytest.raises(ValueError, match="encoded"):
        desk.decide(append("u0"))
    assert (desk.decider.working.seq, ids(desk.decider.working)) == (0, [])


def test_sender_is_told_without_the_bytes_it_has() -> None:
    """Items that came are told by the request's number, those that left by their ids, for each position."""
    decided = Desk(items=1).decide(append("u0"), append("u1"))
    assert {seq: (echo.appended, echo.evicted) for seq, echo in decided.echoes.items()} == {
        1: (0, ()),
        2: (1, ()),
        3: (None, ("u0",)),
    }
