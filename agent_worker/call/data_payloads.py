"""What is kept of a data message: its payload if that is small, else its size and its digest."""

import base64
import hashlib
import json
import re
from contextlib import suppress
from typing import Any

from conversation_actors import DataMessage

LONGEST_NAME = 256
"""Characters of a topic, of a file's name and of its type."""
_LARGEST_ATTRIBUTES = 2 << 10
"""Characters of a stream's attributes, as JSON."""
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Signs that no text has; what has them is kept as bytes."""


class Payload:
    """What was sent, as far as it is kept: its first bytes are forgotten as soon as it is too large."""

    def __init__(self, limit: int) -> None:
        """Take the most bytes that are kept."""
        self.size = 0
        self._limit = limit
        self._digest = hashlib.sha256()
        self._kept: bytearray | None = bytearray()

    def add(self, chunk: str | bytes) -> None:
        """Take a part."""
        data = chunk.encode("utf-8", "replace") if isinstance(chunk, str) else chunk
        self.size += len(data)
        self._digest.update(data)
        if self.size > self._limit:
            self._kept = None
        elif self._kept is not None:
            self._kept += data

    def fields(self) -> dict[str, Any]:
        """Return the fields of a `DataMessage` about this payload."""
        told: dict[str, Any] = {"size": self.size, "sha256": self._digest.hexdigest()}
        if self._kept is None:
            return told
        with suppress(UnicodeDecodeError):
            text = self._kept.decode()
            if not _CONTROL.search(text):
                return told | {"text": text}
        return told | {"data": base64.b64encode(self._kept).decode()}


def facts_of(info: Any) -> dict[str, Any]:
    """Return what a stream's header tells, cut to size."""
    facts: dict[str, Any] = {"topic": info.topic[:LONGEST_NAME]}
    for field, told in (("name", getattr(info, "name", "")), ("mime_type", info.mime_type)):
        if told:
            facts[field] = told[:LONGEST_NAME]
    attributes = dict(info.attributes or {})
    if attributes and len(json.dumps(attributes)) <= _LARGEST_ATTRIBUTES:
        facts["extra"] = {"attributes": attributes}
    return facts


def likeness(item: DataMessage) -> tuple[Any, ...]:
    """Return what two jobs that have got the same packet know of it alike."""
    return item.kind, item.topic, (item.participant or {}).get("identity"), item.sha256


def payload_size(item: DataMessage) -> int:
    """Return how many characters an item's payload takes."""
    return len(item.text) + len(item.data or "")


def without_payload(item: DataMessage) -> DataMessage:
    """Return an item that tells of the same message, without what was sent."""
    fields = item.to_dict()
    return DataMessage(**{name: value for name, value in fields.items() if name not in {"text", "data"}})
