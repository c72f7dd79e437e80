"""Opening conversations that Redis may not have any more: the archive is asked before a new one is made."""

import logging
from importlib import import_module
from typing import TYPE_CHECKING

from conversation_actors.activation.retention import kept_for
from conversation_actors.client.archive import ClientArchive
from conversation_actors.client.owner import RemoteOwner
from conversation_actors.codec import stored_snapshot
from conversation_actors.errors import (
    ArchiveMisconfiguredError,
    ArchiveUnavailableError,
    ConversationError,
    ConversationNotFoundError,
    IncompatibleVersionError,
    StoreUnavailableError,
)
from conversation_actors.failures import Failures
from conversation_actors.protocol import ActivationInfo, View
from conversation_actors.settings import Settings
from conversation_actors.store import Claim, Store

if TYPE_CHECKING:
    from conversation_actors.archive.database import Database

logger = logging.getLogger(__name__)


class Reviver:
    """Brings conversations back from the archive into the store. Closes neither."""

    def __init__(self, store: Store, archive: ClientArchive, settings: Settings, failures: Failures) -> None:
        """Without an archive in the settings, every method does what there is to do without one."""
        self._store, self._archive, self._settings, self._failures = store, archive, settings, failures

    async def find(self, conversation_id: str, *, create: bool, wait: bool) -> bool:
        """Return whether the store may have the conversation, after it was brought back if only the archive had it.

        Without an archive the store is asked only if the answer matters to who opens it: unless `create`, nor if not
        `wait`, because the store is read then. Raises what `revive` raises.
        """
        if not self._archive.is_configured:
            return create or not wait or await self._may_be_stored(conversation_id)
        if await self._may_be_stored(conversation_id):
            return True
        is_back = await self.revive(conversation_id, create=create)
        return is_back or await self._may_be_stored(conversation_id)  # somebody else may have been quicker

    async def open(
        self, owner: RemoteOwner, conversation_id: str, *, create: bool, is_found: bool
    ) -> tuple[ActivationInfo, View]:
        """Have the owner show its state, as `RemoteOwner.open` does; `is_found` is what `find` has returned.

        With an archive, an owner makes a new conversation only after the archive was asked: also if the store was away
        when it was asked, and has come back empty.
        """
        if self._archive.is_configured and is_found:
            try:
                return await owner.open(create=False)
            except ConversationNotFoundError:
                await self.revive(conversation_id, create=create)
        return await owner.open(create=create)

    async def revive(self, conversation_id: str, *, create: bool) -> bool:
        """Write a conversation that only the archive has into the store; return whether that was done.

        False if the store has it, or a tombstone of it, or if the archive has none. If the archive cannot be asked,
        and is not required, that counts as a failure `archive`, and a conversation may be made (`create`) without it.
        Else raises `ArchiveUnavailableError`, `ArchiveMisconfiguredError`, or `IncompatibleVersionError` if its tables
        are newer. Raises `StoreUnavailableError`, and for what cannot be read `CorruptStateError` or
        `IncompatibleVersionError`.
        """
        try:
            database = await self._archive.database()
        except (ArchiveUnavailableError, ArchiveMisconfiguredError, IncompatibleVersionError) as error:
            return self._without(error, create=create)
        try:
            return await self._revive(database, conversation_id)
        except (ArchiveUnavailableError, ArchiveMisconfiguredError) as error:
            return self._without(error, create=create)

    def _without(self, error: ConversationError, *, create: bool) -> bool:
        """Go on without the archive, if that is allowed; else raise."""
        if self._settings.archive.required or not create:
            raise error
        self._failures.note("archive", error)
        return False

    async def _may_be_stored(self, conversation_id: str) -> bool:
        """Look in Redis whether asking an owner is worth starting one; if Redis does not answer, it is."""
        try:
            return await self._store.head(conversation_id) is not None
        except StoreUnavailableError:
            return True

    async def _revive(self, database: "Database", conversation_id: str) -> bool:
        settings = self._settings
        # With the database SQLAlchemy is imported, which a client without an archive does not have.
        reviving = import_module("conversation_actors.archive.reviving")
        waiting = await self._store.backlog().peek(conversation_id)
        limits = settings.history.limits()
        asleep = await reviving.state_of(database, settings.tenant, conversation_id, limits=limits, waiting=waiting)
        if asleep is None:
            return False
        state, ttl = asleep.state, kept_for(asleep.state.retention, ttl=settings.ttl)
        left_by = Claim(
            conversation_id, asleep.epoch, asleep.owner, state.life, settings.tenant, asleep.lineage, asleep.start
        )
        was_revived = await self._store.revive(
            left_by, seq=state.seq, snapshot=stored_snapshot(state),
            ttl=ttl, participants=tuple(state.participants), kept=ttl,
        )  # fmt: skip
        if was_revived:
            logger.info("a conversation was brought back from the archive", extra={"seq": state.seq})
        return was_revived
