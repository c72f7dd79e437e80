"""The lines of an export: one JSON object each, the same bytes for the same row.

    {"kind":"header","format":"conversation-actors export","version":1}
    {"kind":"conversation","id":"support-42"}
    {"kind":"life",…}          then its gap, entry, superseded, item and checkpoint lines (see `archive.rows`)
    {"kind":"picture",…}       after all lives of the conversation
    {"kind":"end","id":"support-42","lines":17,"sha256":"…"}      of this conversation's lines, from its first on
    {"kind":"trailer","conversations":1,"lines":19,"sha256":"…"}  of every line before this one

Conversations are in the order of their ids' bytes. ``data`` is the bytes of an entry or an item as text; bytes that are
not UTF-8 are base64, under ``data_base64``. To change what is written, raise `VERSION`, and keep the reader of the old
one.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from conversation_actors.archive.rows import Column, Row
from conversation_actors.values import decode

FORMAT, VERSION = "conversation-actors export", 1
HEADER, CONVERSATION, END, TRAILER = "header", "conversation", "end", "trailer"
_BASE64 = "_base64"

Columns = Mapping[str, Mapping[str, Column]]


def line_of(kind: str, values: Mapping[str, Any]) -> bytes:
    """Return a line, with its line break."""
    text = json.dumps({"kind": kind, **values}, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode() + b"\n"


def row_line(row: Row, columns: Columns) -> bytes:
    """Return the line of a row."""
    values: dict[str, Any] = {}
    for name, (kind, _) in columns[row.kind].items():
        value = row.values[name]
        if kind is bytes:
            values.update(_bytes_field(name, value))
        else:
            values[name] = float(value) if kind is float and value is not None else value
    return line_of(row.kind, values)


def _bytes_field(name: str, data: bytes) -> dict[str, str]:
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {name + _BASE64: base64.b64encode(data).decode("ascii")}


def parse_line(line: bytes) -> tuple[str, dict[str, Any]]:
    """Return the kind and the fields of a line. Raises `ValueError` for anything but an object that has a kind."""
    fields = decode(line)
    kind = fields.pop("kind", None) if isinstance(fields, dict) else None
    if not isinstance(kind, str):
        message = "not an object with a kind"
        raise ValueError(message)  # noqa: TRY004  # it is the bytes that are wrong
    return kind, fields


def row_of(kind: str, fields: Mapping[str, Any], columns: Columns) -> Row:
    """Read a row. Raises `ValueError` if a column is missing, of another type, or not known."""
    left = dict(fields)
    values = {name: _value(kind, name, column, left) for name, column in columns[kind].items()}
    if left:
        message = f"{kind}: {next(iter(left))} is not known"
        raise ValueError(message)
    return Row(kind, values)


def _value(kind: str, name: str, column: Column, left: dict[str, Any]) -> Any:
    wanted, may_be_null = column
    if wanted is bytes and name + _BASE64 in left:
        return _unpacked(kind, name, left.pop(name + _BASE64))
    if name not in left:
        message = f"{kind}: {name} is missing"
        raise ValueError(message)
    value = left.pop(name)
    if value is None and may_be_null:
        return None
    if type(value) is not (str if wanted is bytes else wanted):
        message = f"{kind}: {name} is of a wrong type"
        raise ValueError(message)
    return str(value).encode() if wanted is bytes else value


def _unpacked(kind: str, name: str, text: object) -> bytes:
    try:
        return base64.b64decode(text if isinstance(text, str) else "!", validate=True)
    except (binascii.Error, ValueError):
        message = f"{kind}: {name} is not base64"
        raise ValueError(message) from None
