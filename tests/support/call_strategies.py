"""Entries in any order that a fold of calls may meet, also in orders that no conversation makes."""

from typing import Any

from hypothesis import strategies as st

from conversation_actors.calls.names import AGENT, CALL, ERROR, HANDOVER, OUTCOME, USAGE, attribute_of_role
from conversation_actors.state import (
    AttributesChanged,
    ConversationClosed,
    ConversationReopened,
    Entry,
    Event,
    HistoryCleared,
    ItemsAppended,
    ItemsRemoved,
    Lease,
    LeaseAcquired,
    LeaseReleased,
    NothingChanged,
    Participant,
    ParticipantJoined,
    ParticipantLeft,
    ParticipantUpdated,
    SummaryChanged,
)
from tests.support.call_entries import START, stored

holders = st.sampled_from(["job-1", "job-2", "job-3"])
roles = st.sampled_from(["agent", "agent", "agent", "interpreter"])
people = st.builds(
    Participant,
    identity=st.sampled_from(["ada", "bob", "電話"]),
    name=st.sampled_from(["", "Ada", 'O"Neil\n']),
    connected=st.booleans(),
    reconnect_count=st.integers(0, 3),
    devices=st.just(()),
)
_measures = st.fixed_dictionaries(
    {},
    optional={
        "e2e_latency": st.floats(0, 10, allow_nan=False),
        "started_speaking_at": st.floats(START, START + 10, allow_nan=False),
        "stopped_speaking_at": st.floats(START, START + 10, allow_nan=False),
    },
)


def _message(number: int, role: str, metrics: dict[str, float], *, interrupted: bool, tag: str) -> dict[str, Any]:
    fields = {"type": "message", "id": f"{role}{number}{tag}", "role": role, "content": ["Hello"], "metrics": metrics}
    return {**fields, "interrupted": interrupted, **({"agent_role": tag} if tag else {})}


messages = st.builds(
    _message,
    st.integers(0, 200),
    st.sampled_from(["user", "assistant", "system"]),
    _measures,
    interrupted=st.booleans(),
    tag=st.sampled_from(["", "", "", "interpreter"]),
)
tools = st.builds(
    lambda number, name: {"type": "function_call", "id": f"c{number}", "call_id": f"k{number}", "name": name},
    st.integers(0, 20),
    st.sampled_from(["look_up", "refund"]),
).map(lambda fields: {**fields, "arguments": "{}"})
outputs = st.builds(
    lambda number, is_error: (
        {"type": "function_call_output", "id": f"o{number}", "call_id": f"k{number}", "output": ""}
        | {"is_error": is_error}
    ),
    st.integers(0, 20),
    st.booleans(),
)
items = st.one_of(messages, messages, messages, tools, outputs).map(stored)
_notes = st.one_of(
    st.tuples(st.just(AGENT), st.sampled_from([None, {"holder": "job-2"}, {"holder": None, "state": "given up"}])),
    st.tuples(st.just(AGENT), st.just({"holder": None, "state": "nobody there", "of": "job-1"})),
    st.tuples(
        st.just(HANDOVER), st.sampled_from([None, {"to": "job-2"}, {"to": "job-3"}, {"to": "job-2", "refused": 1}])
    ),
    st.tuples(
        st.just(USAGE),
        st.sampled_from([None, {"models": [{"type": "llm_usage", "input_tokens": 3, "session_duration": 0.1}]}, []]),
    ),
    st.tuples(
        st.just(ERROR), st.sampled_from([None, {"type": "APIError"}, {"type": 7, "stack": "x" * 9000}, "broken"])
    ),
    st.tuples(st.just(OUTCOME), st.sampled_from([None, {"value": {"resolved": True, "sum": 1e-7}}, 7])),
    st.tuples(st.just(CALL), st.sampled_from([None, {"ended": "completed"}, {"ended": "left"}, {"ended": "x"}, 7])),
)
attributes = st.lists(st.tuples(_notes, roles), min_size=1, max_size=3).map(
    lambda told: AttributesChanged({attribute_of_role(name, role): value for (name, value), role in told})
)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(ParticipantJoined, people, st.just("web")),
    st.builds(ParticipantLeft, people, st.none()),
    st.builds(ParticipantUpdated, people),
    st.builds(
        LeaseAcquired,
        st.builds(Lease, roles, holders, st.just(1), st.floats(START, START + 5000)),
        st.booleans(),
    ),
    st.builds(LeaseReleased, roles, holders, st.just(1)),
    st.builds(ItemsAppended, st.lists(items, min_size=1, max_size=4).map(tuple)),
    st.builds(ItemsRemoved, st.lists(st.sampled_from(["user1", "user2"]), max_size=2).map(tuple)),
    attributes,
    attributes,
    st.just(HistoryCleared()),
    st.builds(SummaryChanged, st.sampled_from(["", "Ada waits."]), st.just(1)),
    st.builds(ConversationClosed, st.sampled_from(["", "done"])),
    st.just(ConversationReopened()),
    st.just(NothingChanged("items_appended")),
)
_pauses = st.sampled_from([0.0, 0.0, 0.5, 3.0, 9.9, 10.0, 10.1, 61.0, 599.0, 600.0, 700.0])


def _entries(told: list[tuple[float, int, Event]]) -> list[Entry]:
    entries, seq, at = list[Entry](), 0, START
    for pause, step, event in told:
        seq, at = seq + step, at + pause
        entries.append(Entry(seq, 1, at, event))
    return entries


histories = st.lists(st.tuples(_pauses, st.sampled_from([1, 1, 1, 1, 1, 3]), events), max_size=40).map(_entries)
"""Entries with pauses between them, some of which are missing."""
