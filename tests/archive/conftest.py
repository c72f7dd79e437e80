"""Databases to run the archive's tests on: an SQLite file, and PostgreSQL from a wheel; a new one for each test."""

import itertools
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from conversation_actors.archive.database import Database
from tests.support.postgres import NO_POSTGRES, PostgresServer, has_postgres

TIMEOUT = timedelta(seconds=20)
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


def empty_url(kind: str, directory: Path, request: pytest.FixtureRequest) -> str:
    """Return the URL of a new database without tables."""
    if kind == "sqlite":
        return f"sqlite+aiosqlite:///{directory / 'archive.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    name = f"empty_{next(_numbers)}"
    server.execute(f"CREATE DATABASE {name}")
    return server.url(name)


async def migrated_url(kind: str, directory: Path, request: pytest.FixtureRequest) -> str:
    """Return the URL of a new database with all tables; in PostgreSQL it is a copy of one that was migrated once."""
    if kind == "sqlite":
        url = empty_url(kind, directory, request)
        await _migrate(url)
        return url
    server: PostgresServer = request.getfixturevalue("postgres")
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
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a migrated, empty archive, on each kind of database."""
    return await migrated_url(request.param, tmp_path, request)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A migrated, empty archive, on each kind of database."""
    made = make_database(database_url)
    yield made
    await made.aclose()
