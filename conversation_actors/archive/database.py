"""The archive's database: connections, transactions, the version of its tables, and its errors as ours."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Self

import psycopg
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from conversation_actors.archive import migrations
from conversation_actors.archive.address import Address, Driver, parse
from conversation_actors.archive.engine import BEGIN, beginnings, cutter, make_engine
from conversation_actors.archive.faults import MIGRATE, translated
from conversation_actors.archive.tables import REVISION, REVISIONS, VERSION_TABLE
from conversation_actors.errors import ArchiveMisconfiguredError, ConversationError, IncompatibleVersionError
from conversation_actors.settings import Settings

_DRIVER_ERRORS = (DBAPIError, PoolTimeoutError, psycopg.Error, sqlite3.Error, OSError, TimeoutError)
_GRACE = 1.0
"""Seconds between cutting a connection and cancelling who waits for it; then who waits has an error already."""
_MIGRATING = timedelta(hours=6)
"""How long a migration may take, and each of its statements: one may write every row of a very large table anew."""
_REACHING = timedelta(minutes=10)
"""How long whoever migrates tries to connect; half of the time that a process which hangs may hold the tables."""


class Database:
    """The database that `url` names. Making one does no I/O; `repr` shows no secret.

    Every method raises `ArchiveUnavailableError` if the database does not answer within `timeout` or refuses for now,
    and `ArchiveMisconfiguredError` if a person has to change something.
    """

    def __init__(self, url: SecretStr, *, timeout: timedelta) -> None:
        """Raise `InvalidInputError` for a URL that is none. `timeout` bounds each block, and each statement in it."""
        self.address: Address = parse(url.get_secret_value())
        self.timeout = timeout
        self._reads, self._writes = beginnings(self.address.driver)
        self._made: AsyncEngine | None = None
        # Writers of one process take turns here: SQLite itself would let them wait by sleeping.
        self._turn = asyncio.Semaphore(1 if self.address.driver is Driver.SQLITE else 1000)

    @classmethod
    def of(cls, settings: Settings, *, timeout: timedelta | None = None) -> Self:
        """Return the database that the settings name, with their timeout unless another one is given."""
        if settings.archive.url is None:
            message = (
                "no archive is configured: set CONVERSATION_ARCHIVE_URL, or Settings(archive=ArchiveSettings(url=…))"
            )
            raise ArchiveMisconfiguredError(message)
        return cls(settings.archive.url, timeout=timeout or settings.archive.timeout)

    def __repr__(self) -> str:
        """Name the database, without password."""
        return f"Database({self.address.shown!r})"

    async def check(self) -> None:
        """Raise unless the tables are there, of this version.

        `ArchiveMisconfiguredError` says to migrate, if the tables are missing or older; a newer schema is an
        `IncompatibleVersionError`.
        """
        async with self.reading("checking the archive's tables") as connection:
            found = (await connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}"))).scalar()  # noqa: S608
        if found == REVISION:
            return
        if found is None or found in REVISIONS:
            message = f"the tables of the archive at {self.address.shown} are of an older version: {MIGRATE}"
            raise ArchiveMisconfiguredError(message)
        message = (
            f"the tables of the archive at {self.address.shown} are of version {found}, which is newer than this"
            f" program's ({REVISION})"
        )
        raise IncompatibleVersionError(message)

    async def migrate(self) -> str:
        """Bring the tables to this version, and return it. Several may do so at once; a newer schema is refused."""
        doing = "migrating the archive"
        engine = self._engine_to_migrate(doing)
        try:
            if self.address.driver is Driver.SQLITE:
                await self._prepare_file(engine, doing)
            async with self._block(engine, doing, self._writes, _MIGRATING) as connection:
                await connection.run_sync(migrations.upgrade)
        finally:
            await engine.dispose()
        return REVISION

    def reading(self, doing: str) -> AbstractAsyncContextManager[AsyncConnection]:
        """Return a transaction that reads, of one moment. `doing` begins the sentence of an error."""
        return self._block(self._engine, doing, self._reads, self.timeout)

    @asynccontextmanager
    async def writing(self, doing: str) -> AsyncIterator[AsyncConnection]:
        """Return a transaction that writes: it is committed at the end of the block, or has not happened."""
        try:
            # not wait_for: up to Python 3.11 it loses a cancellation that comes together with the turn
            async with asyncio.timeout(self.timeout.total_seconds()):
                await self._turn.acquire()
        except TimeoutError as error:
            raise translated(error, doing=doing, address=self.address) from None
        try:
            async with self._block(self._engine, doing, self._writes, self.timeout) as connection:
                yield connection
        finally:
            self._turn.release()

    async def aclose(self) -> None:
        """Close connections. Idempotent."""
        made, self._made = self._made, None
        if made is not None:
            await made.dispose()

    @property
    def _engine(self) -> AsyncEngine:
        if self._made is None:
            self._made = make_engine(self.address, timeout=self.timeout)
        return self._made

    def _engine_to_migrate(self, doing: str) -> AsyncEngine:
        if self.address.driver is Driver.SQLITE:
            try:
                Path(self.address.path).touch(mode=0o600)  # what people said is for this user alone
            except FileNotFoundError:
                message = f"{doing}: the archive at {self.address.shown} cannot be made: there is no such directory"
                raise ArchiveMisconfiguredError(message) from None
            except PermissionError:
                message = f"{doing}: the archive at {self.address.shown} cannot be made: this user may not write there"
                raise ArchiveMisconfiguredError(message) from None
            except OSError as error:
                raise translated(error, doing=doing, address=self.address) from None
        return make_engine(self.address, timeout=_REACHING, statements=_MIGRATING, creates=True)

    async def _prepare_file(self, engine: AsyncEngine, doing: str) -> None:
        """Let readers of an SQLite file go on while somebody writes."""
        async with self._block(engine, doing, (), _MIGRATING) as connection:
            await connection.exec_driver_sql("PRAGMA journal_mode = WAL")

    @asynccontextmanager
    async def _block(
        self, engine: AsyncEngine, doing: str, begin: Sequence[str], most: timedelta
    ) -> AsyncIterator[AsyncConnection]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + most.total_seconds()
        try:
            async with asyncio.timeout_at(deadline) as limit:
                async with self._begun(engine, begin, limit, deadline) as connection:
                    yield connection
        except ConversationError:
            raise
        except _DRIVER_ERRORS as error:
            raise translated(error, doing=doing, address=self.address) from None

    @asynccontextmanager
    async def _begun(
        self, engine: AsyncEngine, begin: Sequence[str], limit: asyncio.Timeout, deadline: float
    ) -> AsyncIterator[AsyncConnection]:
        """Connect and begin; once more if the connection was one of a server that was restarted since."""
        loop = asyncio.get_running_loop()
        for attempt in (1, 2):
            async with engine.connect() as connection:
                await connection.execution_options(**{BEGIN: begin})
                cut = loop.call_at(deadline, _end, await cutter(connection, self.address.driver), limit)
                limit.reschedule(None)
                try:
                    try:
                        transaction = await connection.begin()
                    except DBAPIError as error:
                        if attempt == 1 and error.connection_invalidated:
                            continue
                        raise
                    try:
                        yield connection
                    except BaseException:
                        with suppress(*_DRIVER_ERRORS):  # the first error says what happened
                            await transaction.rollback()
                        raise
                    await transaction.commit()
                    return
                finally:
                    cut.cancel()


def _end(cut: Callable[[], None], limit: asyncio.Timeout) -> None:
    """Cut a connection, and cancel who waits for anything else than that."""
    cut()
    limit.reschedule(asyncio.get_running_loop().time() + _GRACE)
