"""The lives of a conversation, as the archive has them, and which of them is the one that goes on."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.tables import lives
from conversation_actors.errors import CorruptStateError
from conversation_actors.store.backlog import Record
from conversation_actors.store.base import Ancestor


@dataclass(frozen=True, slots=True)
class ArchivedLife:
    """One life of a conversation. `number` is its row, or None if it only waits for the archive so far.

    `seq`, `epoch`, `owner` and `lineage` are those of the last entry that is archived.
    """

    number: int | None
    life: str
    start: int
    seq: int
    epoch: int
    owner: str
    lineage: tuple[Ancestor, ...] = ()
    is_deleted: bool = False

    def name(self, table: str) -> str:
        """Return what an error calls this life's rows of a table."""
        return f"{table}[life {self.life}]"


async def lives_of(connection: AsyncConnection, tenant: str, conversation_id: str) -> list[ArchivedLife]:
    """Return all lives of a conversation, also deleted ones, the oldest first."""
    wanted = (lives.c.tenant == tenant) & (lives.c.conversation_id == conversation_id)
    rows = await connection.execute(select(lives).where(wanted).order_by(lives.c.id))
    return [life_of(row) for row in rows]


async def locked_life(connection: AsyncConnection, number: int) -> ArchivedLife | None:
    """Return a life that nobody else changes until this transaction ends; None if it is gone or deleted."""
    row = (await connection.execute(select(lives).where(lives.c.id == number).with_for_update())).one_or_none()
    return None if row is None or row.deleted_at is not None else life_of(row)


def life_of(row: Row[Any]) -> ArchivedLife:
    """Return a row as a life. Raises `CorruptStateError` if its lineage cannot be read."""
    try:
        told = json.loads(row.lineage)
        lineage = tuple(Ancestor(str(life), int(epoch), str(owner), int(seq)) for life, epoch, owner, seq in told)
    except (ValueError, TypeError) as error:
        key = f"archive_lives[{row.id}].lineage"
        message = f"{key}: {error}"
        raise CorruptStateError(message, key=key, position=0) from error
    return ArchivedLife(
        row.id, row.life, row.start, row.seq, row.epoch, row.owner, lineage, is_deleted=row.deleted_at is not None
    )


def newest_of(archived: Sequence[ArchivedLife], waiting: Sequence[Record]) -> tuple[ArchivedLife | None, list[Record]]:
    """Return the life that goes on, and those of the waiting records that belong to it; None if all are deleted.

    The records are of one backlog, in order, and were read before the lives were: some may be archived already. A
    record of a life that nobody knows yet begins that life. Late copies of an older life's records begin nothing.
    """
    known = {one.life: one for one in archived}
    current = next((one for one in reversed(archived) if not one.is_deleted), None)
    deleted = {one.life for one in archived if one.is_deleted}
    own: list[Record] = []
    for record in waiting:
        if record.life in deleted:
            continue
        if record.data is None:
            deleted |= {record.life, *known}
            current, own = None, []
            continue
        if record.life not in known:
            begun = ArchivedLife(None, record.life, record.start, record.start, record.epoch, record.owner)
            current = known[record.life] = begun
            own = []
        if current is not None and record.life == current.life:
            own.append(record)
    return current, own
