"""What an operator does to deliveries: look at them, have happenings delivered once more, forget a destination."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Table, delete, exists, func, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.database import Database
from conversation_actors.archive.tables import dead_letters, deliveries, happenings, replays


@dataclass(frozen=True, slots=True)
class DestinationStatus:
    """How far a destination is.

    `waiting` happenings, of `conversations`, are not delivered, the oldest for `seconds`; those of `refusing`
    conversations were tried in vain, the last time because of one of `reasons`. `dead` letters, and `replays` to come.
    """

    name: str
    conversations: int
    waiting: int
    seconds: float
    refusing: int
    reasons: tuple[str, ...]
    dead: int
    replays: int


class Redelivery:
    """The deliveries of one tenant."""

    def __init__(self, database: Database, tenant: str, *, clock: Callable[[], float] = time.time) -> None:
        self._database, self._tenant, self._clock = database, tenant, clock

    async def status(self, destinations: Sequence[str]) -> list[DestinationStatus]:
        """Return how far these destinations are, and all others that have a cursor or a dead letter."""
        async with self._database.reading("look at webhooks") as connection:
            query = select(deliveries.c.destination).where(deliveries.c.tenant == self._tenant).distinct()
            known = set((await connection.execute(query)).scalars())
            names = [*destinations, *sorted(known - set(destinations))]
            return [await self._status(connection, name) for name in names]

    async def replay(
        self, destinations: Sequence[str], *, only_dead: bool, since: float | None, conversation_id: str | None
    ) -> int:
        """Have happenings delivered once more, of those that a cursor has passed; return how many.

        The dead letters among them are none any longer. `since` is a time, in seconds since the epoch.
        """
        count, of = 0, happenings.c
        chosen: list[ColumnElement[bool]] = [of.tenant == self._tenant]
        if since is not None:
            chosen.append(of.at >= since)
        if conversation_id is not None:
            chosen.append(of.conversation_id == conversation_id)
        for name in destinations:
            async with self._database.writing("deliver once more") as connection:
                count += await self._replay(connection, name, chosen, only_dead=only_dead)
        return count

    async def forget(self, destination: str) -> int:
        """Forget a destination, with its dead letters; return the number of its cursors.

        If it is in the settings, it gets everything that the outbox has.
        """
        async with self._database.writing("forget a destination") as connection:
            mine = select(happenings.c.id).where(happenings.c.tenant == self._tenant)
            for table in (dead_letters, replays):
                of = table.c
                await connection.execute(delete(table).where(of.destination == destination, of.happening_id.in_(mine)))
            which = deliveries.c.destination == destination, deliveries.c.tenant == self._tenant
            return (await connection.execute(delete(deliveries).where(*which))).rowcount

    async def _replay(
        self, connection: AsyncConnection, destination: str, chosen: Sequence[ColumnElement[bool]], *, only_dead: bool
    ) -> int:
        of, now = happenings.c, self._clock()
        is_dead = exists(dead_letters.c.id).where(
            dead_letters.c.happening_id == of.id, dead_letters.c.destination == destination
        )
        has_passed = exists(deliveries.c.delivered_id).where(
            deliveries.c.destination == destination, deliveries.c.tenant == of.tenant,
            deliveries.c.conversation_id == of.conversation_id, deliveries.c.delivered_id >= of.id,
        )  # fmt: skip
        is_known = exists(replays.c.happening_id).where(
            replays.c.happening_id == of.id, replays.c.destination == destination
        )
        which = select(literal(destination), of.id).where(*chosen, is_dead if only_dead else has_passed, ~is_known)
        adding = replays.insert().from_select(["destination", "happening_id"], which)
        # otherwise SQLAlchemy has no count of what an INSERT has added
        count = (await connection.execute(adding.execution_options(preserve_rowcount=True))).rowcount
        waiting = select(replays.c.happening_id).where(replays.c.destination == destination)
        of_dead = dead_letters.c
        await connection.execute(
            delete(dead_letters).where(of_dead.destination == destination, of_dead.happening_id.in_(waiting))
        )
        names = (
            select(of.conversation_id)
            .join(replays)
            .where(replays.c.destination == destination, of.tenant == self._tenant)
        )
        cursor = deliveries.c
        mine = cursor.destination == destination, cursor.tenant == self._tenant, cursor.conversation_id.in_(names)
        # Rows that are claimed are locked as well: whoever settles one has to wait for this transaction, and sees then
        # that something is to be delivered; or it was settled before, and the next statement finds it as it is then.
        lock = select(cursor.conversation_id).where(*mine).order_by(cursor.conversation_id).with_for_update()
        (await connection.execute(lock)).all()
        await connection.execute(
            deliveries.update().where(*mine).where(cursor.claimed_by.is_(None)).values(next_at=now)
        )
        return count

    async def _status(self, connection: AsyncConnection, destination: str) -> DestinationStatus:
        of, cursor = happenings.c, deliveries.c
        at_it = (cursor.destination == destination) & (cursor.tenant == of.tenant)
        lagging = (
            select(func.count(of.conversation_id.distinct()), func.count(), func.min(of.at))
            .select_from(happenings.outerjoin(deliveries, at_it & (cursor.conversation_id == of.conversation_id)))
            .where(of.tenant == self._tenant, of.id > func.coalesce(cursor.delivered_id, 0))
        )
        conversations, waiting, oldest = (await connection.execute(lagging)).one()
        mine = cursor.destination == destination, cursor.tenant == self._tenant
        refusing = (
            select(cursor.last_error, func.count())
            .where(*mine, cursor.attempts > 0)
            .group_by(cursor.last_error)
            .order_by(func.count().desc())
        )
        reasons = (await connection.execute(refusing)).all()
        return DestinationStatus(
            name=destination,
            conversations=conversations,
            waiting=waiting,
            seconds=0.0 if oldest is None else max(0.0, self._clock() - oldest),
            refusing=sum(row[1] for row in reasons),
            reasons=tuple(str(row[0]) for row in reasons),
            dead=await self._count(connection, dead_letters, destination),
            replays=await self._count(connection, replays, destination),
        )

    async def _count(self, connection: AsyncConnection, table: Table, destination: str) -> int:
        of = table.c
        query = (
            select(func.count())
            .select_from(table.join(happenings))
            .where(of.destination == destination, happenings.c.tenant == self._tenant)
        )
        return int((await connection.execute(query)).scalar_one())
