"""Whether what only some users install is here."""

from importlib.util import find_spec

from conversation_actors.errors import ArchiveMisconfiguredError


def require_archive() -> None:
    """Raise `ArchiveMisconfiguredError` unless what the archive needs is installed."""
    if missing := [name for name in ("sqlalchemy", "alembic") if find_spec(name) is None]:
        message = f"the archive needs {' and '.join(missing)}: pip install 'conversation-actors[archive]'"
        raise ArchiveMisconfiguredError(message)
