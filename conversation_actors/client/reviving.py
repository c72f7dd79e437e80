"""Opening conversations that Redis may not have any more: archive and back end are asked before a new one is made."""

import logging
from enum import Enum, auto
from importlib import import_module
from typing import TYPE_CHECKING

from conversation_actors.activation.retention import kept_for
from conversation_actors.client.archive import ClientArchive
from conversation_actors.client.backend import ClientBackend
from conversation_actors.client.owner import RemoteOwner
from conversation_actors.client.refilling import Refill
from conversation_actors.codec import stored_snapshot
from conversation_actors.errors import (
    ArchiveMisconfiguredError,
    ArchiveUnavailableError,
    BackendUnavailableError,
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


class _Archived(Enum):
    """What the archive said of a conversation that the store may not have."""

    REVIVED = auto()
    """It had it, and the store has it now."""
    KNOWN = auto()
    """It had it, or its deletion; the store has taken nothing."""
    NOTHING = auto()
    """It has none, or there is no archive."""
    AWAY = auto()
    """It cannot be asked, and is not required."""


class Reviver:
    """Brings conversations back into the store: from the archive, or what the back end has of them. Closes none."""

    def __init__(
        self, store: Store, archive: ClientArchive, backend: ClientBackend, settings: Settings, failures: Failures
    ) -> None:
        """Without an archive and a back end in the settings, every method does what there is to do without them."""
        self._store, self._archive, self._backend = store, archive, backend
        self._settings, self._failures = settings, failures
        self._refill = Refill(store, backend, settings)

    @property
    def _asks_others(self) -> bool:
        """Whether anybody besides the store is asked."""
        return self._archive.is_configured or self._backend.is_asked

    async def find(self, conversation_id: str, *, create: bool, wait: bool) -> bool:
        """Return whether the store may have the conversation, after it was brought back if only others had it.

        Without an archive and a back end the store is asked only if the answer matters to who opens it: unless
        `create`, nor if not `wait`, because the store is read then. Raises what `revive` raises.
        """
        if not self._asks_others:
            return create or not wait or await self._may_be_stored(conversation_id)
        if await self._may_be_stored(conversation_id):
            return True
        is_back = await self.revive(conversation_id, create=create)
        return is_back or await self._may_be_stored(conversation_id)  # somebody else may have been quicker

    async def open(
        self, owner: RemoteOwner, conversation_id: str, *, create: bool, is_found: bool
    ) -> tuple[ActivationInfo, View]:
        """Have the owner show its state, as `RemoteOwner.open` does; `is_found` is what `find` has returned.

        With an archive or a back end, an owner makes a new conversation only after they were asked: also if the store
        was away when it was asked, and has come back empty.
        """
        if self._asks_others and is_found:
            try:
                return await owner.open(create=False)
            except ConversationNotFoundError:
                await self.revive(conversation_id, create=create)
        return await owner.open(create=create)

    async def revive(self, conversation_id: str, *, create: bool) -> bool:
        """Write a conversation that the store has no more into it; return whether that was done.

        The archive is asked first, and the back end only if the archive has nothing, also no deletion. False if the
        store has it, or a tombstone of it, or if nobody has it. What cannot be asked, and is not required, counts as a
        failure `archive` or `backend`, and a conversation may be made (`create`) without it. Else raises
        `BackendUnavailableError`, `ArchiveUnavailableError`, `ArchiveMisconfiguredError`, or
        `IncompatibleVersionError` if the archive's tables are newer. Raises `StoreUnavailableError`, and for what
        cannot be read `CorruptStateError` or `IncompatibleVersionError`.
        """
        said, error = await self._ask_archive(conversation_id)
        if error is not None and (self._settings.archive.required or not (create or self._backend.is_asked)):
            raise error
        is_back = said is _Archived.REVIVED
        if said in {_Archived.NOTHING, _Archived.AWAY}:
            is_back = await self._ask_backend(conversation_id, create=create)
        if error is not None:
            if not (create or is_back):
                raise error
            self._failures.note("archive", error)
        return is_back

    async def _ask_archive(self, conversation_id: str) -> tuple[_Archived, ConversationError | None]:
        """Return what the archive said, and why it could not if it is away."""
        if not self._archive.is_configured:
            return _Archived.NOTHING, None
        try:
            database = await self._archive.database()
        except (ArchiveUnavailableError, ArchiveMisconfiguredError, IncompatibleVersionError) as error:
            return _Archived.AWAY, error
        try:
            return await self._revive(database, conversation_id), None
        except (ArchiveUnavailableError, ArchiveMisconfiguredError) as error:
            return _Archived.AWAY, error

    async def _ask_backend(self, conversation_id: str, *, create: bool) -> bool:
        """Have the back end's messages in the store, if it has any; go on without it, if that is allowed."""
        try:
            return await self._refill.refill(conversation_id)
        except (BackendUnavailableError, ArchiveMisconfiguredError) as error:
            if self._backend.is_required or not create:
                raise
            self._failures.note("backend", error)
            return False

    async def _may_be_stored(self, conversation_id: str) -> bool:
        """Look in Redis whether asking an owner is worth starting one; if Redis does not answer, it is."""
        try:
            return await self._store.head(conversation_id) is not None
        except StoreUnavailableError:
            return True

    async def _revive(self, database: "Database", conversation_id: str) -> _Archived:
        settings = self._settings
        # With the database SQLAlchemy is imported, which a client without an archive does not have.
        reviving = import_module("conversation_actors.archive.reviving")
        waiting = await self._store.backlog().peek(conversation_id)
        limits = settings.history.limits()
        asleep = await reviving.state_of(database, settings.tenant, conversation_id, limits=limits, waiting=waiting)
        if asleep is None:
            was_deleted = self._backend.is_asked and await reviving.was_deleted(
                database, settings.tenant, conversation_id
            )
            return _Archived.KNOWN if was_deleted else _Archived.NOTHING
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
        return _Archived.REVIVED if was_revived else _Archived.KNOWN
