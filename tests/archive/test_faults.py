"""What a database does to whoever uses it: hangs, dies, refuses. It is one typed error, and nothing is half written."""

import asyncio
import os
import pwd
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from sqlalchemy import event

from conversation_actors.archive.database import Database
from conversation_actors.archive.writer import Writer
from conversation_actors.errors import ArchiveMisconfiguredError, ArchiveUnavailableError
from tests.archive.conftest import TENANT, make_database, migrated_copy, migrated_url
from tests.support.archive_contents import archived
from tests.support.archive_records import Author
from tests.support.postgres import NO_POSTGRES, SUPERUSER, PostgresServer, has_postgres
from tests.support.waiting import wait_until

HERE = "room-1"
FIRST = Author()
SHORT = timedelta(seconds=0.5)
LONG = timedelta(seconds=60)
SECRET = "hunter2-is-secret"


@pytest.fixture(scope="module")
def mortal() -> Iterator[PostgresServer]:
    """A PostgreSQL that no other module uses."""
    if not has_postgres():
        pytest.skip(NO_POSTGRES)
    with PostgresServer() as started:
        yield started


@pytest.fixture
async def url(mortal: PostgresServer) -> str:
    """The URL of a migrated, empty archive in it."""
    mortal.start()
    return await migrated_copy(mortal)


@pytest.mark.parametrize("how", [PostgresServer.pause, PostgresServer.kill])
def test_a_server_that_is_hung_or_killed_starts_no_process_meanwhile(
    mortal: PostgresServer, monkeypatch: pytest.MonkeyPatch, how: Callable[[PostgresServer], None]
) -> None:
    """What it would start after its processes were listed would outlive it."""
    mortal.start()
    seen: list[str] = []
    listed = mortal._children

    def children() -> list[psutil.Process]:
        seen.append(psutil.Process(mortal.pid).status())
        return listed()

    monkeypatch.setattr(mortal, "_children", children)
    how(mortal)
    monkeypatch.undo()
    mortal.resume()

    assert seen[0] == psutil.STATUS_STOPPED


@pytest.fixture
async def opened() -> AsyncIterator[Callable[..., Database]]:
    """Open databases, and close them after the test."""
    made: list[Database] = []

    def make(url: str, timeout: timedelta = LONG) -> Database:
        made.append(make_database(url, timeout))
        return made[-1]

    yield make
    for one in made:
        await one.aclose()


@asynccontextmanager
async def waiting_in_a_statement(mortal: PostgresServer, url: str, writer: Writer) -> AsyncIterator[asyncio.Task[Any]]:
    """Write records while somebody else holds the life's row: PostgreSQL has the statement, and cannot answer yet."""
    await writer.write(HERE, FIRST.talk(1, 2))
    holder = await psycopg.AsyncConnection.connect(url.replace("+psycopg", ""))
    await holder.execute("SELECT id FROM archive_lives FOR UPDATE")
    task = asyncio.create_task(writer.write(HERE, FIRST.talk(2, 5)))
    try:
        await wait_until(lambda: is_waiting(mortal), "the statement to wait for the row")
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await holder.close()


async def is_waiting(server: PostgresServer) -> bool:
    """Tell whether a statement waits for a lock."""
    waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    return bool(await asyncio.to_thread(server.execute, waits))


async def is_written(writer: Writer, records: Sequence[bytes]) -> bool:
    """Write records; tell whether that was done in time, which on a busy machine need not be."""
    try:
        await writer.write(HERE, records)
    except ArchiveUnavailableError:
        return False
    return True


async def test_postgresql_is_killed_in_the_middle_of_a_statement(
    mortal: PostgresServer, url: str, opened: Callable[..., Database]
) -> None:
    """Nothing is half written, and the same writer goes on when it is there again."""
    database = opened(url)
    writer = Writer(database, TENANT)

    async with waiting_in_a_statement(mortal, url, writer) as writing:
        mortal.kill()
        with pytest.raises(ArchiveUnavailableError, match="archiving entries"):
            await writing
    with pytest.raises(ArchiveUnavailableError, match="cannot be reached"):
        await writer.write(HERE, FIRST.talk(2, 5))

    mortal.start()
    assert await archived(database) == [1, 2]
    assert (await writer.write(HERE, FIRST.talk(2, 5))).entries == 3


async def test_postgresql_hangs_in_the_middle_of_a_statement(
    mortal: PostgresServer, url: str, opened: Callable[..., Database], caplog: pytest.LogCaptureFixture
) -> None:
    """Who waits is answered in time, though the driver cannot even cancel; then it goes on."""
    database, quick = opened(url), opened(url, SHORT)
    await wait_until(lambda: is_written(Writer(quick, TENANT), FIRST.talk(1, 2)), "a write in time")

    mortal.pause()
    try:
        for _ in range(2):
            with pytest.raises(ArchiveUnavailableError, match="archiving entries"):
                await Writer(quick, TENANT).write(HERE, FIRST.talk(2, 5))
    finally:
        mortal.resume()
    assert [
        record for record in caplog.records if record.name == "psycopg"
    ] == []  # it would try to cancel, for seconds

    assert await archived(database) in ([1, 2], [1, 2, 3, 4, 5])
    await Writer(database, TENANT).write(HERE, FIRST.talk(2, 5))
    assert await archived(database) == [1, 2, 3, 4, 5]


async def test_connections_of_a_server_that_was_restarted_are_replaced(
    mortal: PostgresServer, url: str, opened: Callable[..., Database]
) -> None:
    """Without an error: nothing was under way."""
    database = opened(url)
    await database.check()
    mortal.kill()
    mortal.start()

    await database.check()


async def test_a_cancelled_write_has_not_happened(
    mortal: PostgresServer, url: str, opened: Callable[..., Database]
) -> None:
    """Its connection is not used for anything else."""
    database = opened(url)
    async with waiting_in_a_statement(mortal, url, Writer(database, TENANT)) as writing:
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
    assert await archived(database) == [1, 2]


async def test_who_waits_too_long_for_another_is_told(
    mortal: PostgresServer, url: str, opened: Callable[..., Database]
) -> None:
    """The row is somebody else's for longer than the timeout."""
    holder, quick = opened(url), opened(url, SHORT)
    await Writer(holder, TENANT).write(HERE, FIRST.talk(1, 2))
    async with holder.writing("holding") as connection:
        await connection.exec_driver_sql("SELECT id FROM archive_lives FOR UPDATE")
        with pytest.raises(ArchiveUnavailableError):
            await Writer(quick, TENANT).write(HERE, FIRST.talk(3, 3))
    assert (await Writer(holder, TENANT).write(HERE, FIRST.talk(3, 3))).entries == 1


async def test_postgresql_refuses(mortal: PostgresServer, url: str, opened: Callable[..., Database]) -> None:
    """What a person has to change is told from what passes, and the password is in none of it."""
    name = url.rpartition("/")[2]
    mortal.execute(
        f"CREATE DATABASE standby TEMPLATE {name}", f"CREATE DATABASE other TEMPLATE {name}",
        "CREATE ROLE guest LOGIN", "CREATE ROLE late LOGIN CONNECTION LIMIT 0", "CREATE ROLE reader LOGIN",
        "ALTER DATABASE standby SET default_transaction_read_only = on",
    )  # fmt: skip
    mortal.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader", database=name)
    mortal.execute("ALTER TABLE archive_entries ALTER COLUMN at TYPE bytea USING NULL", database="other")

    async def refused(kind: type[Exception], words: str, database: str = name, user: str = SUPERUSER) -> None:
        archive = opened(mortal.url(database, user=user, password=SECRET))
        with pytest.raises(kind, match=words) as caught:
            await Writer(archive, TENANT).write(HERE, FIRST.talk(1, 1))
        assert "archiving entries" in str(caught.value)
        assert SECRET not in str(caught.value)
        assert SECRET not in repr(archive)
        assert caught.value.__cause__ is None

    await refused(ArchiveMisconfiguredError, "does not exist", database="nowhere")
    await refused(ArchiveMisconfiguredError, "does not exist", user="nobody_here")
    await refused(ArchiveMisconfiguredError, "permission denied for table archive_lives", user="guest")
    await refused(ArchiveMisconfiguredError, "permission denied for table archive_lives", user="reader")
    await refused(ArchiveMisconfiguredError, "42804", database="other")
    await refused(ArchiveUnavailableError, "cannot be reached", user="late")
    await refused(ArchiveUnavailableError, "25006", database="standby")


async def test_nobody_listens(opened: Callable[..., Database]) -> None:
    """A port of nobody, and a host of nobody."""
    for host in ("127.0.0.1:1", "nowhere.invalid"):
        with pytest.raises(ArchiveUnavailableError, match="cannot be reached") as caught:
            await opened(f"postgresql+psycopg://user:{SECRET}@{host}/archive").check()
        assert SECRET not in str(caught.value)


@pytest.fixture
async def sqlite_url(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A migrated SQLite file."""
    return await migrated_url("sqlite", tmp_path, request)


async def test_an_sqlite_file_that_is_not_there_is_not_made(tmp_path: Path, opened: Callable[..., Database]) -> None:
    """Only a migration makes one, for this user alone, in a directory that is there."""
    path = tmp_path / "archive ?#%41.db"
    url = f"sqlite+aiosqlite:///{tmp_path}/archive %3F%23%2541.db"
    with pytest.raises(ArchiveMisconfiguredError, match="run `conversation-actors archive migrate`"):
        await opened(url).check()
    assert not path.exists()

    await opened(url).migrate()
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ArchiveMisconfiguredError, match="no such directory"):
        await opened(f"sqlite+aiosqlite:///{tmp_path}/nowhere/archive.db").migrate()


async def test_an_sqlite_file_that_is_none(tmp_path: Path, opened: Callable[..., Database]) -> None:
    """A directory, and a file of something else."""
    (tmp_path / "letter.txt").write_text("Dear Sir or Madam, " * 100)

    with pytest.raises(ArchiveMisconfiguredError, match="not of SQLite"):
        await opened(f"sqlite+aiosqlite:///{tmp_path}/letter.txt").check()
    with pytest.raises(ArchiveMisconfiguredError, match="cannot be opened"):
        await opened(f"sqlite+aiosqlite:///{tmp_path}").check()


async def test_an_sqlite_file_is_somebody_elses_for_now(sqlite_url: str, opened: Callable[..., Database]) -> None:
    """Reading goes on meanwhile."""
    database, quick = opened(sqlite_url), opened(sqlite_url, SHORT)
    other = sqlite3.connect(database.address.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ArchiveUnavailableError, match="archiving entries"):
        await Writer(quick, TENANT).write(HERE, FIRST.talk(1, 1))
    await database.check()
    other.close()

    assert (await Writer(database, TENANT).write(HERE, FIRST.talk(1, 1))).entries == 1


async def test_writers_of_one_process_take_turns(sqlite_url: str, opened: Callable[..., Database]) -> None:
    """Who waits too long for a turn is told, and the others go on."""
    database = opened(sqlite_url)
    async with database.writing("holding"):
        database.timeout = SHORT
        with pytest.raises(ArchiveUnavailableError, match="archiving entries"):
            await Writer(database, TENANT).write(HERE, FIRST.talk(1, 1))
    database.timeout = LONG

    await asyncio.gather(*(Writer(database, TENANT).write(f"room-{one}", FIRST.talk(1, 1)) for one in range(3)))
    assert len(await archived(database)) == 3


async def test_who_is_cancelled_when_the_turn_comes_is_cancelled(
    sqlite_url: str, opened: Callable[..., Database]
) -> None:
    """At whatever moment in between; the turn is the next one's."""
    database = opened(sqlite_url)
    for passes in range(5):
        async with database.writing("holding"):
            waiting = asyncio.create_task(Writer(database, TENANT).write(HERE, FIRST.talk(1, 1)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        for _ in range(passes):
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert await archived(database) == []
    assert (await Writer(database, TENANT).write(HERE, FIRST.talk(1, 1))).entries == 1


async def test_an_sqlite_disk_is_full(sqlite_url: str, opened: Callable[..., Database]) -> None:
    """Nothing of the batch is written."""
    database, full = opened(sqlite_url), opened(sqlite_url)

    def limit(connection: Any, _: object) -> None:
        connection.execute("PRAGMA max_page_count = 1").close()

    event.listen(full._engine.sync_engine, "connect", limit)
    with pytest.raises(ArchiveUnavailableError, match="the disk is full"):
        await Writer(full, TENANT).write(HERE, [FIRST.says(seq, words="x" * 2000) for seq in range(1, 50)])
    assert await archived(database) == []


@contextmanager
def as_nobody() -> Iterator[None]:
    """Be a user without rights, as only root can; who is not root has few enough."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)


def allow(path: Path, mode: int) -> None:
    """Say who may use a file."""
    path.chmod(mode)


@pytest.fixture
async def protected(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Path]:
    """A directory with two archives, one that may be read, and one that may not."""
    await migrated_url("sqlite", tmp_path, request)
    with tempfile.TemporaryDirectory() as directory:  # below tmp_path nobody else reaches anything
        place = Path(directory)
        allow(place, 0o711)
        for name, mode in (("readable.db", 0o444), ("secret.db", 0o000)):
            shutil.copyfile(tmp_path / "archive.db", place / name)
            allow(place / name, mode)
        yield place


async def test_an_sqlite_file_may_be_read_only_or_nobodys(protected: Path, opened: Callable[..., Database]) -> None:
    """Read-only may pass, as when a file system is mounted anew; no right at all needs a person."""
    readable, secret = (opened(f"sqlite+aiosqlite:///{protected}/{name}.db") for name in ("readable", "secret"))
    with as_nobody():
        with pytest.raises(ArchiveUnavailableError, match="read-only"):
            await Writer(readable, TENANT).write(HERE, FIRST.talk(1, 1))
        with pytest.raises(ArchiveMisconfiguredError, match="may not be used"):
            await secret.check()
