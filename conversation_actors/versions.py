"""The newest versions of other libraries that the whole suite has run with; a newer one is used after one warning."""

import logging
import platform
import re
from functools import cache
from importlib import metadata

logger = logging.getLogger(__name__)

NEWEST_TESTED = {"livekit-agents": "1.8.9", "pydantic": "2.14.4", "ray": "2.60.0", "redis": "8.1.0"}
"""The versions in tests/matrix/report.json, by the name of the distribution. A later patch of the same minor does not
count as newer."""


@cache
def tell_untested(*names: str) -> None:
    """Warn, once in a process, about each installed library of `names` that is newer than every tested version."""
    newer = [f"{name} {found} (tested up to {NEWEST_TESTED[name]})" for name in names if (found := _newer(name))]
    if newer:
        logger.warning("newer than what this version was tested with, and used all the same: %s", ", ".join(newer))


def tell_versions(*others: str) -> list[str]:
    """Return a line each for this package, `others`, Ray and Python.

    All nodes and clients of a cluster must have the same Ray and Python.
    """
    names = {"conversation-actors": "conversation-actors", **{name: name for name in others}, "Ray": "ray"}
    told = [f"{name} {_installed(distribution) or 'is not installed'}" for name, distribution in names.items()]
    return [*told, f"Python {platform.python_version()}"]


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _newer(name: str) -> str | None:
    """Return the installed version if its minor is newer than the tested one; None if not, or if none is installed."""
    found = _installed(name)
    return found if found is not None and _minor(found) > _minor(NEWEST_TESTED[name]) else None


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
