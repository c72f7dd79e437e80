"""The records of calls, as a client and the command read them, and in an archive that is older than they are."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, event, text

from conversation_actors import ConversationClient, SessionRecord
from conversation_actors.archive import migrations
from conversation_actors.archive.copying import Chosen, Copies
from conversation_actors.archive.database import Database
from conversation_actors.archive.feed import Feed
from conversation_actors.archive.tables import lives
from conversation_actors.archive.writer import Writer
from conversation_actors.cli import sessions as command
from conversation_actors.errors import (
    ArchiveMisconfiguredError,
    ArchiveUnavailableError,
    CorruptStateError,
    InvalidInputError,
)
from conversation_actors.settings import ArchiveSettings, Settings
from tests.archive.conftest import DATABASES, TENANT, empty_url, make_database
from tests.support.archive_contents import change, rows
from tests.support.archive_records import BEGAN, Author
from tests.support.archived_calls import (
    IDLE,
    call_events,
    feed_all,
    folded,
    identified,
    outbox,
    recorded,
    session_records,
)

LATER = BEGAN + 1e7


def feed_of(database: Database, *, now: float = LATER) -> Feed:
    """Make a feed, by whose clock every call is over unless it is given another one."""
    return Feed(database, TENANT, idle=timedelta(seconds=IDLE), clock=lambda: now)


async def hold_calls(writer: Writer, conversation_id: str, count: int) -> None:
    """Archive some calls, one after the other, that begin at the same times in every conversation."""
    events = [one for number in range(1, count + 1) for one in call_events(number, turns=1)]
    await writer.write(conversation_id, recorded(Author(), events))


def client_of(url: str | None) -> ConversationClient:
    """Make a client whose archive this is."""
    archive = ArchiveSettings(url=None if url is None else SecretStr(url), timeout=timedelta(seconds=20))
    return ConversationClient.local(Settings(archive=archive, tenant=TENANT))


def told(records: tuple[SessionRecord, ...]) -> list[tuple[str, int]]:
    """Return which calls these are of."""
    return [(one.conversation_id, one.number) for one in records]


async def test_records_are_read_in_pages_the_newest_first(
    database: Database, database_url: str, writer: Writer
) -> None:
    """Of all conversations, of one, of one person, of a time; calls that began at the same moment are not lost."""
    for name in ("a", "b"):
        await hold_calls(writer, name, 3)
    await feed_all(feed_of(database))
    async with client_of(database_url) as client:
        found, cursor = list[tuple[str, int]](), None
        for _ in range(4):
            page = await client.sessions(limit=3, cursor=cursor)
            found += told(page.sessions)
            cursor = page.next_cursor
            if cursor is None:
                break
        assert [number for _, number in found] == [3, 3, 2, 2, 1, 1]
        assert len(set(found)) == 6
        assert told((await client.sessions(conversation_id="a")).sessions) == [("a", 3), ("a", 2), ("a", 1)]
        assert len((await client.sessions(user="alice")).sessions) == 6
        assert (await client.sessions(user="bob")).sessions == ()
        second = (await client.sessions(conversation_id="a")).sessions[1]
        began = datetime.fromtimestamp(second.started_at, UTC)
        assert told((await client.sessions(conversation_id="a", since=began)).sessions) == [("a", 3), ("a", 2)]
        assert told((await client.sessions(conversation_id="a", until=began)).sessions) == [("a", 1)]
        assert [one.to_dict() for one in (await client.sessions(conversation_id="b")).sessions[::-1]] == [
            one for one in await session_records(database) if one["conversation_id"] == "b"
        ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("limit", 0), ("limit", 1001), ("limit", True), ("limit", "1"), ("conversation_id", ""), ("user", 7),
        ("since", 1.0), ("until", datetime(2026, 1, 1)), ("cursor", "nonsense"), ("cursor", 7),  # noqa: DTZ001
        ("cursor", "WzEsImEiLDEsMSwwXQ"),
    ],
)  # fmt: skip
async def test_what_is_asked_for_is_checked(database_url: str, field: str, value: object) -> None:
    """By name; a cursor of another kind of page is none."""
    async with client_of(database_url) as client:
        with pytest.raises(InvalidInputError) as caught:
            await client.sessions(**{field: value})  # type: ignore[arg-type]  # what is tested
    assert caught.value.field == field


async def test_errors_say_what_is_wrong(database: Database, database_url: str, writer: Writer, tmp_path: Path) -> None:
    """No archive, one that is not there, a record that cannot be read."""
    async with client_of(None) as client:
        with pytest.raises(ArchiveMisconfiguredError, match="no archive is configured"):
            await client.sessions()
    async with client_of(f"sqlite+aiosqlite:///{tmp_path / 'none.db'}") as client:
        with pytest.raises((ArchiveUnavailableError, ArchiveMisconfiguredError)):
            await client.sessions()
    await hold_calls(writer, "a", 1)
    await feed_all(feed_of(database))
    await change(database, "UPDATE archive_sessions SET data = '{}'")
    async with client_of(database_url) as client:
        with pytest.raises(CorruptStateError, match=r"archive_sessions\.data of id \d+"):
            await client.sessions()


async def test_the_command_prints_them(
    database: Database,
    database_url: str,
    writer: Writer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """For people and as JSON; it needs no Redis."""
    await hold_calls(writer, "support-42", 2)
    await feed_all(feed_of(database))
    monkeypatch.setenv("CONVERSATION_ARCHIVE_URL", database_url)
    monkeypatch.setenv("CONVERSATION_TENANT", TENANT)

    await command.run(None, "alice", since="2001-01-01", until="1h", limit=1, as_json=False)
    printed = capsys.readouterr().out
    assert "support-42" in printed
    assert "there are more" in printed
    await command.run("support-42", None, since=None, until=None, limit=20, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["sessions"] == (await session_records(database))[::-1]
    await command.run("another", None, since=None, until=None, limit=20, as_json=False)
    assert capsys.readouterr().out == "No call is recorded.\n"
    with pytest.raises(InvalidInputError, match="since: expected a time"):
        await command.run(None, None, since="soon", until=None, limit=20, as_json=False)


@contextmanager
def executed_statements() -> Iterator[list[str]]:
    """Give the statements that anybody executes meanwhile."""
    seen: list[str] = []

    def see(_: Any, __: Any, statement: str, ___: Any, ____: Any, _____: Any) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", see)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", see)


@pytest.mark.parametrize("kind", DATABASES)
async def test_what_was_archived_before_is_recorded_and_not_told_of(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the migration; what comes afterwards is told of, also of a call that had begun before."""
    database = make_database(empty_url(kind, tmp_path, request))
    writer, records = Writer(database, TENANT), recorded(Author(), [*call_events(1), *call_events(2)])
    with monkeypatch.context() as older:
        older.setattr(migrations, "REVISION", "0001")
        await database.migrate()
    await writer.write("a", records[:12])
    await writer.write("gone", records[:3])
    async with database.writing("deleting as that version did") as connection:
        await connection.execute(text("DELETE FROM archive_entries WHERE life_id = 2"))
        await connection.execute(text("UPDATE archive_lives SET deleted_at = 1.0 WHERE id = 2"))
    with executed_statements() as statements:
        await database.migrate()
    assert len([one for one in statements if one.startswith("UPDATE archive_lives")]) == 1  # each writes every row

    await feed_all(feed_of(database, now=BEGAN))
    assert await outbox(database) == []
    await writer.write("a", records[12:])
    await feed_all(feed_of(database))

    assert [one["number"] for one in await session_records(database)] == [1, 2]
    assert await outbox(database) == identified([one for one in folded("a", records, now=LATER) if one.seq > 12])
    await database.aclose()


async def test_what_is_imported_is_recorded_and_not_told_of(database: Database, writer: Writer) -> None:
    """Nor are deletions that are imported looked at for ever."""
    await hold_calls(writer, "a", 2)
    await hold_calls(writer, "gone", 1)
    await writer.delete("gone")
    copies, there, everything = Copies(database, TENANT), Copies(database, "another"), Chosen(deleted=True)
    for name in ("a", "gone"):
        await there.add(name, [row async for row in copies.rows(name, everything)], _accept, everything)
    await feed_all(Feed(database, "another", idle=timedelta(seconds=IDLE), clock=lambda: LATER))

    assert await outbox(database) == []
    assert [one["number"] for one in await session_records(database)] == [1, 2]
    imported = [
        fed == seq for tenant, fed, seq in await rows(database, lives, "tenant", "fed", "seq") if tenant != TENANT
    ]
    assert imported == [True, True]


async def test_what_is_written_quietly_is_recorded_and_not_told_of(database: Database, writer: Writer) -> None:
    """As another program's lists are; what comes afterwards is told of."""
    records = recorded(Author(), [*call_events(1), *call_events(2)])
    await writer.write("a", records[:12], quietly=True)
    await writer.write("a", records[12:])
    await feed_all(feed_of(database))

    assert [one["number"] for one in await session_records(database)] == [1, 2]
    assert await outbox(database) == identified([one for one in folded("a", records, now=LATER) if one.seq > 12])


async def _accept(_: object) -> None:
    """Check nothing."""
