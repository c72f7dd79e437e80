"""Find what fits into an attribute. Each size is computed only once, however many values there are."""

import math
from collections.abc import Collection, Sequence
from typing import Any

from conversation_actors.errors import InvalidInputError
from conversation_actors.values import encode


def fits(value: object, most: int) -> bool:
    """Tell whether a value can be stored in at most `most` bytes."""
    return size_of(value) <= most


def size_of(value: object) -> float:
    """Return the bytes that a value takes when stored, or infinity if it cannot be stored at all."""
    try:
        return len(encode(value, "attribute"))
    except InvalidInputError:
        return math.inf


def largest_of(values: Sequence[Any], most: float) -> Collection[int]:
    """Return the places of the values that have to go so that the rest takes no more than `most` bytes.

    Values that cannot be stored go first, then the largest.
    """
    sizes = [size_of(value) + 1 for value in values]  # one byte for the comma between two values
    left = sum(size for size in sizes if size < math.inf)
    gone: set[int] = set()
    for place in sorted(range(len(values)), key=lambda one: -sizes[one]):
        if sizes[place] < math.inf:
            if left <= most:
                break
            left -= sizes[place]
        gone.add(place)
    return gone
