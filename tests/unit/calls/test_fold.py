"""How a fold is stored, and what it makes of positions that are missing, come again or are superseded."""

import json
from collections.abc import Iterator

import pytest

from conversation_actors.calls import HAPPENINGS, CallFold, Happening
from conversation_actors.calls.happenings import CALL_STARTED
from conversation_actors.calls.names import OUTCOME, USAGE
from conversation_actors.calls.outcome import outcome_note
from conversation_actors.items import StoredItem
from conversation_actors.state import Entry, ItemsAppended, Lease, LeaseAcquired
from tests.support.call_entries import CONVERSATION, IDLE, LIFE, LONG, START, Conversation, a_fold, records_of, stored

BOUND = 256 << 10
"""Bytes of a fold's stored form."""
BOUND_BETWEEN = 5 << 10
"""The same while there is no call: it stays for as long as the conversation is archived."""
MEASURES = {
    **dict.fromkeys(("e2e_latency", "llm_node_ttft", "tts_node_ttfb", "end_of_turn_delay"), 0.123456),
    "started_speaking_at": 1.0,
    "stopped_speaking_at": 2.0,
}
MESSAGES = {
    role: json.dumps({"type": "message", "role": role, "content": ["x" * 200], "metrics": MEASURES}).encode()
    for role in ("user", "assistant")
}


def a_talk() -> Conversation:
    """Two people and an agent, and a call that goes on."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(1)
    call.say(2, "u1")
    call.say(3, "a1", role="assistant")
    return call


def a_turn(number: int) -> Iterator[StoredItem]:
    """A question, a tool's call and an answer, with all that is measured of them; not encoded anew each time."""
    for place, role in enumerate(("user", "", "assistant")):
        identity = f"item_{place}{number:012}"
        if role:
            yield StoredItem(identity, "message", role, "", MESSAGES[role])
        else:
            call = b'{"type":"function_call","name":"tool_%d"}' % number
            yield StoredItem(identity, "function_call", "", identity, call)


def after(call: Conversation) -> CallFold:
    """A fold that has taken a conversation's entries."""
    fold = a_fold()
    for entry in call.entries:
        fold.take(entry)
    return fold


def test_the_stored_form_of_a_call_of_ten_thousand_turns_is_bounded() -> None:
    """With all that grows with a call: people, agents, tools, measures, usage, gaps, errors."""
    fold = a_fold()
    call = Conversation()
    for number in range(200):
        call.take(number, f"AJ_{number:012}", replacing=f"AJ_{number - 1:012}" if number else None)
        call.come(number, f"person-{number:032}", name="N" * 64)
        models = [
            {"type": "llm_usage", "provider": "openai", "model": f"model-{one}", "input_tokens": number}
            for one in range(6)
        ]
        call.note(number, USAGE, {"holder": f"AJ_{number:012}", "models": models})
        call.go(number, f"person-{number:032}")
    call.note(200, OUTCOME, outcome_note({"resolved": True}, START))
    for entry in call.entries:
        fold.take(entry)
    seq, largest = fold.seq, 0
    for turn in range(10_000):
        seq += 1 + (turn % 50 == 0)  # now and then one is missing
        fold.take(Entry(seq, 1, START + 200 + turn, ItemsAppended(tuple(a_turn(turn)))))
        if turn % 1000 == 999:
            largest = max(largest, len(fold.to_json().encode()))

    assert largest < BOUND
    (record,) = records_of(fold.pass_time(START + LONG))
    assert (record.turns, record.take_overs, len(record.gaps)) == (10_000, 199, 64)
    assert len(json.dumps(record.to_dict()).encode()) < BOUND
    assert len(fold.to_json().encode()) < BOUND_BETWEEN


def test_a_fold_of_a_newer_version_is_read_without_what_is_new() -> None:
    """Two versions work on one archive while it is upgraded."""
    fold = after(a_talk())
    fields = json.loads(fold.to_json())
    fields["mood"] = "good"
    fields["call"]["talk"]["laughs"] = 3

    read = fold.from_json(json.dumps(fields), CONVERSATION, LIFE, idle=IDLE)

    assert read.to_json() == fold.to_json()


def test_a_fold_of_an_older_version_is_read_with_what_is_new_empty() -> None:
    """What it did not have has its default."""
    read = CallFold.from_json('{"seq": 7, "number": 2}', CONVERSATION, LIFE, idle=IDLE)

    assert (read.seq, read.due) == (7, None)


@pytest.mark.parametrize("stored_form", ["", "[]", '{"seq": "many"}', '{"call": {}}'])
def test_a_fold_that_cannot_be_read_is_an_error(stored_form: str) -> None:
    """Nobody goes on with a state that is not one."""
    with pytest.raises(ValueError, match="FoldState"):
        CallFold.from_json(stored_form, CONVERSATION, LIFE, idle=IDLE)


def test_positions_that_are_missing_are_in_the_record_of_their_call() -> None:
    """Also those that were missing before it began, since its beginning may be there."""
    call = a_talk()
    fold = a_fold()
    fold.skip(1, 3)
    moved = [Entry(entry.seq + 3, 1, entry.at, entry.event) for entry in call.entries]
    for entry in moved[:3]:
        fold.take(entry)
    fold.skip(7, 9)
    fold.skip(10, 10)
    fold.skip(2, 12)
    fold.take(Entry(15, 1, START + 4, call.entries[-1].event))

    (record,) = records_of(fold.pass_time(START + LONG))

    assert (fold.seq, record.gaps) == (15, ((1, 3), (7, 14)))


def test_the_first_position_of_a_life_is_no_gap() -> None:
    """Positions go on from an earlier life's of the same id."""
    fold = a_fold()
    for entry in a_talk().entries:
        fold.take(Entry(entry.seq + 1000, 1, entry.at, entry.event))

    assert records_of(fold.pass_time(START + LONG))[0].gaps == ()


def test_positions_before_the_beginning_of_a_life_are_no_gap() -> None:
    """The fold is told where the life begins, and that nothing is missing from there on."""
    fold = a_fold()
    fold.skip(1001, 1000)
    for entry in a_talk().entries:
        fold.take(Entry(entry.seq + 1000, 1, entry.at, entry.event))

    assert records_of(fold.pass_time(START + LONG))[0].gaps == ()


def test_entries_that_come_in_the_place_of_others_count_besides_them() -> None:
    """What was told of those was told; a gap among them is none any more."""
    call = a_talk()
    fold = after(call)
    fold.skip(fold.seq + 1, fold.seq + 5)
    fold.rewind(4)
    other = stored({"type": "message", "id": "u2", "role": "user", "content": "Bye"})
    fold.take(Entry(5, 2, START + 9, ItemsAppended((other,))))

    (record,) = records_of(fold.pass_time(START + LONG))

    assert (fold.seq, record.messages, record.gaps) == (5, 3, ())


def test_what_is_told_of_other_entries_has_ids_of_its_own() -> None:
    """Two successors took the lease at one position of two histories: a receiver drops neither as a repeat."""
    call = a_talk()
    seq = call.state.seq + 1
    fold = after(call)
    told = []
    for holder in ("job-2", "job-3"):
        fold.rewind(seq - 1)
        lease = Lease("agent", holder, seq, START + 99)
        told += fold.take(Entry(seq, 1, START + 9, LeaseAcquired(lease, renewed=False)))

    assert [(one.type, one.call_id, one.seq) for one in told] == [("agent.replaced", "life.1", seq)] * 2
    assert told[0].id != told[1].id


def test_a_position_that_was_not_reached_is_no_way_back() -> None:
    """Nothing happens then."""
    fold = after(a_talk())
    stored_form = fold.to_json()

    fold.rewind(fold.seq)
    fold.rewind(fold.seq + 1)

    assert fold.to_json() == stored_form


def test_time_that_passes_before_anything_is_due_changes_nothing() -> None:
    """Nor does it where there is no call."""
    fold, nothing = after(a_talk()), a_fold()
    stored_form = fold.to_json()

    assert (fold.pass_time(START), nothing.pass_time(START), nothing.due) == ([], [], None)
    assert (fold.to_json(), fold.due) == (stored_form, START + 3 + IDLE)


def test_an_id_tells_one_happening_from_all_others() -> None:
    """By call, position, place and type, and by nothing else."""
    told = Happening(CALL_STARTED, 1.0, "life.1", 7, 0, {})
    others = [
        Happening(CALL_STARTED, 1.0, "life.2", 7, 0, {}),
        Happening(CALL_STARTED, 1.0, "life.1", 8, 0, {}),
        Happening(CALL_STARTED, 1.0, "life.1", 7, 1, {}),
        Happening(HAPPENINGS[1], 1.0, "life.1", 7, 0, {}),
    ]

    assert len({told.id, *(one.id for one in others)}) == 5
    assert told.id == Happening(CALL_STARTED, 2.0, "life.1", 7, 0, {"by": "agent"}).id
    assert told.id == "evt_25b71a08756aa675175afb34e148907b"  # as the receivers of earlier versions know it
