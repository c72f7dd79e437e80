"""Finds the conversations in which something has happened, and makes their rows of `archive_deliveries` due.

Ids of happenings rise in the order of commits within a conversation, but not between conversations: a transaction that
began first may end last. So what is behind the last id that was seen is looked at often, what is recent again now and
then, and all of the outbox at the start and seldom afterwards.
"""

import time
from collections.abc import Callable, Sequence

from sqlalchemy import ColumnElement, Select, and_, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.bulk import BulkInsert
from conversation_actors.archive.database import Database
from conversation_actors.archive.tables import deliveries, happenings

_PAGE = 500
"""Conversations that are looked at in one transaction."""
_KEY = ("destination", "tenant", "conversation_id")
_MARK = BulkInsert(
    deliveries,
    (*_KEY, "next_at"),
    lambda statement: statement.on_conflict_do_update(
        index_elements=_KEY, set_={"next_at": func.coalesce(deliveries.c.next_at, statement.excluded.next_at)}
    ),
)


class News:
    """What happens in the conversations of one tenant, for these destinations."""

    def __init__(
        self, database: Database, tenant: str, destinations: Sequence[str], *,
        recent: float, furthest: float, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        """No transaction takes longer than `recent` seconds; nothing is put off for longer than `furthest`."""
        self._database, self._tenant, self._destinations = database, tenant, tuple(sorted(destinations))
        self._recent, self._furthest, self._clock = recent, furthest, clock
        self._seen = 0
        self._marks = [(0.0, 0)]
        """Times, and the last id that had been seen then: the last mark that is old enough, and those after it."""

    async def begin(self) -> None:
        """Begin behind what the outbox has now; `sweep` finds what is before that."""
        of = happenings.c
        async with self._database.reading("look for what has happened") as connection:
            query = select(func.max(of.id)).where(of.tenant == self._tenant)
            self._seen = (await connection.execute(query)).scalar() or 0
        self._marks = [(self._clock(), self._seen)]

    async def look(self) -> int:
        """Mark the conversations in which something happened since the last look, and return how many."""
        of = happenings.c
        recent = (
            select(of.id, of.conversation_id)
            .where(of.tenant == self._tenant, of.id > self._seen)
            .order_by(of.id)
            .limit(_PAGE)
        )
        async with self._database.reading("look for what has happened") as connection:
            found = (await connection.execute(recent)).all()
        if found:
            await self._mark(sorted({row.conversation_id for row in found}))
            self._seen = found[-1].id
        return len(found)

    async def look_again(self) -> int:
        """Look once more at what is recent: some of it may have been committed after what follows it."""
        now, of = self._clock(), happenings.c
        self._marks.append((now, self._seen))
        while len(self._marks) > 1 and self._marks[1][0] < now - self._recent:
            self._marks.pop(0)
        return await self._catch_up(of.id > self._marks[0][1])

    async def sweep(self) -> int:
        """Look at the whole outbox, and at rows that are put off for longer than anybody puts off."""
        return await self._catch_up(happenings.c.id > 0) + await self._hasten()

    async def wake(self, destination: str) -> None:
        """Make due, now, what waits because this destination did not take it, for whatever reason and however long."""
        of = deliveries.c
        waits = and_(of.destination == destination, of.tenant == self._tenant, of.attempts > 0, of.claimed_by.is_(None))
        now = self._clock()
        async with self._database.writing("try again what waits for a destination") as connection:
            await connection.execute(update(deliveries).where(waits, of.next_at > now).values(next_at=now))

    async def _catch_up(self, which: ColumnElement[bool]) -> int:
        """Mark the conversations, among those in which such happenings are, of which a cursor lags and nobody knows."""
        after, count = "", 0
        while True:
            async with self._database.reading("look for what is not delivered") as connection:
                names, lagging = await self._lagging(connection, self._page(which, after))
            if not names:
                return count
            await self._mark(lagging)
            after, count = names[-1], count + len(lagging)

    def _page(self, which: ColumnElement[bool], after: str) -> Select[tuple[str, int]]:
        of = happenings.c
        return (
            select(of.conversation_id, func.max(of.id).label("last"))
            .where(of.tenant == self._tenant, of.conversation_id > after, which)
            .group_by(of.conversation_id)
            .order_by(of.conversation_id)
            .limit(_PAGE)
        )

    async def _lagging(self, connection: AsyncConnection, page: Select[tuple[str, int]]) -> tuple[list[str], list[str]]:
        """Return the conversations of a page, and those among them that somebody has to look at."""
        last = {row.conversation_id: row.last for row in (await connection.execute(page)).all()}
        of = deliveries.c
        query = select(of.destination, of.conversation_id, of.delivered_id, of.next_at).where(
            of.tenant == self._tenant, of.destination.in_(self._destinations), of.conversation_id.in_(list(last))
        )
        settled: dict[str, int] = dict.fromkeys(last, 0)
        for row in (await connection.execute(query)).all():
            if row.next_at is not None or row.delivered_id >= last[row.conversation_id]:
                settled[row.conversation_id] += 1
        return list(last), [name for name, count in settled.items() if count < len(self._destinations)]

    async def _mark(self, conversations: Sequence[str]) -> None:
        """Make rows due that are not due at another time; add those that are not there."""
        now = self._clock()
        rows = [(one, self._tenant, name, now) for one in self._destinations for name in sorted(conversations)]
        if rows:
            async with self._database.writing("note what is to be delivered") as connection:
                await _MARK.execute(connection, rows)

    async def _hasten(self) -> int:
        """Make due what a clock that was ahead has put off."""
        of, now = deliveries.c, self._clock()
        far = and_(of.tenant == self._tenant, of.destination.in_(self._destinations), of.next_at > now + self._furthest)
        async with self._database.writing("try again what is put off") as connection:
            return (await connection.execute(update(deliveries).where(far).values(next_at=now))).rowcount
