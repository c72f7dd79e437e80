"""What a task comes to, as JSON: a result or an exception, from which it can be made again. No pickle.

JSON's own values stand for themselves. All else is an object of one field, which names its form. A type is named as
``module:qualified.name``, and is looked for as the classes of agents are.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from livekit.agents import Agent
from pydantic import BaseModel, TypeAdapter

from agent_worker.session.agent_classes import found_class, name_of
from agent_worker.session.record_fields import UnstorableError, fields_of, is_larger
from conversation_actors.errors import InvalidInputError
from conversation_actors.values import encode

MOST_RESULT_BYTES = 16 << 10

_RESULT, _RAISED = "result", "raised"
_COLLECTIONS: Mapping[str, type] = {"tuple": tuple, "set": set, "frozenset": frozenset}


def write_outcome(outcome: object, near: Agent) -> dict[str, Any]:
    """Return the JSON of what a task was completed with. Raises `UnstorableError`; its text quotes nothing of it.

    `near`: an agent of the program whose types may be named.
    """
    name = _RAISED if isinstance(outcome, Exception) else _RESULT
    if is_larger(outcome, MOST_RESULT_BYTES):
        message = f"more than {MOST_RESULT_BYTES} bytes"
        raise UnstorableError(message)
    try:
        written = {name: _write(outcome, near)}
        encode(written, name, limit=MOST_RESULT_BYTES)
    except UnstorableError:
        raise
    except InvalidInputError as error:
        raise UnstorableError(type(error).__name__) from None
    except Exception as error:  # noqa: BLE001  # the application's types may raise anything
        raise UnstorableError(type(error).__name__) from None
    return written


def read_outcome(stored: Mapping[str, Any], near: Agent) -> tuple[Any, Exception | None]:
    """Return the result, or the exception. Raises `UnstorableError` if a type is another one now, or gone."""
    try:
        if _RESULT in stored:
            return _read(stored[_RESULT], near), None
        error = _read(stored[_RAISED], near)
    except UnstorableError:
        raise
    except Exception as unread:  # noqa: BLE001  # as above, and whatever stands in the attribute
        raise UnstorableError(type(unread).__name__) from None
    if not isinstance(error, Exception):
        raise UnstorableError(type(error).__name__)
    return None, error


def _write(value: Any, near: Agent) -> Any:
    kind = type(value)
    if value is None or kind in {bool, int, float, str}:
        return value
    if kind in {list, dict, *_COLLECTIONS.values()}:
        return _write_collection(value, near)
    if isinstance(value, Exception):
        fields = {name: _write(one, near) for name, one in vars(value).items()}
        return {"error": {"type": _name(kind, near), "args": [_write(one, near) for one in value.args], "is": fields}}
    return _write_typed(value, near)


def _write_collection(value: Any, near: Agent) -> Any:
    if type(value) is not dict:
        written = [_write(one, near) for one in value]
        return written if type(value) is list else {type(value).__name__: written}
    if all(type(name) is str for name in value):
        return {"dict": {name: _write(one, near) for name, one in value.items()}}
    return {"pairs": [[_write(name, near), _write(one, near)] for name, one in value.items()]}


def _write_typed(value: Any, near: Agent) -> dict[str, Any]:
    """Return a record field by field, since what is in one may be of any type; else by its type, if that says all."""
    kind = type(value)
    name = _name(kind, near)
    if not dataclasses.is_dataclass(kind) and (written := _there_and_back(value)) is not None:
        return {"value": {"type": name, "json": written[0]}}
    fields = fields_of(value) or {}
    is_model = issubclass(kind, BaseModel)
    if not (dataclasses.is_dataclass(kind) or (is_model and _made(kind, fields) == value)):
        raise UnstorableError(kind.__name__)
    return {"record": {"type": name, "fields": {field: _write(one, near) for field, one in fields.items()}}}


def _there_and_back(value: Any) -> tuple[Any] | None:
    """Return the JSON from which pydantic makes an equal value; None if it does not."""
    kind = type(value)
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(kind)
        written = adapter.dump_python(value, mode="json", warnings="none")
        back = adapter.validate_json(json.dumps(written, allow_nan=False))
    except Exception:  # noqa: BLE001  # what pydantic, or the application's type, raises is of many kinds
        return None
    return (written,) if type(back) is kind and bool(back == value) else None


def _name(kind: type, near: Agent) -> str:
    name = name_of(kind)
    if found_class(name, near) is not kind:
        raise UnstorableError(kind.__name__)
    return name


def _read(stored: Any, near: Agent) -> Any:
    if isinstance(stored, list):
        return [_read(one, near) for one in stored]
    if not isinstance(stored, Mapping):
        return stored
    [(form, inner)] = stored.items()
    if form == "dict":
        return {name: _read(one, near) for name, one in inner.items()}
    if form == "pairs":
        return {_read(name, near): _read(one, near) for name, one in inner}
    if form in _COLLECTIONS:
        return _COLLECTIONS[form](_read(one, near) for one in inner)
    return _read_typed(form, inner, near)


def _read_typed(form: str, inner: Mapping[str, Any], near: Agent) -> Any:
    kind = found_class(inner["type"], near)
    if kind is None:
        raise UnstorableError(str(inner["type"]).rpartition(":")[2])
    if form == "value":
        return TypeAdapter(kind).validate_json(json.dumps(inner["json"]))
    fields = {name: _read(one, near) for name, one in inner["fields" if form == "record" else "is"].items()}
    if form == "record":
        return _made(kind, fields)
    return _raised(kind, [_read(one, near) for one in inner["args"]], fields)


def _made(kind: type, fields: Mapping[str, Any]) -> Any:
    """Return a record as it was: what its constructor does has been done."""
    if issubclass(kind, BaseModel):
        return kind.model_construct(**fields)
    if not dataclasses.is_dataclass(kind):
        raise UnstorableError(kind.__name__)
    made = object.__new__(kind)
    for name, value in fields.items():
        object.__setattr__(made, name, value)
    return made


def _raised(kind: type, arguments: list[Any], fields: Mapping[str, Any]) -> Exception:
    """Return an exception as it was, without its constructor, whose parameters need not be its arguments."""
    if not issubclass(kind, Exception):
        raise UnstorableError(kind.__name__)
    error = kind.__new__(kind, *arguments)
    error.args = tuple(arguments)
    vars(error).update(fields)
    return error
