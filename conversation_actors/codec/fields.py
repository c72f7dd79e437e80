"""Readers of a header's fields, by name and type."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from conversation_actors.codec.lines import corrupt

Fields = Mapping[str, Any]
Built = TypeVar("Built")
Kind = TypeVar("Kind")


def shaped(build: Callable[[], Built]) -> Built:
    """Run `build`. Raises `CorruptStateError` with the reason if a field is missing or of a wrong type."""
    try:
        return build()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise corrupt(f"a field is missing or of a wrong type: {error!r}", 0) from error


def typed(fields: Fields, name: str, kind: type[Kind] | tuple[type[Kind], ...]) -> Kind:
    """Return the field if it is of this kind; a bool is not a number. Raises `TypeError` or `KeyError` otherwise."""
    value = fields[name]
    if type(value) is kind:
        return value
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        message = f"{name} is {type(value).__name__}"
        raise TypeError(message)
    return value


def text(fields: Fields, name: str) -> str:
    """Return a field that is text."""
    return typed(fields, name, str)


def optional_text(fields: Fields, name: str) -> str | None:
    """Return a field that is text or null."""
    return None if fields[name] is None else text(fields, name)


def integer(fields: Fields, name: str) -> int:
    """Return a field that is a whole number."""
    return typed(fields, name, int)


def number(fields: Fields, name: str) -> float:
    """Return a field that is a number."""
    value = fields[name]
    return value if type(value) is float else float(typed(fields, name, (int, float)))


def optional_number(fields: Fields, name: str) -> float | None:
    """Return a field that is a number or null."""
    return None if fields[name] is None else number(fields, name)


def mapping(fields: Fields, name: str) -> dict[str, Any]:
    """Return a field that is an object."""
    return typed(fields, name, dict)


def array(fields: Fields, name: str) -> list[Any]:
    """Return a field that is a list."""
    return typed(fields, name, list)


def texts(fields: Fields, name: str) -> tuple[str, ...]:
    """Return a field that is a list of texts."""
    return tuple(text({name: part}, name) for part in array(fields, name))
