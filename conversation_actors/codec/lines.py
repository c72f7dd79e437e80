"""The outer form of stored bytes: a header line of JSON, and a line for each item."""

import json
from collections.abc import Sequence
from typing import Any

from conversation_actors.errors import CorruptStateError, IncompatibleVersionError
from conversation_actors.items import StoredItem
from conversation_actors.values import decode, encode_checked

SCHEMA = 2
"""The schema number that this version writes."""


def join_lines(header: dict[str, Any], items: Sequence[StoredItem]) -> bytes:
    """Encode one value: its header, into which the number of items goes, and its items."""
    if items:
        header["items"] = len(items)
    return b"\n".join([encode_checked(header), *(item.data for item in items)])


def split_lines(data: bytes) -> tuple[dict[str, Any], tuple[StoredItem, ...]]:
    """Return the header and the items of an encoded value.

    Raises `CorruptStateError` with the byte position, or `IncompatibleVersionError` if a newer schema was written.
    """
    first, _, rest = data.partition(b"\n")
    header = _parse(first, 0)
    if not isinstance(header, dict):
        raise corrupt("the header is not a JSON object", 0)
    version = header.get("v")
    if type(version) is not int or version < 1:
        raise corrupt("the header has no schema number", 0)
    if version > SCHEMA:
        message = f"written with schema {version}; this version reads up to {SCHEMA}"
        raise IncompatibleVersionError(message)
    lines = rest.split(b"\n") if rest else []
    if len(lines) != header.get("items", 0):
        raise corrupt(f"{len(lines)} items where the header says {header.get('items', 0)}", len(data))
    return header, _items(lines, len(first) + 1)


def _items(lines: Sequence[bytes], position: int) -> tuple[StoredItem, ...]:
    items: list[StoredItem] = []
    for line in lines:
        try:
            items.append(StoredItem.parse(line))
        except ValueError as error:
            raise corrupt(f"an item cannot be read: {error}", position + _position(line, error)) from error
        position += len(line) + 1
    return tuple(items)


def _parse(line: bytes, position: int) -> Any:
    try:
        return decode(line)
    except ValueError as error:
        raise corrupt(f"not JSON: {error}", position + _position(line, error)) from error


def _position(line: bytes, error: ValueError) -> int:
    """Return the byte at which reading `line` failed, or 0 if the error does not tell."""
    if isinstance(error, UnicodeDecodeError):
        return error.start
    if isinstance(error, json.JSONDecodeError):
        return len(line.decode()[: error.pos].encode())
    return 0


def corrupt(reason: str, position: int) -> CorruptStateError:
    """Return the error for damage at a byte. Code that knows the key adds it later (see `CorruptStateError.at`)."""
    return CorruptStateError(f"byte {position}: {reason}", key="", position=position)
