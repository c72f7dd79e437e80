"""What a request asks for, in few characters: it tells a repeat from another request of the same name."""

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from hashlib import blake2b
from typing import Any

from conversation_actors.items import StoredItem
from conversation_actors.state import EVENT_OF, AppendItems, Command
from conversation_actors.values import decode

_AUTOMATIC_ID = re.compile(r"item_[0-9a-f]{16}")
"""What an item is named that was given no `id`."""
_NO_CONTENT = frozenset({"expected_seq"})
"""Fields of commands that say when a command is good."""

_canonical = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)


def digest_of(command: Command) -> str:
    """16 hexadecimal characters over a command's kind and content; stored, so the rule must not change.

    A command that is built anew from the same arguments has the same one: of an item, `created_at` and an automatic
    `id` are left out. What is None counts as not given, so that a field may be added to a command.
    """
    content = {"kind": EVENT_OF[type(command)], **_content(command)}
    return blake2b(_canonical.encode(content).encode(), digest_size=8).hexdigest()


def _content(command: Command) -> Mapping[str, Any]:
    if isinstance(command, AppendItems):
        return {"items": [_content_of_item(item) for item in command.items]}
    given = {field.name: getattr(command, field.name) for field in fields(command) if field.name not in _NO_CONTENT}
    return {
        name: dict(value) if isinstance(value, Mapping) else value for name, value in given.items() if value is not None
    }


def _content_of_item(item: StoredItem) -> dict[str, Any]:
    content: dict[str, Any] = decode(item.data)
    content.pop("created_at", None)
    if _AUTOMATIC_ID.fullmatch(item.id):
        del content["id"]
    return content
