"""Reading what is archived, joined with what still waits for the archive."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import Integer, Select, and_, bindparam, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.database import Database
from conversation_actors.archive.overlay import (
    Assembly,
    Found,
    Overlay,
    Placed,
    Position,
    Stamp,
    Wanted,
    appended,
    fresh,
    page_of,
)
from conversation_actors.archive.tables import entries, gaps, items, lives
from conversation_actors.archive.waiting import WaitingEntries
from conversation_actors.errors import ConversationNotFoundError
from conversation_actors.items import StoredItem
from conversation_actors.state import Entry

Value = TypeVar("Value")

_AT_ONCE = 500
"""Items or entries that one statement looks up."""


@dataclass(frozen=True, slots=True)
class ArchiveGap:
    """Entries that the archive never got: from one position to another, or to one that nobody knows (None)."""

    from_seq: int
    to_seq: int | None
    reason: str
    noted_at: float


class ArchiveReader:
    """Reads the archive of one tenant. Every method raises as `Database.reading` does."""

    def __init__(self, database: Database, tenant: str) -> None:
        """Read from `database`, which somebody else closes."""
        self._database, self._tenant = database, tenant

    async def page(self, conversation_id: str, life: str, waiting: WaitingEntries, wanted: Wanted) -> Found:
        """Return a page of a life's items.

        `waiting` must have been read before this is called: then nothing is between it and what this reads. Raises
        `ConversationNotFoundError` if the life was deleted.
        """
        async with self._database.reading("reading a history") as connection:
            archived = (await connection.execute(_LIFE, self._this(conversation_id, life))).one_or_none()
            if archived is None:
                return page_of(fresh(waiting.entries), wanted)
            life_id, seq, deleted_at = archived
            if deleted_at is not None:
                message = f"no conversation {conversation_id!r}"
                raise ConversationNotFoundError(message)
            missing = await _missing(connection, life_id, seq, waiting.entries)
            return await _joined(connection, life_id, missing, wanted)

    async def gaps(self, conversation_id: str, life: str) -> list[ArchiveGap]:
        """Return what the archive lacks of a life, in order."""
        statement = (
            select(gaps.c.from_seq, gaps.c.to_seq, gaps.c.reason, gaps.c.noted_at)
            .join(lives, lives.c.id == gaps.c.life_id)
            .where(_IS_THIS)
            .order_by(gaps.c.from_seq, gaps.c.id)
        )
        async with self._database.reading("looking for gaps") as connection:
            return [ArchiveGap(*row) for row in await connection.execute(statement, self._this(conversation_id, life))]

    def _this(self, conversation_id: str, life: str) -> dict[str, str]:
        return {"tenant": self._tenant, "conversation": conversation_id, "life": life}


_IS_THIS = and_(
    lives.c.tenant == bindparam("tenant"),
    lives.c.conversation_id == bindparam("conversation"),
    lives.c.life == bindparam("life"),
)
_LIFE = select(lives.c.id, lives.c.seq, lives.c.deleted_at).where(_IS_THIS)


_ITEM = (
    items.c.seq,
    items.c.place,
    items.c.is_evicted,
    items.c.item_id,
    items.c.type,
    items.c.role,
    items.c.call_id,
    items.c.data,
)


async def _missing(connection: AsyncConnection, life_id: int, seq: int, waiting: Sequence[Entry]) -> list[Entry]:
    """Return those of the waiting entries that are not archived, if the archive is at `seq`."""
    archived: dict[int, Stamp] = {}
    for some in _portions(sorted({entry.seq for entry in waiting if entry.seq <= seq})):
        statement = select(entries.c.seq, entries.c.epoch, entries.c.at)
        rows = await connection.execute(statement.where(entries.c.life_id == life_id, entries.c.seq.in_(some)))
        archived.update((found, Stamp(epoch, at)) for found, epoch, at in rows)
    return fresh(waiting, archived)


async def _joined(connection: AsyncConnection, life_id: int, missing: Sequence[Entry], wanted: Wanted) -> Found:
    known: dict[str, Placed] = {}
    for some in _portions(appended(missing)):
        rows = await connection.execute(items_named(life_id, some))
        known.update((placed.item.id, placed) for placed in map(_placed, rows))
    assembly = Assembly(Overlay(missing, known), wanted)
    while count := assembly.wanted:
        after = assembly.reached
        statement = items_after(is_first=after is None, newest_first=wanted.newest_first)
        told = {"life_id": life_id, "most": count} | ({} if after is None else after._asdict())
        assembly.add([_placed(row) for row in await connection.execute(statement, told)])
    return assembly.page()


def _portions(values: Sequence[Value]) -> Iterator[Sequence[Value]]:
    return (values[first : first + _AT_ONCE] for first in range(0, len(values), _AT_ONCE))


@cache
def items_after(*, is_first: bool, newest_first: bool) -> Select[Any]:
    """Return the statement that reads the next items of a life, in order; it is made once.

    It wants `life_id` and `most`, and, unless it `is_first`, the position to go on from: `seq` and `place`.
    """
    order = items.c.seq, items.c.place
    statement = select(*_ITEM).where(items.c.life_id == bindparam("life_id")).limit(bindparam("most", type_=Integer))
    statement = statement.order_by(*(column.desc() for column in order) if newest_first else order)
    if is_first:
        return statement
    here, there = tuple_(*order), tuple_(*(bindparam(column.name, type_=column.type) for column in order))
    return statement.where(here < there if newest_first else here > there)


def items_named(life_id: int, identities: Sequence[str]) -> Select[Any]:
    """Return the statement that looks items up by their ids."""
    return select(*_ITEM).where(items.c.life_id == life_id, items.c.item_id.in_(identities))


def _placed(row: Sequence[Any]) -> Placed:
    seq, place, is_evicted, identity, kind, role, call_id, data = row
    item = StoredItem(identity, kind, role or "", call_id or "", bytes(data))
    return Placed(Position(seq, place), is_evicted, item)
