"""Turns, without a store: batches that come too early, too late, twice, or behind a refusal."""

from typing import Any

import pytest

from conversation_actors.activation.requests import Decided, Decider
from conversation_actors.activation.turns import Turns
from conversation_actors.errors import ConflictError, ConversationClosedError, RefusedError
from conversation_actors.protocol import Done, Reply, Request, Turn
from conversation_actors.state import (
    AppendItems,
    CloseConversation,
    Command,
    ConversationState,
    Entry,
    Limits,
    ReopenConversation,
)
from conversation_actors.store import Claim
from tests.support.fakes import append, ids
from tests.support.strategies import call, message


class Desk:
    """Turns over a decider on an empty conversation, and all that was decided."""

    def __init__(self, *, senders: int = 4, **limits: int) -> None:
        """Begin."""
        self.entries: list[Entry] = []
        state = ConversationState(Limits(**limits))
        self.decider = Decider(state, Claim("c", 3, "me"), clock=lambda: 1000.0, submit=self.entries.extend)
        self.turns = Turns(self.decider, senders=senders)

    def decide(self, turn: Turn | None, *requests: Request) -> list[Reply]:
        """Decide them, and return the replies."""
        return [reply for _, reply in self.decided(turn, *requests).replies]

    def decided(self, turn: Turn | None, *requests: Request) -> Decided:
        """Decide them."""
        return self.turns.decide(requests, turn)

    @property
    def items(self) -> list[str]:
        """Ids of the items, in order."""
        return ids(self.decider.working)


def turn(number: int, after: int = 0, sender: str = "s") -> Turn:
    """Return a turn."""
    return Turn(sender, number, after)


def wrong(identity: str) -> Request:
    """Return a request that is refused where a message has this id."""
    return Request(f"wrong-{identity}", AppendItems((call(identity, "call"),)))


def group(name: str, *identities: str, first: Any = message) -> Request:
    """Return appends that are all or nothing."""
    items = (first(identities[0]), *map(message, identities[1:]))
    return Request(name, AppendItems(items), is_group=True)


def plain(name: str, command: Command) -> Request:
    """Return a request."""
    return Request(name, command)


def test_batches_are_decided_in_their_turns() -> None:
    """The second follows the first, whether it was sent before or after the first was answered."""
    desk = Desk()
    for given, identity in ((turn(1), "u1"), (turn(2, after=1), "u2"), (turn(3), "u3"), (turn(5, after=3), "u4")):
        assert isinstance(desk.decide(given, append(identity))[0], Done)
    assert desk.items == ["u1", "u2", "u3", "u4"]


def test_batch_that_comes_too_early_leads_to_nothing() -> None:
    """It has no replies, however often it comes, and is decided when the first one is there."""
    desk = Desk()
    for _ in range(2):
        assert desk.decided(turn(2, after=1), append("u2")) == Decided((), {})
    assert desk.decide(turn(1), append("u1")) == [Done(1, 3)]
    assert desk.decide(turn(2, after=1), append("u2")) == [Done(2, 3)]
    assert desk.items == ["u1", "u2"]


def test_batch_waits_for_the_attempt_that_it_names() -> None:
    """Another batch of the sender is not the one that must have happened, nor is one of another sender."""
    desk = Desk()
    desk.decide(turn(1), append("u1"))
    desk.decide(turn(2, sender="other"), append("u2"))
    assert desk.decide(turn(3, after=2), append("u3")) == []
    assert desk.decide(turn(3, after=1, sender="other"), append("u3")) == []


def test_copy_is_answered_as_the_first_was() -> None:
    """What happened from memory, what was refused as it was, though it could happen by now; nothing is decided."""
    desk = Desk()
    batch = (plain("close", CloseConversation("over")), append("u1"), plain("reopen", ReopenConversation()))
    first = desk.decide(turn(1), *batch)
    assert [type(reply) for reply in first] == [Done, ConversationClosedError, Done]
    assert desk.decide(turn(1), *batch) == first
    assert desk.items == []


def test_copy_of_an_earlier_batch_leads_to_nothing_new() -> None:
    """It is answered as far as its requests are remembered; the first that is not ends the answer."""
    desk = Desk()
    late = turn(1), append("u1"), append("u2")
    desk.decide(turn(2), append("u1"))
    assert desk.decide(turn(3, after=2), append("u3")) == [Done(2, 3)]
    assert desk.decide(*late) == [Done(1, 3)]
    assert desk.items == ["u1", "u3"]


def test_copy_of_what_was_refused_and_told_leads_to_nothing() -> None:
    """The sender has gone on since: what could happen now must not."""
    desk = Desk()
    closed = turn(1), plain("close", CloseConversation("over")), append("u1")
    desk.decide(*closed)
    desk.decide(turn(2), plain("reopen", ReopenConversation()))
    assert [type(reply) for reply in desk.decide(*closed)] == [Done]
    assert desk.items == []


def test_copy_of_a_batch_whose_follower_was_decided_is_answered_whole() -> None:
    """Both copies are on their way together with the next batch: whichever answer comes first says the same."""
    desk = Desk()
    first = desk.decide(turn(1), append("u1"), append("u2"))
    desk.decide(turn(2, after=1), append("u3"))
    assert desk.decide(turn(1), append("u1"), append("u2")) == first


@pytest.mark.parametrize("refused", [wrong("u0"), group("g", "u0", "u9", first=lambda name: call(name, "call"))])
def test_nothing_follows_a_refusal_unseen(refused: Request) -> None:
    """A group is gone through first, and what was refused may be asked for once more: both before what follows."""
    desk = Desk()
    desk.decide(turn(1), append("u0"))
    replies = desk.decide(turn(2), append("u1"), refused, append("u2"))
    assert isinstance(replies[1], ConflictError)
    assert len(replies) == (2 if refused.is_group else 3)
    assert desk.decide(turn(3, after=2), append("u3")) == []
    desk.decide(turn(4), append("u2"))
    assert desk.decide(turn(5, after=4), append("u3")) != []
    assert desk.items == ["u0", "u1", "u2", "u3"]


def test_copy_of_a_refused_group_is_refused() -> None:
    """And ends there, as the first did; an earlier one, whose members have gone singly, leads to nothing at all."""
    desk = Desk()
    desk.decide(turn(1), append("u0"))
    refused = group("g", "u0", "u1", first=lambda name: call(name, "call"))
    given = turn(2), refused, append("u2")
    for _ in range(2):
        (reply,) = desk.decide(*given)
        assert isinstance(reply, ConflictError)
    desk.decide(turn(3), append("u1"), append("u2"))
    assert desk.decide(*given) == []
    assert desk.items == ["u0", "u1", "u2"]


def own(name: str, command: Command) -> Request:
    """Return a request that the sender ``s`` has named, and never gives another command that name."""
    return Request(f"s.{name}", command)


CLOSE, REOPEN = own("1", CloseConversation("over")), own("3", ReopenConversation())
LATE = own("2", AppendItems((message("u2"),)))


def test_what_was_refused_stays_refused() -> None:
    """In a repeat of its batch, though what came after it would let it happen; whatever else is left of the batch."""
    desk = Desk()
    _, refusal, _ = first = desk.decide(turn(1), CLOSE, LATE, REOPEN)
    assert isinstance(refusal, ConversationClosedError)
    assert desk.decide(turn(2), CLOSE, LATE, REOPEN) == first
    assert desk.decide(turn(3), LATE) == [refusal]
    assert desk.items == []
    named = Request("mine", LATE.command)
    assert isinstance(desk.decide(turn(4), named)[0], Done), "what a caller has named may be another command"


def test_what_another_activation_refused_stays_refused() -> None:
    """It is not known, and what its sender has sent after it is."""
    desk = Desk()
    for request in (CLOSE, REOPEN):
        desk.decider.decide([request])
    replies = desk.decide(turn(1), CLOSE, LATE, REOPEN, own("4", AppendItems((message("u4"),))))
    assert [type(reply) for reply in replies] == [Done, ConflictError, Done, Done]
    assert desk.items == ["u4"]


def test_what_may_have_been_forgotten_is_not_told_to_be_refused() -> None:
    """The request memory was full when the other activation ended: it may reach back to no more than the last ones."""
    desk = Desk(requests=2)
    sent = [own(str(number), AppendItems((message(f"u{number}"),))) for number in (1, 2, 3, 4)]
    for request in (sent[0], sent[1], sent[3]):
        desk.decider.decide([request])
    replies = desk.decide(turn(1), *sent)
    assert [type(reply) for reply in replies] == [Done, Done, ConflictError, Done]


@pytest.mark.parametrize("is_repeated", [False, True])
def test_refusals_hold_nothing_of_their_batch(*, is_repeated: bool) -> None:
    """They are kept for repeats; a traceback has frames, and those hold the batch and all that is in it."""
    desk = Desk()
    desk.decide(turn(1), append("u1"), Request("mine", ReopenConversation()))
    refused = Request("mine", CloseConversation("another command of this name")) if is_repeated else wrong("u1")
    for given in (turn(2), turn(2)):
        (refusal,) = desk.decide(given, refused)
        assert isinstance(refusal, RefusedError)
        assert (refusal.__traceback__, refusal.__context__, refusal.__cause__) == (None, None, None)


def test_request_that_its_caller_has_named_says_nothing_of_the_order() -> None:
    """It may be a repeat of long ago: what comes before it now has not been refused for that."""
    desk = Desk()
    desk.decide(turn(1), append("u1"))
    assert all(isinstance(reply, Done) for reply in desk.decide(turn(2), LATE, append("u1")))
    assert desk.items == ["u1", "u2"]


def test_nothing_follows_a_defect() -> None:
    """A batch in which deciding failed half-way has not happened as a whole; its copy is answered up to there."""
    desk = Desk()
    with pytest.raises(KeyError):
        desk.decide(turn(1), append("u1"), Request("unfit", 7))  # type: ignore[arg-type]  # a defect
    assert desk.decide(turn(2, after=1), append("u2")) == []
    assert desk.items == ["u1"]


def test_no_more_senders_are_known_than_that() -> None:
    """The one that was heard of longest ago is forgotten; it has to send the batch that follows once more."""
    desk = Desk(senders=2)
    desk.decide(turn(1, sender="a"), append("u1"))
    desk.decide(turn(1, sender="b"), append("u2"))
    desk.decide(turn(2, after=1, sender="a"), append("u3"))
    desk.decide(turn(1, sender="c"), append("u4"))
    assert len(desk.turns) == 2
    assert desk.decide(turn(3, after=2, sender="a"), append("u5")) != []
    assert desk.decide(turn(2, after=1, sender="b"), append("u6")) == []


def test_batches_without_a_turn() -> None:
    """They are decided as they come."""
    desk = Desk()
    assert desk.decide(None, append("u1")) == [Done(1, 3)]
    assert desk.decide(None, append("u1"), append("u2")) == [Done(1, 3), Done(2, 3)]
    assert len(desk.turns) == 0


def test_what_the_answer_before_tells() -> None:
    """A batch that was sent before the answer to the first gets none of its entries again; any other gets all."""
    desk = Desk()
    first, second = turn(1), turn(2, after=1)
    desk.decide(first, append("u1"))
    assert desk.turns.told_before(second) == 0
    desk.turns.note_told(first, 1)
    desk.decide(second, append("u2"))
    assert desk.turns.told_before(second) == 1
    assert desk.turns.told_before(turn(3)) == desk.turns.told_before(None) == 0
    desk.turns.note_told(second, 2)
    desk.turns.note_told(first, 1)  # a copy, answered late
    assert desk.turns.told_before(turn(3, after=2)) == 2
    assert desk.turns.told_before(turn(3, after=2, sender="other")) == 0
