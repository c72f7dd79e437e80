"""The fields of an object of any kind: a dataclass, a pydantic model, a dictionary, a plain object."""

import dataclasses
import json
import typing
from collections.abc import Iterator, Mapping
from enum import StrEnum
from itertools import chain
from typing import Any, ClassVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from conversation_actors.errors import InvalidInputError, ItemTooLargeError
from conversation_actors.values import encode

_WITHOUT_FIELDS = (str, bytes, int, float, list, tuple, set, frozenset)
_UNTELLING = (str, int, float, bool, list, dict, type(None), object)
"""Types of values that tell nothing of what else the field may hold."""


class Form(StrEnum):
    """How the JSON of a field is read."""

    ITSELF = "itself"
    """It is the value, which is of the field's type."""
    TYPED = "typed"
    """The value is made of it, by the field's type."""
    PLAIN = "plain"
    """It is the value, whatever the field's type is."""


class UnstorableError(Exception):
    """A value has no JSON form from which it could be made again. The text quotes nothing of it."""


def fields_of(value: object) -> dict[str, Any] | None:
    """Return the fields by their names; None if a value has none, as a list or a text."""
    if isinstance(value, dict):
        return {name: one for name, one in value.items() if isinstance(name, str)}
    if value is None or isinstance(value, _WITHOUT_FIELDS):
        return None
    slots = [name for kind in type(value).__mro__ for name in _slots(kind)]
    fields = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    more = value.__pydantic_extra__ if isinstance(value, BaseModel) else None
    return {**fields, **getattr(value, "__dict__", {}), **(more or {})}


def _slots(kind: type) -> list[str]:
    slots = kind.__dict__.get("__slots__", ())
    names = [slots] if isinstance(slots, str) else list(slots)
    return [name for name in names if not name.startswith("__")]


class Shape:
    """How the fields of one object are written as JSON, and read: by their annotations, or by what they hold."""

    def __init__(self, kind: type, fields: Mapping[str, Any]) -> None:
        """`fields`: those of an object as it was made, whose types stand in for annotations that are missing."""
        self._hints = _hints(kind)
        self._samples = {name: type(value) for name, value in fields.items()}
        self._adapters: dict[str, TypeAdapter[Any] | None] = {}
        is_open = not (dataclasses.is_dataclass(kind) or issubclass(kind, BaseModel))
        self._is_open = is_open and not typing.is_typeddict(kind)
        self._taken = frozenset() if issubclass(kind, dict) else frozenset(dir(kind))

    def may_have(self, name: str) -> bool:
        """Whether an object of this kind has the field, or may get it; a newer version may have lost it."""
        if name in self._hints or name in self._samples:
            return True
        return self._is_open and name not in self._taken

    def write(self, name: str, value: Any, *, limit: int) -> tuple[Any, Form]:
        """Return the JSON of a field, and how it is to be read.

        Raises `UnstorableError` for what would not read back equal, and `ItemTooLargeError`.
        """
        if is_larger(value, limit):  # seen in a moment; encoding it would hold up the call
            message = f"more than {limit} bytes"
            raise UnstorableError(message)
        adapter = self._adapter(name)
        written = None if adapter is None else _there_and_back(adapter, value, name, limit)
        if written is not None:
            is_itself = type(written[0]) is type(value) and bool(written[0] == value)
            return written[0], Form.ITSELF if is_itself else Form.TYPED
        try:
            encode(value, name, limit=limit)
        except ItemTooLargeError:
            raise
        except InvalidInputError:
            raise UnstorableError(type(value).__name__) from None
        return value, Form.PLAIN

    def read(self, name: str, stored: Any, form: Form) -> Any:
        """Return the value of a field. Raises `UnstorableError` if the field is of another type now."""
        adapter = self._adapter(name)
        if adapter is None and form is Form.TYPED:
            message = "its type is not known"
            raise UnstorableError(message)
        if adapter is None or form is Form.PLAIN:
            return stored
        try:
            return adapter.validate_json(json.dumps(stored))
        except Exception as error:  # noqa: BLE001  # the application's types may raise anything
            raise UnstorableError(type(error).__name__) from None

    def _adapter(self, name: str) -> TypeAdapter[Any] | None:
        """Return what reads and writes a field; None if its type is not told. Raises `UnstorableError` for an agent."""
        sample = self._samples.get(name, object)
        hint = self._hints.get(name, Any if sample in _UNTELLING else sample)
        if hint is Any:
            return None
        if name not in self._adapters:
            try:
                self._adapters[name] = TypeAdapter(hint)
            except Exception:  # noqa: BLE001  # what pydantic raises for types it knows nothing of is of many kinds
                self._adapters[name] = None
        adapter = self._adapters[name]
        if adapter is None:
            raise UnstorableError(getattr(hint, "__name__", str(hint)))
        return adapter


def is_larger(value: object, limit: int) -> bool:
    """Whether a value, written, has surely more bytes; it is looked at no further than that takes."""
    waiting: list[Iterator[object]] = [iter([value])]
    left = limit
    while waiting and left >= 0:
        one = next(waiting[-1], waiting)
        if one is waiting:
            waiting.pop()
            continue
        left -= len(one) if isinstance(one, str | bytes) else 1
        if isinstance(one, dict):
            waiting.append(chain.from_iterable(one.items()))
        elif isinstance(one, list | tuple | set | frozenset):
            waiting.append(iter(one))
    return left < 0


def _there_and_back(adapter: TypeAdapter[Any], value: Any, name: str, limit: int) -> tuple[Any] | None:
    """Return the JSON of a value, from which it can be made again; None if it is not of the type."""
    try:
        written = adapter.dump_python(value, mode="json", warnings="none")
        back = adapter.validate_json(encode(written, name, limit=limit))
        return (written,) if type(back) is type(value) and bool(back == value) else None
    except ItemTooLargeError:
        raise
    except Exception:  # noqa: BLE001  # the application's types may raise anything
        return None


def _hints(kind: type) -> dict[str, Any]:
    """Return the types of the annotated fields; those left out that cannot be told."""
    is_dictionary = typing.is_typeddict(kind)
    try:
        hints = typing.get_type_hints(kind, include_extras=not is_dictionary)
    except Exception:  # noqa: BLE001  # one name that is imported for type checkers only
        hints = {}
        for base in reversed(kind.__mro__):
            for name, hint in getattr(base, "__annotations__", {}).items():
                hints |= _hint(base, name, hint)
    return {name: hint for name, hint in hints.items() if typing.get_origin(hint) is not ClassVar}


def _hint(base: type, name: str, hint: Any) -> dict[str, Any]:
    holder = type("_Holder", (), {"__annotations__": {name: hint}, "__module__": base.__module__})
    try:
        return typing.get_type_hints(holder, include_extras=True)
    except Exception:  # noqa: BLE001  # as above
        return {}


def put_into(target: Any, values: Mapping[str, Any]) -> Any:
    """Set fields in place; return the object, or a copy with the fields if the object cannot be changed."""
    if isinstance(target, dict):
        for name, value in values.items():
            target[name] = _put_value(target.get(name), value)
        return target
    try:
        for name, value in values.items():
            setattr(target, name, _put_value(getattr(target, name, None), value))
    except (AttributeError, ValidationError):
        if isinstance(target, BaseModel):
            return target.model_copy(update=dict(values))
        if dataclasses.is_dataclass(target) and not isinstance(target, type):
            own = {one.name for one in dataclasses.fields(target) if one.init}
            return dataclasses.replace(target, **{name: value for name, value in values.items() if name in own})
        raise
    return target


def _put_value(old: Any, new: Any) -> Any:
    """Return the old container with the new content, since others may hold it; else the new value."""
    if type(old) is not type(new) or old is new:
        return new
    if type(old) is list:
        old[:] = new
    elif type(old) in {dict, set}:
        old.clear()
        old.update(new)
    else:
        return new
    return old
