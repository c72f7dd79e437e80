"""Elements of the lists that home-made stores keep in Redis: ``{"role": …, "content": …, "timestamp": …}``."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from conversation_actors.errors import InvalidInputError
from conversation_actors.items import Item, Message, OtherItem
from conversation_actors.values import decode

UNREADABLE, MISSING = "unreadable_element", "missing_elements"
"""Types of items that stand for an element that is no message, and for elements that the list has lost."""
_PREFIX = "imported"
_MILLISECONDS_FROM = 1e11
"""A number of seconds since the epoch that large would be in the year 5138."""
_KEPT = 2000
"""Characters of an element that is no message, which are kept of it."""


@dataclass(frozen=True, slots=True)
class Element:
    """An element of a list as an item. `problem` says why it is none that can be read; then the item only names it."""

    item: Item
    at: float
    problem: str | None = None


def digest_of(stored: bytes) -> str:
    """Return what tells an element from another one."""
    return sha256(stored).hexdigest()[:24]


def digest_in(item_id: str) -> str | None:
    """Return the digest of the element that an item was made of; None if it was made of none."""
    prefix, _, rest = item_id.partition("-")
    number, _, digest = rest.partition("-")
    return digest if prefix == _PREFIX and number.isdecimal() and digest else None


def element(number: int, stored: bytes, *, before: float) -> Element:
    """Read the element that is the `number`-th of its conversation; `before` is the time of the one before it.

    An element without a timestamp has that of the one before.
    """
    item_id = f"{_PREFIX}-{number}-{digest_of(stored)}"
    try:
        fields = decode(stored)
        if not isinstance(fields, dict):
            return _unreadable(item_id, stored, before, "not a JSON object")
        at = _time(fields.get("timestamp"), before)
        rest = {name: value for name, value in fields.items() if name not in {"role", "content", "timestamp"}}
        told = {"id": item_id, "created_at": at, "role": _required(fields, "role"), "content": _content(fields)}
        message = Message.model_validate(told | ({"extra": {"imported": rest}} if rest else {}))
        message.to_stored()
    except UnicodeDecodeError:
        return _unreadable(item_id, stored, before, "not UTF-8")
    except (InvalidInputError, ValueError) as error:
        return _unreadable(item_id, stored, before, str(error))
    return Element(message, at)


def too_large(number: int, stored: bytes, *, before: float, reason: str) -> Element:
    """Return what stands for an element that a conversation has no room for."""
    return _unreadable(f"{_PREFIX}-{number}-{digest_of(stored)}", stored, before, reason)


def missing(number: int, *, before: float) -> Item:
    """Return the item that says that elements are missing before the `number`-th."""
    fields = {"type": MISSING, "id": f"missing-{number}", "created_at": before}
    return OtherItem.model_validate(
        {**fields, "text": "elements of the imported list were dropped before they were read"}
    )


def _unreadable(item_id: str, stored: bytes, at: float, problem: str) -> Element:
    text = stored.decode(errors="backslashreplace")[:_KEPT]
    fields = {
        "type": UNREADABLE,
        "id": item_id,
        "created_at": at,
        "problem": problem,
        "text": text,
        "size": len(stored),
    }
    return Element(OtherItem.model_validate(fields), at, problem)


def _required(fields: Mapping[str, Any], name: str) -> Any:
    if name not in fields:
        message = f"{name} is missing"
        raise ValueError(message)
    return fields[name]


def _content(fields: Mapping[str, Any]) -> Any:
    """Return the content; parts of text in the form of chat completions become text."""
    content = _required(fields, "content")
    if not isinstance(content, list):
        return content
    return [
        part["text"]
        if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
        else part
        for part in content
    ]


def _time(value: object, before: float) -> float:
    """Return a timestamp in seconds since the epoch. It is in seconds, milliseconds, or ISO 8601 (UTC if not told)."""
    if value is None:
        return before
    if isinstance(value, str):
        value = _seconds(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        message = "timestamp is neither a number nor a date"
        raise ValueError(message)
    return value / 1000 if abs(value) >= _MILLISECONDS_FROM else float(value)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass  # a date, then
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        message = "timestamp is neither a number nor a date"
        raise ValueError(message) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
