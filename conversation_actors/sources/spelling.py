"""The search for misspelt names of settings. They are not errors, because they may be another program's variables."""

import logging
import re
from collections.abc import Callable, Collection, Iterator
from difflib import SequenceMatcher
from functools import cache, lru_cache

logger = logging.getLogger(__name__)

_ALIKE = {"CONVERSATION": 0.7, "AGENT": 0.82}
"""By the first word of a name, how like a setting's name the rest must be; other programs have agents too."""
_FIRST_WORD_ALIKE = 0.8
_WHOLE_ALIKE = 0.88
"""How like a setting's name a whole name must be if its first word is not quite one of ours."""
_OF_A_SERVICE = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$")
"""What Kubernetes sets in each pod for a service, besides NAME_PORT."""
_MANY = 256
"""Number of names whose nearest is remembered: finding it takes a millisecond, and each group of settings asks."""


def misspelt(names: Collection[str], known: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yield those of `names` that are like a known name without being one, each with the nearest known name."""
    for name in names:
        if name not in known and not _is_of_a_service(name, names) and (nearest := _nearest(name, known)):
            yield name, nearest


_told: set[tuple[str, str]] = set()


def warn(name: str, place: str, nearest: str) -> None:
    """Warn about a name in this place, once in a process."""
    if (name, place) not in _told:
        _told.add((name, place))
        logger.warning("%s (%s) is no setting, and is ignored; did you mean %s?", name, place, nearest)


def forget() -> None:
    """Forget all warnings, so that every name is warned about again."""
    _told.clear()


def _is_of_a_service(name: str, names: Collection[str]) -> bool:
    """Tell whether Kubernetes has set a variable, which it does for services of any name."""
    if _OF_A_SERVICE.search(name):
        return True
    return name.endswith("_PORT") and f"{name.removesuffix('_PORT')}_SERVICE_HOST" in names


@lru_cache(_MANY)
def _nearest(name: str, known: frozenset[str]) -> str | None:
    first, _, rest = name.partition("_")
    if not rest or not _is_like_ours(first):
        return None
    if first in _ALIKE:
        own = [one for one in known if one.startswith(f"{first}_")]
        return _best(own, least=_ALIKE[first], likeness=lambda one: _likeness(rest, one.partition("_")[2]))
    ours = [one for one in known if one.partition("_")[0] in _ALIKE]
    return _best(ours, least=_WHOLE_ALIKE, likeness=lambda one: _ratio(name, one))


@cache
def _is_like_ours(first_word: str) -> bool:
    return max(_ratio(first_word, word) for word in _ALIKE) >= _FIRST_WORD_ALIKE


def _best(names: Collection[str], *, least: float, likeness: Callable[[str], float]) -> str | None:
    best = max(sorted(names), key=likeness, default=None)
    return best if best is not None and likeness(best) >= least else None


def _likeness(one: str, other: str) -> float:
    """Return how alike two names are, in whichever order their words are."""
    in_order = ("_".join(sorted(one.split("_"))), "_".join(sorted(other.split("_"))))
    return max(_ratio(one, other), _ratio(*in_order))


def _ratio(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other, autojunk=False).ratio()
