"""LiveKit's items as dictionaries that a conversation stores: total, one item at a time.

A serialisation error inside a LiveKit event handler is a TypeError, and a TypeError there kills the reply
that is being spoken. So nothing here raises for the sake of one field: what cannot be written is left out.
"""

import json
import logging
import math
from collections.abc import Mapping
from itertools import islice
from typing import Any

from livekit.agents.llm import ChatItem, ChatMessage, ImageContent
from pydantic_core import to_jsonable_python

from agent_worker.session.pictures import LEFT_OUT, FormOf, left_out, pictures_of

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
_SOUND = "[sound left out: it is too large]"
_PICTURE = LEFT_OUT.format("it is too large, with what else is in the message")
_ENVELOPE_BYTES = 1024
_MAX_MEASUREMENTS, _MAX_NAME_CHARACTERS = 16, 32
"""LiveKit takes ten measurements of a message at most."""


def to_fields(item: ChatItem, picture: FormOf = left_out) -> dict[str, Any]:
    """Return the item as LiveKit's own `to_dict` has it, with time stamps and sounds; pictures as `picture` gives them.

    Values that have no JSON form (bytes of a provider's signature, foreign objects) are left out one by one.
    """
    if not pictures_of(item):
        return _to_fields(item)
    assert isinstance(item, ChatMessage)
    # a frame is never written as it is: that alone would hold up the call
    bare = item.model_copy(update={"content": [part for part in item.content if not isinstance(part, ImageContent)]})
    fields = _to_fields(bare)
    written = iter(fields["content"])
    parts = [picture(part) if isinstance(part, ImageContent) else next(written, None) for part in item.content]
    fields["content"] = [part for part in parts if part is not None]
    return fields


def _to_fields(item: ChatItem) -> dict[str, Any]:
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
    """Log the error's type, and not its text, which may quote the value."""
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
    """Return the item without extras, its text made valid Unicode; of what was measured the plain numbers."""
    kept = {name: _valid_text(value) for name, value in fields.items() if name in ESSENTIAL}
    measured = _numbers(fields.get("metrics"))
    return {**kept, "metrics": measured} if measured else kept


def _numbers(metrics: Any) -> dict[str, float]:
    if not isinstance(metrics, Mapping):
        return {}
    numbers = ((name, value) for name, value in metrics.items() if isinstance(value, float) and math.isfinite(value))
    named = ((name, value) for name, value in numbers if name.isidentifier() and len(name) <= _MAX_NAME_CHARACTERS)
    return dict(islice(named, _MAX_MEASUREMENTS))


def shortened(fields: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """Return the essentials cut to fit `limit` bytes: media first, then text, which says that it was cut.

    A tool's output that is too large must not vanish: without it, its call would look interrupted.
    """
    kept = essentials(fields)
    budget = max(limit - _ENVELOPE_BYTES - _size(kept.get("metrics")), 0)
    if isinstance(kept.get("content"), list):
        kept["content"] = _shortened_content(kept["content"], budget)
    if isinstance(kept.get("output"), str):
        kept["output"] = _cut(kept["output"], budget)
    if isinstance(kept.get("arguments"), str) and _size(kept["arguments"]) > budget:
        kept["arguments"] = json.dumps({"arguments": SHORTENED.strip()})
    return kept


def _shortened_content(parts: list[Any], budget: int) -> list[Any]:
    """Return the parts without so much of the media, the first ones first, that they fit; of the text what fits."""
    left = list(parts)
    for index, part in enumerate(parts):
        if sum(map(_size, left)) <= budget:
            return left
        if not isinstance(part, str):
            left[index] = _words_for(part)
    text = "\n".join(part for part in left if isinstance(part, str))
    return [_cut(text, budget)]


def _words_for(part: Any) -> str:
    kind, told = (part.get("type"), part.get("transcript")) if isinstance(part, Mapping) else (None, None)
    if kind == "image_content":
        return _PICTURE
    return f"{told} {_SOUND}" if isinstance(told, str) and told else _SOUND


def _cut(text: str, budget: int) -> str:
    if _size(text) <= budget:
        return text
    while text and _size(text) + len(SHORTENED) > budget:
        text = text[: len(text) * 3 // 4]
    return text + SHORTENED


def _size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


def _valid_text(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_valid_text(part) for part in value]
    return value
