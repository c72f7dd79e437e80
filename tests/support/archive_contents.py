"""What an archive's database holds, for tests to look at."""

from typing import Any

from sqlalchemy import Table, select, text

from conversation_actors.archive.database import Database
from conversation_actors.archive.tables import entries, items, metadata


async def rows(database: Database, table: Table, *columns: str) -> list[tuple[Any, ...]]:
    """Return columns of all rows, in the order of the first ones."""
    chosen = [table.c[name] for name in columns]
    async with database.reading("looking") as connection:
        return [tuple(row) for row in (await connection.execute(select(*chosen).order_by(*chosen))).all()]


async def archived(database: Database) -> list[int]:
    """Return the positions of all entries."""
    return [seq for (seq,) in await rows(database, entries, "seq")]


async def history(database: Database) -> list[str]:
    """Return the ids of all items, in the order of their places."""
    return [name for *_, name in await rows(database, items, "seq", "place", "item_id")]


async def everything(database: Database) -> bytes:
    """Return all values of all columns of all tables, as bytes."""
    found: list[bytes] = []
    async with database.reading("looking") as connection:
        for table in metadata.sorted_tables:
            for row in (await connection.execute(select(table))).all():
                found += [value if isinstance(value, bytes) else str(value).encode() for value in row]
    return b"\n".join(found)


async def change(database: Database, statement: str) -> None:
    """Run a statement, as somebody might who has a right to the database."""
    async with database.writing("changing") as connection:
        await connection.execute(text(statement))
