"""Log lines for people or as JSON: the time with its zone, the level, the logger, the message, and its fields."""

import json
import logging
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_LEADING = ("time", "level", "logger", "message")


_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def harmless(text: str) -> str:
    """Return text that is safe to show on a terminal, whoever wrote it: control characters are spelt out.

    Tabs and line breaks stay as they are.
    """
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def moment(record: logging.LogRecord) -> str:
    """Return when the record was made: date, time to the millisecond, and the zone of this machine."""
    return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields that were given with the message, sorted by name."""
    given = {name: value for name, value in vars(record).items() if name not in _PLAIN and name[0] != "_"}
    return dict(sorted(given.items()))


def _message(record: logging.LogRecord) -> str:
    """Return the message without its traceback, which a process that hands its records on appends to the message."""
    message, trace = record.getMessage(), record.exc_text
    return message.removesuffix(trace).rstrip("\n") if trace else message


class TextFormatter(logging.Formatter):
    """A formatter of lines for people.

    For example: ``2026-03-01T12:00:01.234+01:00 WARNING agent_worker.worker.takeover an agent died attempt=1``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, and after it the rest of the message, the traceback and the stack, if there are any."""
        first, *rest = _message(record).split("\n")
        told = "".join(f" {name}={value}" for name, value in fields_of(record).items())
        lines = [f"{moment(record)} {record.levelname} {record.name} {first}{told}", *rest]
        if trace := self._trace(record):
            lines.append(trace)
        if record.stack_info:
            lines.append(record.stack_info)
        return "\n".join(lines)

    def _trace(self, record: logging.LogRecord) -> str:
        return record.exc_text or (self.formatException(record.exc_info) if record.exc_info else "")


class JsonFormatter(TextFormatter):
    """A formatter of one JSON object a line.

    It has ``time``, ``level``, ``logger``, ``message``, the fields, and if there are any, ``exception`` and ``stack``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, even if there is a traceback."""
        line: dict[str, Any] = {
            "time": moment(record),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
        }
        line |= {f"{name}_" if name in _LEADING else name: value for name, value in fields_of(record).items()}
        if trace := self._trace(record):
            line["exception"] = trace
        if record.stack_info:
            line["stack"] = record.stack_info
        return _dumped(line)


def _dumped(line: dict[str, Any]) -> str:
    try:
        return json.dumps(line, ensure_ascii=False, allow_nan=False, default=str)
    except (TypeError, ValueError):  # a key that is not text, a circular reference, a number that JSON does not have
        return json.dumps({name: str(value) for name, value in line.items()}, ensure_ascii=False)


def as_text(line: Mapping[str, Any]) -> str:
    """Return a parsed line of `JsonFormatter` in the form of `TextFormatter`."""
    first = " ".join(str(line.get(name, "-")) for name in _LEADING)
    rest = {name: value for name, value in line.items() if name not in {*_LEADING, "exception", "stack"}}
    told = "".join(f" {name}={value}" for name, value in rest.items())
    return "\n".join([first + told, *(str(line[name]) for name in ("exception", "stack") if name in line)])
