"""What is stored beside an item's own fields: facts that only a successor's restoration reads.

LiveKit's classes have no such fields, so no model is told of them.
"""

from collections.abc import Mapping
from typing import Any

from conversation_actors.items import Item

STANDS_BEFORE = "stands_before"
"""The id of the item before which it stands in LiveKit's history, if that item was recorded first."""
STILL_RUNNING = "still_running"
"""In an output that a tool has reported while it works on: the id of the call."""
_NAMES = frozenset({STANDS_BEFORE, STILL_RUNNING})


def remark(stored: Item, name: str) -> str | None:
    """One of the facts; None if it is not told."""
    value = (stored.model_extra or {}).get(name)
    return value if isinstance(value, str) else None


def without_remarks(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are the item's own."""
    return {name: value for name, value in fields.items() if name not in _NAMES}


def is_report_of(call_id: str, base: str) -> bool:
    """Whether a call id is that of a call, or one that LiveKit gives to what its tool reports while it works on."""
    return call_id == base or call_id.startswith(f"{base}_update_")
