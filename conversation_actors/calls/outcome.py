"""What came of a call: values that the application names, checked by its own pydantic model if it has one."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from conversation_actors.values import refuse

FIELD = "outcome"

Outcome = Mapping[str, Any] | BaseModel
"""What an application gives as the outcome of a call."""


def outcome_value(outcome: object, kind: type[BaseModel] | None = None) -> dict[str, Any]:
    """Return an outcome as it is stored: as `kind` has it, if the application has named its model.

    Raises `InvalidInputError`, which names the field and quotes no value: for one that is neither a mapping nor a
    model, for a model of another kind, and for what does not fit.
    """
    if isinstance(outcome, BaseModel):
        if kind is not None and not isinstance(outcome, kind):
            refuse(FIELD, f"expected {kind.__name__}, got {type(outcome).__name__}")
        return _fields(outcome)
    if not isinstance(outcome, Mapping):
        refuse(FIELD, f"expected a mapping or a pydantic model, got {type(outcome).__name__}")
    if kind is None:
        return dict(outcome)
    try:
        return _fields(kind.model_validate(dict(outcome)))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        path = ".".join([FIELD, *map(str, first["loc"])])
        more = f" ({error.error_count()} values do not fit)" if error.error_count() > 1 else ""
        refuse(path, f"does not fit {kind.__name__}: {first['msg']}{more}")


def outcome_note(value: Mapping[str, Any], at: float) -> dict[str, Any]:
    """Return what the attribute `OUTCOME` is to be: its time makes it a change, also if the last call ended alike."""
    return {"value": dict(value), "at": at}


def outcome_of(noted: object) -> Mapping[str, Any] | None:
    """Return the application's outcome out of the attribute `OUTCOME`; None if that holds none."""
    value = noted.get("value") if isinstance(noted, Mapping) else None
    return value if isinstance(value, Mapping) else None


def _fields(model: BaseModel) -> dict[str, Any]:
    """Return a model as JSON has it; one that was changed since it was made may fit itself no more."""
    try:
        fields: dict[str, Any] = model.model_dump(mode="json", warnings="error")
    except PydanticSerializationError:
        refuse(FIELD, f"a value of {type(model).__name__} is not of its field's type, or has no JSON form")
    return fields
