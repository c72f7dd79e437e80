"""Which positions are of a claim's own history."""

import pytest

from conversation_actors.activation.positions import check_named_position, objection_to
from conversation_actors.errors import ConflictError
from conversation_actors.protocol import Request, Seen
from conversation_actors.state import ClearHistory, Command, SetAttributes, SetSummary
from conversation_actors.store import Claim
from conversation_actors.store.base import Ancestor

CLAIM = Claim("c", 3, "me", "life", lineage=(Ancestor("life", 1, "first", 4), Ancestor("life", 2, "second", 9)))


@pytest.mark.parametrize(
    ("seq", "seen", "words"),
    [
        (7, Seen("life", "me"), ""),
        (7, Seen("life", None), ""),
        (0, Seen("life", "stranger"), ""),
        (4, Seen("life", "first"), ""),
        (5, Seen("life", "first"), "was lost: this history went on from 4"),
        (9, Seen("life", "second"), ""),
        (7, Seen("life", "stranger"), "does not know to have been before it"),
        (7, Seen("another", "me"), "another life"),
        (0, Seen("another", None), "another life"),
    ],
)
def test_objection_names_what_is_wrong_with_a_position(seq: int, seen: Seen, words: str) -> None:
    """A position is of this history up to where its teller's own writing ended; the beginning is of every one."""
    assert words in objection_to(CLAIM, seq, seen)
    assert bool(objection_to(CLAIM, seq, seen)) == bool(words)


@pytest.mark.parametrize(
    ("command", "is_refused"),
    [
        (SetSummary("text", through_seq=5), True),
        (SetSummary("text", through_seq=4), False),
        (SetAttributes({}, expected_seq=5), True),
        (SetAttributes({}), False),
        (ClearHistory(), False),
    ],
)
def test_command_that_names_a_lost_position_is_refused(command: Command, *, is_refused: bool) -> None:
    """Only what names a position can be wrong about it; and a request without a history is believed."""
    check_named_position(CLAIM, Request("r", command))
    request = Request("r", command, seen=Seen("life", "first"))
    if is_refused:
        with pytest.raises(ConflictError, match="entry 5 was lost"):
            check_named_position(CLAIM, request)
    else:
        check_named_position(CLAIM, request)
