"""Whether the packages of the extra ``archive`` are installed. Imports none of them."""

from importlib.util import find_spec

from conversation_actors.errors import ArchiveMisconfiguredError

REMEDY = "pip install 'conversation-actors[archive]'"
_PACKAGES = ("sqlalchemy", "alembic", "aiosqlite", "psycopg", "aiohttp", "standardwebhooks")


def lacking() -> tuple[str, ...]:
    """Return the packages of the extra that are not installed."""
    return tuple(name for name in _PACKAGES if find_spec(name) is None)


def require_extra() -> None:
    """Raise `ArchiveMisconfiguredError`, with the remedy, unless the extra is installed."""
    if missing := lacking():
        message = f"the archive needs {', '.join(missing)}: {REMEDY}"
        raise ArchiveMisconfiguredError(message)
