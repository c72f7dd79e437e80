"""Connections, transactions and versions of the tables, on each kind of database; errors are in `test_faults`."""

import asyncio
from pathlib import Path

import aiosqlite
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, func, select

from conversation_actors.archive.database import Database
from conversation_actors.archive.tables import REVISION, VERSION_TABLE, entries, metadata
from conversation_actors.archive.writer import Writer
from conversation_actors.errors import ArchiveMisconfiguredError, ConflictError, IncompatibleVersionError
from tests.archive.conftest import DATABASES, empty_url, make_database
from tests.support.archive_contents import archived, change
from tests.support.archive_records import Author

HERE = "room-1"
REAL_CONNECT = aiosqlite.connect


async def test_a_migrated_database_is_good(database: Database) -> None:
    """So is one that is migrated once more."""
    await database.check()
    assert await database.migrate() == REVISION
    await database.check()


async def test_migrations_make_the_tables_that_the_code_names(database: Database) -> None:
    """With every column, index and constraint."""

    def differences(connection: Connection) -> object:
        options = {"version_table": VERSION_TABLE, "compare_type": True}
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    async with database.reading("comparing") as connection:
        assert await connection.run_sync(differences) == []


@pytest.mark.parametrize("kind", DATABASES)
async def test_several_may_migrate_at_once(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Before that the database is refused, with the command that helps."""
    url = empty_url(kind, tmp_path, request)
    several = [make_database(url) for _ in range(3)]
    with pytest.raises(ArchiveMisconfiguredError, match="run `conversation-actors archive migrate`"):
        await several[0].check()

    assert await asyncio.gather(*(one.migrate() for one in several)) == [REVISION] * 3
    for one in several:
        await one.check()
        await one.aclose()


async def test_a_newer_schema_is_refused(database: Database) -> None:
    """By who would write it, and by who would migrate it."""
    await change(database, "UPDATE archive_version SET version_num = '0999'")

    for attempt in (database.check, database.migrate):
        with pytest.raises(IncompatibleVersionError, match="0999"):
            await attempt()


async def test_tables_without_a_version_are_to_be_migrated(database: Database) -> None:
    """A migration that did not come to its end leaves nothing; whoever emptied this table is told."""
    await change(database, "DELETE FROM archive_version")

    with pytest.raises(ArchiveMisconfiguredError, match="older version"):
        await database.check()


async def test_a_transaction_reads_one_moment(database: Database, writer: Writer) -> None:
    """Whatever others write in the meantime."""
    await writer.write(HERE, Author().talk(1, 2))
    count = select(func.count()).select_from(entries)

    async with database.reading("counting") as connection:
        assert (await connection.execute(count)).scalar() == 2
        await writer.write(HERE, Author().talk(3, 3))
        assert (await connection.execute(count)).scalar() == 2
    assert len(await archived(database)) == 3


async def test_a_transaction_that_fails_has_not_happened(database: Database) -> None:
    """The block's own error comes out as it is."""

    async def fail() -> None:
        async with database.writing("changing") as connection:
            await connection.exec_driver_sql("DELETE FROM archive_version")
            message = "mine"
            raise ConflictError(message)

    with pytest.raises(ConflictError, match="mine"):
        await fail()
    await database.check()


async def test_a_closed_database_connects_again(database: Database) -> None:
    """Closing twice is no error."""
    await database.check()
    await database.aclose()
    await database.aclose()
    await database.check()


async def test_where_no_file_is_no_thread_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread of aiosqlite would outlive the error, and fail where the event loop ends before it."""
    asked: list[object] = []

    def connect(*arguments: object, **named: object) -> object:
        asked.append(arguments)
        return REAL_CONNECT(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(aiosqlite, "connect", connect)
    for url in (f"sqlite+aiosqlite:///{tmp_path}/archive.db", f"sqlite+aiosqlite:///{tmp_path}"):
        database = make_database(url)
        with pytest.raises(ArchiveMisconfiguredError):
            await database.check()
        await database.aclose()
    assert asked == []
    database = make_database(f"sqlite+aiosqlite:///{tmp_path}/archive.db")
    await database.migrate()
    await database.aclose()
    assert asked
