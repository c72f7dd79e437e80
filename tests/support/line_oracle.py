"""What a line's decoders and readers have to return, told in another way than by the product itself."""

import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgpack

from conversation_actors import values
from conversation_actors.errors import ConversationError
from conversation_actors.line.frames import FrameError, FrameReader
from conversation_actors.line.messages import encode
from conversation_actors.protocol import PROTOCOL


def conforms(value: Any, hint: Any) -> bool:
    """Tell whether a value is of a type, down to its last part; a truth is no number."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, types.UnionType}:
        return any(conforms(value, one) for one in arguments)
    if origin is Mapping:
        return type(value) is dict and all(type(name) is str for name in value)
    if origin is not None:
        kind: Any = list if origin is Sequence else tuple
        return type(value) is kind and all(conforms(part, arguments[0]) for part in value)
    if hint is ConversationError:
        return isinstance(value, hint) and [type(one) for one in value.args] == [str] and _has_attributes(value)
    if hint is float:
        return type(value) in {float, int}
    return type(value) is hint and (hint in {str, int, bool, bytes, type(None)} or _has_fields(value))


def _has_fields(value: Any) -> bool:
    names = [one.name for one in fields(value)] if is_dataclass(value) else value._fields
    hints = get_type_hints(type(value))
    return all(conforms(getattr(value, name), hints[name]) for name in names)


def _has_attributes(error: ConversationError) -> bool:
    hints = get_type_hints(type(error).__init__)
    named = {name: hint for name, hint in hints.items() if name not in {"message", "return"}}
    return set(vars(error)) == set(named) and all(conforms(getattr(error, name), hint) for name, hint in named.items())


def negative_numbers(value: Any, names: frozenset[str]) -> bool:
    """Tell whether one of these fields, wherever it is, holds less than 0."""
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return any(negative_numbers(part, names) for part in value)
    if not (is_dataclass(value) or hasattr(value, "_fields")):
        return False
    owned = [one.name for one in fields(value)] if is_dataclass(value) else value._fields
    parts = {name: getattr(value, name) for name in owned}
    return any(
        (name in names and type(part) is int and part < 0) or negative_numbers(part, names)
        for name, part in parts.items()
    )


def says_the_same(body: bytes, message: Any) -> bool:
    """Tell whether a message is the one in a body: written again, each part is the same, of the same type.

    Numbers may be written longer than they need be, and JSON in many ways.
    """
    again = _tree(FrameReader().feed(encode(message))[0])
    return _are_alike(_tree(body), again)


def _tree(body: bytes) -> Any:
    return msgpack.unpackb(body, unicode_errors="surrogatepass")


def _are_alike(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if type(one) is list:
        return len(one) == len(other) and all(map(_are_alike, one, other))
    if type(one) is bytes and one != other:
        return repr(values.decode(one)) == repr(values.decode(other))
    return repr(one) == repr(other)  # takes one NaN for another


def split(stream: bytes, most: int) -> tuple[list[bytes], bytes | None]:
    """Return the bodies of a stream's frames, and what is left of an unfinished one; None behind a fault."""
    bodies: list[bytes] = []
    while len(stream) >= 4:
        length = int.from_bytes(stream[:4], "big")
        if not 1 <= length <= most or stream[4:5] not in {b"", bytes([PROTOCOL])}:
            return bodies, None
        if len(stream) < 4 + length:
            break
        bodies.append(stream[5 : 4 + length])
        stream = stream[4 + length :]
    return bodies, stream


def fault_of_reader(pieces: Sequence[bytes], most: int) -> str | None:
    """Return what a reader does wrong with a stream that comes in these pieces; None if nothing."""
    reader, refused = FrameReader(most), False
    found: list[bytes] = []
    for piece in pieces:
        try:
            found += reader.feed(piece)
        except FrameError:
            refused = True
            break
    expected, rest = split(b"".join(pieces), most)
    if refused != (rest is None):
        return f"refused: {refused}, though what is left is {rest!r}"
    if found != expected[: len(found)] or (not refused and len(found) < len(expected)):
        return f"found {found!r} instead of {expected!r}"
    if reader.pending != len(rest or b""):
        return f"holds {reader.pending} bytes instead of {rest!r}"
    return None
