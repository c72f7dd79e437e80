"""Log lines, for people and as JSON."""

import json
import logging
import re
import sys
from typing import Any

import pytest

from conversation_actors.log_lines import JsonFormatter, TextFormatter, as_text


def record(message: str = "an agent died", *, error: bool = False, **fields: Any) -> logging.LogRecord:
    """Make a record as a logger does, with the error that is being handled."""
    exc_info = sys.exc_info() if error else None
    made = logging.getLogger("agent_worker.x")
    return made.makeRecord("agent_worker.x", logging.WARNING, "f", 1, message, (), exc_info, extra=fields)


def test_a_line_of_text_has_date_zone_and_fields() -> None:
    """The fields stand behind the message, in the order of their names."""
    line = TextFormatter().format(record(outcome="dispatched", attempt=1, _private=1))
    pattern = (
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d WARNING agent_worker\.x "
        r"an agent died attempt=1 outcome=dispatched"
    )
    assert re.fullmatch(pattern, line)


def test_json_is_one_object_a_line() -> None:
    """Values keep their types; a traceback, line ends and other writings stay in the line."""
    try:
        raise ValueError("broken\nin two")  # noqa: EM101, TRY003, TRY301  # the error of a record
    except ValueError:
        line = JsonFormatter().format(record("gone\naway", error=True, attempt=1, who="Jürgen", name_of=None))
    assert "\n" not in line
    told = json.loads(line)
    assert list(told)[:4] == ["time", "level", "logger", "message"]
    assert (told["level"], told["logger"], told["message"]) == ("WARNING", "agent_worker.x", "gone\naway")
    assert (told["attempt"], told["who"], told["name_of"]) == (1, "Jürgen", None)
    assert told["exception"].startswith("Traceback")
    assert told["exception"].endswith("in two")
    assert "Jürgen" in line


def test_a_traceback_that_came_as_text_is_told_once() -> None:
    """As job processes hand theirs to the worker: the error stays behind, and its text is in the message too."""
    handed = record("an agent died\nTraceback of the job", attempt=1)
    handed.exc_text = "Traceback of the job"
    told = json.loads(JsonFormatter().format(handed))
    assert (told["message"], told["exception"]) == ("an agent died", "Traceback of the job")
    assert TextFormatter().format(handed).endswith("an agent died attempt=1\nTraceback of the job")
    assert TextFormatter().format(handed).count("Traceback") == 1


@pytest.mark.parametrize("value", [object(), {1: 2}, {(1, 2): 3}, float("nan"), {"a": {1, 2}}, b"x"])
def test_json_takes_whatever_a_field_holds(value: Any) -> None:
    """A field that JSON has no form for is told as text: a log line is never lost for it."""
    told = json.loads(JsonFormatter().format(record(value=value)), parse_constant=pytest.fail)
    assert "value" in told


def test_a_field_covers_none_of_the_lines_own() -> None:
    """One that is called like them gets an underscore."""
    told = json.loads(JsonFormatter().format(record(level="low", time="now")))
    assert (told["level"], told["level_"], told["time_"]) == ("WARNING", "low", "now")


def test_a_line_of_json_reads_as_text_again() -> None:
    """The same in both forms, but for the order of fields."""
    told = record(outcome="dispatched", attempt=1)
    assert as_text(json.loads(JsonFormatter().format(told))) == TextFormatter().format(told)
    assert as_text({"message": "old", "exception": "Traceback"}) == "- - - old\nTraceback"
