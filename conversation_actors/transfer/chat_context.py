"""A history as LiveKit's ``ChatContext``, in the form that ``ChatContext.from_dict`` reads.

`from_dict` refuses the whole history for one item that it cannot read. So only what it can read is given: an item, or a
part of a message, of another kind is left out and counted.
"""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from conversation_actors.archive.rows import ITEM, LIFE, Row
from conversation_actors.errors import InvalidInputError
from conversation_actors.items import AgentHandoff, FunctionCall, FunctionCallOutput, Message, item_from_dict
from conversation_actors.values import decode

_DETAILS = ("auto", "high", "low")
_FIELDS: Mapping[type, tuple[str, ...]] = {
    Message: ("id", "type", "role", "interrupted", "extra", "created_at"),
    FunctionCall: ("id", "type", "call_id", "name", "arguments", "extra", "group_id", "created_at"),
    FunctionCallOutput: ("id", "type", "call_id", "name", "output", "is_error", "created_at"),
    AgentHandoff: ("id", "type", "old_agent_id", "new_agent_id", "created_at"),
}


class ChatContextForm:
    """Writes the items of one life as one JSON document. `left_out` counts what LiveKit has no words for."""

    suffix = ".chat-context.json"
    kinds = frozenset({LIFE, ITEM})
    only_latest = True

    def __init__(self) -> None:
        """Nothing is left out yet."""
        self.left_out = 0
        self._replies: set[str] = set()

    async def write(self, rows: AsyncIterator[Row]) -> AsyncIterator[bytes]:
        """Yield the document piece by piece."""
        yield b'{"items":['
        is_first = True
        async for row in rows:
            if row.kind != ITEM:
                continue
            fields = self.item(row.values["data"])
            if fields is None:
                self.left_out += 1
                continue
            yield (b"\n" if is_first else b",\n") + json.dumps(fields, ensure_ascii=False).encode()
            is_first = False
        yield b"\n]}\n"

    def item(self, data: bytes) -> dict[str, Any] | None:
        """Return a stored item as LiveKit's fields; None if LiveKit's histories have no such item."""
        try:
            item = item_from_dict(decode(data))
        except (InvalidInputError, ValueError):
            return None
        names = _FIELDS.get(type(item))
        if names is None:
            return None
        fields = {name: value for name in names if (value := getattr(item, name)) is not None}
        if isinstance(item, Message):
            fields["id"] = self._apart(item)
            fields["content"] = self._content(item)
        return fields

    def _apart(self, message: Message) -> str:
        """Return the id of a message; LiveKit takes what is before a slash for one reply, which has one message."""
        if message.role != "assistant":
            return message.id
        reply = message.id.partition("/")[0]
        if reply in self._replies:
            return message.id.replace("/", "_")
        self._replies.add(reply)
        return message.id

    def _content(self, message: Message) -> list[str | dict[str, Any]]:
        if isinstance(message.content, str):
            return [message.content]
        kept: list[str | dict[str, Any]] = []
        for part in message.content:
            form = part if isinstance(part, str) else _picture(part) or _words_of(part)
            if form is None:
                self.left_out += 1
            else:
                kept.append(form)
        return kept


def _picture(part: Mapping[str, Any]) -> dict[str, Any] | None:
    if part.get("type") != "image_content" or not isinstance(part.get("image"), str):
        return None
    form: dict[str, Any] = {"type": "image_content", "image": part["image"]}
    for name in ("id", "mime_type"):
        if isinstance(part.get(name), str):
            form[name] = part[name]
    for name in ("inference_width", "inference_height"):
        if type(part.get(name)) is int:
            form[name] = part[name]
    if part.get("inference_detail") in _DETAILS:
        form["inference_detail"] = part["inference_detail"]
    return form


def _words_of(part: Mapping[str, Any]) -> str | None:
    """Return what was said in a sound, whose samples JSON does not hold."""
    transcript = part.get("transcript")
    return transcript if part.get("type") == "audio_content" and isinstance(transcript, str) and transcript else None
