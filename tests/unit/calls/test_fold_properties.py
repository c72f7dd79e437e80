"""What is so of every fold, whatever comes: one record per call, the same however it was stored, in order."""

from collections.abc import Iterable
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from conversation_actors.calls import HAPPENINGS, REPORTS, Happening
from conversation_actors.calls.happenings import (
    AGENT_REPLACED,
    CALL_ENDED,
    CALL_STARTED,
    MESSAGE_STORED,
    SESSION_RECORDED,
    TURN_COMPLETED,
    named_call,
)
from conversation_actors.items import StoredItem
from conversation_actors.state import Entry, ItemsAppended
from conversation_actors.values import encode
from tests.support.call_entries import CONVERSATION, IDLE, LIFE, LONG, START, a_fold, fold_all, records_of
from tests.support.call_strategies import histories


def by_call(told: Iterable[Happening]) -> dict[str, list[Happening]]:
    """Happenings by call, in the order of the calls' first ones."""
    calls: dict[str, list[Happening]] = {}
    for one in told:
        calls.setdefault(one.call_id, []).append(one)
    return calls


@given(histories)
@settings(max_examples=100, deadline=None)
def test_each_call_has_one_beginning_one_end_and_one_record(entries: list[Entry]) -> None:
    """In this order, and nothing else before, after, or between two calls."""
    told = fold_all(entries)
    calls = by_call(told)

    assert list(calls) == [f"{LIFE}.{number}" for number in range(1, len(calls) + 1)]
    assert [one for call in calls.values() for one in call] == told
    for happenings in calls.values():
        types = [one.type for one in happenings]
        assert (types[0], types[-1]) == (CALL_STARTED, SESSION_RECORDED)
        assert (types.count(CALL_STARTED), types.count(CALL_ENDED), types.count(SESSION_RECORDED)) == (1, 1, 1)


@given(histories, st.data())
@settings(max_examples=100, deadline=None)
def test_a_fold_that_is_stored_and_told_the_time_tells_the_same(entries: list[Entry], data: st.DataObject) -> None:
    """At any points, with entries that come again, and at any times up to the next entry's."""
    reports = data.draw(st.booleans(), "reports")
    fold, told = a_fold(reports=reports), list[Happening]()
    for place, entry in enumerate(entries):
        if data.draw(st.booleans(), "stored"):
            fold = fold.from_json(fold.to_json(), CONVERSATION, LIFE, idle=IDLE, reports=reports)
        if place and data.draw(st.booleans(), "time"):
            told += fold.pass_time(data.draw(st.floats(entries[place - 1].at, entry.at), "now"))
        told += fold.take(entry)
        if data.draw(st.booleans(), "again"):
            told += fold.take(data.draw(st.sampled_from(entries[: place + 1]), "which"))
    fold = fold.from_json(fold.to_json(), CONVERSATION, LIFE, idle=IDLE, reports=reports)
    while (due := fold.due) is not None:
        told += fold.pass_time(due)

    assert told == fold_all(entries, reports=reports)


@given(histories)
@settings(max_examples=100, deadline=None)
def test_happenings_are_in_order_and_have_ids_of_their_own(entries: list[Entry]) -> None:
    """By position and place, and never back in time; their data can be stored."""
    told = fold_all(entries, reports=True)

    assert len({one.id for one in told}) == len(told)
    assert all((one.seq, one.place) < (two.seq, two.place) for one, two in pairwise(told))
    assert all(one.at <= two.at for one, two in pairwise(told))
    assert {one.type for one in told} <= {*HAPPENINGS, *REPORTS}
    for one in told:
        encode(dict(one.data), "data")


@given(histories)
@settings(max_examples=100, deadline=None)
def test_what_a_back_end_is_told_besides_changes_no_call(entries: list[Entry]) -> None:
    """A business is told the same, and the records are the same."""

    def facts(told: list[Happening]) -> list[object]:
        return [(one.type, one.at, one.call_id, one.seq, one.data) for one in told if one.type in HAPPENINGS]

    assert facts(fold_all(entries, reports=True)) == facts(fold_all(entries))


@given(histories)
@settings(max_examples=100, deadline=None)
def test_every_item_is_told_once_for_each_time_it_came_within_its_call(entries: list[Entry]) -> None:
    """At its entry's position, however often it came; between the beginning and the record of the call it came in."""
    told = fold_all(entries, reports=True)

    stored = [(one.seq, one.data["message"]["id"]) for one in told if one.type == MESSAGE_STORED]
    assert stored == [(entry.seq, item.id) for entry in entries for item in _items(entry)]
    for happenings in by_call(one for one in told if named_call(one.call_id)).values():
        types = [one.type for one in happenings]
        assert (types[0], types[-1]) == (CALL_STARTED, SESSION_RECORDED)
    between = [one.type for one in told if named_call(one.call_id) is None]
    assert set(between) <= set(REPORTS)


@given(histories)
@settings(max_examples=100, deadline=None)
def test_records_agree_with_the_entries_and_the_happenings(entries: list[Entry]) -> None:
    """Every message is in one record; turns, take-overs and people are those that were told of."""
    told = fold_all(entries)
    records = records_of(told)
    calls = list(by_call(told).values())

    said = {item.id for entry in entries for item in _items(entry) if item.role in {"user", "assistant"}}
    assert sum(record.messages for record in records) == len([one for one in said if "interpreter" not in one])
    for record, happenings in zip(records, calls, strict=True):
        types = [one.type for one in happenings]
        assert record.turns == types.count(TURN_COMPLETED)
        assert record.started_at == happenings[0].at
        assert 0 <= record.duration == record.ended_at - record.started_at
        replaced = [one.data for one in happenings if one.type == AGENT_REPLACED and one.data["role"] == "agent"]
        assert record.take_overs == len(replaced)
        assert record.silence == sum(one["silence"] for one in replaced)
        assert record.crashes >= sum(one["crashed"] for one in replaced)
        visits = [one for one in types if one in {"participant.joined", "participant.returned"}]
        assert sum(one.visits for one in record.participants) == len(visits)
        assert all(0 <= one.seconds <= record.duration + 1e-6 for one in record.participants)


@given(histories)
@settings(max_examples=100, deadline=None)
def test_gaps_of_records_are_positions_that_are_missing(entries: list[Entry]) -> None:
    """None that is there, and none in two records."""
    records = records_of(fold_all(entries))
    missing = [seq for record in records for first, last in record.gaps for seq in range(first, last + 1)]

    assert len(set(missing)) == len(missing)
    assert not {entry.seq for entry in entries} & set(missing)


@given(histories, st.data())
@settings(max_examples=100, deadline=None)
def test_entries_that_come_in_the_place_of_others_are_told_anew(entries: list[Entry], data: st.DataObject) -> None:
    """What was told of the others stays told, no two happenings share an id, and each call has one record."""
    place = data.draw(st.integers(0, len(entries)), "place")
    back = data.draw(st.integers(0, place), "back")
    fold, told = a_fold(reports=True), list[Happening]()
    for entry in entries[:place]:
        told += fold.take(entry)
    fold.rewind(entries[back].seq - 1 if back < len(entries) else fold.seq)
    for entry in entries[back:]:
        told += fold.take(entry)
    told += fold.pass_time(START + LONG)

    assert fold.seq == (entries[-1].seq if entries else 0)
    assert len({one.id for one in told}) == len(told)
    for happenings in by_call(one for one in told if named_call(one.call_id)).values():
        types = [one.type for one in happenings]
        assert (types.count(CALL_STARTED), types.count(SESSION_RECORDED)) == (1, 1)


def _items(entry: Entry) -> tuple[StoredItem, ...]:
    return entry.event.items if isinstance(entry.event, ItemsAppended) else ()
