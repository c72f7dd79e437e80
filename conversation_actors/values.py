"""Values that may be stored: JSON, and nothing that JSON readers disagree about.

What passes here reads back equal in every process and language: text is UTF-8, numbers are finite,
integers fit into 64 bits (JavaScript alone rounds those beyond 2**53), keys are strings, nesting is
bounded, tuples are not silently turned into lists.
"""

import json
import math
from json.encoder import encode_basestring as _quoted
from typing import Any, NoReturn
from unicodedata import category

from pydantic_core import PydanticSerializationError, from_json, to_json

from conversation_actors.errors import InvalidInputError, ItemTooLargeError

MAX_DEPTH = 32
"""Nesting of containers. Python's own decoder gives up near 1000, others (Ruby, .NET) at 100 or 64."""

_MAX_READ_DEPTH = 200
"""Nesting of what others have written: pydantic's decoder reads this much, Python's own reads more with each
version."""

MAX_ID_CHARACTERS = 256
_INTEGERS = range(-(1 << 63), 1 << 64)
_MIN_ALIKE, _MAX_ALIKE = 1e-3, 1e15
"""Both encoders write numbers between these alike; they write the exponents of smaller and larger ones differently."""

JSON = None | bool | int | float | str | list[Any] | dict[str, Any]

_FORBIDDEN = {"Cc": "a control character", "Cs": "a surrogate", "Cn": "an unassigned character"}
"""Categories of characters that no name may hold. All others that LiveKit takes for a name are ordinary writing, such
as U+200C in Persian and U+200D in emoji."""

_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False)


def refuse(field: str, reason: str) -> NoReturn:
    """Raise `InvalidInputError` with this reason, for one field of what was given."""
    message = f"{field}: {reason}"
    raise InvalidInputError(message, field=field)


def check_id(value: object, field: str) -> str:
    """Return `value`, as plain text, if it is a name of 1 to 256 characters; raise `InvalidInputError` otherwise.

    Any writing is a name, with joiners, no-break spaces and emoji of several characters: see `forbidden_character`.
    """
    if not isinstance(value, str):
        refuse(field, f"expected text, got {type(value).__name__}")
    if not 1 <= len(value) <= MAX_ID_CHARACTERS:
        refuse(field, f"{len(value)} characters; the limit is 1 to {MAX_ID_CHARACTERS}")
    forbidden = forbidden_character(value)
    if forbidden is not None:
        refuse(field, f"holds {forbidden}: {value!a}")
    return _plain(value)


def forbidden_character(name: str) -> str | None:
    """Return the kind of the first character in `name` that no name may hold; None if there is none.

    No name may hold control characters, surrogates and unassigned characters. Which characters are assigned depends on
    this Python's edition of Unicode (`unicodedata.unidata_version`).
    """
    if name.isprintable():
        return None
    return next((what for one in name if (what := _FORBIDDEN.get(category(one))) is not None), None)


def check_text(value: object, field: str, *, limit: int) -> str:
    """Return `value`, as plain text, if its stored form fits in `limit` bytes; raise `InvalidInputError` otherwise."""
    if not isinstance(value, str):
        refuse(field, f"expected text, got {type(value).__name__}")
    encode(value, field, limit=limit)
    return _plain(value)


def _plain(text: str) -> str:
    """Return a `str` that every process can unpickle: no member of an enumeration, and no type of the caller's own."""
    return text if type(text) is str else str.__str__(text)


def encode(value: object, field: str, *, limit: int | None = None) -> bytes:
    """Encode `value` as compact UTF-8 JSON without line breaks.

    Raises `InvalidInputError` with the path to the first value that cannot be stored, or `ItemTooLargeError` if the
    result is longer than `limit` bytes.
    """
    encoded = _encode_alike(value) or _encode_exactly(value, field)
    if limit is not None and len(encoded) > limit:
        message = f"{field}: {len(encoded)} bytes; the limit is {limit}"
        raise ItemTooLargeError(message, field=field, size=len(encoded), limit=limit)
    return encoded


def _encode_exactly(value: object, field: str) -> bytes:
    try:
        _check(value, MAX_DEPTH)
    except _UnstorableError as error:
        path = field + "".join(reversed(error.path))
        message = f"{path}: {error.args[0]}"
        raise InvalidInputError(message, field=path) from None
    try:
        return _encoder.encode(value).encode()
    except UnicodeEncodeError as error:
        message = f"{field}: holds text that is not valid Unicode (a lone surrogate at character {error.start})"
        raise InvalidInputError(message, field=field) from None


def _encode_alike(fields: object) -> bytes | None:
    """Return the same bytes as `_encode_exactly`, at a fifth of the price; None for all but objects of plain values."""
    if type(fields) is not dict:
        return None
    for name, value in fields.items():
        if type(name) is not str or not (type(value) is str or _is_alike(value)):
            return None
    try:
        return to_json(fields)
    except PydanticSerializationError:
        return None  # a lone surrogate; the other encoder tells where


def _is_alike(value: Any) -> bool:
    """Tell whether both encoders write `value` alike. Callers do not ask this about text, which most values are."""
    kind = type(value)
    return (
        (kind is float and _MIN_ALIKE <= value <= _MAX_ALIKE)
        or kind is bool
        or value is None
        or (kind is int and value in _INTEGERS)
    )


def encode_checked(value: object) -> bytes:
    """Encode a value that is made of values which `encode` has passed before."""
    return _encode_alike(value) or _encoder.encode(value).encode()


def encode_text(text: str) -> str:
    """Return the JSON of a text, as `encode` writes it."""
    return _quoted(text)


def decode(data: bytes) -> Any:
    """Decode what `encode` made, or other JSON of such values. Raises `ValueError` for anything else.

    The values may be nested deeper than `encode` allows, because others may have written them.
    """
    try:
        value = from_json(data, allow_inf_nan=False, cache_strings="keys")
    except ValueError:
        return _decode_exactly(data)  # its error tells the byte
    return value if _is_within_bounds(value) else _decode_exactly(data)


def _is_within_bounds(value: Any) -> bool:
    """Tell whether every number may be stored: pydantic's decoder also reads integers of any length, and infinity."""
    for part in value.values() if type(value) is dict else value if type(value) is list else (value,):
        kind = type(part)
        if kind is str:
            continue
        if kind is float:
            if not math.isfinite(part):
                return False
        elif kind is int:
            if part not in _INTEGERS:
                return False
        elif (kind is dict or kind is list) and not _is_within_bounds(part):
            return False
    return True


def _decode_exactly(data: bytes) -> Any:
    text = data.decode()  # json.loads(data) would also take UTF-16, and surrogates
    try:
        value = _decoder.decode(text)
        _require_depth(value, _MAX_READ_DEPTH)
    except RecursionError:
        message = "nested too deep"
        raise ValueError(message) from None
    if "\\u" in text:
        _encoder.encode(value).encode()  # an escape can spell a lone surrogate, which nothing could store again
    return value


def _require_depth(value: Any, most: int) -> None:
    """Raise `RecursionError`, as decoders do, if `value` is nested more than `most` deep."""
    if isinstance(value, dict | list):
        if not most:
            raise RecursionError
        for part in value.values() if isinstance(value, dict) else value:
            _require_depth(part, most - 1)


def _integer(text: str) -> int:
    value = int(text)
    if value not in _INTEGERS:
        message = "an integer of more than 64 bits"
        raise ValueError(message)
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        message = f"{text} is not a finite number"
        raise ValueError(message)
    return value


_decoder = json.JSONDecoder(parse_int=_integer, parse_float=_finite, parse_constant=_finite)


class _UnstorableError(Exception):
    """A fault that collects its path while it unwinds, so that values without a fault pay nothing for a path."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.path: list[str] = []


def _check(value: object, depth: int) -> None:
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return
    if isinstance(value, int):
        if int(value) not in _INTEGERS:
            message = "an integer of more than 64 bits"
            raise _UnstorableError(message)
    elif isinstance(value, float):
        if not math.isfinite(value):
            message = f"{value} is not a finite number"
            raise _UnstorableError(message)
    elif isinstance(value, (list, dict)):
        if not depth:
            message = f"nested more than {MAX_DEPTH} deep"
            raise _UnstorableError(message)
        _check_parts(value, depth - 1)
    elif not isinstance(value, str):
        message = f"{kind.__name__} cannot be stored; JSON values can"
        raise _UnstorableError(message)


def _check_parts(container: list[Any] | dict[Any, Any], depth: int) -> None:
    named = isinstance(container, dict)
    key: Any = None
    try:
        for key, part in container.items() if isinstance(container, dict) else enumerate(container):
            if named:
                _check_key(key)
            _check(part, depth)
    except _UnstorableError as error:
        error.path.append(f".{key}" if named else f"[{key}]")
        raise


def _check_key(key: object) -> None:
    if not isinstance(key, str):
        message = f"the key {key!r} is not text"
        raise _UnstorableError(message)
