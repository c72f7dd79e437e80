"""Opening conversations that Redis may not have any more: archive and back end are asked before a new one is made."""

import logging
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Archived:
    """What the archive said of a conversation that the store does not have; nothing, unless one of these is set.

    `is_revived`: the store has it now. `is_known`: it has it, or its deletion, and the store has taken nothing. `away`
    is why it could not be asked.
    """

    is_revived: bool = False
    is_known: bool = False
    away: ConversationError | None = None

    @property
    def is_all(self) -> bool:
        """Whether nobody else needs to be asked."""
        return self.is_revived or self.is_known


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a conversation may be, before an owner was asked.

    `is_stored`: the store may have it. `said`: it may be at an owner that runs, or at the back end, and this is what
    the archive said of it; else None.
    """

    is_stored: bool
    said: Archived | None = None

    @property
    def is_anywhere(self) -> bool:
        """Whether it may be somewhere."""
        return self.is_stored or self.said is not None


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

    async def find(self, conversation_id: str, *, create: bool, wait: bool) -> Whereabouts:
        """Return where the conversation may be, after it was brought back if only the archive had it.

        Without an archive and a back end the store is asked only if the answer matters to who opens it: unless
        `create`, nor if not `wait`, because the store is read then. Raises what `open` raises of the archive.
        """
        if not self._asks_others:
            return Whereabouts(is_stored=create or not wait or await self._may_be_stored(conversation_id))
        if await self._may_be_stored(conversation_id):
            return Whereabouts(is_stored=True)
        said = await self._ask_archive(conversation_id, create=create)
        # somebody else may have been quicker
        if said.is_revived or await self._may_be_stored(conversation_id):
            return Whereabouts(is_stored=True)
        if await self._may_be_elsewhere(conversation_id, said):
            return Whereabouts(is_stored=False, said=said)
        self._note(said)
        return Whereabouts(is_stored=False)

    async def open(
        self, owner: RemoteOwner, conversation_id: str, *, create: bool, found: Whereabouts
    ) -> tuple[ActivationInfo, View]:
        """Have the owner show its state, as `RemoteOwner.open` does; `found` is what `find` has returned.

        An owner that runs knows most. Of what nobody else has the back end is asked; and an owner makes a new
        conversation only after archive and back end were: also if the store was away when it was asked, and has come
        back empty.

        What cannot be asked, and is not required, counts as a failure `archive` or `backend`, and a conversation may be
        made (`create`) without it. Else raises `BackendUnavailableError`, `ArchiveUnavailableError`,
        `ArchiveMisconfiguredError`, or `IncompatibleVersionError` if the archive's tables are newer. Raises
        `ConversationNotFoundError`, `StoreUnavailableError`, and for what cannot be read `CorruptStateError` or
        `IncompatibleVersionError`.
        """
        said = found.said
        if said is not None:
            shown = await owner.open_running()
            if shown is not None:
                return shown
        elif self._asks_others and found.is_stored:
            try:
                return await owner.open(create=False)
            except ConversationNotFoundError:
                said = await self._ask_archive(conversation_id, create=create)
        if said is not None and await self._may_be_elsewhere(conversation_id, said):
            await self._ask_backend(conversation_id, said, create=create)
        elif said is not None:
            self._note(said)
        return await owner.open(create=create)

    async def _ask_archive(self, conversation_id: str, *, create: bool) -> Archived:
        """Write what the archive has into the store, and return what it said.

        Raises why it said nothing, if it is required, or if there is nobody else to ask and nothing is to be created.
        """
        if not self._archive.is_configured:
            return Archived()
        try:
            database = await self._archive.database()
        except (ArchiveUnavailableError, ArchiveMisconfiguredError, IncompatibleVersionError) as error:
            return self._without(error, create=create)
        try:
            return await self._revive(database, conversation_id)
        except (ArchiveUnavailableError, ArchiveMisconfiguredError) as error:
            return self._without(error, create=create)

    def _without(self, error: ConversationError, *, create: bool) -> Archived:
        """Go on without the archive, if that is allowed; else raise."""
        if self._settings.archive.required or not (create or self._backend.is_asked):
            raise error
        return Archived(away=error)

    async def _ask_backend(self, conversation_id: str, said: Archived, *, create: bool) -> None:
        """Write what the back end has into the store, or go on without it; raise if that is not allowed."""
        try:
            is_back = await self._refill.refill(conversation_id)
        except (BackendUnavailableError, ArchiveMisconfiguredError) as error:
            if self._backend.is_required or not create:
                raise
            self._failures.note("backend", error)
            is_back = False
        if not (create or is_back or await self._may_be_stored(conversation_id)):
            raise said.away or ConversationNotFoundError(f"no conversation {conversation_id!r}")
        self._note(said)

    def _note(self, said: Archived) -> None:
        if said.away is not None:
            self._failures.note("archive", said.away)

    async def _may_be_elsewhere(self, conversation_id: str, said: Archived) -> bool:
        """Tell whether the back end is to be asked: not for what was deleted, as far as anybody remembers."""
        if said.is_all or not self._backend.is_asked:
            return False
        return not await self._store.remembers_deletion(conversation_id)

    async def _may_be_stored(self, conversation_id: str) -> bool:
        """Look in Redis whether asking an owner is worth starting one; if Redis does not answer, it is."""
        try:
            return await self._store.head(conversation_id) is not None
        except StoreUnavailableError:
            return True

    async def _revive(self, database: "Database", conversation_id: str) -> Archived:
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
            return Archived(is_known=was_deleted)
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
        return Archived(is_revived=was_revived, is_known=True)
