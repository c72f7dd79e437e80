"""Where the next page of a history begins, as text that a caller keeps and gives back."""

from typing import NamedTuple, Self

from conversation_actors.archive.overlay import Position
from conversation_actors.archive.page_cursor import decoded, encoded, refuse_cursor, refuse_version

_VERSION = 1
_PAGES = "a history"


class Cursor(NamedTuple):
    """The last item of a page: the life that it belongs to, its position, and the direction in which pages follow."""

    life: str
    position: Position
    newest_first: bool

    def encode(self) -> str:
        """Return it as text of letters, digits, ``-`` and ``_``."""
        return encoded([_VERSION, self.life, *self.position, int(self.newest_first)])

    @classmethod
    def decode(cls, given: object) -> Self:
        """Read what `encode` made. Raises `InvalidInputError` for anything else."""
        version, life, seq, place, direction = decoded(given, count=5, pages_of=_PAGES)
        numbers = (version, seq, place, direction)
        if not (all(type(number) is int for number in numbers) and type(life) is str):
            refuse_cursor(_PAGES)
        if version != _VERSION:
            refuse_version(version)
        if direction not in {0, 1} or not (0 <= seq < 1 << 63 and abs(place) < 1 << 31):
            refuse_cursor(_PAGES)
        return cls(life, Position(seq, place), bool(direction))
