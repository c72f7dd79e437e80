"""Reads the archive's URL. Every mistake is an `InvalidInputError` whose text never contains the password."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote, unquote

from conversation_actors.errors import InvalidInputError

FIELD = "archive.url"


class Driver(StrEnum):
    """The databases that an archive can be in, as the URL's scheme names them."""

    SQLITE = "sqlite+aiosqlite"
    POSTGRESQL = "postgresql+psycopg"


@dataclass(frozen=True, slots=True)
class Address:
    """Where the archive is. Neither ``repr`` nor `shown` has a password."""

    driver: Driver
    shown: str
    """The URL without password and options, for people."""
    path: str = ""
    """The file of an SQLite database."""
    url: str = field(default="", repr=False)
    """The whole URL, for the driver of PostgreSQL."""


def parse(url: str) -> Address:
    """Read ``sqlite+aiosqlite:///path`` or ``postgresql+psycopg://[user[:password]@]host[:port]/database[?options]``.

    Options are those of libpq, such as ``sslmode=verify-full``. Raises `InvalidInputError` for anything else.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in set(Driver):
        _refuse(f"must start with one of {', '.join(f'{driver}://' for driver in Driver)}")
    return _sqlite(rest) if scheme == Driver.SQLITE else _postgresql(url, rest)


def sqlite_url(path: Path) -> str:
    """Return the URL of an SQLite database in this file."""
    return f"{Driver.SQLITE}:///{quote(str(path.expanduser().absolute()))}"


def _refuse(what: str) -> NoReturn:
    message = f"{FIELD}: {what}"
    raise InvalidInputError(message, field=FIELD) from None


def _sqlite(rest: str) -> Address:
    path = unquote(rest.removeprefix("/"))
    if not rest.startswith("/"):
        _refuse(f"an SQLite database is a file, after three slashes: {Driver.SQLITE}:///path")
    if not path or path == ":memory:":
        _refuse(f"an archive that others are to read is a file: {Driver.SQLITE}:///path")
    if "?" in rest or "#" in rest or "\0" in path:
        _refuse("an SQLite database takes no options; in a path write ? as %3F and # as %23")
    return Address(Driver.SQLITE, shown=f"{Driver.SQLITE}:///{path}", path=path)


def _postgresql(url: str, rest: str) -> Address:
    place, _, _ = rest.partition("?")
    authority, slash, database = place.partition("/")
    credentials, _, host = authority.rpartition("@")
    user = credentials.partition(":")[0]
    if not slash or not database or "/" in database or "@" in database or "#" in rest:
        # An unescaped slash or @ in a password ends up here: the piece may be secret, it is not shown.
        _refuse(
            f"names a database, as in {Driver.POSTGRESQL}://user:password@host/database;"
            " in a user name or password write @ as %40, : as %3A, / as %2F, ? as %3F, # as %23"
        )
    port = host.rpartition(":")[2] if ":" in host and not host.endswith("]") else ""
    if port and not (port.isascii() and port.isdigit()):
        _refuse("a port is a number; in a user name or password write @ as %40, : as %3A, / as %2F")
    shown = f"{Driver.POSTGRESQL}://{user}{'@' if user else ''}{host}/{database}"
    return Address(Driver.POSTGRESQL, shown=shown, url=url)
