"""When a call begins and ends, and what still belongs to it."""

from collections.abc import Callable

import pytest

from conversation_actors.calls.happenings import CALL_ENDED, CALL_STARTED, SESSION_RECORDED
from conversation_actors.calls.names import AGENT, COMPLETED, LEFT, NO_AGENT_COMES, NOBODY_THERE, OUTCOME
from conversation_actors.calls.outcome import outcome_note
from conversation_actors.state import ReopenConversation, SetAttributes, SetRetention
from tests.support.call_entries import IDLE, START, Conversation, a_fold, fold_all, records_of, types_of


def a_call(*, ended: str = COMPLETED, reason: str | None = None) -> Conversation:
    """One person's call, of a minute, that its agent ends."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(1)
    call.say(10, "u1", "Where is my order?")
    call.say(12, "a1", "On its way.", role="assistant")
    call.go(59)
    call.end(60, ended, reason)
    call.let_go(60)
    return call


def test_a_call_is_told_of_from_its_beginning_to_its_record() -> None:
    """The record is the last that is told of a call, and follows its end by the grace."""
    told = a_call().told()

    assert types_of(told) == [
        "call.started",
        "agent.joined",
        "participant.joined",
        "turn.completed",
        "participant.left",
        "call.ended",
        "session.recorded",
    ]
    assert {one.call_id for one in told} == {"life.1"}
    assert [one.at - START for one in told] == [0, 0, 1, 12, 59, 60, 70]


def test_a_record_has_what_the_call_was() -> None:
    """Times, people, turns and the end."""
    record = a_call(reason="the order was found").record()

    assert (record.conversation_id, record.call_id, record.number) == ("support-42", "life.1", 1)
    assert (record.started_at, record.ended_at, record.duration) == (START, START + 60, 60)
    assert (record.end_reason, record.end_text) == ("completed", "the order was found")
    assert (record.messages, record.turns, record.crashes, record.take_overs) == (2, 1, 0, 0)


@pytest.mark.parametrize(
    ("begin", "by"),
    [
        (lambda call: call.come(0), "participant"),
        (lambda call: call.take(0, "job-1"), "agent"),
        (lambda call: call.say(0, "u1"), "message"),
        (lambda call: call.say(0, "a1", role="assistant"), "message"),
    ],
)
def test_a_call_begins_with_a_person_an_agent_or_a_word(begin: Callable[[Conversation], None], by: str) -> None:
    """Whichever comes first."""
    call = Conversation()
    begin(call)

    started = call.told()[0]

    assert (started.type, started.data) == (CALL_STARTED, {"number": 1, "by": by})


def test_nothing_else_begins_a_call() -> None:
    """Neither settings, attributes, instructions, another lease, nor somebody's leaving."""
    call = Conversation()
    call.ask(0, SetAttributes({"topic": "orders", OUTCOME: outcome_note({"resolved": True}, START)}))
    call.ask(0, SetRetention(3600.0))
    call.say(1, "s1", "Be kind.", role="system")
    call.append(1, {"type": "function_call", "id": "c1", "call_id": "c1", "name": "look_up", "arguments": "{}"})
    call.take(2, "job-1", role="interpreter")
    call.end(3)
    call.close(4)

    assert call.told() == []


@pytest.mark.parametrize(("ended", "expected"), [(COMPLETED, "completed"), (LEFT, "left")])
def test_the_agent_says_how_its_call_ended(ended: str, expected: str) -> None:
    """What it has noted is the reason."""
    assert a_call(ended=ended).record().end_reason == expected


def test_a_call_that_everybody_has_left_in_order_is_over() -> None:
    """An agent that notes no end, as an older worker's, has given its lease back when nobody was there."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(1)
    call.go(20)
    call.let_go(25)

    record = call.record()

    assert (record.end_reason, record.duration) == ("left", 25)


def test_a_call_is_over_when_the_last_person_follows_the_agent() -> None:
    """In whichever order they go."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(1)
    call.let_go(25)
    call.go(30)

    record = call.record()

    assert (record.end_reason, record.duration) == ("left", 30)


def test_a_closed_conversation_ends_its_call() -> None:
    """With the reason that was given."""
    call = Conversation()
    call.take(0, "job-1")
    call.close(5, "fraud")

    record = call.record()

    assert (record.end_reason, record.end_text, record.crashes) == ("closed", "fraud", 0)


def test_a_call_for_which_no_agent_comes_any_more_is_given_up() -> None:
    """Its last agent died."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(1)
    call.say(4, "u1")
    call.note(40, AGENT, {"holder": None, "state": NO_AGENT_COMES, "attempts": 3})

    record = call.record()

    assert (record.end_reason, record.crashes, record.duration) == ("given_up", 1, 40)
    assert (record.agents[0].end, record.agents[0].left_at) == ("crashed", START + 4)


@pytest.mark.parametrize("state", [NO_AGENT_COMES, NOBODY_THERE])
def test_a_living_agents_call_goes_on_whatever_is_said_of_a_dead_one(state: str) -> None:
    """Somebody has called again, and another agent has come meanwhile."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(1)
    call.take(39, "job-2", replacing="job-1")
    call.note(40, AGENT, {"holder": None, "state": state, "of": "job-1"})
    call.end(50)

    record = call.record()

    assert (record.end_reason, record.duration, record.crashes) == ("completed", 50, 1)


def test_a_call_is_given_up_for_a_successor_that_never_had_it() -> None:
    """Whoever had the lease last does not renew it any more."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(1)
    call.note(70, AGENT, {"holder": None, "state": NO_AGENT_COMES, "of": "job-2"})

    assert call.record().end_reason == "given_up"


def test_a_call_ends_when_its_agent_has_died_and_nobody_is_in_the_room() -> None:
    """Who calls again soon has a call of their own."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(1)
    call.say(4, "u1")
    call.note(40, AGENT, {"holder": None, "state": NOBODY_THERE, "of": "job-1"})
    call.take(45, "job-2", replacing="job-1")
    call.end(60)

    first, second = call.records()

    assert (first.end_reason, first.crashes, first.duration) == ("left", 1, 40)
    assert (first.agents[0].end, first.agents[0].left_at) == ("crashed", START + 4)
    assert (second.end_reason, second.started_at, second.crashes) == ("completed", START + 45, 0)


def test_a_call_of_which_nothing_comes_any_more_is_lost() -> None:
    """It ended with its last entry; that is known after the idle time."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(1)
    call.say(30, "u1")

    assert call.records(until=30 + IDLE - 1) == []
    record = call.record()

    assert (record.end_reason, record.duration, record.crashes) == ("lost", 30, 1)


def test_a_call_is_not_lost_while_its_agent_holds_the_lease() -> None:
    """A lease that is good for longer than the idle time says that the agent is there."""
    call = Conversation()
    call.take(0, "job-1")
    fold = a_fold()
    for entry in call.entries:
        fold.take(entry)
    late = fold.from_json(fold.to_json(), "support-42", "life", idle=5.0)

    assert late.due == START + 60
    assert late.pass_time(START + 59) == []
    assert types_of(late.pass_time(START + 60)) == [CALL_ENDED, SESSION_RECORDED]


def test_a_talk_without_people_and_agents_that_ends_is_not_lost() -> None:
    """Nobody is missed where nobody was: an application that only writes messages."""
    call = Conversation()
    call.say(0, "u1")
    call.say(1, "a1", role="assistant")

    record = call.record()

    assert (record.end_reason, record.duration, record.turns) == ("left", 1, 1)


def test_what_comes_within_the_grace_belongs_to_the_call() -> None:
    """An outcome, a last word and a leaving that come late are in the record."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(0)
    call.say(5, "u1")
    call.end(10)
    call.say(11, "a1", role="assistant")
    call.ask(12, SetAttributes({OUTCOME: outcome_note({"resolved": True}, START)}))
    call.go(13)
    call.let_go(14)

    record = call.record()

    assert (record.turns, record.messages, record.outcome) == (1, 2, {"resolved": True})
    assert (record.duration, record.agents[0].end) == (10, "released")
    assert (record.participants[0].left_at, record.participants[0].seconds) == (START + 13, 10)


def test_what_comes_after_the_grace_belongs_to_the_next_call() -> None:
    """A word that is said then begins it."""
    call = a_call()
    call.say(70, "u2")

    first, second = call.records()

    assert (first.messages, second.messages, second.number, second.started_at) == (2, 1, 2, START + 70)


@pytest.mark.parametrize("begins_with", ["person", "agent"])
def test_the_next_call_begins_within_the_grace_of_the_last_one(begins_with: str) -> None:
    """Somebody dials again at once: the record of the call before is final then, and comes before."""
    call = a_call()
    if begins_with == "person":
        call.come(62)
    else:
        call.take(62, "job-2")

    told = call.told()
    first, second = records_of(told)

    place = types_of(told).index(SESSION_RECORDED)
    assert types_of(told)[place + 1] == CALL_STARTED
    assert told[place].at == START + 62
    assert (first.take_overs, second.take_overs, second.started_at) == (0, 0, START + 62)


def test_whoever_is_still_there_begins_no_other_call() -> None:
    """One more device of somebody who has not left comes late."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(1)
    call.end(10)
    call.come(12, device="desk")

    assert len(call.records()) == 1


def test_nobody_is_there_from_the_call_before() -> None:
    """People whose leaving nobody has told are there again when they join."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(1)
    call.end(10)
    call.let_go(10)
    call.take(100, "job-2")
    call.come(101)
    call.end(110)

    first, second = call.records()

    assert (first.participants[0].left_at, first.participants[0].seconds) == (None, 9)
    assert (second.participants[0].joined_at, second.participants[0].visits) == (START + 101, 1)


def test_a_conversation_that_is_reopened_in_mid_call_has_its_agent_in_the_next_one() -> None:
    """Its agent has the lease all along, and renews it."""
    call = Conversation()
    call.take(0, "job-1")
    call.close(10)
    call.ask(11, ReopenConversation())
    call.renew(11, "job-1")
    call.say(30, "u1")
    call.end(40)

    first, second = call.records()

    assert (first.end_reason, second.end_reason) == ("closed", "completed")
    assert [one.holder for one in second.agents] == ["job-1"]


def test_entries_that_come_again_change_nothing() -> None:
    """A feed may read an entry twice."""
    entries = a_call().entries

    assert fold_all([one for entry in entries for one in (entry, entry, entries[0])]) == fold_all(entries)
