"""Positions of which the archive has no entry."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.tables import gaps

GIVEN_UP = "given up"
"""The reason of a gap: the entries waited in Redis beyond its bound, or Redis has lost them."""
BEFORE_THE_ARCHIVE = "before the archive"
"""The reason of a gap: the entries were written while nothing was archived."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Positions from `from_seq` to `to_seq`, both inclusive, of which there are no entries. `to_seq` may be unknown."""

    from_seq: int
    to_seq: int | None
    reason: str


async def note(connection: AsyncConnection, found: Iterable[tuple[int, Gap]]) -> None:
    """Add gaps of lives."""
    now = time.time()
    rows = [
        {"life_id": life_id, "from_seq": gap.from_seq, "to_seq": gap.to_seq, "reason": gap.reason, "noted_at": now}
        for life_id, gap in found
    ]
    if rows:
        await connection.execute(insert(gaps), rows)


async def fill(connection: AsyncConnection, life_id: int, arrived: Iterable[int]) -> None:
    """Take positions out of the gaps, because their entries came late."""
    filled = sorted(set(arrived))
    if not filled:
        return
    query = select(gaps.c.id, gaps.c.from_seq, gaps.c.to_seq, gaps.c.reason).where(gaps.c.life_id == life_id)
    for identity, first, last, reason in (await connection.execute(query)).all():
        inside = [seq for seq in filled if first <= seq and (last is None or seq <= last)]
        if inside:
            await connection.execute(delete(gaps).where(gaps.c.id == identity))
            await note(connection, [(life_id, gap) for gap in _around(Gap(first, last, reason), inside)])


async def cut(connection: AsyncConnection, life_id: int, seq: int) -> None:
    """Drop what gaps say of `seq` and later positions."""
    query = select(gaps.c.id, gaps.c.from_seq, gaps.c.to_seq, gaps.c.reason).where(gaps.c.life_id == life_id)
    for identity, first, last, reason in (await connection.execute(query)).all():
        if last is None or last >= seq:
            await connection.execute(delete(gaps).where(gaps.c.id == identity))
            await note(connection, [(life_id, Gap(first, seq - 1, reason))] if first < seq else [])


def _around(gap: Gap, inside: Iterable[int]) -> list[Gap]:
    left: list[Gap] = []
    first = gap.from_seq
    for seq in inside:
        if first < seq:
            left.append(Gap(first, seq - 1, gap.reason))
        first = seq + 1
    if gap.to_seq is None or first <= gap.to_seq:
        left.append(Gap(first, gap.to_seq, gap.reason))
    return left
