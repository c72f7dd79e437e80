"""Lines that are said unasked: to whom, their placeholders, and a line in somebody's language. Pure."""

from collections.abc import Iterator, Mapping
from enum import Enum
from string import Formatter

NAME, VISITS = "name", "visits"
PLACEHOLDERS = frozenset({NAME, VISITS})
"""What a line may hold in braces: what somebody is called, and how often they have come, this time included."""
LONGEST_SPOKEN_NAME = 80
"""Characters; a name may be whatever its owner has typed."""
_JOINING = " \t\n,;:،、，"  # noqa: RUF001  # a comma is written in several ways
"""What joins a name to what stands before it, and leaves with a name that is not known."""


class Welcome(Enum):
    """What an arrival calls for."""

    FIRST = "first"
    """Somebody is here for the first time."""
    BACK = "back"
    """Somebody comes back who had been away."""
    RESUME = "resume"
    """Somebody was here all the time, and has lost the agent."""
    NOTHING = "nothing"


def check_line(line: str) -> str:
    """Return the line; raise `ValueError` for a placeholder that there is none of, and for a brace without its other.

    A brace that is to be said is written twice, as in `str.format`.
    """
    for _, name, form in _parts(line):
        if name is not None and (name not in PLACEHOLDERS or form):
            known = ", ".join(f"{{{one}}}" for one in sorted(PLACEHOLDERS))
            message = f"{{{name}{form}}} is no placeholder; there are {known}, and {{{{ }}}} for braces"
            raise ValueError(message)
    return line


def in_language(lines: Mapping[str, str], language: str | None) -> str:
    """Return the line in a language (``de`` is good for ``de-AT``), else the first; empty if there is none."""
    default = next(iter(lines.values()), "")
    return lines.get(language or "", lines.get((language or "").split("-")[0], default))


def filled(line: str, *, name: str, visits: int) -> str:
    """Return the line with its placeholders filled: a name is text, whatever it holds.

    An empty name is left out, with what joins it to the words before it.
    """
    spoken = " ".join(name.split())[:LONGEST_SPOKEN_NAME].strip()
    text, is_begun = "", False
    for before, placeholder, _ in _parts(line):
        text += before if text or not is_begun else _begun(before)
        if placeholder == NAME:
            text, is_begun = (text + spoken) if spoken else text.rstrip(_JOINING), True
        elif placeholder == VISITS:
            text += str(visits)
    return text


def _begun(words: str) -> str:
    """Return what follows a name that was left out at the beginning."""
    words = words.lstrip(_JOINING)
    return words[:1].upper() + words[1:]


def _parts(line: str) -> Iterator[tuple[str, str | None, str]]:
    """Return what is said as it stands, and the placeholder after it, if any, with what else is in its braces."""
    for text, name, form, conversion in Formatter().parse(line):
        yield text, name, (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
