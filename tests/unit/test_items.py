"""Items: strict where a caller builds them, lenient where stored ones are read."""

import json
import math
import pickle
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from conversation_actors.errors import InvalidInputError, ItemTooLargeError
from conversation_actors.items import (
    AgentHandoff,
    DataMessage,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OtherItem,
    StoredItem,
    item_from_dict,
)
from tests.support.strategies import items as stored_items
from tests.support.strategies import json_texts, json_values

KINDS: list[dict[str, Any]] = [
    {"type": "message", "role": "user", "content": "hello"},
    {"type": "message", "role": "assistant", "content": ["a", {"type": "image", "url": "x"}], "interrupted": True},
    {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}", "group_id": "g", "extra": {"a": 1}},
    {"type": "function_call_output", "call_id": "c1", "output": "", "is_error": True, "name": "f"},
    {"type": "agent_handoff", "old_agent_id": None, "new_agent_id": "b"},
    {"type": "data_message", "topic": "t", "kind": "packet", "size": 1, "text": "x", "participant": None},
    {"type": "of_the_future", "role": 5, "call_id": ["anything"]},
]


class Role(StrEnum):
    """Somebody's own enum."""

    USER = "user"


KNOWN = {
    name
    for kind in (Message, FunctionCall, FunctionCallOutput, AgentHandoff, DataMessage)
    for name in kind.model_fields
}
unknown_fields = st.dictionaries(json_texts.filter(lambda name: name not in KNOWN), json_values, max_size=4)


@given(st.sampled_from(KINDS), unknown_fields)
def test_stored_form_reads_back_as_it_was(fields: dict[str, Any], extra: dict[str, Any]) -> None:
    """Fields nobody here knows are kept, and no default is added."""
    stored = {**extra, **fields, "id": "i1", "created_at": 12.5}
    assert item_from_dict(stored).to_dict() == stored


@given(st.sampled_from(KINDS), unknown_fields)
def test_encoding_gives_the_facts_that_parsing_finds(fields: dict[str, Any], extra: dict[str, Any]) -> None:
    """The window is the same, whether an item came from its author or out of the store."""
    stored = item_from_dict({**extra, **fields, "id": "i1", "created_at": 12.5}).to_stored()
    assert StoredItem.parse(stored.data) == stored


def test_role_of_another_kind_does_not_pin_it() -> None:
    """`role` and `call_id` mean something in the kinds that have them only."""
    note = item_from_dict({"type": "note", "role": "system", "call_id": "c1"}).to_stored()
    assert (note.role, note.call_id, note.pinned) == ("", "", False)


@pytest.mark.parametrize(
    ("role", "pinned"), [("system", True), ("developer", True), ("user", False), ("assistant", False)]
)
def test_instructions_are_pinned(role: Any, pinned: bool) -> None:  # noqa: FBT001  # a column of the table
    """They say how the conversation is to be led."""
    assert Message(role=role, content="x").to_stored().pinned is pinned


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"role": "wizard"}, "role"),
        ({"role": None}, "role"),
        ({"role": 5}, "role"),
        ({"content": 5}, "content"),
        ({"content": None}, "content"),
        ({"content": b"bytes"}, "content"),
        ({"content": ("a", "b")}, "content"),
        ({"content": ["a", 5]}, "content"),
        ({"content": [{1: 2}]}, "content"),
        ({"interrupted": 1}, "interrupted"),
        ({"extra": [1]}, "extra"),
        ({"extra": {1: 2}}, "extra"),
        ({"type": "function_call"}, "type"),
        ({"created_at": math.nan}, "created_at"),
        ({"created_at": math.inf}, "created_at"),
        ({"created_at": 10**400}, "created_at"),
        ({"created_at": "2026-01-01"}, "created_at"),
        ({"created_at": "5"}, "created_at"),
        ({"created_at": True}, "created_at"),
        ({"id": ""}, "id"),
        ({"id": "x" * 257}, "id"),
        ({"id": "two\nlines"}, "id"),
        ({"id": 7}, "id"),
        ({"id": "\ud800"}, "id"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_mistake_in_a_message_is_refused_on_the_spot(fields: dict[str, Any], field: str) -> None:
    """With the field's name, in the error's text too."""
    with pytest.raises(InvalidInputError, match=field) as refusal:
        Message(**{"role": "user", "content": "hello", **fields})
    assert refusal.value.field == field


def test_refusal_shows_no_content() -> None:
    """What was said is personal data and belongs in no log."""
    with pytest.raises(InvalidInputError) as refusal:
        Message(role="user", content="secret words", interrupted="secret too")  # type: ignore[arg-type]  # the subject
    assert "secret" not in str(refusal.value)


def test_unknown_field_is_told_as_such() -> None:
    """Pydantic's words for it are not for users."""
    with pytest.raises(InvalidInputError, match="Message: colour: no such field"):
        Message(role="user", content="x", colour="red")  # type: ignore[call-arg]  # the subject


def test_content_refusal_names_both_forms() -> None:
    """Of a union, pydantic only tells what the first alternative lacks."""
    with pytest.raises(InvalidInputError, match="content: expected text, or a list of texts and objects"):
        Message(role="user", content=["fine", 5])  # type: ignore[list-item]  # the subject


@pytest.mark.parametrize("kind", [FunctionCall, FunctionCallOutput])
@pytest.mark.parametrize("call_id", ["", "x" * 257, "a\tb"])
def test_call_id_is_an_id(kind: type[Item], call_id: str) -> None:
    """A call without one could not be kept together with its output."""
    fields = {"name": "f", "arguments": "{}"} if kind is FunctionCall else {"output": "x"}
    with pytest.raises(InvalidInputError, match="call_id") as refusal:
        kind(call_id=call_id, **fields)  # type: ignore[call-arg, arg-type]  # fields of the subclass
    assert refusal.value.field == "call_id"


@pytest.mark.parametrize(
    ("extra", "path"),
    [
        ({"score": math.nan}, "Message.extra.score"),
        ({"deep": [0, {"bytes": b""}]}, "Message.extra.deep[1].bytes"),
        ({"pair": (1, 2)}, "Message.extra.pair"),
        ({"big": 1 << 70}, "Message.extra.big"),
        ({"inner": {5: 1}}, "Message.extra.inner.5"),
    ],
)
def test_value_that_json_cannot_hold_is_refused_before_it_is_sent(extra: dict[str, Any], path: str) -> None:
    """By its path."""
    with pytest.raises(InvalidInputError) as refusal:
        Message(role="user", content="x", extra=extra).to_stored()
    assert refusal.value.field == path


def test_lone_surrogate_is_refused_before_it_is_sent() -> None:
    """It has no UTF-8 form."""
    with pytest.raises(InvalidInputError, match="not valid Unicode"):
        Message(role="user", content="half a \ud83d").to_stored()


def test_cycle_is_refused_before_it_is_sent() -> None:
    """And does not exhaust the stack."""
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(InvalidInputError, match="nested more than 32 deep"):
        Message(role="user", content="x", extra={"cycle": cycle}).to_stored()


def test_large_item_is_refused_with_size_and_limit() -> None:
    """Sizes are bytes of the stored form."""
    item = Message(id="i", role="user", content="x" * 500, created_at=1.0)
    size = item.to_stored().size
    assert item.to_stored(limit=size).size == size == len(item.to_stored().data)
    with pytest.raises(ItemTooLargeError, match=f"Message: {size} bytes; the limit is {size - 1}"):
        item.to_stored(limit=size - 1)


def test_enum_of_text_is_taken_as_text() -> None:
    """A role out of somebody's own enum is stored as the word."""
    assert Message(role=Role.USER, content="x").to_stored().role == "user"  # type: ignore[arg-type]  # the subject


class _Instruction(Message):
    """A subclass whose role goes without saying."""

    role: Any = "system"


def test_a_default_that_tells_the_kind_is_stored() -> None:
    """Left out, the item could not be read back, and with it nothing that was stored before it."""
    stored = _Instruction(content="be kind").to_stored()
    assert StoredItem.parse(stored.data) == stored
    assert stored.pinned


@pytest.mark.parametrize("change", [{"id": ""}, {"id": None}, {"role": None}, {"type": ""}, {"type": 7}])
def test_an_item_that_could_not_be_read_back_is_refused(change: dict[str, Any]) -> None:
    """`model_copy` checks nothing; storing does."""
    broken = Message(role="user", content="hello").model_copy(update=change)
    with pytest.raises(InvalidInputError):
        broken.to_stored()


def test_item_gets_an_id_and_a_time() -> None:
    """Both are stored; no two items share an id by chance."""
    first, second = Message(role="user", content="x"), Message(role="user", content="x")
    assert first.id != second.id
    assert {"id", "created_at", "type", "role", "content"} == set(first.to_dict())


def test_item_is_frozen() -> None:
    """What was appended cannot change under the outbox."""
    with pytest.raises(ValidationError, match="frozen"):
        Message(role="user", content="x").content = "y"  # type: ignore[misc]  # the subject


def test_text_of_a_message_leaves_pictures_out() -> None:
    """Parts are joined by line breaks."""
    assert Message(role="user", content=["one", {"type": "image"}, "two"]).text == "one\ntwo"
    assert Message(role="user", content="one").text == "one"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"type": "message", "role": "user", "content": "hello"}, "hello"),
        ({"type": "function_call", "call_id": "c", "name": "order", "arguments": '{"id": 7}'}, 'order({"id": 7})'),
        ({"type": "function_call", "call_id": "c", "name": "order", "arguments": ""}, "order()"),
        ({"type": "function_call_output", "call_id": "c", "output": "on its way"}, "on its way"),
        ({"type": "agent_handoff", "old_agent_id": "a", "new_agent_id": "b"}, "a → b"),
        ({"type": "agent_handoff", "new_agent_id": "b"}, "→ b"),
        ({"type": "data_message", "topic": "t", "kind": "packet", "size": 2, "text": "go"}, "go"),
        ({"type": "data_message", "topic": "t", "kind": "packet", "size": 2, "data": "AP8="}, ""),
        ({"type": "data_message", "topic": "t", "kind": "packet", "size": 2, "text": None}, ""),
        ({"type": "of_the_future", "text": "as it was"}, "as it was"),
        ({"type": "of_the_future", "text": ["no", "text"]}, ""),
        ({"type": "of_the_future", "output": "x"}, ""),
    ],
)
def test_every_item_has_a_text(fields: dict[str, Any], text: str) -> None:
    """So a history is printed without asking what each item is; empty where an item has none."""
    item = item_from_dict(fields)
    assert item.text == text
    stored = StoredItem.parse(item.to_stored().data).to_item()
    assert (type(stored), stored.text) == (type(item), text)


def test_text_is_no_field_of_what_is_stored() -> None:
    """An item costs no byte more for it; one whose author has named a field so keeps that."""
    assert "text" not in FunctionCall(call_id="c", name="f", arguments="{}").to_dict()
    assert item_from_dict({"type": "of_the_future", "text": "mine"}).to_dict()["text"] == "mine"


@pytest.mark.parametrize("fields", [{}, {"type": None}, {"type": ""}, {"type": 5}, [], None, "message"])
def test_item_without_a_type_is_refused(fields: Any) -> None:
    """Anything that is not an object with a type."""
    with pytest.raises(InvalidInputError, match="type: an item needs one"):
        item_from_dict(fields)


@pytest.mark.parametrize(
    "fields", [{"role": "wizard", "content": "x"}, {"role": "user"}, {"role": "user", "content": "x", 5: 6}]
)
def test_foreign_item_with_a_wrong_known_field_is_refused(fields: dict[Any, Any]) -> None:
    """Leniency is for what is not known."""
    with pytest.raises(InvalidInputError):
        item_from_dict({"type": "message", **fields})


def test_unknown_kind_is_an_other_item() -> None:
    """Its fields are in `to_dict()`."""
    item = item_from_dict({"type": "tool_progress", "id": "i", "created_at": 1.0, "percent": 7})
    assert isinstance(item, OtherItem)
    assert item.to_dict()["percent"] == 7


@pytest.mark.parametrize("fields", KINDS)
def test_item_survives_pickling(fields: dict[str, Any]) -> None:
    """With the fields nobody here knows."""
    item = item_from_dict({**fields, "later": [1]})
    assert pickle.loads(pickle.dumps(item)).to_dict() == item.to_dict()


def test_handoff_names_the_new_agent() -> None:
    """The old one may be unknown."""
    assert "old_agent_id" not in AgentHandoff(new_agent_id="billing").to_dict()
    with pytest.raises(InvalidInputError, match="new_agent_id"):
        AgentHandoff()  # type: ignore[call-arg]  # the subject


@pytest.mark.parametrize(
    "fields",
    [
        [],
        5,
        None,
        "message",
        {},
        {"type": "message"},
        {"type": "message", "id": "i"},
        {"type": "message", "id": "i", "role": 5},
        {"type": "message", "id": "", "role": "user"},
        {"type": "", "id": "i"},
        {"type": 5, "id": "i"},
        {"type": "message", "id": ["i"], "role": "user"},
        {"type": "function_call", "id": "i"},
        {"type": "function_call_output", "id": "i", "call_id": {}},
    ],
)
def test_bytes_of_no_item_are_a_value_error(fields: object) -> None:
    """The codec adds the position to it."""
    with pytest.raises(ValueError, match=r"an item|role and call_id"):
        StoredItem.parse(json.dumps(fields).encode())


@given(
    st.binary(max_size=60)
    | st.builds(lambda a, b, c: a.data[:b] + c, stored_items, st.integers(0, 90), st.binary(max_size=9))
)
def test_garbage_is_a_value_error_and_nothing_else(data: bytes) -> None:
    """Random bytes, and items that were cut and patched."""
    try:
        item = StoredItem.parse(data)
    except ValueError:
        return
    assert item.data == data


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' * 100_000, '{"type":"x","id":"é"}'.encode("utf-16")])
def test_hostile_bytes_are_a_value_error(data: bytes) -> None:
    """Neither a stack overflow nor another encoding."""
    with pytest.raises(ValueError, match=r"."):
        StoredItem.parse(data)
