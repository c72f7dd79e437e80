"""What is sent of a happening: JSON, within its bound, and always something that a receiver can verify and read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversation_actors.archive.outbox import Queued
from conversation_actors.webhooks.payload import UnsendableError, payload

BOUND = 2000
WHOSE = {"conversation_id": "room", "call_id": "life.1", "tenant": "default", "seq": 7}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3000),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=20), inner, max_size=5),
    max_leaves=20,
)


def queued(data: Any, *, at: float = 1_700_000_000.5) -> Queued:
    """Return a happening with this data, stored as it is."""
    stored = data if isinstance(data, str) else json.dumps(data)
    return Queued(1, "evt_1", "turn.completed", at, "life.1", 7, stored)


def made(data: Any, **more: Any) -> dict[str, Any]:
    """Return the payload, read."""
    text = payload(queued(data, **more), tenant="default", conversation_id="room", most_bytes=BOUND)
    assert len(text.encode()) <= BOUND
    read: dict[str, Any] = json.loads(text)
    return read


def test_it_says_what_when_and_whose() -> None:
    """And what the happening itself tells; whose it is cannot be told otherwise."""
    assert made({"turn": 3, "tenant": "another", "word": "Grüße 👋"}) == {
        "type": "turn.completed",
        "timestamp": "2023-11-14T22:13:20.500Z",
        "data": {
            "turn": 3, "word": "Grüße 👋", **WHOSE,
        },
    }  # fmt: skip


def test_long_texts_are_cut_and_short_ones_are_whole() -> None:
    """By as little as is needed; ids stay."""
    told = made({"user": {"item_ids": ["i" * 40], "text": "a" * 5000}, "agent": {"text": "short"}, "list": [1] * 10})
    assert told["data"]["truncated"] is True
    assert told["data"]["user"]["item_ids"] == ["i" * 40]
    assert told["data"]["agent"] == {"text": "short"}
    assert told["data"]["user"]["text"].endswith("a…")
    assert len(json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()) > BOUND - 8


def test_where_cutting_is_not_enough_it_says_only_whose_it_is() -> None:
    """A receiver can ask for the rest."""
    told = made({"list": list(range(10_000))})
    assert told["data"] == {"truncated": True, **WHOSE}


@pytest.mark.parametrize("stored", ["", "{", "[]", "null", "7", '{"a": 1', "[" * 100_000])
def test_what_cannot_be_read_cannot_be_sent(stored: str) -> None:
    """Its text is in no error."""
    with pytest.raises(UnsendableError, match=r"^the happening in the outbox cannot be read$"):
        made(stored)


def test_a_time_that_is_none_cannot_be_sent() -> None:
    """No calendar has it."""
    with pytest.raises(UnsendableError):
        made({}, at=1e300)


def test_half_a_character_and_numbers_that_json_does_not_have_are_replaced() -> None:
    """UTF-8 has no half pairs, and receivers' parsers take no NaN."""
    told = made('{"text": "a\\ud83d", "n": NaN, "i": Infinity}')["data"]
    assert told == {"text": "a?", "n": None, "i": None, **WHOSE}


@given(st.dictionaries(st.text(max_size=20), VALUES, max_size=5))
def test_anything_is_json_within_the_bound(data: dict[str, Any]) -> None:
    """Whatever a happening has in it."""
    assert made(data)["data"]["conversation_id"] == "room"
