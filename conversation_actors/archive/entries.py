"""The rows of entries: found, added, and set aside when others came in their place."""

import time
from collections.abc import Collection, Sequence

from sqlalchemy import Integer, bindparam, case, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.bulk import BulkInsert
from conversation_actors.archive.records import UNREADABLE, Row
from conversation_actors.archive.tables import entries, lives, superseded

_AT_ONCE = 500
"""Values of one statement."""
_ROW = (entries.c.seq, entries.c.epoch, entries.c.at, entries.c.event, entries.c.data)
_FOLLOWING = (
    select(*_ROW)
    .where(entries.c.life_id == bindparam("life_id"))
    .where(entries.c.seq > bindparam("after"), entries.c.seq <= bindparam("through"))
    .order_by(entries.c.seq)
    .limit(bindparam("most", type_=Integer))
)
READ_TO = case((lives.c.fed > lives.c.start, lives.c.fed), else_=lives.c.start)
"""The position up to which the feed has read a life."""
_UNREAD = (
    select(entries.c.life_id, *_ROW)
    .join(lives, lives.c.id == entries.c.life_id)
    .where(lives.c.id.in_(bindparam("identities", expanding=True)))
    .where(entries.c.seq > READ_TO, entries.c.seq <= READ_TO + bindparam("most", type_=Integer))
    .where(entries.c.seq <= lives.c.seq)
    .order_by(entries.c.life_id, entries.c.seq)
)
_ADD = BulkInsert(entries, ("life_id", *Row._fields))
_SET_ASIDE = BulkInsert(superseded, ("life_id", *Row._fields, "noted_at", "is_unread"))


async def at_positions(connection: AsyncConnection, life_id: int, positions: Collection[int]) -> dict[int, Row]:
    """Return the entries at these positions, by position."""
    wanted = sorted(positions)
    found: dict[int, Row] = {}
    for first in range(0, len(wanted), _AT_ONCE):
        some = wanted[first : first + _AT_ONCE]
        query = select(*_ROW).where(entries.c.life_id == life_id, entries.c.seq.in_(some))
        found.update((row[0], Row(*row)) for row in (await connection.execute(query)).all())
    return found


async def add(connection: AsyncConnection, rows: Sequence[tuple[int, Row]]) -> None:
    """Add entries of lives."""
    await _ADD.execute(connection, [(life_id, *row) for life_id, row in rows])


async def set_aside(connection: AsyncConnection, life_id: int, seq: int) -> Sequence[Row]:
    """Move the entries from `seq` on to those that were superseded; return them. The feed still reads them, once."""
    here = (entries.c.life_id == life_id, entries.c.seq >= seq)
    rows = [Row(*row) for row in (await connection.execute(select(*_ROW).where(*here).order_by(entries.c.seq))).all()]
    now, fed = time.time(), (await connection.execute(select(lives.c.fed).where(lives.c.id == life_id))).scalar_one()
    await _SET_ASIDE.execute(connection, [(life_id, *row, now, row.seq > fed) for row in rows])
    await connection.execute(delete(entries).where(*here))
    return rows


async def epoch_before(connection: AsyncConnection, life_id: int, seq: int) -> int:
    """Return the epoch of the last entry before a position; 0 if there is none."""
    here = (entries.c.life_id == life_id, entries.c.seq < seq)
    query = select(entries.c.epoch).where(*here).order_by(entries.c.seq.desc()).limit(1)
    return (await connection.execute(query)).scalar() or 0


async def add_superseded(connection: AsyncConnection, life_id: int, row: Row) -> None:
    """Add an entry that was lost before it came here, and in whose place others are."""
    await _SET_ASIDE.execute(connection, [(life_id, *row, time.time(), False)])


async def of_kinds(
    connection: AsyncConnection, life_id: int, kinds: Collection[str], *, since: int = 0, after_epoch: int = -1
) -> list[Row]:
    """Return the entries of these events, from the position `since` on and of later epochs, in order."""
    here = (entries.c.life_id == life_id, entries.c.seq >= since, entries.c.epoch > after_epoch)
    query = select(*_ROW).where(*here, entries.c.event.in_(list(kinds))).order_by(entries.c.seq)
    return [Row(*row) for row in (await connection.execute(query)).all()]


async def following(connection: AsyncConnection, life_id: int, seq: int, *, through: int, most: int) -> list[Row]:
    """Return the entries after a position, up to another one, in order; `most` of them at most."""
    told = {"life_id": life_id, "after": seq, "through": through, "most": most}
    return [Row(*row) for row in (await connection.execute(_FOLLOWING, told)).all()]


async def unread(connection: AsyncConnection, identities: Sequence[int], *, most: int) -> dict[int, list[Row]]:
    """Return what is at the `most` positions of each life that follow what the feed has read, in order.

    That is one statement however many lives there are. Where positions are missing it is less than `most` entries.
    """
    found: dict[int, list[Row]] = {identity: [] for identity in identities}
    for identity, *row in await connection.execute(_UNREAD, {"identities": list(identities), "most": most}):
        found[identity].append(Row(*row))
    return found


async def was_set_aside(connection: AsyncConnection, life_id: int, row: Row) -> bool:
    """Tell whether this entry was superseded."""
    columns = (superseded.c.seq, superseded.c.epoch, superseded.c.at, superseded.c.event, superseded.c.data)
    query = select(*columns).where(superseded.c.life_id == life_id, superseded.c.seq == row.seq)
    return any(row.is_same(Row(*known)) for known in (await connection.execute(query)).all())


async def has_unreadable(connection: AsyncConnection, life_id: int, data: bytes) -> bool:
    """Tell whether these bytes, which nobody could read, were stored before, wherever that was."""
    for table in (entries, superseded):
        query = select(table.c.seq).where(table.c.life_id == life_id, table.c.event == UNREADABLE, table.c.data == data)
        if (await connection.execute(query.limit(1))).first() is not None:
            return True
    return False
