"""The archive's rows of whole conversations, out of one database and into another."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, Table, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive import tables
from conversation_actors.archive.database import Database
from conversation_actors.archive.rows import (
    CHECKPOINT,
    COLUMNS,
    ENTRY,
    GAP,
    ITEM,
    LIFE,
    ORDER,
    PICTURE,
    SUPERSEDED,
    Row,
)
from conversation_actors.errors import ConflictError

IDS_AT_ONCE, ROWS_AT_ONCE = 10_000, 200

_TABLES: Mapping[str, Table] = {
    GAP: tables.gaps,
    ENTRY: tables.entries,
    SUPERSEDED: tables.superseded,
    ITEM: tables.items,
    CHECKPOINT: tables.checkpoints,
}
_ORDERED_BY: Mapping[str, tuple[str, ...]] = {
    GAP: ("id",),
    ENTRY: ("seq",),
    SUPERSEDED: ("id",),
    ITEM: ("seq", "place"),
    CHECKPOINT: ("seq",),
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which rows of a conversation are wanted. A life's own row always is."""

    kinds: frozenset[str] = frozenset(COLUMNS)
    deleted: bool = False
    """Whether lives of which only the deletion is known are wanted too."""
    only_latest: bool = False
    """Whether only the latest life is wanted."""


EVERYTHING = Chosen()
Check = Callable[[AsyncIterator[Row]], Awaitable[None]]


class Copies:
    """The conversations of one tenant, each as its rows: life by life, in the order in which they came."""

    def __init__(self, database: Database, tenant: str) -> None:
        """Share the database, which others close."""
        self._database, self._tenant = database, tenant

    async def is_empty(self) -> bool:
        """Tell whether the tenant has nothing here, not even the trace of a deletion."""
        async with self._database.reading("looking for conversations") as connection:
            for table in (tables.lives, tables.pictures):
                found = await connection.execute(select(table.c.tenant).where(table.c.tenant == self._tenant).limit(1))
                if found.first() is not None:
                    return False
        return True

    async def ids(self, *, with_deleted: bool = False) -> AsyncIterator[str]:
        """Yield the ids of all conversations, in the order of their bytes; deleted ones only if asked for."""
        after: str | None = None
        while True:
            async with self._database.reading("listing the conversations") as connection:
                found = await connection.execute(self._page(connection, after, with_deleted=with_deleted))
                page = [row[0] for row in found]
            for conversation_id in page:
                yield conversation_id
            if len(page) < IDS_AT_ONCE:
                return
            after = page[-1]

    def _page(self, connection: AsyncConnection, after: str | None, *, with_deleted: bool) -> Select[Any]:
        # the order of bytes, which is SQLite's own, in every database
        by = tables.lives.c.conversation_id
        ordered = by.collate("C") if connection.dialect.name == "postgresql" else by
        asked = select(by).distinct().where(tables.lives.c.tenant == self._tenant)
        if not with_deleted:
            asked = asked.where(tables.lives.c.deleted_at.is_(None))
        if after is not None:
            asked = asked.where(ordered > after)
        grouped = asked.subquery()
        column = grouped.c.conversation_id
        last = column.collate("C") if connection.dialect.name == "postgresql" else column
        return select(column).order_by(last).limit(IDS_AT_ONCE)

    async def rows(self, conversation_id: str, chosen: Chosen = EVERYTHING) -> AsyncIterator[Row]:
        """Yield the rows of one conversation, all of one moment; none if there is no such conversation."""
        async with self._database.reading(f"reading {conversation_id!r}") as connection:
            async for row in self._rows(connection, conversation_id, chosen):
                yield row

    async def add(self, conversation_id: str, rows: Iterable[Row], check: Check, chosen: Chosen = EVERYTHING) -> None:
        """Add a conversation in one transaction. `check` is given what was added, as `rows` reads it.

        What `check` raises undoes everything. Raises `ConflictError` if there is such a conversation, or if one of
        these lives was deleted here.
        """
        async with self._database.writing(f"adding {conversation_id!r}") as connection:
            there = await self._lives(connection, conversation_id, with_deleted=True)
            if any(life["deleted_at"] is None or chosen.deleted for life in there):
                message = f"{conversation_id!r} is in the archive already"
                raise ConflictError(message)
            await self._insert(connection, conversation_id, rows, {life["life"] for life in there})
            await check(self._rows(connection, conversation_id, chosen))

    async def knows(self, conversation_id: str) -> bool:
        """Tell whether there is a life of this conversation that was not deleted."""
        async with self._database.reading(f"finding {conversation_id!r}") as connection:
            return bool(await self._lives(connection, conversation_id, with_deleted=False))

    async def deleted_lives(self, conversation_id: str) -> frozenset[str]:
        """Return the lives of this conversation that were deleted here."""
        async with self._database.reading(f"reading {conversation_id!r}") as connection:
            lives = await self._lives(connection, conversation_id, with_deleted=True)
        return frozenset(life["life"] for life in lives if life["deleted_at"] is not None)

    async def _rows(self, connection: AsyncConnection, conversation_id: str, chosen: Chosen) -> AsyncIterator[Row]:
        lives = await self._lives(connection, conversation_id, with_deleted=chosen.deleted)
        for life in lives[-1:] if chosen.only_latest else lives:
            yield Row(LIFE, {name: life[name] for name in COLUMNS[LIFE]})
            for kind in ORDER[1:]:
                if kind in chosen.kinds:
                    async for row in self._of_life(connection, kind, life["id"]):
                        yield row
        if PICTURE in chosen.kinds:
            async for row in self._pictures(connection, conversation_id):
                yield row

    async def _lives(
        self, connection: AsyncConnection, conversation_id: str, *, with_deleted: bool
    ) -> list[Mapping[str, Any]]:
        lives = tables.lives
        asked = select(lives).where(lives.c.tenant == self._tenant, lives.c.conversation_id == conversation_id)
        if not with_deleted:
            asked = asked.where(lives.c.deleted_at.is_(None))
        # the order in which they came: the last one is the one that goes on
        found = (await connection.execute(asked.order_by(lives.c.id))).mappings().all()
        return [dict(life) for life in found]

    async def _of_life(self, connection: AsyncConnection, kind: str, life_id: int) -> AsyncIterator[Row]:
        """Yield a table's rows of one life, page by page: a conversation may be larger than the memory."""
        table = _TABLES[kind]
        keys = [table.c[name] for name in _ORDERED_BY[kind]]
        asked = select(table).where(table.c.life_id == life_id).order_by(*keys).limit(ROWS_AT_ONCE)
        following = asked
        while True:
            page = (await connection.execute(following)).mappings().all()
            for found in page:
                yield Row(kind, {name: found[name] for name in COLUMNS[kind]})
            if len(page) < ROWS_AT_ONCE:
                return
            last = [page[-1][key.name] for key in keys]
            beyond = keys[0] > last[0]
            if len(keys) > 1:
                beyond |= (keys[0] == last[0]) & (keys[1] > last[1])
            following = asked.where(beyond)

    async def _pictures(self, connection: AsyncConnection, conversation_id: str) -> AsyncIterator[Row]:
        """Yield pictures one by one: each may be large."""
        pictures = tables.pictures
        whose = (pictures.c.tenant == self._tenant, pictures.c.conversation_id == conversation_id)
        digests = (await connection.execute(select(pictures.c.digest).where(*whose))).scalars().all()
        for digest in sorted(digests):
            asked = select(pictures).where(*whose, pictures.c.digest == digest)
            found = (await connection.execute(asked)).mappings().one()
            yield Row(PICTURE, {name: found[name] for name in COLUMNS[PICTURE]})

    async def _insert(
        self, connection: AsyncConnection, conversation_id: str, rows: Iterable[Row], deleted: set[str]
    ) -> None:
        whose = {"tenant": self._tenant, "conversation_id": conversation_id}
        life_id: int | None = None
        for kind, together in _runs(rows):
            if kind == LIFE:
                for values in together:
                    if values["life"] in deleted:
                        message = f"{conversation_id!r}: its life {values['life']!r} was deleted in the archive"
                        raise ConflictError(message)
                    # its calls are recorded anew, and nobody is told of them again
                    fed = {} if values["deleted_at"] is None else {"fed": values["seq"]}
                    life = {**whose, **values, **fed, "quiet": values["seq"]}
                    added = await connection.execute(insert(tables.lives).values(life).returning(tables.lives.c.id))
                    life_id = added.scalar_one()
            elif kind == PICTURE:
                await connection.execute(insert(tables.pictures), [{**whose, **values} for values in together])
            else:
                await connection.execute(insert(_TABLES[kind]), [{"life_id": life_id, **row} for row in together])


def _runs(rows: Iterable[Row]) -> Iterable[tuple[str, list[Mapping[str, Any]]]]:
    """Return rows of one kind that follow each other, a bounded number at a time; lives and pictures singly."""
    waiting: list[Mapping[str, Any]] = []
    kind = ""
    for row in rows:
        if waiting and (row.kind != kind or len(waiting) >= ROWS_AT_ONCE or kind in {LIFE, PICTURE}):
            yield kind, waiting
            waiting = []
        kind = row.kind
        waiting.append(row.values)
    if waiting:
        yield kind, waiting
