"""An outcome and the application's own model of it: what fits, what does not, and what an error says of it."""

from enum import StrEnum
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from conversation_actors.calls.outcome import outcome_note, outcome_of, outcome_value
from conversation_actors.errors import InvalidInputError


class Mood(StrEnum):
    """How the caller was."""

    CALM = "calm"


class Caller(BaseModel):
    """Who called."""

    name: str


class Booking(BaseModel):
    """What an application wants to know of each call."""

    result: Literal["booked", "declined"]
    caller: Caller | None = None
    mood: Mood = Mood.CALM
    tries: int = Field(default=0, ge=0)


class Other(BaseModel):
    """Another application's model."""

    result: str = "booked"


def test_a_mapping_is_stored_as_the_model_has_it() -> None:
    """With its defaults, and as JSON."""
    stored = outcome_value({"result": "booked", "caller": {"name": "Ada"}}, Booking)
    assert stored == {"result": "booked", "caller": {"name": "Ada"}, "mood": "calm", "tries": 0}
    assert outcome_value(Booking(result="booked"), Booking)["mood"] == "calm"


def test_without_a_model_a_mapping_stays_what_it_is() -> None:
    """And a model of any kind will do."""
    assert outcome_value({"anything": [1, None]}) == {"anything": [1, None]}
    assert outcome_value(Other()) == {"result": "booked"}


@pytest.mark.parametrize(
    ("outcome", "field"),
    [
        ({"result": "private words"}, "outcome.result"),
        ({}, "outcome.result"),
        ({"result": "booked", "caller": {"name": ["private words"]}}, "outcome.caller.name"),
        ({"result": "booked", "tries": -1}, "outcome.tries"),
        (Other(), "outcome"),
        ("private words", "outcome"),
        (None, "outcome"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_place_and_not_quoted(outcome: Any, field: str) -> None:
    """The error's text goes to logs: it may not quote the call."""
    with pytest.raises(InvalidInputError) as refused:
        outcome_value(outcome, Booking)
    assert refused.value.field == field
    assert "private words" not in str(refused.value)


def test_a_model_that_was_changed_into_what_does_not_fit_is_refused() -> None:
    """Pydantic checks no assignment unless it is told to."""
    changed = Booking(result="booked")
    changed.tries = "private words"  # type: ignore[assignment]  # what is tested
    with pytest.raises(InvalidInputError) as refused:
        outcome_value(changed, Booking)
    assert "private words" not in str(refused.value)


@pytest.mark.parametrize("noted", [None, "text", {}, {"value": "text"}, {"at": 1.0}])
def test_an_attribute_that_is_no_outcome_is_none(noted: Any) -> None:
    """Anybody may write an attribute of this name."""
    assert outcome_of(noted) is None


def test_what_is_noted_is_read_back() -> None:
    """With the time beside it."""
    note = outcome_note({"value": 1}, 5.0)
    assert note["at"] == 5.0
    assert outcome_of(note) == {"value": 1}
