"""A client's way to the archive: its database is connected to when it is first needed, its library imported then."""

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING

from conversation_actors.errors import ArchiveMisconfiguredError
from conversation_actors.settings import Settings

if TYPE_CHECKING:
    from conversation_actors.archive.database import Database


class ClientArchive:
    """The archive of one client. Belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        """Connect to nothing yet."""
        self._settings = settings
        self._database: Database | None = None
        self._connecting = asyncio.Lock()

    @property
    def is_configured(self) -> bool:
        """Whether there is an archive at all."""
        return self._settings.archive.url is not None

    async def database(self) -> "Database":
        """Return the database, whose tables were checked once.

        Raises `ArchiveMisconfiguredError` if no archive is configured, the extra ``archive`` is not installed, or the
        tables are not there; `IncompatibleVersionError` if they are newer; `ArchiveUnavailableError`.
        """
        async with self._connecting:
            if self._database is None:
                self._database = await self._connect()
            return self._database

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        database, self._database = self._database, None
        if database is not None:
            await database.aclose()

    async def _connect(self) -> "Database":
        try:
            # SQLAlchemy takes a third of a second to import, which a client without an archive should not.
            module = await asyncio.to_thread(import_module, "conversation_actors.archive.database")
        except ModuleNotFoundError as error:
            message = f"the archive needs {error.name}: pip install 'conversation-actors[archive]'"
            raise ArchiveMisconfiguredError(message) from error
        database: Database = module.Database.of(self._settings)
        try:
            await database.check()
        except BaseException:
            await database.aclose()
            raise
        return database
