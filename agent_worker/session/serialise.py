"""LiveKit's items as dictionaries that a conversation stores: total, one item at a time.

A serialisation error inside a LiveKit event handler is a TypeError, and a TypeError there kills the reply
that is being spoken. So nothing here raises for the sake of one field: what cannot be written is left out.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any

from livekit.agents.llm import ChatItem
from pydantic_core import to_jsonable_python

logger = logging.getLogger(__name__)

ESSENTIAL = frozenset(
    {
        *("id", "type", "created_at", "role", "content", "interrupted"),
        *("call_id", "name", "arguments", "output", "is_error", "group_id"),
        *("old_agent_id", "new_agent_id"),
    }
)
"""Fields without which an item would not be what it was. The others are measurements and providers' extras."""

OPTIONAL_CONTAINERS = frozenset({"extra", "metrics"})
SHORTENED = " [shortened for storage]"
_ENVELOPE_BYTES = 1024


def to_fields(item: ChatItem) -> dict[str, Any]:
    """The item as LiveKit's own `to_dict` has it, with time stamps, images and sounds.

    Values that have no JSON form (bytes of a provider's signature, foreign objects) are left out one by one.
    """
    try:
        return item.model_dump(mode="json", exclude_none=True)
    except Exception:  # noqa: BLE001  # user-defined serialisers may raise anything; see the module's docstring
        return _field_by_field(item)


def _field_by_field(item: ChatItem) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name in type(item).model_fields:
        if name in OPTIONAL_CONTAINERS:
            fields[name] = _storable_entries(item, name)
        else:
            _copy_field(item, name, fields)
    return fields


def _copy_field(item: ChatItem, name: str, into: dict[str, Any]) -> None:
    try:
        into.update(item.model_dump(mode="json", exclude_none=True, include={name}))
    except Exception as error:  # noqa: BLE001  # as in to_fields
        _tell_lost(item, name, error)
        if name == "content":
            parts = getattr(item, name)
            into[name] = [part for part in parts if isinstance(part, str)]


def _tell_lost(item: ChatItem, field: str, error: Exception) -> None:
    """The error's text may quote the value, so only its type is told."""
    details = {"item_id": item.id, "field": field, "reason": type(error).__name__}
    logger.warning("a value of an item cannot be stored", extra=details)


def _storable_entries(item: ChatItem, name: str) -> dict[str, Any]:
    kept = {}
    for key, value in getattr(item, name).items():
        try:
            kept[key] = to_jsonable_python(value)
        except Exception as error:  # noqa: BLE001  # as in to_fields; one value must not cost the others
            _tell_lost(item, f"{name}.{key}", error)
    return kept


def essentials(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The item without measurements and extras, its text made valid Unicode."""
    return {name: _valid_text(value) for name, value in fields.items() if name in ESSENTIAL}


def shortened(fields: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """The essentials cut to fit `limit` bytes: media first, then text, which says that it was cut.

    A tool's output that is too large must not vanish: without it, its call would look interrupted.
    """
    kept = essentials(fields)
    budget = max(limit - _ENVELOPE_BYTES, 0)
    if isinstance(kept.get("content"), list):
        kept["content"] = ["\n".join(part for part in kept["content"] if isinstance(part, str))]
        kept["content"] = [_cut(kept["content"][0], budget)]
    if isinstance(kept.get("output"), str):
        kept["output"] = _cut(kept["output"], budget)
    if isinstance(kept.get("arguments"), str) and _size(kept["arguments"]) > budget:
        kept["arguments"] = json.dumps({"arguments": SHORTENED.strip()})
    return kept


def _cut(text: str, budget: int) -> str:
    if _size(text) <= budget:
        return text
    while text and _size(text) + len(SHORTENED) > budget:
        text = text[: len(text) * 3 // 4]
    return text + SHORTENED


def _size(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode())


def _valid_text(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_valid_text(part) for part in value]
    return value
