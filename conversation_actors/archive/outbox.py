"""The outbox as a deliverer sees it: conversations in which something is to be delivered, claimed and settled.

A row of `archive_deliveries` belongs to a destination and a conversation. Its `next_at` says when somebody has to look
at it: now, when something has happened; later, when it was tried in vain; when the claim ends, if somebody is at it. So
whatever dies, the row is due again. `News` sees to it that there is such a row.
"""

import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, and_, bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.database import Database
from conversation_actors.archive.tables import deliveries, happenings, replays

AT_ONCE = 20
"""Happenings of a conversation that are taken at once."""
_MOST_ID = (1 << 63) - 1
_COLUMNS = (
    happenings.c.id, happenings.c.event_id, happenings.c.type, happenings.c.at, happenings.c.call_id, happenings.c.seq,
    happenings.c.data,
)  # fmt: skip


_LATER = happenings.alias("later")
_LAST_TAKEN = (
    select(_LATER.c.id)
    .where(_LATER.c.tenant == deliveries.c.tenant, _LATER.c.conversation_id == deliveries.c.conversation_id)
    .where(_LATER.c.id > deliveries.c.delivered_id)
    .order_by(_LATER.c.id)
    .limit(1)
    .offset(AT_ONCE - 1)
    .scalar_subquery()
)
_NEXT = (
    select(happenings.c.conversation_id, *_COLUMNS)
    .join(
        deliveries,
        and_(
            happenings.c.tenant == deliveries.c.tenant, happenings.c.conversation_id == deliveries.c.conversation_id,
            happenings.c.id > deliveries.c.delivered_id,
        ),
    )
    .where(deliveries.c.destination == bindparam("destination"), deliveries.c.tenant == bindparam("tenant"))
    .where(deliveries.c.conversation_id.in_(bindparam("conversations", expanding=True)))
    .where(happenings.c.id <= func.coalesce(_LAST_TAKEN, _MOST_ID))
    .order_by(happenings.c.conversation_id, happenings.c.id)
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Queued:
    """A happening that is to be delivered. `replay`: how often it was tried once more; None if its turn has come."""

    id: int
    event_id: str
    type: str
    at: float
    call_id: str
    seq: int
    data: str
    replay: int | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """A conversation that is claimed for a destination, with what is to be delivered next, in order.

    `attempts`: how often the first one was tried. `claim` is what nobody else's claim is called.
    """

    destination: str
    conversation_id: str
    claim: str
    delivered_id: int
    attempts: int
    queue: tuple[Queued, ...]


class Outbox:
    """The outbox of one tenant. Any number of deliverers may share it, and die."""

    def __init__(
        self, database: Database, tenant: str, *, claim: float, clock: Callable[[], float] = time.time
    ) -> None:
        """Claim for so many seconds."""
        self._database, self._tenant, self._seconds, self._clock = database, tenant, claim, clock
        self._turns: Counter[str] = Counter()

    async def due(self, free: Mapping[str, int]) -> Collection[str]:
        """Return the destinations, among these, for which a conversation is due."""
        now = self._clock()
        async with self._database.reading("look for what is to be delivered") as connection:
            found = {name: await connection.execute(self._due(name, now).limit(1)) for name in free}
            return [name for name, rows in found.items() if rows.first() is not None]

    async def take(self, free: Mapping[str, int]) -> list[Taken]:
        """Claim conversations that are due: of each destination as many as it is `free` for.

        One time those that are due for longest come first, the next time those that were not tried in vain. So neither
        keeps places from the other for ever.
        """
        claim = secrets.token_hex(8)
        taken: list[Taken] = []
        async with self._database.writing("take what is to be delivered") as connection:
            now = self._clock()  # after the wait for others who write: a claim counts from here
            for name, most in free.items():
                claimed = await self._claim(connection, name, most, claim, now)
                if not claimed:
                    continue
                names = [row.conversation_id for row in claimed]
                again = await self._replays(connection, name, names)
                following = await self._next(connection, name, names)
                for row in claimed:
                    queue = (*again.get(row.conversation_id, ()), *following.get(row.conversation_id, ()))
                    taken.append(Taken(name, row.conversation_id, claim, row.delivered_id, row.attempts, queue))
        return taken

    def _due(self, destination: str, now: float) -> Select[tuple[str]]:
        of = deliveries.c
        return select(of.conversation_id).where(
            of.destination == destination, of.tenant == self._tenant, of.next_at <= now
        )

    async def _claim(
        self, connection: AsyncConnection, destination: str, most: int, claim: str, now: float
    ) -> Sequence[Row[tuple[str, int, int]]]:
        of, until = deliveries.c, now + self._seconds
        self._turns[destination] += 1
        is_for_new = self._turns[destination] % 2 == 0
        order = (of.attempts > 0, of.next_at) if is_for_new else (of.next_at,)
        chosen = self._due(destination, now).order_by(*order).limit(most).with_for_update(skip_locked=True)
        statement = (
            update(deliveries)
            .where(of.destination == destination, of.tenant == self._tenant, of.conversation_id.in_(chosen))
            .where(of.next_at <= now)
            .values(claimed_by=claim, claimed_until=until, next_at=until)
            .returning(of.conversation_id, of.delivered_id, of.attempts)
        )
        return (await connection.execute(statement)).all()

    async def _next(
        self, connection: AsyncConnection, destination: str, conversations: Sequence[str]
    ) -> dict[str, list[Queued]]:
        """Return what follows on the cursors, by conversation."""
        told = {"destination": destination, "tenant": self._tenant, "conversations": list(conversations)}
        return _by_conversation((await connection.execute(_NEXT, told)).all())

    async def _replays(
        self, connection: AsyncConnection, destination: str, conversations: Sequence[str]
    ) -> dict[str, list[Queued]]:
        """Return what is to be delivered once more, by conversation."""
        query = (
            select(happenings.c.conversation_id, *_COLUMNS, replays.c.attempts)
            .select_from(replays.join(happenings))
            .where(replays.c.destination == destination, happenings.c.tenant == self._tenant)
            .where(happenings.c.conversation_id.in_(conversations))
            .order_by(happenings.c.id)
            .limit(AT_ONCE * len(conversations))
        )
        found = _by_conversation((await connection.execute(query)).all())
        return {name: some[:AT_ONCE] for name, some in found.items()}


def _by_conversation(rows: Iterable[Sequence[Any]]) -> dict[str, list[Queued]]:
    """Return what is queued, by the conversation, which is in front in each row."""
    found: dict[str, list[Queued]] = {}
    for conversation_id, *columns in rows:
        found.setdefault(conversation_id, []).append(Queued(*columns))
    return found
