"""What counts as the content of a request."""

from typing import Any

import pytest

from conversation_actors.client import arguments
from conversation_actors.client.digest import digest_of
from conversation_actors.items import AgentHandoff, FunctionCallOutput, Item, Message, item_from_dict
from conversation_actors.state import (
    EVENT_OF,
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
    ReopenConversation,
    SetAttributes,
    SetRetention,
    SetSummary,
    UpdateParticipant,
)


def append(*items: Item) -> AppendItems:
    """An append as a handle makes it."""
    return arguments.append_items(items, Limits())


def say(content: Any = "hello", **fields: Any) -> Message:
    """A message."""
    return Message(role="user", content=content, **fields)


DIFFERENT: list[Command] = [
    append(say()),
    append(say("hello ")),
    append(Message(role="assistant", content="hello")),
    append(say(["hello"])),
    append(say(interrupted=True)),
    append(say(id="m1")),
    append(say(id="m2")),
    append(say(id="item_0123456789abcde")),
    append(say(id="item_0123456789abcdef0")),
    append(say(id="item_0123456789ABCDEF")),
    append(say(), say()),
    append(say(extra={"a": 1})),
    append(say(extra={"a": 1.0})),
    append(say(extra={"a": True})),
    append(say(extra={"created_at": 1.0})),
    append(say(extra={"created_at": 2.0})),
    append(FunctionCallOutput(call_id="c1", output="hello")),
    append(AgentHandoff(new_agent_id="hello")),
    append(item_from_dict({"type": "later_kind", "shade": 1})),
    RemoveItems(()),
    RemoveItems(("a", "b")),
    RemoveItems(("b", "a")),
    ClearHistory(),
    SetSummary("hello", 0),
    SetSummary("hello", 1),
    JoinParticipant(identity="al", device_id="web"),
    JoinParticipant(identity="al", device_id="phone"),
    JoinParticipant(identity="al", device_id="web", name=""),
    JoinParticipant(identity="al", device_id="web", metadata={}),
    LeaveParticipant("al"),
    LeaveParticipant("al", "web"),
    UpdateParticipant(identity="al"),
    UpdateParticipant(identity="al", metadata={"a": 1}),
    UpdateParticipant(identity="al", context={"a": 1}),
    SetAttributes({}),
    SetAttributes({"a": None}),
    SetAttributes({"a": {"b": [1, 2]}}),
    SetAttributes({"a": {"b": [2, 1]}}),
    AcquireLease("agent", "one", 10.0),
    AcquireLease("agent", "one", 20.0),
    AcquireLease("agent", "one", 10.0, "two"),
    AcquireLease("agent", "two", 10.0),
    ReleaseLease("agent", "one", 1, "a"),
    ReleaseLease("agent", "one", 1, "b"),
    SetRetention(None),
    SetRetention(60.0),
    CloseConversation(""),
    CloseConversation("done"),
    ReopenConversation(),
]


def test_other_content_has_another_digest() -> None:
    """Of every command, and between commands; 16 hexadecimal characters each."""
    assert {type(command) for command in DIFFERENT} == set(EVENT_OF)
    digests = [digest_of(command) for command in DIFFERENT]
    assert len(set(digests)) == len(digests)
    assert all(len(digest) == 16 and int(digest, 16) >= 0 for digest in digests)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (append(say()), append(say())),
        (append(say(created_at=1.0)), append(say(created_at=2.0))),
        (append(say(id="item_0123456789abcdef")), append(say())),
        (append(say(id="m1", created_at=1.0)), append(say(id="m1"))),
        (append(item_from_dict({"type": "x", "b": 1, "a": 2})), append(item_from_dict({"a": 2, "type": "x", "b": 1}))),
        (SetAttributes({"a": 1, "b": {"c": 1, "d": 2}}), SetAttributes({"b": {"d": 2, "c": 1}, "a": 1}, 5)),
        (
            JoinParticipant(identity="al", device_id="web", metadata={"a": 1, "b": 2}),
            JoinParticipant(identity="al", device_id="web", metadata={"b": 2, "a": 1}),
        ),
    ],
)
def test_same_content_has_the_same_digest(one: Command, other: Command) -> None:
    """Whatever was made automatically, however names are ordered, and wherever the conversation is expected to be."""
    assert digest_of(one) == digest_of(other)


@pytest.mark.parametrize(
    ("command", "digest"),
    [
        (append(say("Größe?")), "4613d6f5482f2463"),
        (append(say(["a", {"b": 1.5}], id="m1")), "41eda3db45f94a56"),
        (SetAttributes({"a": 1, "b": None}, 5), "498084ea68ed0ed4"),
        (JoinParticipant(identity="al", device_id="web", metadata={"vip": True}), "8063881c80f80b58"),
        (AcquireLease("agent", "one", 10.0), "cf48a51b7d7200ed"),
        (RemoveItems(("m1",)), "a1a2b86e14c5a32f"),
        (ClearHistory(), "7c251d9eeb991338"),
    ],
)
def test_stored_digests_stay_good(command: Command, digest: str) -> None:
    """They are compared with those of later versions: the rule must not change."""
    assert digest_of(command) == digest
