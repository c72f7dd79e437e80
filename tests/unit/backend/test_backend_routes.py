"""What a back end is sent of a happening: to which path, in the contract's form, and within its bound."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from conversation_actors.archive.outbox import Queued
from conversation_actors.backend.models import DELIVERIES
from conversation_actors.backend.openapi import document
from conversation_actors.backend.routes import ROUTES, body
from conversation_actors.calls import CallFold, Happening
from conversation_actors.calls.happenings import CALL_ENDED, CALL_STARTED, HAPPENINGS, REPORTS
from conversation_actors.state import Entry
from conversation_actors.webhooks.payload import UnsendableError
from tests.support.call_entries import CONVERSATION, IDLE, LIFE, LONG, START
from tests.support.call_strategies import histories

DOCUMENT = document()
PLENTY = 1 << 20


def queued(data: Any, kind: str = "message.stored", **more: Any) -> Queued:
    """Return a happening with this data, stored as it is."""
    stored = data if isinstance(data, str) else json.dumps(data)
    return Queued(
        **{
            "id": 1,
            "event_id": "evt_1",
            "type": kind,
            "at": START + 0.5,
            "call_id": "life.1",
            "seq": 7,
            "data": stored,
            **more,
        }
    )


def made(told: Queued, *, most_bytes: int = PLENTY) -> dict[str, Any]:
    """Return what is sent, read; it fits the model of its path."""
    text = body(told, tenant="default", conversation_id=CONVERSATION, most_bytes=most_bytes)
    DELIVERIES[ROUTES[told.type]].model_validate_json(text)
    read: dict[str, Any] = json.loads(text)
    return read


def message(**values: Any) -> dict[str, Any]:
    """Return the data of a message that was stored."""
    known = {
        "id": "item_" + "7" * 60, "item_type": "message", "role": "user", "text": "Grüße 👋", "created_at": START,
        "interrupted": False, "identity": "ada", "agent_role": None, "item": {"content": ["Grüße 👋"]},
    }  # fmt: skip
    return {"message": {**known, **values}}


def test_everything_but_the_ends_of_calls_has_a_path() -> None:
    """A record says when a call began and ended."""
    assert set(ROUTES) == {*HAPPENINGS, *REPORTS} - {CALL_STARTED, CALL_ENDED}
    assert set(ROUTES.values()) == set(DELIVERIES)


def test_it_says_what_when_and_whose_in_one_object() -> None:
    """Whose it is cannot be told otherwise."""
    told = made(queued({**message(), "tenant": "another", "type": "x", "seq": 1}))
    assert told == {
        **message(), "type": "message.stored", "at": "2023-11-14T22:13:20.500Z", "conversation_id": CONVERSATION,
        "call_id": "life.1", "tenant": "default", "seq": 7,
    }  # fmt: skip


def test_what_happens_between_calls_is_of_no_call() -> None:
    """Such as a message that is written before anybody comes."""
    assert made(queued(message(), call_id="life.0"))["call_id"] is None


def test_a_long_message_has_no_item_and_a_longer_one_is_cut() -> None:
    """By as little as is needed; its ids stay, so that it takes the place of what was stored under them."""
    words = "a" * 3000
    told = made(queued(message(text=words, item={"content": [words]})), most_bytes=4000)
    assert (told["truncated"], told["message"]["item"], told["message"]["text"]) == (True, None, words)
    told = made(queued(message(text=words * 3, item={"content": [words]})), most_bytes=4000)
    assert told["message"]["id"] == message()["message"]["id"]
    assert 3000 < len(told["message"]["text"]) < 4000


def test_ids_are_whole_however_many_there_are() -> None:
    """What was taken out is to be forgotten: that is not cut."""
    ids = [f"item_{number:0200}" for number in range(50)]
    told = made(queued({"ids": ids}, "messages.removed"), most_bytes=1024)
    assert (told["ids"], told["truncated"]) == (ids, True)


@pytest.mark.parametrize("stored", ["", "[]", "{", "7", "[" * 100_000])
def test_what_cannot_be_read_is_not_sent(stored: str) -> None:
    """The sentence has nothing of it."""
    with pytest.raises(UnsendableError, match=r"^the happening in the outbox cannot be read$"):
        made(queued(stored))


@given(histories, st.sampled_from([PLENTY, 1024]))
@settings(max_examples=60, deadline=None)
def test_whatever_a_fold_tells_fits_the_document(entries: list[Entry], most_bytes: int) -> None:
    """The models and the OpenAPI document agree on it, also if texts are cut."""
    fold, told = CallFold(CONVERSATION, LIFE, idle=IDLE, reports=True), list[Happening]()
    for entry in entries:
        told += fold.take(entry)
    for one in told + fold.pass_time(START + LONG):
        if one.type in ROUTES:
            stored = queued(dict(one.data), one.type, at=one.at, call_id=one.call_id, seq=one.seq)
            sent = made(stored, most_bytes=most_bytes)
            schema = DOCUMENT["paths"][ROUTES[one.type]]["post"]["requestBody"]["content"]["application/json"]["schema"]
            Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(sent)
