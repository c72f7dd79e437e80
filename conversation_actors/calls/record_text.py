"""The record of a call in lines, for people."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

_LABEL = 12
_MINUTE, _HOUR = 60, 3600


def text_of(record: Mapping[str, Any]) -> str:
    """Return what `SessionRecord.to_dict` has as lines without control characters."""
    lines = [f"Call {record['number']} of {record['conversation_id']} ({record['call_id']})"]
    lines.extend(f"  {label:<{_LABEL}}{value}" for label, value in _facts(record))
    return "\n".join(_printable(line) for line in lines)


def _facts(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "started", _moment(record["started_at"])
    reason = record["end_reason"].replace("_", " ")
    yield "ended", f"{_moment(record['ended_at'])}: {reason}{_quoted(record['end_text'])}"
    yield "lasted", _span(record["duration"])
    talk = f"{_number(record['messages'], 'message')}, {_number(record['turns'], 'turn')}"
    yield "talk", f"{talk}, {record['interruptions']} interrupted"
    yield from _each("people", record["participants"], _person)
    yield from _each("agents", record["agents"], _agent)
    if record["left_out"]:
        yield "", f"and {record['left_out']} more"
    if record["spoke"] is not None:
        yield "spoke", ", ".join(f"{who} {_span(seconds)}" for who, seconds in record["spoke"].items())
    yield from _each("tools", record["tools"], _tool)
    yield from _each("latency", list(record["latency"].items()), _latency)
    yield from _each("usage", record["usage"], _usage)
    yield (
        "trouble",
        ", ".join(
            [
                _number(record["crashes"], "crash", "crashes"),
                _number(record["take_overs"], "take-over"),
                f"{_span(record['silence'])} of silence",
                _number(record["errors"], "error"),
            ]
        ),
    )
    if record["outcome"] is not None:
        yield "outcome", json.dumps(record["outcome"], ensure_ascii=False)
    if record["summary"]:
        yield "summary", " ".join(record["summary"].split())
    yield from _each("missing", record["gaps"], lambda gap: f"entries {gap[0]} to {gap[1]}")


def _each(label: str, values: Any, line_of: Any) -> Iterator[tuple[str, str]]:
    for place, value in enumerate(values):
        yield "" if place else label, line_of(value)


def _person(one: Mapping[str, Any]) -> str:
    named = f"{one['name']} ({one['identity']})" if one["name"] else one["identity"]
    until = "the end" if one["left_at"] is None else _time(one["left_at"])
    came = f"{named}, {_time(one['joined_at'])} to {until}, {_span(one['seconds'])}"
    visits = f", {_number(one['visits'], 'visit')}" if one["visits"] > 1 else ""
    return came + visits + (", returned" if one["returned"] else "")


def _agent(one: Mapping[str, Any]) -> str:
    end = "" if one["end"] is None else f", {one['end'].replace('_', ' ')}"
    until = "the end" if one["left_at"] is None else _time(one["left_at"])
    return f"{one['role']} {one['holder']}, {_time(one['joined_at'])} to {until}{end}"


def _tool(one: Mapping[str, Any]) -> str:
    return f"{one['name']}, {_number(one['calls'], 'call')}, {one['failures']} failed"


def _latency(named: tuple[str, Mapping[str, Any]]) -> str:
    name, one = named
    return f"{name}, median {_span(one['median'])}, p95 {_span(one['p95'])} ({_number(one['turns'], 'turn')})"


def _usage(one: Mapping[str, Any]) -> str:
    naming = ("type", "provider", "model")
    named = " ".join(str(one[name]) for name in naming if one.get(name))
    numbers = ", ".join(f"{name} {value:g}" for name, value in one.items() if name not in naming and value)
    return f"{named}: {numbers}" if numbers else named


def _number(count: int, one: str, several: str = "") -> str:
    return f"{count} {one if count == 1 else several or one + 's'}"


def _span(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{seconds:.1f} s" if seconds >= 1 or not seconds else f"{seconds:.3f} s"
    whole = round(seconds)
    hours, minutes, left = whole // _HOUR, whole % _HOUR // _MINUTE, whole % _MINUTE
    return f"{hours} h {minutes} min {left} s" if hours else f"{minutes} min {left} s"


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%H:%M:%S}"


def _quoted(text: str | None) -> str:
    return f" ({text})" if text else ""


def _printable(line: str) -> str:
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in line)
