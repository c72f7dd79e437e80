"""The whole history of a conversation, for a client: what is archived, and what still waits for the archive."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from conversation_actors.archive.cursor import Cursor
from conversation_actors.archive.overlay import Found, Placed, Position, Wanted, page_of
from conversation_actors.archive.waiting import WaitingEntries, beside, entries_waiting
from conversation_actors.client.archive import ClientArchive
from conversation_actors.client.patience import patiently
from conversation_actors.client.views import Page, Snapshot, snapshot_of
from conversation_actors.errors import (
    ArchiveMisconfiguredError,
    ArchiveUnavailableError,
    ConflictError,
    ConversationNotFoundError,
    CorruptStateError,
)
from conversation_actors.items import Item
from conversation_actors.settings import Settings
from conversation_actors.store import Store
from conversation_actors.store.backlog import Batch, Lag
from conversation_actors.timing import TIMING, Timing
from conversation_actors.values import check_id, refuse

if TYPE_CHECKING:
    from conversation_actors.archive.reader import ArchiveReader
    from conversation_actors.archive.reviving import Asleep

MAX_PAGE = 1000
"""Items of a page at most."""


class Histories:
    """Reads what a client's store and its archive have together. Closes neither."""

    def __init__(
        self, archive: ClientArchive, store: Callable[[], Store], settings: Settings, *, timing: Timing = TIMING
    ) -> None:
        """Do nothing yet. `store` returns the client's store, or refuses."""
        self._archive, self._store, self._settings, self._timing = archive, store, settings, timing
        self._patience = settings.timeouts.command.total_seconds()

    async def page(
        self, conversation_id: str, life: str, *, cursor: object, limit: object, newest_first: object
    ) -> Page:
        """See `ConversationHandle.history`; `life` is the one that the handle shows."""
        wanted = _wanted(life, cursor=cursor, limit=limit, newest_first=newest_first)
        self._require()
        stored = (await self._peek(conversation_id)).stored
        waiting = await beside(stored, entries_waiting, stored, life)
        if waiting.is_deleted:
            raise _not_found(conversation_id)
        found = await self._find(conversation_id, life, waiting, wanted)
        last = Cursor(life, found.placed[-1].position, wanted.newest_first) if found.has_more else None
        items = tuple(_item(conversation_id, placed) for placed in found.placed)
        return Page(items, None if last is None else last.encode())

    async def lag(self, conversation_id: str | None) -> Lag:
        """See `ConversationClient.archive_lag`."""
        if conversation_id is not None:
            conversation_id = check_id(conversation_id, "conversation_id")
        self._require()
        return await patiently(
            lambda: self._store().backlog().lag(conversation_id), seconds=self._patience, pauses=self._timing.read
        )

    async def snapshot(self, conversation_id: str) -> Snapshot:
        """Return a conversation that Redis has no more. Raises `ConversationNotFoundError`, also without an archive."""
        if not self._archive.is_configured:
            raise _not_found(conversation_id)
        waiting = await self._peek(conversation_id)
        database = await self._archive.database()
        state_of = import_module("conversation_actors.archive.reviving").state_of  # imported with the database
        tenant, limits = self._settings.tenant, self._settings.history.limits()
        asleep: Asleep | None = await state_of(database, tenant, conversation_id, limits=limits, waiting=waiting)
        if asleep is None:
            raise _not_found(conversation_id)
        return snapshot_of(conversation_id, asleep.state, epoch=asleep.epoch)

    async def _find(self, conversation_id: str, life: str, waiting: WaitingEntries, wanted: Wanted) -> Found:
        """Read a page. `waiting` was read before: what is archived meanwhile is then in both, and not in neither."""
        try:
            database = await self._archive.database()
            reading = import_module("conversation_actors.archive.reader")  # imported with the database
            reader: ArchiveReader = reading.ArchiveReader(database, self._settings.tenant)
            return await reader.page(conversation_id, life, waiting, wanted)
        except ArchiveUnavailableError:
            if not waiting.is_whole:
                raise
            return page_of(waiting.entries, wanted)

    async def _peek(self, conversation_id: str) -> Batch:
        return await patiently(
            lambda: self._store().backlog().peek(conversation_id), seconds=self._patience, pauses=self._timing.read
        )

    def _require(self) -> None:
        if not self._archive.is_configured:
            raise no_archive()


def no_archive() -> ArchiveMisconfiguredError:
    """Return the error for whoever asks an archive, and none is configured."""
    message = "no archive is configured: set CONVERSATION_ARCHIVE_URL, and run `conversation-actors archive`"
    return ArchiveMisconfiguredError(message)


def _wanted(life: str, *, cursor: object, limit: object, newest_first: object) -> Wanted:
    """Check which page a caller wants. Raises `ConflictError` for a cursor of another life."""
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_PAGE:
        refuse("limit", f"expected a whole number from 1 to {MAX_PAGE}, got {limit!r}")
    if not isinstance(newest_first, bool):
        refuse("newest_first", f"expected True or False, got {newest_first!r}")
    return Wanted(_position(cursor, life, newest_first=newest_first), int(limit), newest_first)


def _position(given: object, life: str, *, newest_first: bool) -> Position | None:
    if given is None:
        return None
    cursor = Cursor.decode(given)
    if cursor.life != life:
        message = "cursor: of another conversation, or from before this one was deleted or lost; begin without a cursor"
        raise ConflictError(message)
    if cursor.newest_first != newest_first:
        refuse("cursor", f"its pages follow with newest_first={cursor.newest_first}")
    return cursor.position


def _item(conversation_id: str, placed: Placed) -> Item:
    key = f"archive_items[{conversation_id!r}, {placed.item.id!r}]"
    try:
        item = placed.item.to_item()
    except (ValueError, TypeError) as error:
        message = f"{key}: {error}"
        raise CorruptStateError(message, key=key, position=0) from error
    if getattr(item, "id", None) != placed.item.id:
        message = f"{key}: holds another item"
        raise CorruptStateError(message, key=key, position=0)
    return item


def _not_found(conversation_id: str) -> ConversationNotFoundError:
    return ConversationNotFoundError(f"no conversation {conversation_id!r}")
