"""Data messages: what participants sent each other beside their words, as items of their own kind."""

import base64
from typing import Any

import pytest

from conversation_actors import DataMessage, InvalidInputError, OtherItem, item_from_dict
from conversation_actors.cli.show import _line
from conversation_actors.items import StoredItem

ALICE = {"identity": "alice", "device": "PA_1"}


def test_it_is_stored_and_read_back_as_its_own_kind() -> None:
    """By any process; what was not given is not stored."""
    made = DataMessage(topic="commands", kind="packet", participant=ALICE, size=2, text="go", sha256="ab")
    stored = made.to_stored()
    assert (stored.type, stored.role, stored.call_id, stored.pinned) == ("data_message", "", "", False)
    read = StoredItem.parse(stored.data).to_item()
    assert isinstance(read, DataMessage)
    assert read.to_dict() == made.to_dict()
    assert {"mime_type", "name", "data", "interrupted"}.isdisjoint(made.to_dict())


@pytest.mark.parametrize(
    ("fields", "payload"),
    [
        ({"size": 7, "text": "größe"}, "größe".encode()),
        ({"size": 2, "data": base64.b64encode(b"\x00\xff").decode()}, b"\x00\xff"),
        ({"size": 0, "text": ""}, b""),
        ({"size": 0}, b""),
        ({"size": 2}, None),
    ],
)
def test_its_payload_is_what_was_sent(fields: dict[str, Any], payload: bytes | None) -> None:
    """Byte for byte, or None where only its facts were kept."""
    assert DataMessage(topic="t", kind="byte_stream", **fields).payload == payload


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"kind": "pigeon"}, "kind"),
        ({"size": -1}, "size"),
        ({"size": "2"}, "size"),
        ({"topic": None}, "topic"),
        ({"data": "not base64!"}, "data"),
        ({"data": "QQ"}, "data"),
        ({"data": "QQ==", "text": "A"}, "data"),
        ({"participant": "alice"}, "participant"),
        ({"participant": {"device": "PA_1"}}, "participant"),
        ({"participant": {"identity": ""}}, "participant"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_mistake_is_refused_on_the_spot(fields: dict[str, Any], field: str) -> None:
    """With the field's name."""
    with pytest.raises(InvalidInputError) as refusal:
        DataMessage(**{"topic": "t", "kind": "packet", "size": 1, **fields})
    assert refusal.value.field == field


def test_a_refusal_quotes_nothing_of_it() -> None:
    """What was sent is personal data."""
    with pytest.raises(InvalidInputError) as refusal:
        DataMessage(topic="t", kind="packet", size=1, data="private words")
    assert "private" not in str(refusal.value)


def test_one_of_a_newer_version_is_kept_as_it_is() -> None:
    """Its new fields where it still reads as one, all of it where it does not."""
    fields: dict[str, Any] = {
        "type": "data_message",
        "id": "d1",
        "created_at": 1.0,
        "topic": "t",
        "kind": "packet",
        "size": 1,
    }
    newer = item_from_dict({**fields, "priority": 3})
    assert isinstance(newer, DataMessage)
    assert newer.to_dict()["priority"] == 3
    stored = OtherItem.model_construct(**{**fields, "kind": "rpc"}).to_stored()
    read = stored.to_item()
    assert (type(read), read.to_dict()["kind"]) == (OtherItem, "rpc")


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        (
            {"kind": "packet", "participant": ALICE, "text": '{"do": "hold"}', "size": 14},
            'alice (PA_1): commands: {"do": "hold"}',
        ),
        ({"kind": "packet", "size": 2, "data": "AP8="}, "commands: 2 bytes"),
        ({"kind": "byte_stream", "name": "a.txt", "size": 2, "text": "Hi"}, "commands: a.txt: Hi"),
        (
            {
                "kind": "byte_stream",
                "participant": {"identity": "alice", "device": None},
                "name": "bill.pdf",
                "mime_type": "application/pdf",
                "size": 41943040,
            },
            "alice: commands: bill.pdf, application/pdf, 41943040 bytes, not kept",
        ),
        (
            {"kind": "byte_stream", "name": "bill.pdf", "size": 7, "interrupted": True},
            "commands: bill.pdf, 7 bytes, not kept (interrupted)",
        ),
    ],
)
def test_it_is_shown_on_one_line(fields: dict[str, Any], shown: str) -> None:
    """Who sent what, by which topic; of bytes only how many."""
    kind, text = _line(DataMessage(topic="commands", **fields))
    assert (kind.plain, text.plain) == ("data", shown)


def test_one_of_a_newer_version_is_shown_as_far_as_it_can_be() -> None:
    """Never an error."""
    item = OtherItem.model_construct(type="data_message", id="x", created_at=1.0, kind="rpc")
    assert _line(item)[1].plain == '{"kind": "rpc"}'
