"""Which conversation a job is on its way to: told so that whoever sees the job die knows what it was there for."""

import asyncio
from functools import partial

from agent_worker.failures import Failures
from agent_worker.tenure.role import AGENT_ROLE, record_role
from conversation_actors import Heartbeats, Settings

_WITHDRAW_SECONDS = 5.0


class Announcement:
    """The note of one job in Redis, beside the heartbeats. A failure is counted, and costs the call nothing."""

    def __init__(self, settings: Settings, holder: str, role: str, failures: Failures) -> None:
        """Begin with nothing announced."""
        self._settings, self._holder, self._role, self._failures = settings, holder, record_role(role), failures
        self._told: set[str] = set()

    async def make(self, heartbeats: Heartbeats, conversation_id: str) -> None:
        """Tell that the job is on its way to a conversation, and no longer to any that was told before."""
        self._told.add(conversation_id)
        await self._failures.at_most_once("announce", lambda: self._announce(heartbeats, conversation_id))
        for before in self._told - {conversation_id}:
            await self._failures.at_most_once("announce", partial(self._withdraw, heartbeats, before))
            self._told.discard(before)

    async def withdraw(self) -> None:
        """Take back what was announced: nobody is to follow this job. Idempotent."""
        if self._told:
            await self._failures.at_most_once("announce", self._withdraw_all)
            self._told.clear()  # not if that was cancelled: whoever cancels an opening withdraws in its place

    async def _announce(self, heartbeats: Heartbeats, conversation_id: str) -> None:
        await heartbeats.announce(conversation_id, self._holder, role=self._role)

    async def _withdraw(self, heartbeats: Heartbeats, conversation_id: str) -> None:
        # a heartbeat that was begun a moment ago, by an opening that was broken off, goes with it
        await heartbeats.stop(conversation_id, self._holder, role=self._role)
        await heartbeats.withdraw(conversation_id, self._holder, role=self._role)

    async def _withdraw_all(self) -> None:
        """Do it on a connection of its own: between two tries to open there is none."""
        async with asyncio.timeout(_WITHDRAW_SECONDS), Heartbeats(self._settings, lease=AGENT_ROLE) as heartbeats:
            for conversation_id in sorted(self._told):
                await self._withdraw(heartbeats, conversation_id)
