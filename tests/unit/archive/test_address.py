"""Which URLs name an archive, and that none of their secrets is shown."""

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from conversation_actors.archive.address import Driver, parse, sqlite_url
from conversation_actors.archive.database import Database
from conversation_actors.errors import ArchiveMisconfiguredError, InvalidInputError
from conversation_actors.settings import ArchiveSettings, Settings

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite+aiosqlite:///archive.db", "archive.db"),
        ("sqlite+aiosqlite:////var/lib/archive.db", "/var/lib/archive.db"),
        ("sqlite+aiosqlite:////var/lib/my%20archive%3F.db", "/var/lib/my archive?.db"),
    ],
)
def test_an_sqlite_url_names_a_file(url: str, path: str) -> None:
    """After three slashes; a fourth one begins an absolute path."""
    address = parse(url)

    assert (address.driver, address.path) == (Driver.SQLITE, path)


@pytest.mark.parametrize("name", ["plain", "a #1", "why?", "100%41", "ünï@x:y", "a\nb"])
def test_a_file_of_any_name_has_a_url(name: str) -> None:
    """Whatever a URL means by its characters."""
    path = Path("/data") / name / "archive.db"

    assert parse(sqlite_url(path)).path == str(path)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            f"postgresql+psycopg://user:{SECRET}@db:5432/conversations",
            "postgresql+psycopg://user@db:5432/conversations",
        ),
        (f"postgresql+psycopg://u:{SECRET}@h/d?password={SECRET}", "postgresql+psycopg://u@h/d"),
        ("postgresql+psycopg://[::1]:5432/d", "postgresql+psycopg://[::1]:5432/d"),
        ("postgresql+psycopg:///d?host=/run/postgresql", "postgresql+psycopg:///d"),
    ],
)
def test_a_postgresql_url_is_shown_without_secrets(url: str, shown: str) -> None:
    """Neither the password nor the options."""
    address = parse(url)

    assert (address.driver, address.shown, address.url) == (Driver.POSTGRESQL, shown, url)
    assert SECRET not in repr(address)
    assert SECRET not in repr(Database(SecretStr(url), timeout=timedelta(seconds=1)))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "archive.db",
        f"mysql+aiomysql://user:{SECRET}@host/db",
        f"postgresql://user:{SECRET}@host/db",
        "sqlite:///archive.db",
        f"postgresql+asyncpg://user:{SECRET}@host/db",
    ],
)
def test_an_unknown_driver_is_refused_by_the_names_of_those_that_there_are(url: str) -> None:
    """The field is named, and the URL is not shown."""
    with pytest.raises(InvalidInputError, match=r"sqlite\+aiosqlite://, postgresql\+psycopg://") as caught:
        parse(url)
    assert caught.value.field == "archive.url"
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite+aiosqlite://",
        "sqlite+aiosqlite:///",
        "sqlite+aiosqlite:///:memory:",
        "sqlite+aiosqlite://archive.db",
        "sqlite+aiosqlite:///archive.db?mode=ro",
        "postgresql+psycopg://host",
        f"postgresql+psycopg://user:{SECRET}@host/",
        f"postgresql+psycopg://user:{SECRET}/1@host/db",
        f"postgresql+psycopg://user:{SECRET}@#@host/db",
        f"postgresql+psycopg://user:a@{SECRET}:b@host:{SECRET}/db",
        f"postgresql+psycopg://user@host:54{SECRET}/db",
    ],
)
def test_a_url_that_names_no_database_is_refused(url: str) -> None:
    """Also if a password was not escaped; no piece of it is shown."""
    with pytest.raises(InvalidInputError) as caught:
        parse(url)
    assert caught.value.field == "archive.url"
    assert SECRET not in str(caught.value)


def test_without_a_url_there_is_no_archive() -> None:
    """The error names the variable."""
    with pytest.raises(ArchiveMisconfiguredError, match="CONVERSATION_ARCHIVE_URL"):
        Database.of(Settings())
    url = SecretStr("sqlite+aiosqlite:///archive.db")
    assert Database.of(Settings(archive=ArchiveSettings(url=url))).timeout == ArchiveSettings().timeout
