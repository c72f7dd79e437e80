"""What a back end is told besides a business: items as they are stored, speech, removals, failures of models."""

from typing import Any

import pytest

from conversation_actors.calls import HAPPENINGS, REPORTS
from conversation_actors.calls.happenings import (
    ERROR_NOTED,
    MESSAGE_STORED,
    MESSAGES_REMOVED,
    SPEECH_FINISHED,
    TRANSCRIPTION_FINAL,
    call_id_of,
    named_call,
)
from conversation_actors.calls.names import ERROR
from conversation_actors.items import StoredItem
from conversation_actors.state import AttributesChanged, Entry, ItemsAppended
from tests.support.call_entries import LIFE, START, Conversation, a_fold, types_of

ADA = {"participant": {"identity": "ada", "device": "phone"}, "language": "en-US"}


def spoken(started: float | None, stopped: float | None) -> dict[str, float]:
    """Measures of a message that was said between these times."""
    told = {"started_speaking_at": started, "stopped_speaking_at": stopped}
    return {name: value for name, value in told.items() if value is not None}


def a_call() -> Conversation:
    """Ada asks by voice, a tool is called, and the agent's answer is interrupted."""
    call = Conversation()
    call.come(0)
    call.take(1, "job-1")
    call.say(2, "u1", "Where is my order?", metrics=spoken(10.0, 12.5), extra=ADA)
    look_up = {"type": "function_call", "id": "c1", "call_id": "k1", "name": "look_up", "arguments": '{"order": 7}'}
    call.append(3, look_up)
    call.append(4, {"type": "function_call_output", "id": "o1", "call_id": "k1", "output": "on its way"})
    call.say(5, "a1", "It is on", role="assistant", metrics=spoken(13.0, 14.0), interrupted=True)
    return call


def test_items_are_told_as_they_are_stored_with_who_said_them_in_what_words() -> None:
    """Also tools' calls, so that whoever has these items has the conversation."""
    messages = [one["message"] for one in a_call().reports(MESSAGE_STORED)]

    said, called, given, answered = messages
    assert said.pop("item")["content"] == ["Where is my order?"]
    assert said == {
        "id": "u1",
        "item_type": "message",
        "role": "user",
        "text": "Where is my order?",
        "created_at": START,
        "interrupted": False,
        "identity": "ada",
        "agent_role": None,
    }
    assert (called["item_type"], called["role"], called["text"]) == ("function_call", None, 'look_up({"order": 7})')
    assert called["item"]["arguments"] == '{"order": 7}'
    assert (given["item_type"], given["text"], given["item"]["call_id"]) == ("function_call_output", "on its way", "k1")
    assert (answered["role"], answered["interrupted"], answered["identity"]) == ("assistant", True, None)


def test_what_is_said_is_told_as_speech_before_the_turn_that_it_completes() -> None:
    """In the order in which it came about, and at the position of the item."""
    told = a_call().told(reports=True)
    last = [one for one in told if one.seq == told[-3].seq]

    assert types_of(told)[:2] == ["call.started", "participant.joined"]
    assert types_of(last)[:3] == [MESSAGE_STORED, SPEECH_FINISHED, "turn.completed"]
    assert [one.data for one in told if one.type == TRANSCRIPTION_FINAL] == [
        {"item_id": "u1", "text": "Where is my order?", "identity": "ada", "language": "en-US", "final": True}
    ]
    assert [one.data for one in told if one.type == SPEECH_FINISHED] == [
        {
            "item_id": "u1",
            "role": "user",
            "speaker": "ada",
            "started_at": 10.0,
            "stopped_at": 12.5,
            "duration": 2.5,
            "interrupted": False,
        },
        {
            "item_id": "a1",
            "role": "assistant",
            "speaker": "agent",
            "started_at": 13.0,
            "stopped_at": 14.0,
            "duration": 1.0,
            "interrupted": True,
        },
    ]


def test_a_business_is_told_nothing_of_this() -> None:
    """Unless it is asked for."""
    assert set(types_of(a_call().told())) <= set(HAPPENINGS)
    assert not set(HAPPENINGS) & set(REPORTS)


@pytest.mark.parametrize(
    ("fields", "speaker", "duration"),
    [
        ({"metrics": spoken(10.0, None)}, "user", None),
        ({"metrics": spoken(10.0, 9.0)}, "user", 0.0),
        ({"interrupted": True}, "user", None),
        ({"metrics": spoken(1.0, 2.0), "extra": {"participant": {"identity": "bob"}}}, "bob", 1.0),
    ],
)
def test_speech_that_is_measured_in_part_has_no_duration(
    fields: dict[str, Any], speaker: str, duration: float | None
) -> None:
    """Somebody whose name is not known has spoken all the same; a clock that went back makes no speech negative."""
    call = Conversation()
    call.say(0, "u1", **fields)

    (speech,) = call.reports(SPEECH_FINISHED)
    assert (speech["speaker"], speech["duration"]) == (speaker, duration)


def test_what_was_written_is_no_speech() -> None:
    """Nothing was measured: it may have been typed."""
    call = Conversation()
    call.say(0, "u1")

    assert call.reports(SPEECH_FINISHED) == []
    assert [(one["text"], one["language"]) for one in call.reports(TRANSCRIPTION_FINAL)] == [("Hello", None)]


def test_an_item_that_changes_is_stored_again_and_not_said_again() -> None:
    """The back end keeps the last one of each id."""
    call = Conversation()
    call.say(0, "u1", "Helo", metrics=spoken(1.0, 2.0))
    call.say(1, "u1", "Hello", metrics=spoken(1.0, 2.0))

    told = types_of(call.told(reports=True))
    assert [one["message"]["text"] for one in call.reports(MESSAGE_STORED)] == ["Helo", "Hello"]
    assert (told.count(TRANSCRIPTION_FINAL), told.count(SPEECH_FINISHED)) == (1, 1)


def test_what_another_agent_records_is_stored_and_is_no_transcription() -> None:
    """It hears the same people: what they say is told once."""
    call = Conversation()
    call.say(0, "u1", "Hello")
    call.say(1, "i1", "Hallo", agent_role="interpreter", metrics=spoken(1.0, 2.0))

    roles = [one["message"]["agent_role"] for one in call.reports(MESSAGE_STORED)]
    assert roles == [None, "interpreter"]
    assert [one["item_id"] for one in call.reports(TRANSCRIPTION_FINAL)] == ["u1"]
    assert call.reports(SPEECH_FINISHED) == []


def test_instructions_are_stored_and_belong_to_no_call() -> None:
    """They are part of the history, and nobody says them; a tool's call between calls neither."""
    call = Conversation()
    call.say(0, "s1", "Be kind.", role="system")
    call.append(1, {"type": "function_call", "id": "c1", "call_id": "k1", "name": "look_up", "arguments": "{}"})

    told = call.told(reports=True)
    assert types_of(told) == [MESSAGE_STORED, MESSAGE_STORED]
    assert {one.call_id for one in told} == {f"{LIFE}.0"}
    assert {named_call(one.call_id) for one in told} == {None}


def test_kinds_of_items_that_are_no_part_of_a_history_are_not_told() -> None:
    """What was sent beside the words, a handoff, and what only a newer version knows."""
    call = Conversation()
    call.append(0, {"type": "data_message", "id": "d1", "topic": "t", "kind": "packet", "size": 1})
    call.append(1, {"type": "agent_handoff", "id": "h1", "new_agent_id": "clerk"})
    call.append(2, {"type": "vote", "id": "v1"})

    assert call.told(reports=True) == []


def test_removals_are_told_with_what_goes_along_also_between_calls() -> None:
    """A tool's call goes with its output; whether there is a call makes no difference."""
    call = a_call()
    call.remove(6, "u1", "c1")
    call.remove(7)
    call.end(8)
    call.let_go(9)
    call.remove(1000, "a1")
    call.clear(1001)

    told = [one for one in call.told(reports=True) if one.type == MESSAGES_REMOVED]
    ids = [one.data["ids"] for one in told]
    assert set(ids[0]) == {"u1", "c1", "o1"}
    assert ids[1:] == [["a1"], None]
    assert [named_call(one.call_id) for one in told] == [f"{LIFE}.1", None, None]


def test_failures_of_models_are_told_whatever_was_noted_of_them() -> None:
    """Of every role, and only while there is a failure; a stack that is too long loses its beginning."""
    call = Conversation()
    noted = {"type": "APIError", "source": "LLM", "recoverable": True, "at": START}
    call.note(0, ERROR, noted)
    call.note(1, ERROR, {**noted, "stack": "a" + "b" * (9 << 10)}, role="interpreter")
    call.note(2, ERROR, None)
    call.note(3, ERROR, {"type": 7})
    call.note(4, ERROR, "broken")

    first, second, third = call.reports(ERROR_NOTED)
    assert first == {"error_type": "APIError", "source": "LLM", "recoverable": True, "stack": None}
    assert second["stack"] == "b" * (8 << 10)
    assert third == {"error_type": "", "source": "", "recoverable": False, "stack": None}


def test_an_item_that_nobody_can_read_is_told_with_what_is_known() -> None:
    """That it is there, and its role."""
    damaged = StoredItem("u1", "message", "user", "", b"{")
    told = a_fold(reports=True).take(Entry(1, 1, START, ItemsAppended((damaged,))))

    (message,) = [one.data["message"] for one in told if one.type == MESSAGE_STORED]
    assert (message["id"], message["role"], message["text"], message["item"]) == ("u1", "user", "", None)


def test_two_things_in_one_entry_have_places_of_their_own() -> None:
    """Their ids differ, though type, call and position are the same."""
    noted = {name: {"type": "APIError"} for name in (ERROR, "livekit.role.interpreter.error")}
    told = a_fold(reports=True).take(Entry(1, 1, START, AttributesChanged(noted)))

    assert len({one.id for one in told}) == len(told) == 2


@pytest.mark.parametrize("number", [1, 7, 10, 100])
def test_the_id_of_a_call_is_never_taken_for_none(number: int) -> None:
    """Whatever its number, and whatever the life is called."""
    assert named_call(call_id_of("life.0", number)) == f"life.0.{number}"
