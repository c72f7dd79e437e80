"""The record of a call in lines, for people."""

from collections.abc import Mapping
from typing import Any


def text_of(record: Mapping[str, Any]) -> str:
    """Return what `SessionRecord.to_dict` has as text."""
    return "\n".join(f"{name}: {value}" for name, value in record.items())
