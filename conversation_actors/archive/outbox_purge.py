"""What the outbox need not keep any longer: what is old, and has been delivered to every destination."""

import time
from collections.abc import Callable, Collection
from datetime import timedelta

from sqlalchemy import Exists, and_, delete, exists, select
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.database import Database
from conversation_actors.archive.tables import dead_letters, deliveries, happenings, replays

_AT_ONCE = 500
"""Rows that are removed in one transaction at most."""


class OutboxPurge:
    """Removes what is delivered and older than `kept`, of one tenant.

    A destination counts if it is one of `destinations`, or if anything was ever delivered to it: another process may
    have it in its settings. Dead letters stay, and what is to be delivered once more.
    """

    def __init__(
        self, database: Database, tenant: str, destinations: Collection[str], kept: timedelta, *,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._database, self._tenant, self._destinations = database, tenant, frozenset(destinations)
        self._kept, self._clock = kept.total_seconds(), clock

    async def purge(self) -> int:
        """Remove everything that need not be kept, and return how many happenings those were."""
        count = 0
        while removed := await self._remove_some():
            count += removed
        await self._drop_cursors()
        return count

    async def _remove_some(self) -> int:
        of = happenings.c
        async with self._database.writing("remove what is delivered") as connection:
            kept_for = [
                exists(table.c.happening_id).where(table.c.happening_id == of.id) for table in (dead_letters, replays)
            ]
            passed = [self._has_passed(name) for name in await self._known(connection)]
            which = (
                select(of.id)
                .where(of.tenant == self._tenant, of.at < self._clock() - self._kept)
                .where(*passed, *(~one for one in kept_for))
                .order_by(of.id)
                .limit(_AT_ONCE)
            )
            return (await connection.execute(delete(happenings).where(of.id.in_(which)))).rowcount

    def _has_passed(self, destination: str) -> Exists:
        """Tell whether a destination's cursor is at a happening, or behind it."""
        return exists(deliveries.c.delivered_id).where(
            deliveries.c.destination == destination,
            deliveries.c.tenant == happenings.c.tenant,
            deliveries.c.conversation_id == happenings.c.conversation_id,
            deliveries.c.delivered_id >= happenings.c.id,
        )

    async def _known(self, connection: AsyncConnection) -> list[str]:
        query = select(deliveries.c.destination).where(deliveries.c.tenant == self._tenant).distinct()
        return sorted(self._destinations | set((await connection.execute(query)).scalars()))

    async def _drop_cursors(self) -> None:
        """Remove the cursors of conversations of which the outbox has nothing: ids only rise, and are never reused."""
        of = deliveries.c
        has_any = exists(happenings.c.id).where(
            happenings.c.tenant == of.tenant, happenings.c.conversation_id == of.conversation_id
        )
        idle = and_(of.tenant == self._tenant, of.next_at.is_(None), ~has_any)
        async with self._database.writing("remove cursors of what is delivered") as connection:
            await connection.execute(delete(deliveries).where(idle))
