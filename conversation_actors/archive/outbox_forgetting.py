"""What becomes of deliveries when the archive lets go of lives: their happenings go, sent or not.

Cursors go before happenings do: whoever settles a delivery locks them in this order.
"""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.tables import (
    dead_letters,
    deliveries,
    feeds,
    gaps,
    happenings,
    lives,
    pictures,
    replays,
    superseded,
)


@dataclass(frozen=True, slots=True)
class Unsent:
    """How many happenings some destination does not have yet, and how many dead letters there are."""

    happenings: int
    dead_letters: int


async def unsent(connection: AsyncConnection, identities: Collection[int]) -> Unsent:
    """Count what lives have in the outbox, by the numbers of their rows, that a destination did not take."""
    of, cursor = happenings.c, deliveries.c
    is_behind = exists(cursor.destination).where(
        cursor.tenant == of.tenant, cursor.conversation_id == of.conversation_id, cursor.delivered_id < of.id
    )
    waiting = select(func.count()).select_from(happenings).where(of.life_id.in_(identities), is_behind)
    letters = select(func.count()).select_from(dead_letters.join(happenings)).where(of.life_id.in_(identities))
    return Unsent(*[int((await connection.execute(query)).scalar_one()) for query in (waiting, letters)])


def is_lacked_by(destination: str) -> ColumnElement[bool]:
    """Tell whether a back end lacks something of a life: of what was told or is to be told, or what nobody tells it.

    The latter is in gaps, which a state may have filled; in entries that were archived quietly, or read before there
    was a back end; and in pictures.
    """
    of, cursor = happenings.c, deliveries.c
    has_passed = exists(cursor.destination).where(
        cursor.destination == destination,
        cursor.tenant == of.tenant,
        cursor.conversation_id == of.conversation_id,
        cursor.delivered_id >= of.id,
    )
    apart = [
        exists(table.c.happening_id).where(table.c.happening_id == of.id, table.c.destination == destination)
        for table in (dead_letters, replays)
    ]
    of_life, whose = lives.c, pictures.c
    untold = or_(
        of_life.reported_from.is_(None),
        of_life.reported_from > of_life.start + 1,
        of_life.quiet > of_life.start,
        exists(gaps.c.id).where(gaps.c.life_id == of_life.id),
        exists(whose.digest).where(whose.tenant == of_life.tenant, whose.conversation_id == of_life.conversation_id),
    )
    return or_(
        and_(of_life.deleted_at.is_(None), of_life.seq > of_life.start, untold),
        and_(lives.c.seq > lives.c.fed, lives.c.seq > lives.c.start),
        exists(feeds.c.life_id).where(feeds.c.life_id == lives.c.id, feeds.c.due_at.is_not(None)),
        exists(superseded.c.id).where(superseded.c.life_id == lives.c.id, superseded.c.is_unread),
        exists(of.id).where(of.life_id == lives.c.id, or_(~has_passed, *apart)),
    )


async def drop_cursors(connection: AsyncConnection, tenant: str, conversations: Collection[str]) -> None:
    """Forget how far destinations are in conversations of which nothing is left: their next ones begin anew."""
    of = deliveries.c
    await connection.execute(
        delete(deliveries).where(of.tenant == tenant, of.conversation_id.in_(sorted(conversations)))
    )


async def forget_attempts(connection: AsyncConnection, identities: Collection[int], *, at: float) -> None:
    """Let nothing that was tried of lives, which are about to be deleted, fall on what follows under the same ids.

    What waited for another attempt is due `at` this time, and is claimed by nobody: it may be another happening then.
    """
    of, cursor = lives.c, deliveries.c
    query = select(of.tenant, of.conversation_id).where(of.id.in_(identities)).distinct()
    for tenant, name in (await connection.execute(query)).all():
        others = (of.tenant == tenant, of.conversation_id == name, of.deleted_at.is_(None), of.id.not_in(identities))
        if (await connection.execute(select(of.id).where(*others).limit(1))).first() is None:
            await drop_cursors(connection, tenant, [name])
            continue
        tried = (cursor.tenant == tenant, cursor.conversation_id == name, cursor.attempts > 0)
        anew = {"attempts": 0, "last_error": None, "next_at": at, "claimed_by": None, "claimed_until": None}
        await connection.execute(update(deliveries).where(*tried).values(**anew))
