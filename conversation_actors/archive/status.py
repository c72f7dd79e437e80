"""How far the archive is: what waits for it, what was given up, which gaps it has, and its migration."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, func, select

from conversation_actors.archive.service import Parts
from conversation_actors.archive.tables import REVISION, gaps, lives
from conversation_actors.store.backlog import Lag


@dataclass(frozen=True, slots=True)
class GapFound:
    """Entries that a life lacks in the archive; `to_seq` is None if nobody knows how many."""

    from_seq: int
    to_seq: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class LifeArchived:
    """A life of a conversation, as far as it is archived; times are in seconds since the epoch."""

    life: str
    start: int
    seq: int
    created_at: float
    active_at: float
    is_deleted: bool
    gaps: tuple[GapFound, ...]


@dataclass(frozen=True, slots=True)
class ArchiveStatus:
    """All together. `migration` is the database's, and `newest_migration` this version's.

    `lag` is of all conversations, or of the one that was asked about. `waiting` are those with something waiting, by
    the number of their records. `lives` are those of the one that was asked about, the oldest first; `conversations`
    and `gaps` count what the archive has in all.
    """

    migration: str
    newest_migration: str
    lag: Lag
    waiting: dict[str, int]
    conversations: int | None = None
    gaps: int | None = None
    lives: tuple[LifeArchived, ...] = ()


async def status_of(parts: Parts, *, tenant: str, conversation_id: str | None = None) -> ArchiveStatus:
    """Ask both servers. Raises what they raise, also for tables that are missing, older or newer."""
    await parts.database.check()
    backlog = parts.store.backlog()
    lag = await backlog.lag(conversation_id)
    if conversation_id is not None:
        waiting = {conversation_id: lag.records} if lag.records else {}
        found = await _lives(parts, tenant, conversation_id)
        return ArchiveStatus(REVISION, REVISION, lag, waiting, lives=found)
    waiting = {one.conversation_id: one.records for one in await backlog.waiting() if one.records}
    conversations, missing = await _counts(parts, tenant)
    return ArchiveStatus(REVISION, REVISION, lag, waiting, conversations=conversations, gaps=missing)


async def _counts(parts: Parts, tenant: str) -> tuple[int, int]:
    """Return the number of conversations that the archive has, and of the gaps in them."""
    of_tenant = (lives.c.tenant == tenant, lives.c.deleted_at.is_(None))
    conversations = select(func.count(lives.c.conversation_id.distinct())).where(*of_tenant)
    missing = select(func.count()).select_from(gaps.join(lives)).where(*of_tenant)
    async with parts.database.reading("count what is archived") as connection:
        return (await connection.execute(conversations)).scalar_one(), (await connection.execute(missing)).scalar_one()


async def _lives(parts: Parts, tenant: str, conversation_id: str) -> tuple[LifeArchived, ...]:
    """Return the lives of a conversation, the oldest first."""
    query = (
        select(lives)
        .where(lives.c.tenant == tenant, lives.c.conversation_id == conversation_id)
        .order_by(lives.c.start, lives.c.id)
    )
    async with parts.database.reading("read how far a conversation is archived") as connection:
        found = (await connection.execute(query)).all()
        wanted = gaps.c.life_id.in_([row.id for row in found])
        missing = (await connection.execute(select(gaps).where(wanted).order_by(gaps.c.from_seq))).all()
    return tuple(_life(row, [gap for gap in missing if gap.life_id == row.id]) for row in found)


def _life(row: Row[Any], missing: Sequence[Row[Any]]) -> LifeArchived:
    return LifeArchived(
        life=row.life,
        start=row.start,
        seq=row.seq,
        created_at=row.created_at,
        active_at=row.active_at,
        is_deleted=row.deleted_at is not None,
        gaps=tuple(GapFound(gap.from_seq, gap.to_seq, gap.reason) for gap in missing),
    )
