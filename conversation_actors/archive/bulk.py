"""Many rows in one statement: as arrays in PostgreSQL, as repeats of a prepared statement in SQLite.

Both take a tenth of the time that the general way takes for each row.
"""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ARRAY, Insert, Table, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

Conflict = Callable[[Any], Any]
"""What to do about rows that are there already: a function of the statement."""


class BulkInsert:
    """A statement that adds rows, given as tuples of these columns."""

    def __init__(
        self, table: Table, columns: Sequence[str], on_conflict: Conflict = lambda statement: statement
    ) -> None:
        self._columns = tuple(columns)
        statement = sqlite.insert(table).values({name: bindparam(name) for name in columns})
        compiled = on_conflict(statement).compile(dialect=sqlite.dialect())
        order = [name for name in compiled.positiontup if name in columns]
        assert order == list(columns) == list(compiled.positiontup)
        self._sqlite = str(compiled)
        arrays = [bindparam(name, type_=ARRAY(table.c[name].type)) for name in columns]
        rows = func.unnest(*arrays).table_valued(*columns).render_derived(name="arrived")
        into: Any = postgresql.insert(table).from_select(list(columns), select(*(rows.c[name] for name in columns)))
        self._postgresql: Insert = on_conflict(into)

    async def execute(self, connection: AsyncConnection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Add rows; nothing if there are none."""
        if not rows:
            return
        if connection.dialect.name == "sqlite":
            await connection.exec_driver_sql(self._sqlite, list(rows))
            return
        columns = zip(*rows, strict=True)
        await connection.execute(
            self._postgresql, {name: list(values) for name, values in zip(self._columns, columns, strict=True)}
        )
