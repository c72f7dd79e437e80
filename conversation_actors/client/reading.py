"""Reading conversations where they are stored: nothing is started, nothing is written, and Ray is not asked."""

import asyncio
import logging

from conversation_actors.activation.recovery import restate
from conversation_actors.client.copy import StoredState
from conversation_actors.client.patience import patiently
from conversation_actors.client.views import Snapshot, snapshot_of
from conversation_actors.errors import ConversationNotFoundError, RetryableError
from conversation_actors.protocol import Seen
from conversation_actors.settings import Settings
from conversation_actors.store import Store, Stored
from conversation_actors.timing import TIMING, Timing

logger = logging.getLogger(__name__)


class Reader:
    """Reads from a store, or from a replica of it where that may be stale. Closes neither."""

    def __init__(self, store: Store, replica: Store | None, settings: Settings, *, timing: Timing = TIMING) -> None:
        """Without a `replica`, what may be stale is read from the store as well."""
        self._store, self._replica = store, replica
        self._timing = timing
        self._limits = settings.history.limits()
        self._patience = settings.timeouts.command.total_seconds()
        self._has_told = False
        self._away_until = float("-inf")

    async def read(self, conversation_id: str, *, stale_ok: bool = False) -> Snapshot:
        """See `ConversationClient.read`."""
        stored = await patiently(
            lambda: self._find(conversation_id, stale_ok=stale_ok), seconds=self._patience, pauses=self._timing.read
        )
        state, _ = restate(stored, self._limits)
        return snapshot_of(conversation_id, state, epoch=stored.epoch, lag=stored.lag)

    async def state(self, conversation_id: str) -> StoredState:
        """Return what an owner would show, by one call of the store. Raises as `read` does, and at once."""
        stored = await self._store.read(conversation_id)
        state, _ = restate(stored, self._limits)
        return StoredState(state, Seen(stored.life, stored.owner))

    async def _find(self, conversation_id: str, *, stale_ok: bool) -> Stored:
        loop = asyncio.get_running_loop()
        if not stale_ok or self._replica is None or loop.time() < self._away_until:
            return await self._store.read(conversation_id)
        try:
            stored = await self._replica.read(conversation_id)
        except ConversationNotFoundError:
            self._has_told = False  # it answers; the conversation may be younger than what it has
        except RetryableError as error:
            if not self._has_told:
                logger.warning("the replica does not answer; the primary is read instead", extra={"reason": str(error)})
            self._has_told = True
            self._away_until = loop.time() + self._timing.read_away
        else:
            self._has_told = False
            return stored
        return await self._store.read(conversation_id)
