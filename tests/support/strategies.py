"""Items, commands and JSON values for the property tests.

Ids come from a small pool, so that items are replaced, calls find their outputs and requests repeat. The first
letter of an item's id tells its kind, except now and then, because a changed kind must be refused.
"""

from typing import Any

from hypothesis import strategies as st

from conversation_actors.items import (
    AgentHandoff,
    DataMessage,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    StoredItem,
    item_from_dict,
)
from conversation_actors.state import (
    AcquireLease,
    AppendItems,
    ClearHistory,
    CloseConversation,
    Command,
    JoinParticipant,
    LeaveParticipant,
    Limits,
    ReleaseLease,
    RemoveItems,
    SetAttributes,
    SetRetention,
    SetSummary,
    UpdateParticipant,
)

LIFE = "life"
"""The life that the conversation of a property test is in."""


def message(identity: str, text: str = "hello", *, role: Any = "user") -> StoredItem:
    """Return a message, as stored."""
    return Message(id=identity, role=role, content=text, created_at=1.0).to_stored()


def call(identity: str, call_id: str, arguments: str = "{}") -> StoredItem:
    """Return a function call, as stored."""
    return FunctionCall(id=identity, call_id=call_id, name="look_up", arguments=arguments, created_at=1.0).to_stored()


def output(identity: str, call_id: str, text: str = "found") -> StoredItem:
    """Return a function call's output, as stored."""
    return FunctionCallOutput(id=identity, call_id=call_id, output=text, created_at=1.0).to_stored()


def _item(kind: str, number: int, text: str, variant: int) -> StoredItem:
    identity, call_id = f"{kind}{number}", f"call{number % 5}"
    if variant == 0:
        kind = "u"
    made: Item
    match kind:
        case "s" | "d":
            made = Message(id=identity, role="system" if kind == "s" else "developer", content=text, created_at=1.0)
        case "c":
            made = FunctionCall(id=identity, call_id=call_id, name="f", arguments=text, created_at=1.0)
        case "o":
            made = FunctionCallOutput(id=identity, call_id=call_id, output=text, created_at=1.0)
        case "h":
            made = AgentHandoff(id=identity, new_agent_id=text, created_at=1.0)
        case "m":
            size = len(text.encode())
            made = DataMessage(id=identity, topic="t", kind="packet", size=size, text=text, created_at=1.0)
        case "x":
            fields = {
                "type": "later_kind",
                "id": identity,
                "created_at": 1.0,
                "role": "system",
                "call_id": 7,
                "x": text,
            }
            made = item_from_dict(fields)
        case _:
            made = Message(id=identity, role="user", content=text, created_at=1.0)
    return made.to_stored()


texts = st.builds(
    lambda unit, count: unit * count,
    st.sampled_from(["a", "ü", "電", "\n", '"', "\u2028"]),
    st.sampled_from([0, 1, 5, 40, 150]),
)
items = st.builds(_item, st.sampled_from("uuussdcccoooohmx"), st.integers(0, 9), texts, st.integers(0, 40))

json_texts = st.text(st.characters(codec="utf-8"), max_size=8)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | json_texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(json_texts, inner, max_size=3),
    max_leaves=8,
)
small_objects = st.dictionaries(
    st.sampled_from("abc"), st.sampled_from([1, True, 1.0, None, "ü", [1], "long" * 20]), max_size=2
)

identities = st.sampled_from(["alice", "bob", "carol", "dave", "eve"])
devices = st.sampled_from(["phone", "web", "desk"])
lease_names = st.sampled_from(["agent", "summary", "archive"])
holders = st.sampled_from(["worker-1", "worker-2", "worker-3"])

appends: st.SearchStrategy[Command] = st.builds(AppendItems, st.lists(items, min_size=1, max_size=6).map(tuple))
late_appends: st.SearchStrategy[Command] = st.builds(
    lambda kind, number, text: AppendItems((_item(kind, number, text, 1),)),
    st.sampled_from("cco"),
    st.integers(0, 9),
    texts,
)
participant_commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(
        JoinParticipant,
        identity=identities,
        device_id=devices,
        name=st.none() | st.just("Name"),
        metadata=st.none() | small_objects,
        language=st.none() | st.sampled_from(["de", "en"]),
    ),
    st.builds(LeaveParticipant, identities, st.none() | devices),
    st.builds(
        UpdateParticipant,
        identity=identities,
        name=st.none() | st.just("Other name"),
        metadata=st.none() | small_objects,
        context=st.none() | small_objects,
    ),
)
lease_commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(AcquireLease, lease_names, holders, st.sampled_from([0.5, 20.0, 1000.0])),
    st.builds(AcquireLease, lease_names, holders, st.sampled_from([0.5, 20.0, 1000.0]), st.none() | holders),
    st.builds(ReleaseLease, lease_names, holders, st.integers(1, 60), st.sampled_from([LIFE, LIFE, "another"])),
)
other_commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(SetSummary, texts, st.integers(-1, 60)),
    st.builds(SetAttributes, small_objects, st.none() | st.integers(0, 60)),
    st.builds(SetRetention, st.none() | st.sampled_from([0.5, 1.0, 3600.0])),
)
removals: st.SearchStrategy[Command] = st.builds(
    lambda kinds, numbers: RemoveItems(tuple(dict.fromkeys(f"{k}{n}" for k, n in zip(kinds, numbers, strict=False)))),
    st.lists(st.sampled_from("usco"), max_size=3),
    st.lists(st.integers(0, 9), max_size=3),
)
ending_commands: st.SearchStrategy[Command] = st.one_of(st.builds(ClearHistory), st.builds(CloseConversation, texts))

limits = st.builds(
    Limits,
    items=st.integers(4, 12),
    bytes=st.sampled_from([700, 1500, 6000]),
    item_bytes=st.sampled_from([200, 350]),
    attributes_bytes=st.sampled_from([30, 2000]),
    participant_bytes=st.sampled_from([100, 2000]),
    participants=st.integers(1, 4),
    leases=st.integers(1, 3),
    requests=st.integers(1, 6),
    request_age=st.sampled_from([5.0, 500.0]),
)
"""Limits small enough to be met within a few commands."""
