"""What is sent of a happening: JSON within a bound of bytes."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from conversation_actors.archive.outbox import Queued
from conversation_actors.webhooks.wire_text import json_text, moment

SHORTEST = 16
"""Characters that every text keeps: what is shorter is a name or an id."""
_MARK = "…"
_ID_CHARACTERS = 128
"""Texts under `_IDS` are cut only beyond this."""
_IDS = frozenset(
    {
        "agent_role", "call_id", "conversation_id", "holder", "id", "identity", "ids", "item_id", "item_ids",
        "item_type", "replaced", "role", "speaker",
    }
)  # fmt: skip


class UnsendableError(Exception):
    """A happening of which nothing can be sent, now or later."""


def payload(queued: Queued, *, tenant: str, conversation_id: str, most_bytes: int) -> str:
    """Return what is sent: `type`, `timestamp` (ISO 8601, UTC) and `data`.

    If that is more than `most_bytes`, the longest texts are cut and `data` has ``"truncated": true``; if that is not
    enough, `data` has only whose happening it is. Raises `UnsendableError` for a happening that cannot be read.
    """
    told, at = read(queued)
    whose = {"conversation_id": conversation_id, "call_id": queued.call_id, "tenant": tenant, "seq": queued.seq}

    def written(data: Mapping[str, Any]) -> str:
        return json_text({"type": queued.type, "timestamp": at, "data": {**data, **whose}})

    whole = written(told)
    if size_of(whole) <= most_bytes:
        return whole
    return longest(
        lambda length: written({**shortened(told, length), "truncated": True}), most_bytes
    ) or written({"truncated": True})  # fmt: skip


def read(queued: Queued) -> tuple[dict[str, Any], str]:
    """Return a happening's data, and when it was: ISO 8601, UTC. Raises `UnsendableError` if it cannot be read."""
    try:
        told = json.loads(queued.data, parse_constant=lambda _: None)  # NaN is no JSON
        if not isinstance(told, dict):
            raise TypeError  # noqa: TRY301  # what is stored is an object
        at = datetime.fromtimestamp(queued.at, UTC)
    except (ValueError, TypeError, OverflowError, OSError, RecursionError):
        message = "the happening in the outbox cannot be read"
        raise UnsendableError(message) from None
    return told, moment(at)


def longest(written: Callable[[int], str], most_bytes: int) -> str | None:
    """Return what is written with texts as long as they can be; None if it is too much with the shortest ones."""
    least, most = SHORTEST, max(SHORTEST, most_bytes)
    best: str | None = None
    while least <= most:
        length = (least + most) // 2
        text = written(length)
        if size_of(text) <= most_bytes:
            best, least = text, length + 1
        else:
            most = length - 1
    return best


def shortened(value: Any, length: int, key: str = "", *, ids: int = _ID_CHARACTERS) -> Any:
    """Return a value with its texts cut to this length. Ids, which are in fields of certain names, keep more."""
    match value:
        case str():
            bound = max(length, ids) if key in _IDS else length
            return value if len(value) <= bound else value[:bound] + _MARK
        case dict():
            return {name: shortened(one, length, name, ids=ids) for name, one in value.items()}
        case list():
            return [shortened(one, length, key, ids=ids) for one in value]
        case _:
            return value


def size_of(text: str) -> int:
    """Return the bytes of a text that is sent."""
    return len(text.encode())
