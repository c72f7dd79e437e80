"""Fields of records as msgpack carries them: what each type is packed to, and how strictly it is read back.

The types are those that the records themselves declare. A record that gains a field is carried with it at once.
"""

from collections.abc import Callable, Mapping, Sized
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Any, Final, Generic, NamedTuple, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from conversation_actors import values
from conversation_actors.line.frames import FrameError, FrameTooLargeError

MAX_PARTS: Final = 1 << 16
"""The most parts of one array. A reader makes room for as many as an array says that it has."""

Record = TypeVar("Record")
Parts = TypeVar("Parts", bound=Sized)


class Field(NamedTuple):
    """How the values of one type travel.

    `pack` returns what msgpack is given. `read` returns the value again, and raises `FrameError` for anything that
    `pack` does not make.
    """

    pack: Callable[[Any], Any]
    read: Callable[[Any], Any]


class RecordFields(Generic[Record]):
    """How the records of one class travel: as the values of their fields, in order."""

    def __init__(self, kind: type[Record], hints: Mapping[str, Any]) -> None:
        """Take the class, and the types of its fields by their names."""
        self.kind = kind
        self.names = tuple(hints)
        self._fields = tuple(field_of(hint) for hint in hints.values())

    def pack(self, record: Record) -> tuple[Any, ...]:
        """Return the values of a record's fields as msgpack is given them."""
        return tuple(one.pack(getattr(record, name)) for name, one in zip(self.names, self._fields, strict=True))

    def read(self, given: Any) -> dict[str, Any]:
        """Return the fields by name, of what `pack` made. Raises `FrameError` for anything else."""
        row = row_of(given, len(self._fields))
        return {name: one.read(value) for name, one, value in zip(self.names, self._fields, row, strict=True)}

    def build(self, given: Any) -> Record:
        """Return the record. Raises as `read` does."""
        return self.kind(**self.read(given))


def fields_of(kind: type[Record]) -> RecordFields[Record]:
    """Return how a dataclass or a named tuple travels."""
    hints = get_type_hints(kind)
    names = [one.name for one in dataclass_fields(kind)] if is_dataclass(kind) else list(getattr(kind, "_fields"))  # noqa: B009
    return RecordFields(kind, {name: hints[name] for name in names})


def field_of(hint: Any) -> Field:
    """Return how values of this type travel. Raises `TypeError` for a type that no record has had so far."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in _PLAIN:
        return Field(_as_it_is, _PLAIN[hint])
    if origin in {Union, UnionType} and len(arguments) == 2 and arguments[1] is NoneType:  # noqa: PLR2004  # X | None
        return _optional(field_of(arguments[0]))
    if origin is tuple and arguments[1:] == (...,):
        return _tuple_of(field_of(arguments[0]))
    if origin is Mapping:
        return Field(_pack_object, _read_object)
    message = f"no field of a record travels as {hint!r}"
    raise TypeError(message)


def bounded(parts: Parts) -> Parts:
    """Return the parts of one array. Raises `FrameTooLargeError` if there are more than any reader takes."""
    if len(parts) > MAX_PARTS:
        message = f"{len(parts)} parts in one array; the limit is {MAX_PARTS}"
        raise FrameTooLargeError(message)
    return parts


def refuse(expected: str, given: object) -> NoReturn:
    """Raise `FrameError` for a part that is not what must be there. It tells the type of what came, and no content."""
    message = f"{expected} was expected, and a part of type {type(given).__name__} came"
    raise FrameError(message)


def row_of(given: Any, length: int) -> tuple[Any, ...]:
    """Return a row of so many parts. Raises `FrameError` for anything else, as all functions here do that read."""
    if type(given) is not tuple or len(given) != length:
        refuse(f"a row of {length}", given)
    return given


def list_of(given: Any) -> tuple[Any, ...]:
    """Return a list of any length."""
    if type(given) is not tuple:
        refuse("a list", given)
    return given


def read_text(given: Any) -> str:
    """Return text."""
    if type(given) is not str:
        refuse("text", given)
    return given


def read_integer(given: Any) -> int:
    """Return a whole number of 64 bits at most."""
    if type(given) is not int:
        refuse("a whole number", given)
    return given


def read_count(given: Any) -> int:
    """Return a whole number that is not negative."""
    if type(given) is not int or given < 0:
        refuse("a whole number from 0 on", given)
    return given


def read_number(given: Any) -> float:
    """Return a number; a whole one stays whole."""
    if type(given) is not float and type(given) is not int:
        refuse("a number", given)
    return given


def read_flag(given: Any) -> bool:
    """Return true or false."""
    if type(given) is not bool:
        refuse("true or false", given)
    return given


def read_bytes(given: Any) -> bytes:
    """Return bytes."""
    if type(given) is not bytes:
        refuse("bytes", given)
    return given


def read_texts(given: Any) -> tuple[str, ...]:
    """Return texts."""
    for part in list_of(given):
        if type(part) is not str:
            refuse("text", part)
    texts: tuple[str, ...] = given
    return texts


def _as_it_is(value: Any) -> Any:
    return value


def _optional(inner: Field) -> Field:
    return Field(
        lambda value: None if value is None else inner.pack(value),
        lambda given: None if given is None else inner.read(given),
    )


def _tuple_of(inner: Field) -> Field:
    return Field(
        lambda value: tuple(map(inner.pack, bounded(value))),
        lambda given: tuple(map(inner.read, list_of(given))),
    )


def _pack_object(value: Mapping[str, Any]) -> bytes:
    return values.encode_checked(value)


def _read_object(given: Any) -> dict[str, Any]:
    try:
        value = values.decode(read_bytes(given))
    except ValueError as error:
        message = "what should be JSON is none"
        raise FrameError(message) from error
    if type(value) is not dict:
        refuse("an object", value)
    return value


_PLAIN: Mapping[Any, Callable[[Any], Any]] = {
    str: read_text,
    int: read_integer,
    float: read_number,
    bool: read_flag,
    bytes: read_bytes,
}
