"""The versions of other libraries that the whole suite has run with; a newer one works too, and is spoken of once."""

import logging
import platform
import re
from functools import cache
from importlib import metadata

logger = logging.getLogger(__name__)

NEWEST_TESTED = {"livekit-agents": "1.8.9", "pydantic": "2.14.4", "ray": "2.60.0", "redis": "8.1.0"}
"""Of tests/matrix/report.json, by the name of the distribution. A later patch of the same minor is no other version."""


@cache
def tell_untested(*names: str) -> None:
    """Warn, once in a process, of those installed libraries of `names` that are newer than all that was tested."""
    newer = [f"{name} {found} (tested up to {NEWEST_TESTED[name]})" for name in names if (found := _newer(name))]
    if newer:
        logger.warning("newer than what this version was tested with, and used all the same: %s", ", ".join(newer))


def tell_versions(*others: str) -> list[str]:
    """Return a line for this package, for `others`, and for what all nodes and clients of a cluster must have alike."""
    names = {"conversation-actors": "conversation-actors", **{name: name for name in others}, "Ray": "ray"}
    told = [f"{name} {_installed(distribution) or 'is not installed'}" for name, distribution in names.items()]
    return [*told, f"Python {platform.python_version()}"]


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _newer(name: str) -> str | None:
    """Return the installed version where its minor was not tested; None if it was, or where nothing is installed."""
    found = _installed(name)
    return found if found is not None and _minor(found) > _minor(NEWEST_TESTED[name]) else None


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
