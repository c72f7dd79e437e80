"""A page of a long history is read from the index of its order: as much as the page has, and nothing is sorted."""

from typing import Any

import pytest
from sqlalchemy import Select, insert, text
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.database import Database
from conversation_actors.archive.overlay import Position
from conversation_actors.archive.reader import items_after
from conversation_actors.archive.tables import items, lives

LIFE = {"tenant": "default", "conversation_id": "c", "start": 0, "seq": 5000, "epoch": 1, "owner": "o", "lineage": "[]"}
ROW = {"place": 0, "is_evicted": True, "type": "message", "role": "user", "data": b"{}"}


async def plan_of(connection: AsyncConnection, statement: Select[Any]) -> str:
    """Return how the database would execute a statement."""
    explain = "EXPLAIN" if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
    sql = statement.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
    return "\n".join(str(row[-1]) for row in await connection.exec_driver_sql(f"{explain} {sql}"))


@pytest.mark.parametrize("newest_first", [False, True])
async def test_a_page_reads_the_index_of_the_order_from_the_cursor_on(
    database: Database, *, newest_first: bool
) -> None:
    """It costs the same wherever the page is."""
    async with database.writing("filling") as connection:
        for number in (1, 2):
            await connection.execute(
                insert(lives).values(**LIFE, id=number, life=f"l{number}", created_at=1.0, active_at=1.0)
            )
            rows = [{"life_id": number, "item_id": f"i{seq}", "seq": seq, **ROW} for seq in range(1, 5001)]
            await connection.execute(insert(items), rows)
        await connection.execute(text("ANALYZE"))
    async with database.reading("explaining") as connection:
        for after in (None, Position(2500, 0)):
            told = {"life_id": 1, "most": 101} | ({} if after is None else after._asdict())
            statement = items_after(is_first=after is None, newest_first=newest_first)
            found = await connection.execute(statement, told)
            step = -1 if newest_first else 1
            first = (5000 if newest_first else 1) if after is None else 2500 + step
            assert [row[0] for row in found] == list(range(first, first + 101 * step, step))
            plan = await plan_of(connection, statement.params(told))
            assert ("archive_items_order" in plan) or ("sqlite_autoindex_archive_items" in plan)
            assert "Sort" not in plan
            assert "TEMP B-TREE" not in plan
            if after is not None:
                assert "ROW(seq, place)" in plan or "(seq,place)" in plan
