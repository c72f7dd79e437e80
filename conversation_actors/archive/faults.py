"""What an error of a database means to whoever asked: to try again later, or that a person has to look into it."""

import sqlite3
from dataclasses import dataclass

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from conversation_actors.archive.address import Address
from conversation_actors.errors import ArchiveMisconfiguredError, ArchiveUnavailableError, ConversationError

MIGRATE = "run `conversation-actors archive migrate`"

_PASSING_CLASSES = ("08", "40", "53", "55", "57", "58")
"""Classes of SQLSTATE that pass: connections, conflicts of transactions, resources, locks, the operator, the disk."""
_PASSING = frozenset({"25006", "25P03", "25P04"})
"""Single ones: a server that is read-only (a standby, before it takes over), and transactions that took too long."""
_NAMED_CLASSES = ("25", "28", "3D", "3F", "42", "53", "57")
"""Classes whose messages name nothing but users, databases and tables, and no values."""
_REFUSED_AT_THE_DOOR = (
    "authentication failed",
    "does not exist",
    "no pg_hba.conf entry",
    "permission denied",
    "no password supplied",
    "not permitted to log in",
    "is not currently accepting connections",
    "invalid connection option",
    "certificate",
    "server does not support SSL",
)
"""What a server says before it gives any SQLSTATE, if waiting does not help. Anything else may pass."""

_SQLITE_PASSING = {
    sqlite3.SQLITE_BUSY: "is locked by somebody else",
    sqlite3.SQLITE_LOCKED: "is locked by somebody else",
    sqlite3.SQLITE_FULL: "has no room: the disk is full",
    sqlite3.SQLITE_IOERR: "cannot be read or written: the disk failed",
    sqlite3.SQLITE_READONLY: "is read-only",
    sqlite3.SQLITE_NOMEM: "has no memory",
    sqlite3.SQLITE_INTERRUPT: "was interrupted",
    sqlite3.SQLITE_PROTOCOL: "is locked by somebody else",
}
_SQLITE_LASTING = {
    sqlite3.SQLITE_CANTOPEN: f"cannot be opened: the file is not there, or may not be used; {MIGRATE}",
    sqlite3.SQLITE_PERM: "does not allow this",
    sqlite3.SQLITE_AUTH: "does not allow this",
    sqlite3.SQLITE_NOTADB: "is a file, but not of SQLite",
    sqlite3.SQLITE_CORRUPT: "is damaged",
}


@dataclass(frozen=True, slots=True)
class _Finding:
    passes: bool
    what: str


def translated(error: BaseException, *, doing: str, address: Address) -> ConversationError:
    """Return what to raise for an error of the database or its driver: one sentence, with no secret and no value.

    `ArchiveUnavailableError` if it may pass, `ArchiveMisconfiguredError` if not.
    """
    found = _finding(error)
    message = f"{doing}: the archive at {address.shown} {found.what}"
    return ArchiveUnavailableError(message) if found.passes else ArchiveMisconfiguredError(message)


def _finding(error: BaseException) -> _Finding:
    cause = error.driver_exception if isinstance(error, DBAPIError) else error
    if isinstance(cause, psycopg.Error):
        return _of_postgresql(cause)
    if isinstance(cause, sqlite3.Error):
        return _of_sqlite(cause)
    if isinstance(cause, TimeoutError | PoolTimeoutError):
        return _Finding(True, "did not answer in time")
    if isinstance(cause, OSError):
        return _Finding(True, f"cannot be reached: {cause.strerror or type(cause).__name__}")
    return _Finding(True, f"failed: {type(cause).__name__}")


def _of_postgresql(error: psycopg.Error) -> _Finding:
    state = error.sqlstate
    if state is None:
        return _at_the_door(error)
    said = f": {error.diag.message_primary}" if state.startswith(_NAMED_CLASSES) else ""
    table = f" at table {error.diag.table_name}" if error.diag.table_name else ""
    if state in _PASSING or state.startswith(_PASSING_CLASSES):
        return _Finding(True, f"refuses this for now{table} ({state}{said})")
    hint = f"; {MIGRATE}" if state == "42P01" else ""
    return _Finding(False, f"does not allow this{table} ({state}{said}){hint}")


def _at_the_door(error: psycopg.Error) -> _Finding:
    """Judge what ended a connection, or did not let one begin: there is only text, and it may name the user."""
    text = str(error)
    known = next((words for words in _REFUSED_AT_THE_DOOR if words in text), None)
    if known is not None:
        return _Finding(False, f"does not let this process in: {known}")
    return _Finding(True, "cannot be reached, or broke off")


def _of_sqlite(error: sqlite3.Error) -> _Finding:
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if code is not None else None
    if primary in _SQLITE_PASSING:
        return _Finding(True, _SQLITE_PASSING[primary])
    if primary in _SQLITE_LASTING:
        return _Finding(False, _SQLITE_LASTING[primary])
    if "no such table" in str(error):
        return _Finding(False, f"lacks a table ({error}); {MIGRATE}")
    if primary is None and "closed" in str(error):
        return _Finding(True, "broke off")
    return _Finding(False, f"cannot do this ({getattr(error, 'sqlite_errorname', type(error).__name__)})")
