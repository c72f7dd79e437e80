"""What is done to PostgreSQL, and what an archiver is doing in it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import psycopg

from tests.support.postgres import PostgresServer
from tests.support.waiting import wait_until

TABLES = ("archive_lives", "archive_entries", "archive_items")
"""What every transaction of an archiver writes to, one statement after the other."""
_WAITS = """
SELECT pid FROM pg_locks WHERE NOT granted AND relation = %s::regclass
"""


class HurtPostgres:
    """One server with one database, by connections of the test's own."""

    def __init__(self, server: PostgresServer) -> None:
        """Hurt this one, which runs."""
        self._server = server

    async def restart(self) -> None:
        """Kill all of the server's processes and start it again: it recovers from its log."""
        await asyncio.to_thread(self._server.kill)
        await asyncio.to_thread(self._server.start)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Hang all of its processes."""
        self._server.pause()
        try:
            yield
        finally:
            self._server.resume()

    async def set_read_only(self, *, is_read_only: bool) -> None:
        """Have every transaction from now on refuse to write, or to write again."""
        async with await self._connect() as connection:
            value = "on" if is_read_only else "off"
            await connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
            await connection.execute("SELECT pg_reload_conf()")

    async def end_backends(self) -> None:
        """Close every other connection, in whatever statement it is."""
        async with await self._connect() as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )

    @asynccontextmanager
    async def held(self, table: str, seconds: float, *, mode: str = "ACCESS EXCLUSIVE") -> AsyncIterator[bool]:
        """Lock a table, and wait so long for a statement of an archiver that waits for it; tell whether one does.

        The statement goes on when the block ends. In the `mode` ``EXCLUSIVE`` none waits that only reads.
        """
        connection = await self._connect()
        try:
            async with connection.transaction():
                await connection.execute(f"LOCK TABLE {table} IN {mode} MODE")
                yield await self._is_waited_for(connection, table, seconds)
        except psycopg.OperationalError:  # the block has ended this connection too
            pass
        finally:
            with suppress(psycopg.Error):
                await connection.close()

    async def _is_waited_for(self, connection: psycopg.AsyncConnection, table: str, seconds: float) -> bool:
        async def waits() -> object:
            return await (await connection.execute(_WAITS, [table])).fetchone()

        try:
            await wait_until(waits, "a statement to wait", patience=seconds)
        except TimeoutError:
            return False
        return True

    async def _connect(self) -> psycopg.AsyncConnection:
        return await psycopg.AsyncConnection.connect(self._server.url().replace("+psycopg", ""), autocommit=True)
