"""The record of a call: as JSON, back again, and for people."""

import json
from pathlib import Path
from typing import Any

import pytest

from conversation_actors.calls import SessionRecord
from conversation_actors.calls.names import OUTCOME, USAGE
from conversation_actors.calls.outcome import outcome_note
from conversation_actors.errors import InvalidInputError
from conversation_actors.state import AcquireLease, SetSummary
from tests.support.call_entries import START, Conversation

PAGE = Path(__file__).parents[3] / "docs" / "calls.md"


def a_record() -> SessionRecord:
    """The record of a call in which much has happened."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(1, "ada", name="Ada")
    spoken = {"started_speaking_at": 4.0, "stopped_speaking_at": 6.5}
    call.say(10, "u1", "Where is my order?", metrics=spoken, extra={"participant": {"identity": "ada"}})
    call.append(11, {"type": "function_call", "id": "c1", "call_id": "c1", "name": "look_up", "arguments": "{}"})
    call.append(12, {"type": "function_call_output", "id": "o1", "call_id": "c1", "output": "no", "is_error": True})
    call.go(15, "ada")
    call.take(20, "job-2", replacing="job-1")
    call.come(21, "ada")
    call.say(22, "a1", "On its way.", role="assistant", interrupted=True, metrics={"e2e_latency": 0.84})
    call.note(23, "livekit.error", {"type": "APIError"})
    call.note(
        24, USAGE, {"models": [{"type": "llm_usage", "provider": "openai", "model": "gpt-4o", "input_tokens": 812}]}
    )
    call.ask(25, SetSummary("Ada waits\nfor her order.", 3))
    call.note(26, OUTCOME, outcome_note({"resolved": True, "order": "1042"}, START))
    call.end(95, reason="hung up")
    call.let_go(95)
    return call.record()


def shown_on_the_page() -> str:
    """The record that the page about calls shows."""
    return PAGE.read_text(encoding="utf-8").partition("```text\n")[2].partition("\n```")[0]


def test_a_record_is_read_back_from_its_json() -> None:
    """Every field of it."""
    record = a_record()

    assert SessionRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_a_record_of_a_newer_version_is_read_without_what_is_new() -> None:
    """Unknown fields are left out."""
    record = a_record()

    assert SessionRecord.from_dict({**record.to_dict(), "mood": "good"}) == record


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"number": "many"}, "number"),
        ({"participants": [{"identity": 7}]}, "participants"),
        ({"call_id": None}, "call_id"),
    ],
)
def test_what_is_no_record_is_refused_by_its_field(changes: dict[str, Any], field: str) -> None:
    """The error quotes no value."""
    with pytest.raises(InvalidInputError) as caught:
        SessionRecord.from_dict({**a_record().to_dict(), **changes})

    assert caught.value.field == field
    assert "many" not in str(caught.value)


def test_a_record_has_lines_for_people() -> None:
    """As the page about calls shows them. What there is nothing of has no line."""
    assert a_record().to_text() == shown_on_the_page()


def test_the_page_about_calls_explains_every_field() -> None:
    """Whoever reads a record as JSON finds what it says."""
    page = PAGE.read_text(encoding="utf-8")

    assert [name for name in a_record().to_dict() if f"`{name}`" not in page] == []


def test_names_bring_no_control_characters_into_a_terminal() -> None:
    """Whatever people call themselves."""
    call = Conversation()
    call.come(0, name="\x1b[31mAda\n")
    call.close(1, "done\x07")

    text = call.record().to_text()

    assert all(line.isprintable() for line in text.split("\n"))
    assert "\N{REPLACEMENT CHARACTER}[31mAda\N{REPLACEMENT CHARACTER} (ada)" in text


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0.0 s"), (0.25, "0.250 s"), (59.94, "59.9 s"), (61, "1 min 1 s"), (3600, "1 h 0 min 0 s"), (59.96, "60.0 s")],
)
def test_times_are_told_as_people_read_them(seconds: float, told: str) -> None:
    """With the precision that their length calls for."""
    call = Conversation()
    call.ask(0, AcquireLease("agent", "job-1", 7200.0))
    call.close(seconds)

    assert f"  lasted      {told}\n" in call.record().to_text()
