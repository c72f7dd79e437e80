"""Connections, versions of the tables, and errors, on each kind of database."""

from conversation_actors.archive.database import Database
from conversation_actors.archive.tables import REVISION


async def test_a_migrated_database_is_good(database: Database) -> None:
    """So is one that is migrated once more."""
    await database.check()
    assert await database.migrate() == REVISION
    await database.check()
