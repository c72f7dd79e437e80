"""What is sent of a happening: JSON within a bound of bytes."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from conversation_actors.archive.outbox import Queued

_SHORTEST = 16
"""Characters that every text keeps: what is shorter is a name or an id."""
_MARK = "…"
_ID_CHARACTERS = 128
"""Texts under `_IDS` are cut only beyond this."""
_IDS = frozenset({"id", "item_id", "item_ids", "identity", "holder", "replaced", "role", "call_id", "conversation_id"})


class UnsendableError(Exception):
    """A happening of which nothing can be sent, now or later."""


def payload(queued: Queued, *, tenant: str, conversation_id: str, most_bytes: int) -> str:
    """Return what is sent: `type`, `timestamp` (ISO 8601, UTC) and `data`.

    If that is more than `most_bytes`, the longest texts are cut and `data` has ``"truncated": true``; if that is not
    enough, `data` has only whose happening it is. Raises `UnsendableError` for a happening that cannot be read.
    """
    try:
        told = json.loads(queued.data, parse_constant=lambda _: None)  # NaN is no JSON
        if not isinstance(told, dict):
            raise TypeError  # noqa: TRY301  # what is stored is an object
        moment = datetime.fromtimestamp(queued.at, UTC)
    except (ValueError, TypeError, OverflowError, OSError, RecursionError):
        message = "the happening in the outbox cannot be read"
        raise UnsendableError(message) from None
    whose = {"conversation_id": conversation_id, "call_id": queued.call_id, "tenant": tenant, "seq": queued.seq}
    envelope = {"type": queued.type, "timestamp": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")}

    def written(data: Mapping[str, Any]) -> str:
        return _text({**envelope, "data": {**data, **whose}})

    whole = written(told)
    return whole if _size(whole) <= most_bytes else _cut(told, written, most_bytes)


def _cut(told: Mapping[str, Any], written: Callable[[Mapping[str, Any]], str], most_bytes: int) -> str:
    """Return it with texts as long as they can be."""
    least, most = _SHORTEST, max(_SHORTEST, most_bytes)
    best: str = written({"truncated": True})
    while least <= most:
        length = (least + most) // 2
        text = written({**_shortened(told, length), "truncated": True})
        if _size(text) <= most_bytes:
            best, least = text, length + 1
        else:
            most = length - 1
    return best


def _shortened(value: Any, length: int, key: str = "") -> Any:
    match value:
        case str():
            bound = max(length, _ID_CHARACTERS) if key in _IDS else length
            return value if len(value) <= bound else value[:bound] + _MARK
        case dict():
            return {name: _shortened(one, length, name) for name, one in value.items()}
        case list():
            return [_shortened(one, length, key) for one in value]
        case _:
            return value


def _text(value: Any) -> str:
    """Return JSON in which every text is one that can be sent: half a surrogate pair becomes a question mark."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="replace").decode()


def _size(text: str) -> int:
    return len(text.encode())
