"""What becomes of deliveries when the archive lets go of lives: their happenings go, sent or not.

Cursors go before happenings do: whoever settles a delivery locks them in this order.
"""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.tables import dead_letters, deliveries, happenings, lives


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
