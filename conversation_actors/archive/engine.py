"""Engines of SQLAlchemy for the two kinds of database, with transactions that begin as the archive needs them.

Drivers are told to begin no transaction by themselves. A connection's execution option `BEGIN` says with which
statements its transactions begin.
"""

import asyncio
import functools
import os
import socket
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from psycopg.types.array import ListBinaryDumper
from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from conversation_actors.archive.address import FIELD, Address, Driver
from conversation_actors.errors import InvalidInputError

BEGIN = "archive_begin"
"""The execution option with the statements that begin a transaction."""

_CONNECTIONS = {Driver.SQLITE: 4, Driver.POSTGRESQL: 8}
_PRAGMAS = ("PRAGMA foreign_keys = ON", "PRAGMA secure_delete = ON", "PRAGMA synchronous = FULL")
"""Rows go with their lives; what was deleted is overwritten; a commit is on the disk, as Redis then forgets."""


def beginnings(driver: Driver) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what begins a transaction that reads, and one that writes."""
    if driver is Driver.SQLITE:
        return ("BEGIN",), ("BEGIN IMMEDIATE",)
    return ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",), ("BEGIN ISOLATION LEVEL READ COMMITTED",)


def make_engine(
    address: Address, *, timeout: timedelta, statements: timedelta | None = None, creates: bool = False
) -> AsyncEngine:
    """Make an engine; nothing connects yet. With `creates` an SQLite file that is not there is made, for this user.

    `statements` bounds each statement, with its wait for locks, if that is to be another time than all the others.
    """
    seconds, longest = timeout.total_seconds(), statements or timeout
    if address.driver is Driver.SQLITE:
        url = _sqlite_url(address.path, creates=creates)
        arguments: dict[str, Any] = {"timeout": longest.total_seconds(), "isolation_level": None}
    else:
        url = _postgresql_url(address)
        arguments = {"autocommit": True, "connect_timeout": max(2, round(seconds))}
        if "application_name" not in url.query:
            arguments["application_name"] = "conversation-actors"
    engine = create_async_engine(
        url,
        connect_args=arguments,
        pool_size=_CONNECTIONS[address.driver],
        max_overflow=0,
        pool_timeout=seconds,
        hide_parameters=True,
    )
    event.listen(engine.sync_engine, "begin", _begin)
    first = _PRAGMAS if address.driver is Driver.SQLITE else _limits(timeout, statements=longest)
    event.listen(engine.sync_engine, "connect", functools.partial(_execute, first))
    if address.driver is Driver.POSTGRESQL:
        event.listen(engine.sync_engine, "connect", _send_arrays_in_binary)
    else:
        event.listen(engine.sync_engine, "do_connect", _open_once)
    return engine


async def cutter(connection: AsyncConnection, driver: Driver) -> Callable[[], None]:
    """Return a function that ends whatever the connection waits for, at once, also if the server hangs.

    Cancelling a task that waits for PostgreSQL is not enough: the driver first asks the server to cancel too.
    """
    raw = (await connection.get_raw_connection()).driver_connection
    assert raw is not None
    if driver is Driver.SQLITE:
        return lambda: _interrupt(raw)
    return lambda: _shut_down(raw)


def _interrupt(raw: Any) -> None:
    with suppress(ValueError, sqlite3.ProgrammingError):  # closed already
        asyncio.ensure_future(raw.interrupt()).add_done_callback(lambda done: done.exception())


def _shut_down(raw: Any) -> None:
    if raw.closed:
        return
    with socket.socket(fileno=os.dup(raw.fileno())) as twin, suppress(OSError):
        twin.shutdown(socket.SHUT_RDWR)


def _begin(connection: Connection) -> None:
    for statement in connection.get_execution_options()[BEGIN]:
        connection.exec_driver_sql(statement)


def _limits(timeout: timedelta, *, statements: timedelta) -> tuple[str, ...]:
    """Return what makes the server give up by itself; a process that hangs keeps nobody waiting for ever.

    And what makes a commit last: as it is settled, Redis forgets what is in it.
    """
    milliseconds, longest = (max(1, round(one.total_seconds() * 1000)) for one in (timeout, statements))
    return (
        f"SET statement_timeout = {longest}",
        f"SET idle_in_transaction_session_timeout = {milliseconds * 2}",
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
    )


def _execute(statements: Sequence[str], connection: Any, _: object) -> None:
    cursor = connection.cursor()
    for statement in statements:
        cursor.execute(statement)
    cursor.close()


def _open_once(_dialect: object, _record: object, arguments: Sequence[Any], named: Mapping[str, Any]) -> None:
    """Raise what opening the file raises, before aiosqlite does.

    Where it cannot connect, its thread outlives the error, and fails with a traceback if the event loop ends before.
    """
    sqlite3.connect(arguments[0], timeout=named["timeout"], uri=True).close()


def _send_arrays_in_binary(connection: Any, _: object) -> None:
    """Send lists as they are: as text, each of their values would be searched for what is to be quoted in it."""
    connection.driver_connection.adapters.register_dumper(list, ListBinaryDumper)


def _sqlite_url(path: str, *, creates: bool) -> URL:
    mode = "rwc" if creates else "rw"
    return URL.create(
        Driver.SQLITE, database=f"file:{quote(str(Path(path).absolute()))}", query={"mode": mode, "uri": "true"}
    )


def _postgresql_url(address: Address) -> URL:
    try:
        return make_url(address.url)
    except (ArgumentError, ValueError):
        message = f"{FIELD}: cannot be read; in a user name or password write @ as %40, : as %3A, / as %2F"
        raise InvalidInputError(message, field=FIELD) from None
