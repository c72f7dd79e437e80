"""The text of a page's `next_cursor`: a list of JSON values, in letters, digits, ``-`` and ``_``."""

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any, NoReturn

from conversation_actors.values import refuse

_FIELD = "cursor"


def encoded(fields: Sequence[Any]) -> str:
    """Return these values as the text of a cursor."""
    data = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def decoded(given: object, *, count: int, pages_of: str) -> list[Any]:
    """Return the `count` values of which a text was made. Raises `InvalidInputError` if it is not of so many."""
    if not isinstance(given, str):
        refuse(_FIELD, f"expected the text of a page's next_cursor, got {type(given).__name__}")
    try:
        data = base64.b64decode(given + "=" * (-len(given) % 4), altchars=b"-_", validate=True)
        fields = json.loads(data)
    except (binascii.Error, ValueError, RecursionError):
        refuse_cursor(pages_of)
    if not isinstance(fields, list) or len(fields) != count:
        refuse_cursor(pages_of)
    return fields


def refuse_cursor(pages_of: str) -> NoReturn:
    """Refuse a text that none of these pages gave out."""
    refuse(_FIELD, f"no page of {pages_of} gave this out")


def refuse_version(version: int) -> NoReturn:
    """Refuse a text that another version made."""
    refuse(_FIELD, f"another version made it ({version}); begin without a cursor")
