"""The checker of played calls finds each broken promise, of webhooks and of the back end: breaks are put in by hand."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from conversation_actors import Message, SessionRecord
from conversation_actors.backend.routes import ROUTES
from conversation_actors.calls import CallFold
from conversation_actors.calls.happenings import MESSAGE_STORED, SESSION_RECORDED, TRANSCRIPTION_FINAL, TURN_COMPLETED
from tests.chaos.calls.checker import Try, check, check_backend
from tests.chaos.calls.expected import Ledger
from tests.support.call_entries import CONVERSATION, IDLE, LIFE, LONG, START, Conversation

Told = tuple[list[Try], list[SessionRecord]]


def played() -> Ledger:
    """One call with a crash, as its player knows it."""
    ledger = Ledger(CONVERSATION)
    ledger.begin("agent")
    ledger.agent("job-1")
    ledger.join("ada")
    ledger.item(Message(id="u1", role="user", content="Hello"))
    ledger.agent("job-2", crashed=True)
    ledger.item(Message(id="a1", role="assistant", content="Hello"))
    ledger.end("completed")
    ledger.leave("ada", is_late=True)
    ledger.finish()
    return ledger


def told(*, leaves: bool = True, reports: bool = False) -> Told:
    """What is told of it, and its record; with `reports`, also what only a back end is told."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(1)
    call.say(2, "u1")
    call.take(5, "job-2", replacing="job-1")
    call.say(6, "a1", role="assistant")
    call.end(7)
    if leaves:
        call.go(8)
    fold = CallFold(CONVERSATION, LIFE, idle=IDLE, reports=reports)
    happened = [one for entry in call.entries for one in fold.take(entry)] + fold.pass_time(START + LONG)
    tries = [Try(one.id, one.type, dict(one.data) | {"call_id": one.call_id}, "ok") for one in happened]
    return tries, [SessionRecord.from_dict(one.data) for one in happened if one.type == SESSION_RECORDED]


def test_what_is_told_as_it_happened_is_right() -> None:
    """Also with refusals, repeats and answers that got lost, and if what may count for nothing did not count."""
    tries, records = told()
    refused = [replace(tries[2], answer="500"), replace(tries[2], answer="cut"), replace(tries[2], answer="late")]

    assert check(played(), tries, records) == []
    assert check(played(), [*tries[:2], *refused, *tries[2:], tries[0], tries[5]], records) == []
    assert check(played(), *told(leaves=False)) == []


def _without(place: int) -> Callable[[Told], Told]:
    return lambda whole: (whole[0][:place] + whole[0][place + 1 :], whole[1])


def _again(whole: Told) -> Told:
    tries, records = whole
    return [*tries[:4], replace(tries[3], id="evt_other"), *tries[4:]], records


def _swapped(whole: Told) -> Told:
    tries, records = whole
    return [*tries[:2], tries[3], tries[2], *tries[4:]], records


def _early(whole: Told) -> Told:
    """The third one is refused, and the fourth one comes; then both as they are to come."""
    tries, records = whole
    return [*tries[:2], replace(tries[2], answer="500"), replace(tries[3], answer="500"), *tries[2:]], records


def _changed(whole: Told) -> Told:
    tries, records = whole
    return [*tries, replace(tries[1], data={**tries[1].data, "holder": "somebody"})], records


BROKEN: dict[str, Callable[[Told], Told]] = {
    "the first happening is missing": _without(0),
    "a turn is missing": _without(4),
    "the last happening is missing": lambda whole: (whole[0][:-1], whole[1]),
    "nothing is told": lambda whole: ([], whole[1]),
    "a happening has two ids": _again,
    "two come in another order": _swapped,
    "one is sent before the one before it is taken": _early,
    "one comes again with other words": _changed,
    "an answer was never taken": lambda whole: ([*whole[0][:-1], replace(whole[0][-1], answer="500")], whole[1]),
    "there is no record": lambda whole: (whole[0], []),
    "there are two records": lambda whole: (whole[0], whole[1] * 2),
    "a record is of no call": lambda whole: (whole[0], [*whole[1], replace(whole[1][0], number=2)]),
    "a record has another end": lambda whole: (whole[0], [replace(whole[1][0], end_reason="lost")]),
    "a record has a turn too many": lambda whole: (whole[0], [replace(whole[1][0], turns=2)]),
    "a record forgets a crash": lambda whole: (whole[0], [replace(whole[1][0], crashes=0)]),
    "a record has a gap": lambda whole: (whole[0], [replace(whole[1][0], gaps=((3, 4),))]),
    "a record is another one than was sent": lambda whole: (whole[0], [replace(whole[1][0], duration=1.0)]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_found(name: str) -> None:
    """Each of these alone is a violation."""
    assert check(played(), *BROKEN[name](told())) != []


def sent() -> list[Try]:
    """What the back end is sent of the call, of what it is sent at all."""
    tries, _ = told(reports=True)
    return [one for one in tries if one.type in ROUTES]


def without(kind: str) -> Callable[[list[Try]], list[Try]]:
    """Leave out the last one of a type."""

    def left(tries: list[Try]) -> list[Try]:
        last = max(place for place, one in enumerate(tries) if one.type == kind)
        return [*tries[:last], *tries[last + 1 :]]

    return left


SENT_WRONG: dict[str, Callable[[list[Try]], list[Try]]] = {
    "nothing is sent": lambda _: [],
    "a message is missing": without(MESSAGE_STORED),
    "a transcription is missing": without(TRANSCRIPTION_FINAL),
    "a turn is missing": without(TURN_COMPLETED),
    "one comes again under another key": lambda tries: [*tries, replace(tries[-1], id="evt_other")],
    "the order is another one": lambda tries: [tries[1], tries[0], *tries[2:]],
    "one is sent before the one before it is taken": lambda tries: [replace(tries[0], answer="500"), tries[1], *tries],
}  # fmt: skip


def test_what_the_back_end_is_sent_as_it_happened_is_right() -> None:
    """Also with repeats."""
    tries = sent()
    assert {MESSAGE_STORED, TRANSCRIPTION_FINAL} <= {one.type for one in tries}
    assert check_backend(played(), [*tries, *tries[:3]]) == []


@pytest.mark.parametrize("name", SENT_WRONG)
def test_what_is_wrong_with_what_the_back_end_is_sent_is_found(name: str) -> None:
    """Each of these alone is a violation."""
    assert check_backend(played(), SENT_WRONG[name](sent())) != []
