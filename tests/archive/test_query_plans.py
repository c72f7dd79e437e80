# ruff: noqa: S608  # the statements are made of what is written here
"""What archivers and readers ask a database that has much is found by its indexes, on each kind of database.

The statements are those that a conversation's records, pages and state really lead to: each is noted as it is executed,
and its plan is asked for afterwards.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Engine, event, text

from conversation_actors import Message
from conversation_actors.archive.database import Database
from conversation_actors.archive.feed import Feed
from conversation_actors.archive.filling import lacking
from conversation_actors.archive.outbox import Outbox
from conversation_actors.archive.overlay import Wanted
from conversation_actors.archive.reader import ArchiveReader
from conversation_actors.archive.sessions import SessionCursor, WantedSessions, page_of_sessions
from conversation_actors.archive.tables import lives
from conversation_actors.archive.waiting import WaitingEntries
from conversation_actors.archive.writer import Writer
from conversation_actors.codec import encode_entry
from conversation_actors.errors import CorruptStateError
from conversation_actors.state import Entry, Event, HistoryCleared, ItemsAppended, ItemsEvicted, ItemsRemoved
from conversation_actors.store.backlog import Record

TENANT, CONVERSATION, LIFE = "default", "c", "life"
LIVES, EACH = 2000, 20
_NUMBERS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {})"
_FILL = (
    "INSERT INTO archive_lives "
    "(tenant, conversation_id, life, start, seq, epoch, owner, lineage, created_at, active_at) "
    + _NUMBERS.format(LIVES)
    + " SELECT 'default', CAST(x AS TEXT), 'life', 0, 100, 1, 'owner', '[]', 1.0, 1.0 FROM n",
    *(
        f"INSERT INTO {table} ({columns}) "
        + _NUMBERS.format(EACH)
        + f" SELECT l.id, {values} FROM archive_lives AS l CROSS JOIN n"
        for table, columns, values in (
            ("archive_entries", "life_id, seq, epoch, at, event, data", "x, 1, 1.0, 'e', l.data"),
            ("archive_superseded", "life_id, seq, epoch, at, event, data, noted_at", "x, 1, 1.0, 'e', l.data, 1.0"),
            ("archive_gaps", "life_id, from_seq, to_seq, reason, noted_at", "x, x, 'r', 1.0"),
            (
                "archive_items",
                "life_id, item_id, seq, place, is_evicted, type, data",
                "CAST(x AS TEXT), x, 0, false, 'message', l.data",
            ),
        )
    ),
    "INSERT INTO archive_checkpoints (life_id, seq, data) SELECT l.id, 1, l.data FROM archive_lives AS l",
    "UPDATE archive_lives SET fed = seq",
    (
        "INSERT INTO archive_feeds (life_id, tenant, conversation_id, state, due_at)"
        " SELECT l.id, l.tenant, l.conversation_id, '', CASE WHEN l.id < 3 THEN 1.0 END FROM archive_lives AS l"
    ),
    (
        "INSERT INTO archive_happenings"
        " (life_id, tenant, conversation_id, event_id, type, at, call_id, seq, place, data)"
        " SELECT life_id, 'default', CAST(life_id AS TEXT), CAST(seq AS TEXT), 't', 1.0, 'c', seq, 0, '{}'"
        " FROM archive_entries"
    ),
    (
        "INSERT INTO archive_sessions (life_id, tenant, conversation_id, call_id, started_at, ended_at, data)"
        " SELECT life_id, 'default', CAST(life_id AS TEXT), CAST(seq AS TEXT), seq, seq, '{}' FROM archive_entries"
    ),
    (
        "INSERT INTO archive_session_people (session_id, identity)"
        " SELECT id, conversation_id || '.' || call_id FROM archive_sessions"
    ),
    (
        "INSERT INTO archive_pictures (tenant, conversation_id, digest, media_type, data, kept_at)"
        " SELECT 'default', CAST(life_id AS TEXT), CAST(seq AS TEXT), 'image/jpeg', l.data, 1.0"
        " FROM archive_entries AS l"
    ),
    (
        "INSERT INTO archive_deliveries (destination, tenant, conversation_id, delivered_id, attempts, next_at)"
        " SELECT CAST(seq AS TEXT), 'default', CAST(life_id AS TEXT), 0, 0, CASE WHEN life_id < 5 THEN 1.0 END"
        " FROM archive_entries"
    ),
    "INSERT INTO archive_replays (destination, happening_id) SELECT 'none', id FROM archive_happenings",
    "ANALYZE",
)


async def fill(database: Database) -> None:
    """Give the archive so much that a table is not read as a whole only because it is small."""
    empty = "CAST('' AS BYTEA)" if database.address.driver.startswith("postgresql") else "x''"
    async with database.writing("filling") as connection:
        for statement in _FILL:
            await connection.execute(text(statement.replace("l.data", empty)))


@contextmanager
def noted() -> Iterator[list[tuple[str, Any]]]:
    """Note every statement that is executed in the block, with its parameters: of many at once, the first ones."""
    statements: list[tuple[str, Any]] = []

    def note(_: Connection, __: Any, statement: str, parameters: Any, ___: Any, executemany: bool) -> None:  # noqa: FBT001
        statements.append((statement, parameters[0] if executemany else parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", note)


async def plans(database: Database, statements: list[tuple[str, Any]]) -> dict[str, str]:
    """Return the plan of each statement that looks for rows."""
    explain = "EXPLAIN" if database.address.driver.startswith("postgresql") else "EXPLAIN QUERY PLAN"
    found: dict[str, str] = {}
    async with database.reading("explaining") as connection:
        for statement, parameters in dict(statements).items():
            if "archive_" in statement and statement.split()[0] in {"SELECT", "UPDATE", "DELETE", "WITH"}:
                rows = await connection.exec_driver_sql(f"{explain} {statement}", parameters)
                found[statement] = "\n".join(str(row[-1]) for row in rows)
    return found


def scans(plan: str) -> list[str]:
    """Return the lines of a plan that tell of a whole table being read."""
    return [line for line in plan.splitlines() if "Seq Scan" in line or line.strip().startswith("SCAN archive_")]


def record(seq: int, happened: Event, owner: str = "owner", epoch: int = 1) -> bytes:
    """Return a record of the life's backlog."""
    data = encode_entry(Entry(seq, epoch, time.time(), happened, f"r{seq}"))
    return Record(LIFE, 0, epoch, owner, data).encode()


def message(number: int) -> Any:
    """One item."""
    return Message(role="user", content="hello", id=f"m{number}").to_stored()


async def test_hot_queries_use_indexes(database: Database) -> None:
    """Writing, repeating, replacing, removing and paging: no table is read as a whole."""
    await fill(database)
    writer, reader = Writer(database, TENANT), ArchiveReader(database, TENANT)
    appended = [record(seq, ItemsAppended((message(seq),))) for seq in range(1, 40)]
    waiting = WaitingEntries((Entry(41, 2, 1.0, ItemsAppended((message(3), message(99)))),))
    with noted() as statements:
        await writer.write(CONVERSATION, [*appended, record(40, ItemsEvicted((message(1),)))])
        await writer.write(CONVERSATION, appended)
        await writer.write(CONVERSATION, [record(39, ItemsRemoved(("m5",)), "other", 2)])
        await writer.write(CONVERSATION, [record(60, ItemsAppended((message(60),)), "other", 2)])
        for newest_first in (False, True):
            page = await reader.page(CONVERSATION, LIFE, waiting, Wanted(None, 5, newest_first))
            after = page.placed[-1].position
            await reader.page(CONVERSATION, LIFE, waiting, Wanted(after, 5, newest_first))
        await reader.gaps(CONVERSATION, LIFE)
        async with database.reading("looking for gaps") as connection:
            await connection.execute(lacking(TENANT).where(lives.c.id > 0).limit(200))
            await connection.execute(lacking(TENANT).where(lives.c.conversation_id == CONVERSATION))

    found = await plans(database, statements)

    assert len(found) > 5
    assert {statement: scans(plan) for statement, plan in found.items() if scans(plan)} == {}


async def test_the_feed_and_its_readers_use_indexes(database: Database) -> None:
    """Looking, reading on, telling, recording and forgetting; what is to be delivered; and the pages of records."""
    await fill(database)
    writer = Writer(database, TENANT)
    feed = Feed(database, TENANT, idle=timedelta(seconds=1), clock=lambda: time.time() + 1e6)
    said = [record(seq, ItemsAppended((message(seq),))) for seq in range(1, 40)]
    after = SessionCursor(5.0, 10_000)
    with noted() as statements:
        await writer.write(CONVERSATION, said)
        await feed.step(await feed.look())
        await writer.write(CONVERSATION, [record(40, HistoryCleared())])
        await feed.step([CONVERSATION])
        assert [len(one.queue) for one in await Outbox(database, TENANT, claim=1.0).take({"7": 3})] == [EACH] * 3
        for wanted in (
            WantedSessions(5, after=after),
            WantedSessions(5, conversation_id="7"),
            WantedSessions(5, user="7.7"),
            WantedSessions(5, since=3.0, until=4.0),
        ):
            with suppress(CorruptStateError):
                await page_of_sessions(database, TENANT, wanted)
        await writer.delete(CONVERSATION)

    found = await plans(database, statements)

    assert len(found) > 10
    assert {statement: scans(plan) for statement, plan in found.items() if scans(plan)} == {}


async def test_a_query_without_an_index_is_found(database: Database) -> None:
    """The check above can fail: nothing finds an item by its type."""
    await fill(database)

    found = await plans(database, [("SELECT data FROM archive_items WHERE type = 'message'", ())])

    assert [bool(scans(plan)) for plan in found.values()] == [True]
