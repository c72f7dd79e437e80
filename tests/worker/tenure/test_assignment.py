"""What a job is told: read from anything, believed only where it can be believed."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit.agents import JobContext

from agent_worker.call.opening import _conversation_id
from agent_worker.settings import CallSettings
from agent_worker.tenure.assignment import (
    MAX_METADATA_BYTES,
    Assignment,
    MetadataRefusedError,
    RestartReason,
    trusted_attribute,
)
from agent_worker.timing import Timing
from agent_worker.worker.failure_detector import conversation_id_of
from conversation_actors.errors import InvalidInputError
from conversation_actors.values import forbidden_character
from tests.support.sessions.fakes_call import ROOM, FakeParticipant, FakeRoom, Permissions, fake_job, running_job

NOTHING = Assignment()


def read(metadata: str) -> Assignment:
    """Read, as a job would."""
    return Assignment.read(metadata, where="job metadata")


FULL = Assignment(
    conversation_id="c",
    role="translator",
    replaces="job-1",
    is_planned=True,
    attempt=3,
    avoid="w",
    reason=RestartReason.CRASH,
)


def test_what_is_told_reads_back() -> None:
    """All of it, by way of JSON, and nothing else is told."""
    assert Assignment.of(json.loads(json.dumps(FULL.told()))) == FULL
    assert Assignment(conversation_id="c").told() == {"conversation_id": "c"}
    assert NOTHING.told() == {}
    assert Assignment.of({}) == NOTHING


def test_metadata_names_a_conversation_and_no_more() -> None:
    """It is the application's: what it calls `replaces`, or `attempt`, is none of ours."""
    assert read(json.dumps(FULL.told())) == Assignment(conversation_id="c")


@pytest.mark.parametrize(
    "metadata",
    [
        "",
        "   ",
        "hello",
        "[1, 2]",
        '"conversation_id"',
        "7",
        "null",
        "{}",
        '{"other": "application\'s"}',
        "\0",
        "\ud83d",
    ],
)
def test_what_is_not_ours_is_no_mistake(metadata: str, caplog: pytest.LogCaptureFixture) -> None:
    """Applications put text there, and objects of their own; nothing is logged."""
    caplog.set_level(logging.DEBUG)
    assert read(metadata) == NOTHING
    assert caplog.records == []


BAD = {
    "half an object": '{"conversation_id": "c"',
    "single quotes": "{'conversation_id': 'c'}",
    "a bomb of lists": '{"conversation_id": ' + "[" * 20_000,
    "a bomb of objects": '{"a":' * 5000,
    "a number of many digits": '{"x": ' + "9" * 5000 + "}",
    "too much": '{"conversation_id": "c", "x": "' + "x" * MAX_METADATA_BYTES + '"}',
    "too much in bytes": '{"conversation_id": "c", "x": "' + "\u00fc" * (MAX_METADATA_BYTES // 2) + '"}',
    "an id that is a number": '{"conversation_id": 7}',
    "an id that is a list": '{"conversation_id": ["c"]}',
    "an id that is an object": '{"conversation_id": {"a": 1}}',
    "an empty id": '{"conversation_id": ""}',
    "an id that is too long": json.dumps({"conversation_id": "c" * 257}),
    "an id of two lines": json.dumps({"conversation_id": "a\nb"}),
    "half a character": '{"conversation_id": "\\ud83d"}',
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_refused_in_the_log(case: str, caplog: pytest.LogCaptureFixture) -> None:
    """With where it stood and why, one line each; the call goes on without it."""
    assert read(BAD[case]) == NOTHING
    (line,) = caplog.records
    assert (line.getMessage(), line.__dict__["where"]) == ("metadata refused", "job metadata")
    assert "it was not used" in line.__dict__["reason"]
    assert len(line.__dict__["reason"]) < 500


def test_a_refusal_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an `InvalidInputError`, should anybody want to raise it."""
    made: list[MetadataRefusedError] = []
    original = MetadataRefusedError.__init__

    def spied(self: MetadataRefusedError, *arguments: Any, **named: Any) -> None:
        made.append(self)
        original(self, *arguments, **named)

    monkeypatch.setattr(MetadataRefusedError, "__init__", spied)
    read("{")
    (error,) = made
    assert isinstance(error, InvalidInputError)
    assert error.field == "job metadata"


def test_one_wrong_field_costs_only_itself() -> None:
    """What is told by another version, or by somebody else, is read as far as it can be."""
    told = Assignment.of(
        {"conversation_id": "c", "replaces": 7, "attempt": "two", "is_planned": 1, "avoid": [], "reason": {"a": 1}}
    )
    assert told == Assignment(conversation_id="c", reason=RestartReason.UNKNOWN)


@pytest.mark.parametrize("attempt", [-1, 1001, 10**30, 1.0, "1", None, True, [1]])
def test_attempts_are_a_small_count(attempt: object) -> None:
    """Anything else counts from the beginning."""
    attempts = Assignment.of({"attempt": attempt}).attempt
    assert (attempts, type(attempts)) == (0, int)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
_names = st.sampled_from(["conversation_id", "replaces", "is_planned", "attempt", "avoid", "role", "reason", "x"])


@given(st.text() | st.dictionaries(_names, _json).map(json.dumps) | st.text().map("{".__add__))
def test_whatever_it_holds_nothing_is_raised(metadata: str) -> None:
    """And what comes out is of the type it says."""
    named = read(metadata).conversation_id
    assert named is None or (forbidden_character(named) is None and 1 <= len(named) <= 256)


@given(st.dictionaries(_names, _json))
def test_whatever_was_told_nothing_is_raised(fields: dict[str, Any]) -> None:
    """And what comes out is of the types it says."""
    told = Assignment.of(fields)
    for value in (told.conversation_id, told.replaces, told.role):
        assert value is None or (forbidden_character(value) is None and 1 <= len(value) <= 256)
    assert isinstance(told.is_planned, bool)
    assert isinstance(told.attempt, int)
    assert isinstance(told.avoid, str)
    assert told.reason is None or isinstance(told.reason, RestartReason)


# Attributes


def test_an_attribute_from_a_token_is_believed() -> None:
    """Who cannot change its attributes did not write them."""
    assert trusted_attribute(FakeParticipant("alice", attributes={"person": "p-1"}), "person") == "p-1"


def test_who_may_change_its_attributes_names_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Else anybody could take somebody else's conversation, or name; it is told in the log."""
    mallory = FakeParticipant("mallory", attributes={"person": "alice", "conversation_id": "alices"})
    mallory.permissions = Permissions(can_update_metadata=True)
    assert trusted_attribute(mallory, "person") is None
    assert trusted_attribute(mallory, "conversation_id") is None
    assert len(caplog.records) == 2


@pytest.mark.parametrize("value", ["", "x" * 257, "a\0b"])
def test_an_attribute_that_is_no_id_is_not_used(value: str) -> None:
    """As everywhere."""
    assert trusted_attribute(FakeParticipant("alice", attributes={"person": value}), "person") is None


# The order in which a conversation is named


@contextmanager
def job(metadata: str, room_metadata: str, *here: FakeParticipant) -> Iterator[JobContext]:
    """A job in a room with somebody in it."""
    with fake_job(FakeRoom(*here), metadata=metadata, room_metadata=room_metadata) as made:
        yield made.context


CALLER = {"conversation_id": "by-caller"}


@pytest.mark.parametrize(
    ("metadata", "room_metadata", "asks", "wanted"),
    [
        ('{"conversation_id": "by-job"}', '{"conversation_id": "by-room"}', True, "by-job"),
        ("{}", '{"conversation_id": "by-room"}', True, "by-room"),
        ('{"conversation_id": 7}', '{"conversation_id": "by-room"}', True, "by-room"),
        ("", "", True, "by-caller"),
        ("", "", False, ROOM),
        ("{", "[", False, ROOM),
    ],
)
async def test_who_names_the_conversation(
    monkeypatch: pytest.MonkeyPatch, metadata: str, room_metadata: str, *, asks: bool, wanted: str
) -> None:
    """The job, else the room, else (where that is wanted) the participant, else the room's name."""
    with job(metadata, room_metadata, FakeParticipant("alice", attributes=CALLER)) as context:
        monkeypatch.setattr(context, "wait_for_participant", _first_of(context))
        settings = CallSettings(participant_identity=asks)
        assert await _conversation_id(context, Assignment.read(metadata, where="job"), settings) == wanted


async def test_a_caller_who_could_have_written_it_names_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The room's name is left."""
    mallory = FakeParticipant("mallory", attributes=CALLER, permissions=Permissions(can_update_metadata=True))
    with job("", "", mallory) as context:
        monkeypatch.setattr(context, "wait_for_participant", _first_of(context))
        assert await _conversation_id(context, NOTHING, CallSettings(participant_identity=True)) == ROOM


async def test_a_caller_who_does_not_come_is_not_waited_for_long() -> None:
    """The call must not hang on a question that is opt-in."""
    with job("", "") as context:
        settings = CallSettings(participant_identity=True, linger=timedelta(seconds=1))
        assert await _conversation_id(context, NOTHING, settings, timing=Timing(identity=0.02)) == ROOM


def test_a_failure_detector_finds_the_same_conversation() -> None:
    """Without the participant, whom it cannot ask."""
    both = running_job("j", metadata='{"conversation_id": "by-job"}', room_metadata='{"conversation_id": "by-room"}')
    assert conversation_id_of(both) == "by-job"
    assert conversation_id_of(running_job("j", room_metadata='{"conversation_id": "by-room"}')) == "by-room"
    assert conversation_id_of(running_job("j", metadata="{", room_metadata="hello")) == ROOM


def _first_of(context: JobContext) -> Any:
    async def wait_for_participant() -> Any:
        return next(iter(context.room.remote_participants.values()))

    return wait_for_participant
