"""The conversation's entry in the listings."""

import asyncio

from conversation_actors.activation.retention import Retention
from conversation_actors.clock import uptime
from conversation_actors.failures import Failures
from conversation_actors.state import ConversationState
from conversation_actors.store import Store

LISTED_RETENTIONS = 1.5
"""An entry in the listings outlives the last use that it may not show yet (`Retention.quarter`). Reading passes over
the entry when the conversation is gone."""


class ListingUpkeep:
    """Enters the conversation in the listings when that is due, beside the writes: nobody waits for it."""

    def __init__(
        self,
        conversation_id: str,
        durable: ConversationState,
        retention: Retention,
        *,
        store: Store,
        failures: Failures,
    ) -> None:
        """Begin with an entry that is due."""
        self._conversation_id, self._durable, self._retention = conversation_id, durable, retention
        self._store, self._failures = store, failures
        self._due = asyncio.Event()
        self._due.set()
        self._listed_seq, self._listed_at = -1, 0.0

    def note_participants(self) -> None:
        """Have the entry written now: who takes part has changed."""
        self._due.set()

    def note_upkeep(self) -> None:
        """Have the entry written if the conversation has changed since, or the entry is getting old."""
        age = uptime() - self._listed_at
        if self._durable.seq != self._listed_seq or age > self._retention.quarter.total_seconds():
            self._due.set()

    async def run(self) -> None:
        """Write the entry whenever that is due, until cancelled.

        A failure, whatever it is, is noted; the next upkeep tries again. Listings can be repaired, and the
        conversation is none the worse.
        """
        while True:
            await self._due.wait()
            self._due.clear()
            seq, identities = self._durable.seq, tuple(self._durable.participants)
            try:
                await self._store.index(
                    self._conversation_id, participants=identities, ttl=LISTED_RETENTIONS * self._retention.kept
                )
            except Exception as error:  # noqa: BLE001  # it goes on, whatever it was
                self._failures.note("listing", error)
                self._listed_seq = -1
            else:
                self._listed_seq, self._listed_at = seq, uptime()
