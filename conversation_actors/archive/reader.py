"""Reading what is archived, joined with what still waits for the archive."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.database import Database
from conversation_actors.archive.overlay import Assembly, Overlay, Placed, Position, appended, fresh
from conversation_actors.archive.tables import gaps, items, lives
from conversation_actors.archive.waiting import WaitingEntries
from conversation_actors.errors import ArchiveUnavailableError, ConversationNotFoundError, CorruptStateError
from conversation_actors.items import StoredItem
from conversation_actors.state import Entry
from conversation_actors.store.base import Ancestor

_IDS_AT_ONCE = 500
"""Items that one statement looks up."""


@dataclass(frozen=True, slots=True)
class Life:
    """One life of a conversation, as far as it is archived: through `seq`, whose entry is one of `epoch` and `owner`.

    `id` is that of its row. `start` is the position at which it began. `lineage` has the claims before the last one.
    `deleted_at` is None unless the life was deleted: then only this is left of it. Times are in seconds since the
    epoch.
    """

    id: int
    life: str
    start: int
    seq: int
    epoch: int
    owner: str
    lineage: tuple[Ancestor, ...]
    created_at: float
    active_at: float
    deleted_at: float | None


@dataclass(frozen=True, slots=True)
class ArchiveGap:
    """Entries that the archive never got: from one position to another, or to one that nobody knows (None)."""

    from_seq: int
    to_seq: int | None
    reason: str
    noted_at: float


class ArchiveReader:
    """Reads the archive of one tenant. Every method raises as `Database.check` and `Database.reading` do."""

    def __init__(self, database: Database, tenant: str) -> None:
        """Read from `database`, which somebody else closes."""
        self._database, self._tenant = database, tenant
        self._is_checked = False

    async def check(self) -> None:
        """Raise what `Database.check` raises, unless it has raised nothing before."""
        if not self._is_checked:
            await self._database.check()
            self._is_checked = True

    async def life(self, conversation_id: str) -> Life | None:
        """Return the latest life of a conversation that was not deleted; None if there is none."""
        await self.check()
        async with self._database.reading(f"find {conversation_id!r}") as connection:
            statement = self._lives(conversation_id).where(lives.c.deleted_at.is_(None))
            row = (await connection.execute(statement.order_by(lives.c.id.desc()).limit(1))).first()
        return None if row is None else _life(row)

    async def page(
        self,
        conversation_id: str,
        life: str,
        waiting: WaitingEntries,
        *,
        after: Position | None,
        limit: int,
        newest_first: bool,
    ) -> tuple[list[Placed], bool]:
        """Return a page of a life's items, and whether more follow.

        `waiting` must have been read before this is called: then nothing is between it and what this reads. Raises
        `ConversationNotFoundError` if the life was deleted. If the database does not answer, and all entries of the
        life wait, the page needs no database.
        """
        if waiting.is_deleted:
            raise _not_found(conversation_id)
        reading = _Reading(after, limit, newest_first)
        try:
            await self.check()
            async with self._database.reading(f"read the history of {conversation_id!r}") as connection:
                archived = (await connection.execute(self._lives(conversation_id).where(lives.c.life == life))).first()
                if archived is not None:
                    return await reading.joined(connection, conversation_id, _life(archived), waiting.entries)
        except ArchiveUnavailableError:
            if not waiting.is_whole:
                raise
        return reading.waiting_alone(waiting.entries)

    async def gaps(self, conversation_id: str, life: str) -> list[ArchiveGap]:
        """Return what the archive lacks of a life, in order."""
        statement = (
            select(gaps.c.from_seq, gaps.c.to_seq, gaps.c.reason, gaps.c.noted_at)
            .join(lives, lives.c.id == gaps.c.life_id)
            .where(lives.c.tenant == self._tenant, lives.c.conversation_id == conversation_id, lives.c.life == life)
            .order_by(gaps.c.from_seq, gaps.c.id)
        )
        await self.check()
        async with self._database.reading(f"look for gaps in {conversation_id!r}") as connection:
            return [ArchiveGap(*row) for row in await connection.execute(statement)]

    def _lives(self, conversation_id: str) -> Select[Any]:
        return select(*_LIFE).where(lives.c.tenant == self._tenant, lives.c.conversation_id == conversation_id)


_LIFE = (
    lives.c.id,
    lives.c.life,
    lives.c.start,
    lives.c.seq,
    lives.c.epoch,
    lives.c.owner,
    lives.c.lineage,
    lives.c.created_at,
    lives.c.active_at,
    lives.c.deleted_at,
)
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


@dataclass(frozen=True, slots=True)
class _Reading:
    """Which page is read."""

    after: Position | None
    limit: int
    newest_first: bool

    async def joined(
        self, connection: AsyncConnection, conversation_id: str, life: Life, entries: Sequence[Entry]
    ) -> tuple[list[Placed], bool]:
        if life.deleted_at is not None:
            raise _not_found(conversation_id)
        missing = fresh(entries, seq=life.seq, epoch=life.epoch)
        known: dict[str, Placed] = {}
        identities = appended(missing)
        for first in range(0, len(identities), _IDS_AT_ONCE):
            rows = await connection.execute(items_named(life.id, identities[first : first + _IDS_AT_ONCE]))
            known.update((placed.item.id, placed) for placed in map(_placed, rows))
        assembly = self._assembly(Overlay(missing, known))
        while wanted := assembly.wanted:
            statement = items_after(life.id, assembly.reached, limit=wanted, newest_first=self.newest_first)
            assembly.add([_placed(row) for row in await connection.execute(statement)])
        return assembly.page()

    def waiting_alone(self, entries: Sequence[Entry]) -> tuple[list[Placed], bool]:
        assembly = self._assembly(Overlay(fresh(entries, seq=-1, epoch=-1)))
        assembly.end()
        return assembly.page()

    def _assembly(self, overlay: Overlay) -> Assembly:
        return Assembly(overlay, after=self.after, limit=self.limit, newest_first=self.newest_first)


def items_after(life_id: int, after: Position | None, *, limit: int, newest_first: bool) -> Select[Any]:
    """Return the statement that reads the next items of a life, in order."""
    statement = select(*_ITEM).where(items.c.life_id == life_id).limit(limit)
    place = tuple_(items.c.seq, items.c.place)
    if newest_first:
        statement = statement.order_by(items.c.seq.desc(), items.c.place.desc())
        return statement if after is None else statement.where(place < tuple(after))
    statement = statement.order_by(items.c.seq, items.c.place)
    return statement if after is None else statement.where(place > tuple(after))


def items_named(life_id: int, identities: Sequence[str]) -> Select[Any]:
    """Return the statement that looks items up by their ids."""
    return select(*_ITEM).where(items.c.life_id == life_id, items.c.item_id.in_(identities))


def _placed(row: Row[Any]) -> Placed:
    seq, place, is_evicted, identity, kind, role, call_id, data = row
    item = StoredItem(identity, kind, role or "", call_id or "", bytes(data))
    return Placed(Position(seq, place), is_evicted, item)


def _life(row: Row[Any]) -> Life:
    fields = dict(row._mapping)  # noqa: SLF001  # the documented name of a row as a mapping
    try:
        fields["lineage"] = tuple(Ancestor(*known) for known in json.loads(fields["lineage"]))
    except (ValueError, TypeError) as error:
        key = f"archive_lives[{fields['id']}].lineage"
        message = f"{key}: {error}"
        raise CorruptStateError(message, key=key, position=0) from error
    return Life(**fields)


def _not_found(conversation_id: str) -> ConversationNotFoundError:
    return ConversationNotFoundError(f"no conversation {conversation_id!r}")
