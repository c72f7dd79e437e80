"""A client's way to the archive: its database is connected to when it is first needed, its library imported then."""

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING

from conversation_actors.archive.extra import REMEDY
from conversation_actors.errors import ArchiveMisconfiguredError, ArchiveUnavailableError
from conversation_actors.settings import Settings

if TYPE_CHECKING:
    from conversation_actors.archive.database import Database


class ClientArchive:
    """The archive of one client. Belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        """Connect to nothing yet."""
        self._settings = settings
        self._connecting: asyncio.Task[Database] | None = None

    @property
    def is_configured(self) -> bool:
        """Whether there is an archive at all."""
        return self._settings.archive.url is not None

    async def database(self) -> "Database":
        """Return the database, whose tables were checked once.

        Raises `ArchiveMisconfiguredError` if no archive is configured, the extra ``archive`` is not installed, or the
        tables are not there; `IncompatibleVersionError` if they are newer; `ArchiveUnavailableError`.
        """
        connecting = self._connecting
        if connecting is None or (connecting.done() and (connecting.cancelled() or connecting.exception())):
            connecting = self._connecting = asyncio.create_task(self._connect())
            connecting.add_done_callback(lambda done: done.cancelled() or done.exception())
        if not connecting.done():
            await asyncio.wait({connecting})  # others may wait for it too: it is not cancelled with this task
        if connecting.cancelled():
            message = "the client was closed before its archive had answered"
            raise ArchiveUnavailableError(message)
        return connecting.result()

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        connecting, self._connecting = self._connecting, None
        if connecting is None:
            return
        connecting.cancel()
        await asyncio.wait({connecting})
        if not connecting.cancelled() and connecting.exception() is None:
            await connecting.result().aclose()

    async def _connect(self) -> "Database":
        try:
            # SQLAlchemy takes a third of a second to import, which a client without an archive should not.
            module = await asyncio.to_thread(import_module, "conversation_actors.archive.database")
        except ModuleNotFoundError as error:
            message = f"the archive needs {error.name}: {REMEDY}"
            raise ArchiveMisconfiguredError(message) from error
        database: Database = module.Database.of(self._settings)
        try:
            await database.check()
        except BaseException:
            await database.aclose()
            raise
        return database
