"""What became of deliveries, written to the database: cursors move, what was refused waits or becomes a dead letter."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Double, and_, bindparam, case, delete, exists, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.database import Database
from conversation_actors.archive.outbox import Taken
from conversation_actors.archive.tables import dead_letters, deliveries, happenings, replays

_OF = deliveries.c
_THIS = and_(
    _OF.destination == bindparam("of_destination"),
    _OF.tenant == bindparam("of_tenant"),
    _OF.conversation_id == bindparam("of_conversation"),
)
_FOLLOWS = exists(happenings.c.id).where(
    happenings.c.tenant == bindparam("of_tenant"),
    happenings.c.conversation_id == bindparam("of_conversation"),
    happenings.c.id > bindparam("new_id"),
)
_REPLAYS = exists(replays.c.happening_id).where(
    replays.c.happening_id == happenings.c.id,
    replays.c.destination == bindparam("of_destination"),
    happenings.c.tenant == bindparam("of_tenant"),
    happenings.c.conversation_id == bindparam("of_conversation"),
)
_SETTLE = (
    update(deliveries)
    .where(_THIS)
    .values(
        delivered_id=bindparam("new_id"),
        attempts=bindparam("new_attempts"),
        last_error=bindparam("new_error"),
        next_at=case((or_(_FOLLOWS, _REPLAYS), bindparam("new_next_at", type_=Double)), else_=None),
        claimed_by=None,
        claimed_until=None,
    )
)


@dataclass(frozen=True, slots=True)
class Dead:
    """A happening that was not taken in so many attempts."""

    happening_id: int
    attempts: int
    reason: str


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of what was taken.

    The cursor moves to `delivered_id`. What follows was tried `attempts` times, the last time in vain because of
    `reason`, and is tried again after `pause` seconds. `replayed` are done with, and those of `retried` stay.
    """

    taken: Taken
    delivered_id: int
    attempts: int = 0
    pause: float = 0.0
    reason: str | None = None
    dead: tuple[Dead, ...] = ()
    replayed: tuple[int, ...] = ()
    retried: tuple[int, ...] = ()


class Settling:
    """Writes settlements of one tenant."""

    def __init__(self, database: Database, tenant: str, *, clock: Callable[[], float] = time.time) -> None:
        self._database, self._tenant, self._clock = database, tenant, clock

    async def settle(self, settlements: Sequence[Settlement]) -> int:
        """Write all of them, and return how many: none whose claim somebody else has taken over."""
        async with self._database.writing("note what was delivered") as connection:
            held = await self._held(connection, settlements)
            await self._bury(connection, held)
            await self._end_replays(connection, held)
            now = self._clock()
            rows = [{**self._key(one.taken), **_values(one, now)} for one in held]
            if rows:
                await connection.execute(_SETTLE, rows)
        return len(held)

    def _key(self, taken: Taken) -> dict[str, str]:
        return {
            "of_destination": taken.destination, "of_tenant": self._tenant, "of_conversation": taken.conversation_id,
        }  # fmt: skip

    async def _held(self, connection: AsyncConnection, settlements: Sequence[Settlement]) -> list[Settlement]:
        """Return those that still have their claim.

        Their rows are locked by a statement of their own: the next one sees all that was committed before the lock, and
        whoever has committed a happening since finds the row as it is after this transaction.
        """
        named: defaultdict[str, list[str]] = defaultdict(list)
        for one in settlements:
            named[one.taken.destination].append(one.taken.conversation_id)
        claims: set[tuple[str, str, str | None]] = set()
        for destination in sorted(named):
            query = (
                select(_OF.destination, _OF.conversation_id, _OF.claimed_by)
                .where(_OF.destination == destination, _OF.tenant == self._tenant)
                .where(_OF.conversation_id.in_(named[destination]))
                .order_by(_OF.conversation_id)
                .with_for_update()
            )
            claims.update(tuple(row) for row in (await connection.execute(query)).all())
        return [
            one for one in settlements if (one.taken.destination, one.taken.conversation_id, one.taken.claim) in claims
        ]

    async def _bury(self, connection: AsyncConnection, settlements: Sequence[Settlement]) -> None:
        """Add dead letters, of happenings that are still there."""
        now = self._clock()
        for one in settlements:
            for dead in one.dead:
                of = dead_letters.c
                known = and_(of.happening_id == dead.happening_id, of.destination == one.taken.destination)
                await connection.execute(delete(dead_letters).where(known))
                is_there = (
                    select(happenings.c.id).where(happenings.c.id == dead.happening_id).with_for_update(read=True)
                )
                if (await connection.execute(is_there)).first() is not None:
                    await connection.execute(
                        insert(dead_letters).values(
                            destination=one.taken.destination, happening_id=dead.happening_id,
                            attempts=dead.attempts, last_error=dead.reason, dead_at=now,
                        )
                    )  # fmt: skip

    async def _end_replays(self, connection: AsyncConnection, settlements: Sequence[Settlement]) -> None:
        of = replays.c
        for one in settlements:
            if one.replayed:
                which = and_(of.destination == one.taken.destination, of.happening_id.in_(one.replayed))
                await connection.execute(delete(replays).where(which))
            if one.retried:
                which = and_(of.destination == one.taken.destination, of.happening_id.in_(one.retried))
                await connection.execute(update(replays).where(which).values(attempts=of.attempts + 1))


def _values(settlement: Settlement, now: float) -> dict[str, object]:
    return {
        "new_id": settlement.delivered_id,
        "new_attempts": settlement.attempts,
        "new_error": settlement.reason,
        "new_next_at": now + settlement.pause,
    }
