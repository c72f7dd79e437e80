"""What a stored item says, read as leniently as anything that others wrote: whatever does not fit is not there."""

import math
from collections.abc import Mapping
from typing import Any

from conversation_actors.items import StoredItem, speaker_in
from conversation_actors.values import decode

CALL, OUTPUT = "function_call", "function_call_output"
STARTED, STOPPED = "started_speaking_at", "stopped_speaking_at"
"""LiveKit's names of when somebody began and ended to speak, among what is measured of a message."""
_SPEAKERS = frozenset({"user", "assistant"})


def is_said(item: StoredItem) -> bool:
    """Tell whether an item is a message of somebody: a person, or an agent."""
    return item.role in _SPEAKERS


def is_of_tool(item: StoredItem) -> bool:
    """Tell whether an item is a tool's call, or its output."""
    return item.type in {CALL, OUTPUT}


def fields_of(item: StoredItem) -> Mapping[str, Any]:
    """Return an item's fields; none if it is damaged."""
    return fields_in(item.data)


def fields_in(stored: bytes) -> Mapping[str, Any]:
    """Return the fields of an item's stored form; none if it is damaged."""
    try:
        fields = decode(stored)
    except ValueError:  # damaged: that it was there counts all the same
        return {}
    return fields if isinstance(fields, dict) else {}


def measures_of(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what was measured of a message."""
    metrics = fields.get("metrics")
    return metrics if isinstance(metrics, Mapping) else {}


def seconds_of(measured: Mapping[str, Any], name: str) -> float | None:
    """Return a measure; None if there is none that can be one."""
    value = measured.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value < 0:
        return None
    return float(value)


def identity_of(fields: Mapping[str, Any]) -> str | None:
    """Return whose message it is, if that was noted."""
    extra = fields.get("extra")
    speaker = speaker_in(extra) if isinstance(extra, Mapping) else None
    return None if speaker is None else str(speaker["identity"])


def text_of(fields: Mapping[str, Any]) -> str:
    """Return the words of a message."""
    content = fields.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(part for part in content if isinstance(part, str)) if isinstance(content, list) else ""
