"""Stored bytes: what was ever written stays readable, and damage is told, by its position.

The golden files in tests/data/codec are what each schema wrote, in a folder of its own. They are never written
again: a new kind of value gets a new file in the newest (`python -m tests.unit.codec.test_codec` writes those that are
missing), a new schema a new folder.
"""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversation_actors.codec import SCHEMA, decode_entry, decode_snapshot, encode_entry, encode_snapshot
from conversation_actors.codec.events import EVENTS
from conversation_actors.errors import CorruptStateError, IncompatibleVersionError
from conversation_actors.items import StoredItem, item_from_dict
from conversation_actors.state import (
    EVENT_NAMES,
    EVENT_OF,
    AttributesChanged,
    Closing,
    Command,
    ConversationClosed,
    ConversationReopened,
    ConversationState,
    Entry,
    Event,
    HistoryCleared,
    ItemsAppended,
    ItemsEvicted,
    ItemsRemoved,
    JoinParticipant,
    Lease,
    LeaseAcquired,
    LeaseReleased,
    Limits,
    NothingChanged,
    Participant,
    ParticipantForgotten,
    ParticipantJoined,
    ParticipantLeft,
    ParticipantUpdated,
    Remembered,
    RetentionChanged,
    SetAttributes,
    Summary,
    SummaryChanged,
    Window,
    decide,
)
from conversation_actors.values import MAX_DEPTH
from tests.support.strategies import call, json_texts, json_values, message, output

GOLDEN = Path(__file__).parents[2] / "data" / "codec" / f"v{SCHEMA}"
GOLDEN_1 = GOLDEN.parent / "v1"

LATER = item_from_dict(
    {"type": "later_kind", "id": "x1", "created_at": 1.0, "role": "system", "shade": [1, None, {"é": True}]}
)
ITEMS = (
    message("m1", "Where is my Bestellung, 注文?\nToday."),
    call("c1", "call1"),
    output("o1", "call1"),
    LATER.to_stored(),
)
ALICE = Participant(
    identity="alice",
    name="Alïce",
    metadata={"vip": True, "score": 1, "ratio": 1.0, "none": None},
    connected=True,
    joined_at=1000.25,
    last_seen=1001.5,
    reconnect_count=2,
    devices=("web", "phone"),
    language="de",
    context={"order": {"id": 7}},
)
BOB = Participant(identity="bob", joined_at=1.0, last_seen=2.0, unknown={"mood": "later field"})
LEASE = Lease("agent", "worker-1", 17, 1060.5, "8e3f0b")
DIGEST = "0123456789abcdef"


def full_state() -> ConversationState:
    """Return a conversation with something in every place."""
    state = ConversationState(seq=41)
    state.changed_at = 1003.75
    state.window = Window((message("s1", "Be brief.", role="system"), *ITEMS), ("call8", "call9"))
    state.participants = {"alice": ALICE, "bob": BOB}
    state.attributes = {"language": "de", "turns": 3, "open": True, "nested": {"list": [1, 1.0, None]}}
    state.attributes_seq = 39
    state.leases = {"agent": LEASE}
    state.summary = Summary("Asked for the order.", 12)
    state.closing = Closing("caller hung up", 1003.75)
    state.retention = 3600.5
    state.remember("r1", Remembered(38, 2, 1001.0, "items_appended"))
    state.remember("r2", Remembered(40, 2, 1002.0, "participant_joined", ALICE, DIGEST))
    state.remember("r3", Remembered(41, 3, 1003.75, "lease_acquired", LEASE))
    state.remember("r4", Remembered(41, 3, 1003.75, "attributes_changed", None, DIGEST))
    state.unknown = {"later_field": {"kept": ["as", "it", "is"]}}
    state.has_counted_all = False  # as all snapshots were before anything was counted
    return state


def counted_state() -> ConversationState:
    """Return the same, with what was counted in it."""
    state = full_state()
    state.total_items, state.talked_for, state.has_counted_all = 1204, 3723.25, True
    return state


def entry(event: Event, request_id: str | None = None, digest: str | None = None) -> Entry:
    """Return an entry somewhere in a conversation."""
    return Entry(42, 3, 1004.125, event, request_id, digest)


ENTRIES = {
    "items_appended": entry(ItemsAppended(ITEMS), "request-1"),
    "items_appended_under_a_chosen_id": entry(ItemsAppended(ITEMS), "chosen", DIGEST),
    "items_evicted": entry(ItemsEvicted(ITEMS[1:3])),
    "items_removed": entry(ItemsRemoved(("item-1", "item-é")), "request-8"),
    "past_forgotten": entry(ItemsRemoved(())),
    "history_cleared": entry(HistoryCleared(), "request-2"),
    "summary_changed": entry(SummaryChanged("Asked for the Bestellung.", 12)),
    "participant_joined": entry(ParticipantJoined(ALICE, "web"), "request-3"),
    "participant_left": entry(ParticipantLeft(BOB, "web")),
    "participant_left_with_all": entry(ParticipantLeft(BOB, None)),
    "participant_updated": entry(ParticipantUpdated(ALICE)),
    "participant_forgotten": entry(ParticipantForgotten("bob")),
    "attributes_changed": entry(AttributesChanged({"a": True, "b": 1, "c": None, "d": [1.5, "é"]})),
    "attributes_changed_under_a_chosen_id": entry(AttributesChanged({"a": 1}), "chosen", DIGEST),
    "lease_acquired": entry(LeaseAcquired(LEASE, renewed=True), "request-4"),
    "lease_released": entry(LeaseReleased("agent", "worker-1", 17)),
    "retention_changed": entry(RetentionChanged(600.5), "request-7"),
    "retention_changed_to_that_of_the_settings": entry(RetentionChanged(None)),
    "conversation_closed": entry(ConversationClosed("caller hung up")),
    "conversation_reopened": entry(ConversationReopened()),
    "nothing_changed": entry(NothingChanged("attributes_changed"), "request-5"),
    "nothing_changed_of_a_participant": entry(NothingChanged("participant_left", BOB), "request-6"),
}
SNAPSHOTS: dict[str, Callable[[], ConversationState]] = {
    "empty": ConversationState,
    "full": full_state,
    "counted": counted_state,
}
ENTRY_FILES = {f"entry_{name}.bin": expected for name, expected in ENTRIES.items()}
SNAPSHOT_FILES = {f"snapshot_{name}.bin": build for name, build in SNAPSHOTS.items()}


def state_1() -> ConversationState:
    """Return the full state as schema 1 could tell it: it knew no lives of leases, and no digests."""
    state = full_state()
    del state.requests["r4"]
    lease = replace(LEASE, life="")
    state.leases = {"agent": lease}
    state.requests["r2"] = state.requests["r2"]._replace(digest=None)
    state.requests["r3"] = state.requests["r3"]._replace(result=lease)
    return state


def entry_1(expected: Entry) -> Entry:
    """Return the same of an entry."""
    if isinstance(expected.event, LeaseAcquired):
        return replace(expected, event=replace(expected.event, lease=replace(LEASE, life="")))
    return expected


FILES_1 = sorted(path.name for path in GOLDEN_1.iterdir())


def reader(name: str) -> Callable[[bytes], object]:
    """Return what reads a golden file of this name, down to something that compares."""
    if name.startswith("entry_"):
        return decode_entry
    return lambda data: encode_snapshot(decode_snapshot(data))


def write_missing_golden_files() -> None:
    """Write what is not there yet. Files that were released stay as they are."""
    written = {name: encode_entry(expected) for name, expected in ENTRY_FILES.items()}
    written.update({name: encode_snapshot(build()) for name, build in SNAPSHOT_FILES.items()})
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name, data in written.items():
        if not (GOLDEN / name).exists():
            (GOLDEN / name).write_bytes(data)


def golden(name: str) -> bytes:
    """Return the bytes of a golden file."""
    return (GOLDEN / name).read_bytes()


def changed(data: bytes, **fields: Any) -> bytes:
    """Return the same value with other fields in its header."""
    header, *rest = data.split(b"\n")
    return b"\n".join([json.dumps({**json.loads(header), **fields}).encode(), *rest])


def without(data: bytes, field: str) -> bytes:
    """Return the same value with one field of its header missing."""
    header, *rest = data.split(b"\n")
    fields = {name: value for name, value in json.loads(header).items() if name != field}
    return b"\n".join([json.dumps(fields).encode(), *rest])


EVERY_FILE = [*ENTRY_FILES, *SNAPSHOT_FILES]


# What was written stays readable


@pytest.mark.parametrize("name", ENTRY_FILES)
def test_golden_entry_reads_as_it_was_meant(name: str) -> None:
    """And is written as the same bytes, as long as its schema is the one that is written."""
    assert repr(decode_entry(golden(name))) == repr(ENTRY_FILES[name])
    assert encode_entry(ENTRY_FILES[name]) == golden(name)


def assert_same(state: ConversationState, expected: ConversationState) -> None:
    """Every part of the state, with types and order."""
    for part in vars(expected):
        if part not in {"window", "limits"}:
            assert repr(getattr(state, part)) == repr(getattr(expected, part)), part
    assert tuple(state.window) == tuple(expected.window)
    assert state.window.orphans == expected.window.orphans


@pytest.mark.parametrize("name", SNAPSHOT_FILES)
def test_golden_snapshot_reads_as_it_was_meant(name: str) -> None:
    """As the state it was written of; and is written as the same bytes."""
    state = decode_snapshot(golden(name))
    assert_same(state, SNAPSHOT_FILES[name]())
    assert encode_snapshot(state) == golden(name)


@pytest.mark.parametrize("name", [name for name in FILES_1 if name.startswith("entry_")])
def test_entry_of_schema_1_reads_as_it_was_meant(name: str) -> None:
    """And is understood as an entry of today: of what nothing changed, the event has its stored name."""
    assert repr(decode_entry((GOLDEN_1 / name).read_bytes())) == repr(entry_1(ENTRY_FILES[name]))


@pytest.mark.parametrize(("name", "build"), [("empty", ConversationState), ("full", state_1)])
def test_snapshot_of_schema_1_reads_as_it_was_meant(name: str, build: Callable[[], ConversationState]) -> None:
    """And is written again, by today's schema, as the same state; requests are of events by their stored names."""
    state = decode_snapshot((GOLDEN_1 / f"snapshot_{name}.bin").read_bytes())
    assert_same(state, build())
    assert_same(decode_snapshot(encode_snapshot(state)), build())


def test_every_class_name_of_schema_1_is_translated() -> None:
    """Where it stands for an event; other text stays as it is, and in schema 2 all does."""
    rows = [[kind, 1, 1, 1.0, kind] for kind in ("ItemsAppended", "NothingChanged", "ConversationClosed", "k")]
    for schema, names in (
        (1, ["items_appended", "nothing_changed", "conversation_closed", "k"]),
        (2, ["ItemsAppended", "NothingChanged", "ConversationClosed", "k"]),
    ):
        state = decode_snapshot(changed(golden("snapshot_empty.bin"), v=schema, requests=rows))
        assert [kept.kind for kept in state.requests.values()] == names


def test_names_of_events_are_one_table() -> None:
    """Every kind of event has one name, and what a command leads to is one of them."""
    assert set(EVENT_NAMES) == set(get_args(Event))
    assert set(EVENT_OF) == set(get_args(Command))
    assert set(EVENT_OF.values()) < set(EVENT_NAMES.values()) == set(EVENTS)
    assert len(set(EVENT_NAMES.values())) == len(EVENT_NAMES)


def test_every_kind_of_event_has_a_golden_file() -> None:
    """A new event gets one in the same change."""
    assert {type(expected.event) for expected in ENTRIES.values()} == set(EVENT_NAMES)
    assert {name for name in EVENTS if f"entry_{name}.bin" in ENTRY_FILES} == set(EVENTS)
    assert {path.name for path in GOLDEN.iterdir()} == set(EVERY_FILE)


@pytest.mark.parametrize("name", ENTRIES)
def test_entry_is_what_a_person_can_read(name: str) -> None:
    """`redis-cli` shows what happened: schema, position, epoch, time and event come first."""
    header = json.loads(encode_entry(ENTRIES[name]).split(b"\n")[0])
    assert list(header)[:5] == ["v", "seq", "epoch", "at", "event"]
    assert (header["v"], header["seq"], header["epoch"], header["at"]) == (SCHEMA, 42, 3, 1004.125)


def test_item_lines_are_the_authors_bytes() -> None:
    """Spaces, escapes and fields nobody here knows pass through untouched."""
    item = StoredItem.parse(rb'{ "type":"message", "id":"m", "role":"user", "content":"\u00e9", "later": 1e2 }')
    stored = encode_entry(entry(ItemsAppended((item,))))
    assert stored.split(b"\n")[1] == item.data
    assert decode_entry(stored).event == ItemsAppended((item,))


def test_limits_are_those_from_now_on() -> None:
    """They are settings and no part of what is stored."""
    limits = Limits(items=5)
    assert decode_snapshot(encode_snapshot(full_state()), limits).limits is limits


def test_readers_snapshot_leaves_the_request_memory_out() -> None:
    """Who decides nothing needs none."""
    data = encode_snapshot(full_state(), requests=False)
    assert not decode_snapshot(data).requests
    assert decode_snapshot(data).attributes == full_state().attributes


# What a newer version added is kept


@given(st.dictionaries(json_texts.map("later_{}".format), json_values, max_size=3))
def test_unknown_fields_of_a_snapshot_are_kept(fields: dict[str, Any]) -> None:
    """Across reading, changing and writing again."""
    state = decode_snapshot(changed(encode_snapshot(full_state()), **fields))
    state.apply(Entry(42, 3, 1004.0, AttributesChanged({"a": 1})))
    header = json.loads(encode_snapshot(state).split(b"\n")[0])
    assert {name: header[name] for name in fields} == fields


def test_unknown_fields_of_a_participant_are_kept() -> None:
    """Across a change to the same participant, in snapshot, journal and request memory."""
    state = full_state()
    state.closing = None
    event = decide(state, JoinParticipant(identity="bob", device_id="web"), now=1005.0)[0]
    stored = decode_entry(encode_entry(entry(event, "r9")))
    state.apply(stored)
    twin = decode_snapshot(encode_snapshot(state))
    assert twin.participants["bob"].unknown == {"mood": "later field"}
    assert twin.requests["r9"].result == twin.participants["bob"]


@pytest.mark.parametrize("name", EVERY_FILE)
@pytest.mark.parametrize("version", [SCHEMA + 1, 999])
def test_newer_schema_is_refused(name: str, version: int) -> None:
    """With both numbers; neither guessed at nor called corrupt."""
    with pytest.raises(IncompatibleVersionError, match=f"schema {version}; this version reads up to {SCHEMA}"):
        reader(name)(changed(golden(name), v=version))


def test_unknown_event_is_refused() -> None:
    """Passing over it would be another state than the one its writer had."""
    with pytest.raises(IncompatibleVersionError, match="'weather_changed'"):
        decode_entry(changed(golden("entry_history_cleared.bin"), event="weather_changed"))


@pytest.mark.parametrize("version", [0, -1, None, "1", 1.0, True, [1]])
def test_missing_schema_number_is_corruption(version: Any) -> None:
    """No version ever wrote that."""
    with pytest.raises(CorruptStateError, match="no schema number"):
        decode_entry(changed(golden("entry_history_cleared.bin"), v=version))


# What is deep


def test_deepest_storable_values_fit_into_every_place() -> None:
    """What a command was allowed to set can be written: journal, snapshot and request memory wrap it deeper."""
    value: Any = "bottom"
    for _ in range(MAX_DEPTH - 2):
        value = [value]
    state = ConversationState()
    join = JoinParticipant(identity="alice", device_id="web", metadata={"deep": value[0]})
    for command in (SetAttributes({"deep": value}), join):
        for event in decide(state, command, now=1.0):
            stored = encode_entry(Entry(state.seq + 1, 1, 1.0, event, f"r{state.seq}"))
            state.apply(decode_entry(stored))
    twin = decode_snapshot(encode_snapshot(state))
    assert twin.attributes == {"deep": value}
    assert twin.participants["alice"].metadata == {"deep": value[0]}


# Damage


@pytest.mark.parametrize("name", EVERY_FILE)
def test_every_truncation_is_corruption(name: str) -> None:
    """At every byte; the position is inside of what is left, or at its end."""
    data = golden(name)
    for cut in range(len(data)):
        with pytest.raises(CorruptStateError) as damage:
            reader(name)(data[:cut])
        assert 0 <= damage.value.position <= cut


@pytest.mark.parametrize("name", EVERY_FILE)
def test_damaged_byte_is_found(name: str) -> None:
    """0xFF is in no UTF-8: whichever byte it takes the place of, the error points at the character."""
    data = golden(name)
    for damaged in range(len(data)):
        position = damaged
        if data[position] == ord("\n"):
            continue
        with pytest.raises(CorruptStateError) as damage:
            reader(name)(data[:position] + b"\xff" + data[position + 1 :])
        while data[position] & 0b1100_0000 == 0b1000_0000:
            position -= 1
        assert damage.value.position == position
        assert str(damage.value).startswith(f"byte {position}: ")


@pytest.mark.parametrize("name", EVERY_FILE)
def test_changed_byte_is_a_typed_error_or_a_storable_value(name: str) -> None:
    """Never another exception, and never a value that cannot be written again."""
    data, dice = golden(name), random.Random(name)
    for position in range(len(data)):
        for byte in (data[position] ^ (1 << dice.randrange(8)), *dice.choices(b'0-9e.,:"[]{}\\u\n', k=2)):
            try:
                value = reader(name)(data[:position] + bytes([byte]) + data[position + 1 :])
            except (CorruptStateError, IncompatibleVersionError):
                continue
            if isinstance(value, Entry):
                assert decode_entry(encode_entry(value)) == value


@given(st.binary(max_size=80), st.sampled_from([decode_entry, decode_snapshot]))
def test_garbage_is_corruption(data: bytes, read: Callable[[bytes], object]) -> None:
    """Nothing random is taken for a conversation."""
    with pytest.raises(CorruptStateError):
        read(data)


@pytest.mark.parametrize("line", range(1, 5))
def test_damaged_item_is_found(line: int) -> None:
    """The position is counted from the start of the value, in bytes, over non-ASCII text."""
    lines = golden("entry_items_appended.bin").split(b"\n")
    start = sum(len(earlier) + 1 for earlier in lines[:line])
    lines[line] = b"!" + lines[line][1:]
    with pytest.raises(CorruptStateError, match="an item cannot be read") as damage:
        decode_entry(b"\n".join(lines))
    assert damage.value.position == start
    lines[line] = b'{"type":"message"}'
    with pytest.raises(CorruptStateError, match="an item has a type and an id") as damage:
        decode_entry(b"\n".join(lines))
    assert damage.value.position == start


def test_position_counts_bytes_not_characters() -> None:
    """Behind text of more than one byte a character."""
    data = '{"v":1,"ü":"電", !}'.encode()
    with pytest.raises(CorruptStateError) as damage:
        decode_entry(data)
    assert damage.value.position == data.index(b"!")


@pytest.mark.parametrize("name", EVERY_FILE)
def test_lost_or_added_item_is_corruption(name: str) -> None:
    """The header says how many there are."""
    data = golden(name)
    for damaged in (data + b'\n{"type":"x","id":"y"}', data.rpartition(b"\n")[0], data + b"\n\n"):
        with pytest.raises(CorruptStateError):
            reader(name)(damaged)


@pytest.mark.parametrize("name", EVERY_FILE)
def test_missing_field_is_corruption(name: str) -> None:
    """Whichever it is; only the request's id and digest, and the number of items, may be absent."""
    header = json.loads(golden(name).split(b"\n")[0])
    for field in header.keys() - {"request", "digest", "items", "later_field"}:
        with pytest.raises(CorruptStateError, match=f"{field}|schema number"):
            reader(name)(without(golden(name), field))


WRONG: list[Any] = [None, True, 7, 2.5, "text", [], [5], {}, {"a": 1}, ["a", "b"], [[]], [{}]]


@pytest.mark.parametrize("name", EVERY_FILE)
def test_field_of_a_wrong_type_is_corruption_or_can_be_stored(name: str) -> None:
    """Each header field in turn, and never another exception."""
    header = json.loads(golden(name).split(b"\n")[0])
    for field in header:
        for value in WRONG:
            try:
                read = reader(name)(changed(golden(name), **{field: value}))
            except (CorruptStateError, IncompatibleVersionError):
                continue
            if isinstance(read, Entry):
                assert decode_entry(encode_entry(read)) == read


@pytest.mark.parametrize(
    "fields",
    [
        {"request": 5},
        {"at": "now"},
        {"seq": 1.5},
        {"seq": True},
        {"epoch": "3"},
        {"event": 5},
        {"event": None},
        {"digest": 5},
        {"device_id": 5},
        {"participant": {"identity": "alice"}},
        {"participant": []},
    ],
)
def test_wrong_type_in_an_entry_is_corruption(fields: dict[str, Any]) -> None:
    """A number is no text, a bool no number."""
    with pytest.raises(CorruptStateError):
        decode_entry(changed(golden("entry_participant_joined.bin"), **fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"summary": "ab"},
        {"summary": ["text", "1"]},
        {"summary": ["text"]},
        {"summary": [1, 2]},
        {"summary": []},
        {"retention": "1"},
        {"retention": True},
        {"closing": ["reason", "now"]},
        {"closing": {"reason": "x", "at": 1}},
        {"requests": [["r", 1, 1, 1.0]]},
        {"requests": [["r", "1", 1, 1.0, "k"]]},
        {"requests": [["r", 1, 1, 1.0, "k", {"participant": {}}]]},
        {"requests": [["r", 1, 1, 1.0, "k", {"lease": []}]]},
        {"requests": [["r", 1, 1, 1.0, "k", "p"]]},
        {"requests": [["r", 1, 1, 1.0, "k", None, 5]]},
        {"requests": [5]},
        {"leases": [{"name": "a"}]},
        {"leases": [{"name": "a", "holder": "w", "token": 1, "expires_at": 1.0, "life": None}]},
        {"participants": {"alice": {}}},
        {"attributes": [1]},
        {"attributes_seq": None},
        {"orphans": [5]},
        {"orphans": "call1"},
    ],
)
def test_wrong_type_in_a_snapshot_is_corruption(fields: dict[str, Any]) -> None:
    """Nothing is taken apart by accident: two letters are no summary."""
    with pytest.raises(CorruptStateError):
        decode_snapshot(changed(golden("snapshot_full.bin"), **fields))


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "1" * 400])
def test_number_that_cannot_be_stored_is_corruption(number: str) -> None:
    """In a place where a number belongs."""
    data = golden("entry_history_cleared.bin").replace(b"1004.125", number.encode())
    with pytest.raises(CorruptStateError):
        decode_entry(data)


@pytest.mark.parametrize(
    "data", [b'{"v":1,"a":' + b"[" * 100_000, b'{"v":1,"a":"\xed\xa0\x80", !}', b'{"v":1,"a":"\\ud800"}']
)
def test_hostile_header_is_corruption(data: bytes) -> None:
    """Neither a stack overflow nor text that could not be written again."""
    for read in (decode_entry, decode_snapshot):
        with pytest.raises(CorruptStateError):
            read(data)


if __name__ == "__main__":
    write_missing_golden_files()


@given(
    st.integers(1, 1 << 53),
    st.integers(1, 1 << 53),
    st.floats(0, 1e300),
    st.none() | st.text(st.characters(codec="utf-8"), min_size=1, max_size=12),
    st.none() | st.just(DIGEST),
    st.builds(
        lambda kind, count: kind(ITEMS[:count]), st.sampled_from([ItemsAppended, ItemsEvicted]), st.integers(0, 3)
    ),
)
def test_entries_of_items_have_the_header_of_all_others(  # noqa: PLR0917  # hypothesis gives them in order
    seq: int, epoch: int, at: float, request_id: str | None, digest: str | None, event: ItemsAppended | ItemsEvicted
) -> None:
    """Nearly all entries are of these two kinds, and are written a shorter way: the same bytes, and they read back."""
    header: dict[str, Any] = {"v": SCHEMA, "seq": seq, "epoch": epoch, "at": at, "event": EVENT_NAMES[type(event)]}
    if request_id is not None:
        header["request"] = request_id
    if digest is not None:
        header["digest"] = digest
    if event.items:
        header["items"] = len(event.items)
    written = Entry(seq, epoch, at, event, request_id, digest)
    first, *lines = encode_entry(written).split(b"\n")
    assert first == json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    assert lines == [item.data for item in event.items]
    assert decode_entry(encode_entry(written)) == written


@pytest.mark.parametrize("at", [float("inf"), float("nan")])
def test_time_that_cannot_be_stored_is_not_written(at: float) -> None:
    """A clock that tells nonsense does not make a journal that nobody can read."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_entry(Entry(1, 1, at, ItemsAppended(ITEMS)))
