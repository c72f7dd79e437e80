"""Where the next page of a history begins, as text that a caller keeps and gives back."""

import base64
import binascii
import json
from typing import NamedTuple, Self

from conversation_actors.archive.overlay import Position
from conversation_actors.values import refuse

_VERSION = 1
_FIELD = "cursor"


class Cursor(NamedTuple):
    """The last item of a page: the life that it belongs to, its position, and the direction in which pages follow."""

    life: str
    position: Position
    newest_first: bool

    def encode(self) -> str:
        """Return it as text of letters, digits, ``-`` and ``_``."""
        fields = [_VERSION, self.life, *self.position, int(self.newest_first)]
        data = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    @classmethod
    def decode(cls, given: object) -> Self:
        """Read what `encode` made. Raises `InvalidInputError` for anything else."""
        if not isinstance(given, str):
            refuse(_FIELD, f"expected the text of a page's next_cursor, got {type(given).__name__}")
        try:
            data = base64.b64decode(given + "=" * (-len(given) % 4), altchars=b"-_", validate=True)
            version, life, seq, place, direction = json.loads(data)
        except (binascii.Error, ValueError, TypeError, RecursionError):
            refuse(_FIELD, "no page of a history gave this out")
        numbers = (version, seq, place, direction)
        if not (all(type(number) is int for number in numbers) and type(life) is str):
            refuse(_FIELD, "no page of a history gave this out")
        if version != _VERSION:
            refuse(_FIELD, f"another version made it ({version}); begin without a cursor")
        if direction not in {0, 1} or not (0 <= seq < 1 << 63 and abs(place) < 1 << 31):
            refuse(_FIELD, "no page of a history gave this out")
        return cls(life, Position(seq, place), bool(direction))
