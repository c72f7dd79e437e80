"""Durations as people write them: ``300``, ``1.5``, ``500ms``, ``5m``, ``1h30m``, ``PT5M``."""

import re
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

FORMS = "must be a duration such as 300, 1.5, 500ms, 5m, 1h30m, 7d or PT5M"

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?", re.ASCII)
_SECONDS = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_WITH_UNITS = re.compile(r"\s*".join(rf"(?:(\d+(?:\.\d+)?){unit})?" for unit in _SECONDS), re.ASCII)
"""Every unit at most once, the largest first. No ``s`` can follow a number with ``m`` directly: that is ``ms``."""


def _in_seconds(text: str) -> float | str:
    """Read a number, or numbers with units, as seconds; leave the ISO 8601 forms to pydantic."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    amounts = _WITH_UNITS.fullmatch(text)
    if not text or amounts is None:
        return text
    return sum(
        float(amount) * seconds for amount, seconds in zip(amounts.groups(), _SECONDS.values(), strict=True) if amount
    )


def _read(value: object, handler: ValidatorFunctionWrapHandler) -> timedelta:
    try:
        return handler(_in_seconds(value) if isinstance(value, str) else value)  # type: ignore[no-any-return]  # pydantic types the handler as Any
    except (ValidationError, OverflowError):
        raise ValueError(FORMS) from None


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        message = "must be longer than zero"
        raise ValueError(message)
    return value


Duration = Annotated[timedelta, WrapValidator(_read), AfterValidator(_positive)]
