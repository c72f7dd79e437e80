"""Deleting in the archive what a client deletes in Redis; a conversation that began anew meanwhile is not touched."""

import logging
from collections.abc import Collection
from importlib import import_module
from typing import TYPE_CHECKING

from conversation_actors.client.archive import ClientArchive
from conversation_actors.errors import (
    ArchiveMisconfiguredError,
    ArchiveUnavailableError,
    ConversationError,
    ConversationNotFoundError,
    IncompatibleVersionError,
    StoreUnavailableError,
)
from conversation_actors.store import Store

if TYPE_CHECKING:
    from conversation_actors.archive.writer import Writer

_LIVES = 50
"""The newest lives: an earlier one ended before."""
logger = logging.getLogger(__name__)


class Forgetting:
    """Deletes conversations of one tenant in the archive of a client, after they were deleted in its store."""

    def __init__(self, archive: ClientArchive, store: Store, tenant: str) -> None:
        """Take what is needed; nothing is closed here."""
        self._archive, self._store, self._tenant = archive, store, tenant

    async def lives(self, conversation_id: str) -> Collection[str]:
        """Return the lives of a conversation that is about to be deleted, or was: as far as anybody can tell now."""
        found: dict[str, None] = {}
        try:
            if self._archive.is_configured:
                writer = await self._writer()
                found |= dict.fromkeys((await writer.lives(conversation_id, with_deleted=True))[-_LIVES:])
        except (ArchiveUnavailableError, ArchiveMisconfiguredError, IncompatibleVersionError) as error:
            logger.info("the archive is not asked which lives are deleted", extra={"reason": str(error)})
        try:
            stored = await self._life(conversation_id)
        except ConversationError as error:  # what cannot be read can be deleted all the same
            logger.info("the store cannot tell which life is deleted", extra={"reason": str(error)})
        else:
            found |= {stored: None} if stored else {}
        return list(found)

    async def forget(self, conversation_id: str, *, is_told: bool) -> bool:
        """Forget a conversation in the archive, if one is configured; return whether it had anything.

        If `is_told`, the deletion waits in the backlog: it is taken from there now, and if that fails, an archiver
        takes it later. Else only the archive may have the conversation. Raises `ArchiveUnavailableError` then, and what
        else keeps a client from using the archive.
        """
        if not self._archive.is_configured:
            return False
        if not is_told:
            return await self._forget_archived(conversation_id)
        try:
            await self._forget_told(conversation_id)
        except (
            ArchiveUnavailableError,
            ArchiveMisconfiguredError,
            IncompatibleVersionError,
            StoreUnavailableError,
        ) as error:
            logger.warning("an archiver has to delete a conversation in the archive", extra={"reason": str(error)})
        return True

    async def _forget_told(self, conversation_id: str) -> None:
        """Archive what waits, as an archiver would: the deletion, and whatever came after it."""
        writer = await self._writer()
        backlog = self._store.backlog()
        batch = await backlog.peek(conversation_id)
        if not batch.stored:
            return  # an archiver was quicker
        await writer.write(conversation_id, batch.stored)
        await backlog.settle(conversation_id, backlog=batch.backlog, through=batch.through)

    async def _forget_archived(self, conversation_id: str) -> bool:
        """Delete the lives that the archive has, except one that somebody has begun in the meantime."""
        writer = await self._writer()
        found = await writer.lives(conversation_id)
        begun = await self._life(conversation_id)
        old = [life for life in found if life != begun]
        return bool(old) and await writer.delete(conversation_id, only=old) > 0

    async def _life(self, conversation_id: str) -> str | None:
        """Return the life that the store has now."""
        try:
            return (await self._store.read(conversation_id)).life
        except ConversationNotFoundError:
            return None

    async def _writer(self) -> "Writer":
        database = await self._archive.database()
        writer: Writer = import_module("conversation_actors.archive.writer").Writer(database, self._tenant)
        return writer
