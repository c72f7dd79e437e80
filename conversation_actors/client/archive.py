"""The archive, as a client reaches it: its database is opened when something of it is first needed."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from conversation_actors.archive.cursor import Cursor
from conversation_actors.archive.overlay import Placed, Position
from conversation_actors.archive.waiting import WaitingEntries, entries_waiting
from conversation_actors.client.patience import patiently
from conversation_actors.client.views import Page
from conversation_actors.errors import (
    ArchiveMisconfiguredError,
    ArchiveUnavailableError,
    ConflictError,
    CorruptStateError,
)
from conversation_actors.items import Item
from conversation_actors.settings import Settings
from conversation_actors.store import Store
from conversation_actors.store.backlog import Lag
from conversation_actors.store.keys import Keys
from conversation_actors.timing import TIMING, Timing
from conversation_actors.values import check_id, refuse

if TYPE_CHECKING:
    from conversation_actors.archive.database import Database
    from conversation_actors.archive.reader import ArchiveReader

logger = logging.getLogger(__name__)

MAX_PAGE = 1000
"""Items of a page at most."""

_EXTRA = {"sqlalchemy", "alembic", "aiosqlite", "psycopg", "greenlet"}
"""What comes with the extra ``archive``."""


@dataclass(frozen=True, slots=True)
class OpenArchive:
    """A database, which was not asked for anything yet, and what reads it."""

    database: "Database"
    reader: "ArchiveReader"


class ClientArchive:
    """What a client does with the archive that its settings name, if they name one. Belongs to one event loop."""

    def __init__(self, settings: Settings, store: Callable[[], Store], *, timing: Timing = TIMING) -> None:
        """Connect to nothing yet. `store` returns the client's store, or refuses."""
        self._settings, self._store, self._timing = settings, store, timing
        self._patience = settings.timeouts.command.total_seconds()
        self._keys = Keys(settings.tenant)
        self._opened: OpenArchive | None = None
        self._opening = asyncio.Lock()

    @property
    def is_configured(self) -> bool:
        """Whether the settings name an archive."""
        return self._settings.archive.url is not None

    async def history(
        self, conversation_id: str, life: str, *, cursor: str | None, limit: int, newest_first: bool
    ) -> Page:
        """See `ConversationHandle.history`; `life` is the one that the handle shows."""
        _check_page(limit, newest_first=newest_first)
        after = None if cursor is None else _position(cursor, life, newest_first=newest_first)
        reader = (await self.open()).reader
        waiting = await self._waiting(conversation_id, life)  # first: what is archived meanwhile is then in both
        found, has_more = await reader.page(
            conversation_id, life, waiting, after=after, limit=limit, newest_first=newest_first
        )
        following = Cursor(life, found[-1].position, newest_first).encode() if has_more else None
        return Page(tuple(_item(conversation_id, placed) for placed in found), following)

    async def lag(self, conversation_id: str | None) -> Lag:
        """See `ConversationClient.archive_lag`. Asks the store alone."""
        self._require()
        if conversation_id is not None:
            conversation_id = check_id(conversation_id, "conversation_id")
        return await patiently(
            lambda: self._store().backlog().lag(conversation_id), seconds=self._patience, pauses=self._timing.read
        )

    async def delete(self, conversation_id: str, *, is_told: bool) -> bool:
        """Forget a conversation in the archive, if there is one; return whether it had anything.

        If `is_told`, the backlog has the deletion: then the archiver will forget it, and an archive that cannot be
        written now is no error.
        """
        if not self.is_configured:
            return False
        try:
            opened = await self.open()
            await opened.reader.check()
            writer = (await _imported("conversation_actors.archive.writer")).Writer
            return bool(await writer(opened.database, self._settings.tenant).delete(conversation_id))
        except (ArchiveUnavailableError, ArchiveMisconfiguredError) as error:
            if not is_told:
                raise
            logger.warning("the archive forgets a conversation later", extra={"reason": str(error)})
            return False

    async def open(self) -> OpenArchive:
        """Return the database, and what reads it. Raises `ArchiveMisconfiguredError` if there is none, or no driver."""
        self._require()
        async with self._opening:
            if self._opened is None:
                self._opened = await self._open()
            return self._opened

    async def aclose(self) -> None:
        """Close the database. Idempotent."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.database.aclose()

    async def _open(self) -> OpenArchive:
        database: Database = (await _imported("conversation_actors.archive.database")).Database.of(self._settings)
        reader = (await _imported("conversation_actors.archive.reader")).ArchiveReader(database, self._settings.tenant)
        return OpenArchive(database, reader)

    async def _waiting(self, conversation_id: str, life: str) -> WaitingEntries:
        batch = await patiently(
            lambda: self._store().backlog().peek(conversation_id), seconds=self._patience, pauses=self._timing.read
        )
        return entries_waiting(batch.stored, life, key=self._keys.conversation(conversation_id).backlog)

    def _require(self) -> None:
        self._store()  # refuses if the client was not entered, or is closed
        if not self.is_configured:
            raise no_archive()


def no_archive() -> ArchiveMisconfiguredError:
    """Return the error for whoever asks an archive, and none is configured."""
    message = "no archive is configured: set CONVERSATION_ARCHIVE_URL, and run `conversation-actors archive`"
    return ArchiveMisconfiguredError(message)


async def _imported(name: str) -> Any:
    """Import a module of the archive, in a thread: SQLAlchemy takes 0.3 s."""
    try:
        return await asyncio.to_thread(import_module, name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _EXTRA:
            raise
        message = f"the archive needs {error.name}: pip install 'conversation-actors[archive]'"
        raise ArchiveMisconfiguredError(message) from error


def _check_page(limit: object, *, newest_first: object) -> None:
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_PAGE:
        refuse("limit", f"expected a whole number from 1 to {MAX_PAGE}, got {limit!r}")
    if not isinstance(newest_first, bool):
        refuse("newest_first", f"expected True or False, got {newest_first!r}")


def _position(given: str, life: str, *, newest_first: bool) -> Position:
    """Return the position that a cursor names. Raises `ConflictError` if it is one of another life."""
    cursor = Cursor.decode(given)
    if cursor.life != life:
        message = "cursor: of another conversation, or from before this one was deleted or lost; begin without a cursor"
        raise ConflictError(message)
    if cursor.newest_first != newest_first:
        refuse("cursor", f"its pages follow with newest_first={cursor.newest_first}")
    return cursor.position


def _item(conversation_id: str, placed: Placed) -> Item:
    try:
        return placed.item.to_item()
    except (ValueError, TypeError) as error:
        key = f"archive_items[{conversation_id!r}, {placed.item.id!r}]"
        message = f"{key}: {error}"
        raise CorruptStateError(message, key=key, position=0) from error
