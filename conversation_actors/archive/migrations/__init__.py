"""Brings the tables to this version, by Alembic. Each migration is a module in `versions`."""

from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text

from conversation_actors.archive.tables import REVISION, VERSION_TABLE, metadata
from conversation_actors.errors import IncompatibleVersionError

_LOCK = 0x636F6E7665727361
"""The number of PostgreSQL's advisory lock that migrations of an archive take: the first letters of our name."""


def upgrade(connection: Connection) -> None:
    """Run what is missing, in the transaction that `connection` is in; others that migrate wait until it has ended.

    In SQLite the transaction has the only right to write already. Raises `IncompatibleVersionError` for a newer schema.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK})
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    scripts = ScriptDirectory.from_config(config)

    def missing(present: tuple[str, ...], _: MigrationContext) -> object:
        try:
            # As Alembic's own `command.upgrade`, which gives a tuple too, but needs a module that runs at its import.
            return scripts._upgrade_revs(REVISION, present)  # type: ignore[arg-type]  # noqa: SLF001
        except CommandError:
            message = f"the archive's tables are of version {', '.join(present)}, which is newer than this program's"
            raise IncompatibleVersionError(message) from None

    with EnvironmentContext(config, scripts, fn=missing, destination_rev=REVISION) as environment:
        environment.configure(connection=connection, target_metadata=metadata, version_table=VERSION_TABLE)
        environment.run_migrations()
