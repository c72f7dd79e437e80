"""Archivers on real servers and what they tell of: at once, through their deaths, and whatever becomes of the feed."""

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from conversation_actors.archive import service
from conversation_actors.archive.database import Database
from conversation_actors.archive.tables import lives
from conversation_actors.calls import CallFold, Happening
from conversation_actors.codec import decode_entry
from conversation_actors.settings import Settings
from conversation_actors.store import Store
from tests.support.archive_contents import change, rows
from tests.support.archived_calls import IDLE, call_events, identified, outbox, session_records
from tests.support.archiving import PATIENCE, Author, archive_settings, archived, has_all, start_archiver
from tests.support.waiting import wait_until

ROUNDS = 3
"""Calls of each conversation, in each of which an archiver is killed."""


async def told_of(database: Database, name: str, written: Sequence[bytes]) -> list[Happening]:
    """Return what the entries of a conversation's only life come to."""
    (life,) = [life for one, life in await rows(database, lives, "conversation_id", "life") if one == name]
    fold = CallFold(name, life, idle=IDLE)
    return [one for data in written for one in fold.take(decode_entry(data))]


async def test_an_archiver_tells_of_what_it_has_archived(
    redis_url: str, database_url: str, store: Store, database: Database
) -> None:
    """Also one that runs once; a call is recorded when the next one begins, or its time is up."""
    author = await Author.of(store, "c")
    await author.write(*call_events(1), *call_events(2))

    await service.run_once(archive_settings(redis_url, database_url), program="a test")

    assert await _is_told(database, "c", author)
    assert [one["number"] for one in await session_records(database)][:1] == [1]


async def _run_archiver(settings: Settings, stop: asyncio.Event) -> None:
    await service.run(settings, stop, program="a test")


async def test_an_archiver_tells_at_once_and_archives_on_if_it_cannot_tell(
    redis_url: str, database_url: str, store: Store, database: Database
) -> None:
    """What it could not tell is told when it can be."""
    stop = asyncio.Event()
    running = asyncio.create_task(_run_archiver(archive_settings(redis_url, database_url), stop))
    author = await Author.of(store, "c")
    await author.write(*call_events(1))
    await wait_until(lambda: _is_told(database, "c", author), "it to be told", patience=PATIENCE)

    await change(database, "ALTER TABLE archive_feeds RENAME TO away")
    await author.write(*call_events(2))
    await wait_until(lambda: has_all(database, {"c": author}), "it to be archived", patience=PATIENCE)
    assert not await _is_told(database, "c", author)
    await change(database, "ALTER TABLE away RENAME TO archive_feeds")
    await wait_until(lambda: _is_told(database, "c", author), "it to be told", patience=PATIENCE)

    assert await archived(database, "c") == author.written
    assert not running.done()
    stop.set()
    await running


async def _is_told(database: Database, name: str, author: Author) -> bool:
    """Tell whether all is told of what an author wrote; the last record may be there too, if its time is up."""
    if len(await archived(database, name)) < len(author.written):
        return False
    expected = identified(await told_of(database, name, author.written))
    told = await outbox(database, name)
    later = [kind for _, kind in told[len(expected) :]]
    return told[: len(expected)] == expected and later in ([], ["session.recorded"])


@pytest.mark.chaos
async def test_archivers_that_are_killed_tell_and_record_everything_once(
    tmp_path: Path, redis_url: str, database_url: str, store: Store, database: Database
) -> None:
    """Two at a time, each killed while calls go on; who follows them goes on where the tables say."""
    authors = {f"c{number}": await Author.of(store, f"c{number}") for number in range(3)}
    processes = [start_archiver(tmp_path / f"log{number}", redis_url, database_url) for number in range(2)]
    try:
        for round_ in range(1, ROUNDS + 1):
            known = len(await outbox(database))
            for author in authors.values():
                await author.write(*call_events(round_)[:5])
            await wait_until(partial(_has_more, database, known), "news", patience=PATIENCE)
            for author in authors.values():
                await author.write(*call_events(round_)[5:])
            process = processes.pop(0)
            process.kill()
            process.wait()
            processes.append(start_archiver(tmp_path / f"log{round_ + 1}", redis_url, database_url))
        for name, author in authors.items():
            await wait_until(partial(_is_told, database, name, author), "all to be told", patience=PATIENCE)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    found = [one["call_id"] for one in await session_records(database)]
    expected = {
        one.call_id
        for name, author in authors.items()
        for one in await told_of(database, name, author.written)
        if one.type == "session.recorded"
    }
    assert len(expected) == (ROUNDS - 1) * len(authors)
    assert len(found) == len(set(found))
    assert expected <= set(found)


async def _has_more(database: Database, known: int) -> bool:
    return len(await outbox(database)) > known
