"""As much as fits into an attribute: sizes are asked for once, however many there are. Nobody waits meanwhile."""

import math
from collections.abc import Collection, Sequence
from typing import Any

from conversation_actors.errors import InvalidInputError
from conversation_actors.values import encode


def fits(value: object, most: int) -> bool:
    """Whether a value can be stored in so many bytes."""
    return size_of(value) <= most


def size_of(value: object) -> float:
    """Bytes as it is stored; infinitely many if it cannot be stored at all."""
    try:
        return len(encode(value, "attribute"))
    except InvalidInputError:
        return math.inf


def largest_of(values: Sequence[Any], most: float) -> Collection[int]:
    """Return the places of those that have to go, the largest first, for the rest to be no more than `most` bytes."""
    sizes = [size_of(value) + 1 for value in values]  # a comma stands between two
    left = sum(size for size in sizes if size < math.inf)
    gone: set[int] = set()
    for place in sorted(range(len(values)), key=lambda one: -sizes[one]):
        if sizes[place] < math.inf:
            if left <= most:
                break
            left -= sizes[place]
        gone.add(place)
    return gone
