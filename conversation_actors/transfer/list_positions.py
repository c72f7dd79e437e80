"""Where in a list the elements begin that were not imported yet, also when its front was dropped meanwhile."""

from collections.abc import Sequence
from dataclasses import dataclass

REMEMBERED = 64
"""Elements by which a place is recognised. A list that is kept shorter than this is recognised by all of it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the elements begin that are new. `is_broken` if what was imported last is not there any more as it was.

    Then elements may have been dropped unread, or changed; nobody knows how many.
    """

    index: int
    is_broken: bool = False


def find_place(elements: Sequence[str], imported: Sequence[str]) -> Place:
    """Find, by digests, the end of what was `imported` last in a list's `elements`.

    Lists grow at their end and lose at their front. So the place is where the elements before it, back to the list's
    front or as far as they are remembered, are those that were imported last. If there are several such places, which
    takes a list that repeats itself, it is the last one. If there is none, it is after the last element that is
    remembered at all.
    """
    if not imported:
        return Place(0)
    last = imported[-1]
    for index in range(len(elements), 0, -1):
        if elements[index - 1] == last and _is_end(elements, imported, index):
            return Place(index)
    known = set(imported)
    after = (index for index in range(len(elements), 0, -1) if elements[index - 1] in known)
    return Place(next(after, 0), is_broken=bool(elements))


def _is_end(elements: Sequence[str], imported: Sequence[str], index: int) -> bool:
    count = min(index, len(imported))
    return list(elements[index - count : index]) == list(imported[len(imported) - count :])
