"""What the models of a call's jobs were used for."""

from typing import Any

import pytest

from conversation_actors.calls.names import USAGE
from tests.support.call_entries import Conversation


def used(holder: str | None, *models: dict[str, Any]) -> dict[str, Any]:
    """What a job has noted."""
    told: dict[str, Any] = {"models": list(models), "at": 1.0}
    return told if holder is None else {**told, "holder": holder}


def llm(tokens: int, *, model: str = "gpt-4o") -> dict[str, Any]:
    """The use of a language model."""
    return {"type": "llm_usage", "provider": "openai", "model": model, "input_tokens": tokens, "session_duration": 0.5}


def begun() -> Conversation:
    """A call that goes on."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(0)
    return call


def test_the_last_that_a_job_has_told_counts() -> None:
    """Each time it tells all that was used so far."""
    call = begun()
    for tokens in (10, 20, 35):
        call.note(tokens, USAGE, used("job-1", llm(tokens)))

    assert call.record().usage == (llm(35),)


@pytest.mark.parametrize("names", [("job-1", "job-2"), (None, None)])
def test_jobs_are_summed_up_by_model(names: tuple[str | None, str | None]) -> None:
    """A successor counts from nothing. One that does not say who it is, is who has the lease."""
    call = begun()
    call.note(10, USAGE, used(names[0], llm(10), llm(1, model="gpt-mini")))
    call.take(20, "job-2", replacing="job-1")
    call.note(30, USAGE, used(names[1], llm(5)))

    assert call.record().usage == ({**llm(15), "session_duration": 1.0}, llm(1, model="gpt-mini"))


def test_other_roles_count_too() -> None:
    """Each role's jobs have models of their own."""
    call = begun()
    call.note(10, USAGE, used("job-1", llm(10)))
    call.note(11, USAGE, used("job-1", llm(7)), role="interpreter")

    assert call.record().usage[0]["input_tokens"] == 17


def test_very_many_jobs_are_summed_up_exactly() -> None:
    """What older ones have told is kept as a sum."""
    call = begun()
    for number in range(40):
        call.note(number, USAGE, used(f"job-{number}", llm(1)))

    assert call.record().usage[0]["input_tokens"] == 40


@pytest.mark.parametrize(
    "told", [None, 7, {"models": "many"}, {"models": [7, None]}, {"models": [{"type": [], "x": True}]}]
)
def test_what_is_no_usage_counts_for_nothing(told: Any) -> None:
    """Whoever has written it."""
    call = begun()
    call.note(1, USAGE, told)

    assert call.record().usage == ()
