"""Archivers on real servers: several at once, their deaths, and those of the database."""

import asyncio
import json
import signal
import subprocess
import time
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from conversation_actors.archive import service
from conversation_actors.archive.database import Database
from conversation_actors.archive.service import Parts
from conversation_actors.archive.status import GapFound, status_of
from conversation_actors.archive.tables import REVISION
from conversation_actors.cli import archive_status, archiving
from conversation_actors.errors import ArchiveMisconfiguredError, ConversationNotFoundError
from conversation_actors.settings import Settings
from conversation_actors.store import Store
from tests.archive.conftest import migrated_url
from tests.support.archiving import (
    PATIENCE,
    Author,
    archive_settings,
    archived,
    has_all,
    item_ids,
    lines_with,
    start_archiver,
)
from tests.support.postgres import PostgresServer, wait_for_server
from tests.support.waiting import wait_for, wait_until


@pytest.fixture
def environment(redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of a process whose environment names both servers."""
    monkeypatch.setenv("CONVERSATION_REDIS_URL", redis_url)
    monkeypatch.setenv("CONVERSATION_ARCHIVE_URL", database_url)
    return Settings()


async def run_once(settings: Settings) -> int:
    """Do all that an archiver finds to do now."""
    return await service.run_once(settings, program="a test")


@pytest.mark.chaos
async def test_several_archivers_share_the_work_and_survive_the_death_of_one(
    tmp_path: Path, redis_url: str, request: pytest.FixtureRequest
) -> None:
    """Killed in the middle: what it had claimed is archived by the others; everything once, in order."""
    url = await migrated_url("postgresql", tmp_path, request)
    settings = archive_settings(redis_url, url)
    logs = [tmp_path / f"log{number}" for number in range(3)]
    processes = [start_archiver(log, redis_url, url) for log in logs]
    try:
        async with service.opened(settings, program="a test") as (store, database):
            authors = {f"c{number}": await Author.of(store, f"c{number}") for number in range(12)}
            await asyncio.gather(
                *(
                    asyncio.to_thread(wait_for, partial(lines_with, log, "archiving"), "it", patience=PATIENCE)
                    for log in logs
                )
            )
            for turn in range(20):
                await asyncio.gather(*(author.say(5) for author in authors.values()))
                if turn == 10:
                    processes[0].kill()
            await wait_until(lambda: has_all(database, authors), "everything to be archived", patience=PATIENCE)
            for name, author in authors.items():
                assert await archived(database, name) == author.written
            for process in processes[1:]:
                process.send_signal(signal.SIGTERM)
            assert [await asyncio.to_thread(process.wait, 20) for process in processes[1:]] == [0, 0]
            await wait_until(lambda: _nothing_waits(store), "nothing to wait")
    finally:
        _end(processes)


async def _nothing_waits(store: Store) -> bool:
    return not any(one.records for one in await store.backlog().waiting())


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.chaos
async def test_a_database_that_was_away_is_caught_up_with(tmp_path: Path, redis_url: str) -> None:
    """Killed while owners write, which notice nothing; told of once when it goes, and once when it is back."""
    log = tmp_path / "log"
    with PostgresServer() as server:
        settings = archive_settings(redis_url, server.url())
        await service.migrate(settings)
        process = start_archiver(log, redis_url, server.url())
        try:
            async with service.opened(settings, program="a test") as (store, database):
                authors = {name: await Author.of(store, name) for name in ("a", "b", "c")}
                await asyncio.gather(*(author.say(3) for author in authors.values()))
                await wait_until(lambda: has_all(database, authors), "the first entries", patience=PATIENCE)
                await database.aclose()
                server.kill()
                for _ in range(5):
                    await asyncio.gather(*(author.say(3) for author in authors.values()))
                await asyncio.to_thread(
                    wait_for, lambda: lines_with(log, "waits to be archived"), "it to be told", patience=PATIENCE
                )
                await asyncio.to_thread(server.start)
                await asyncio.to_thread(wait_for_server, server)
                await wait_until(lambda: has_all(database, authors), "everything to be archived", patience=PATIENCE)
                for name, author in authors.items():
                    assert await archived(database, name) == author.written
                await asyncio.to_thread(wait_for, lambda: lines_with(log, "asked of it again"), "the end to be told")
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 20) == 0
        finally:
            _end([process])
    assert len(lines_with(log, "WARNING")) == 1, log.read_text()
    assert len(lines_with(log, "asked of it again")) == 1


async def test_a_conversation_that_nobody_opens_again_is_archived(
    redis_url: str, database_url: str, store: Store, database: Database
) -> None:
    """Also when its time in Redis is up before any archiver runs."""
    author = await Author.of(store, "c")
    author.ttl = timedelta(milliseconds=50)
    await author.say(10)
    await wait_until(lambda: _is_gone(store, "c"), "its time to be up")
    assert await run_once(archive_settings(redis_url, database_url)) == 10
    assert await archived(database, "c") == author.written


async def _is_gone(store: Store, conversation_id: str) -> bool:
    try:
        await store.read(conversation_id)
    except ConversationNotFoundError:
        return True
    return False


async def test_a_conversation_from_before_the_archive_is_adopted(
    redis_url: str, database_url: str, old_store: Store, store: Store, database: Database
) -> None:
    """With the state that Redis has; what it says afterwards follows, whether or not somebody says it before that."""
    silent, talking = await Author.of(old_store, "silent"), await Author.of(old_store, "talking")
    await silent.say(3)
    await talking.say(3)
    talking = await Author.of(store, "talking")
    await talking.say(2)
    settings = archive_settings(redis_url, database_url)
    await run_once(settings)
    for name, seq in (("silent", 3), ("talking", 5)):
        status = await status_of(Parts(store, database), tenant="default", conversation_id=name)
        assert [life.seq for life in status.lives] == [seq], name
        assert await item_ids(database, name) == [f"m{number}" for number in range(1, seq + 1)]
    assert await archived(database, "talking") == talking.written
    assert await run_once(settings) == 0
    silent = await Author.of(store, "silent")
    await silent.say(1)
    await run_once(settings)
    assert (await archived(database, "silent"))[-1:] == silent.written


async def test_retention_removes_what_is_old_from_the_archive_and_leaves_redis_alone(
    redis_url: str, database_url: str, store: Store, database: Database
) -> None:
    """Of each tenant by itself; what is removed is not adopted again."""
    author = await Author.of(store, "c")
    await author.say(3)
    await run_once(archive_settings(redis_url, database_url))
    assert len(await archived(database, "c")) == 3
    await wait_until(lambda: asyncio.sleep(0, time.time() > _at(author) + 0.05), "it to be old")
    await run_once(archive_settings(redis_url, database_url, retention=timedelta(milliseconds=50)))
    assert await archived(database, "c") == []
    assert (await store.read("c")).seq == 3


def _at(author: Author) -> float:
    return float(json.loads(author.written[-1].partition(b"\n")[0])["at"])


async def test_the_status_tells_what_waits_and_what_is_missing(
    store: Store, database: Database, environment: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before and after it is archived, of all conversations and of one, for people and for programs."""
    author = await Author.of(store, "c")
    await author.say(4)
    parts = Parts(store, database)
    before = await status_of(parts, tenant="default")
    assert (before.waiting, before.lag.records, before.conversations) == ({"c": 4}, 4, 0)
    await run_once(environment)
    after = await status_of(parts, tenant="default")
    assert (after.waiting, after.lag.records, after.conversations, after.gaps) == ({}, 0, 1, 0)
    await archive_status.run("c", as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert [(life["start"], life["seq"]) for life in document["lives"]] == [(0, 4)]
    await archive_status.run(None, as_json=False)
    assert "archived    1 conversations, with 0 gaps" in capsys.readouterr().out


async def test_a_gap_is_told_by_the_status(redis_url: str, database_url: str, store: Store, database: Database) -> None:
    """Entries that were given up, because too much waited."""
    author = await Author.of(store, "c")
    await author.say(1)
    await run_once(archive_settings(redis_url, database_url))
    await author.say(3)
    batch = await store.backlog().peek("c")
    await store.backlog().settle("c", backlog=batch.backlog, through=batch.first + 2)
    await run_once(archive_settings(redis_url, database_url))
    status = await status_of(Parts(store, database), tenant="default", conversation_id="c")
    assert [(gap.from_seq, gap.to_seq) for life in status.lives for gap in life.gaps] == [(2, 3)]
    assert isinstance(status.lives[0].gaps[0], GapFound)


async def test_tables_are_made_by_a_command_and_missed_by_name(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without them an archiver does not begin; with `--migrate` it makes them."""
    monkeypatch.setenv("CONVERSATION_REDIS_URL", redis_url)
    monkeypatch.setenv("CONVERSATION_ARCHIVE_URL", f"sqlite+aiosqlite:///{tmp_path / 'new.db'}")
    for begin in (archiving.archive_once, archiving.archive_until_stopped):
        with pytest.raises(ArchiveMisconfiguredError, match="conversation-actors archive migrate"):
            await begin(is_to_migrate=False)
    await archiving.archive_once(is_to_migrate=True)
    await archiving.migrate()
    assert capsys.readouterr().out == f"Archived: 0 entries.\nThe archive's tables are at migration {REVISION}.\n"
