"""What parts of a call lead to, before it has its place among the happenings."""

from typing import Any, NamedTuple


class Told(NamedTuple):
    """A happening's type and data."""

    type: str
    data: dict[str, Any]
