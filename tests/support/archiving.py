"""What tests of the archive need: an owner that writes, archivers in processes, and what a database has."""

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Self

from pydantic import SecretStr
from sqlalchemy import select

from conversation_actors.archive.database import Database
from conversation_actors.archive.tables import entries, items, lives
from conversation_actors.codec import encode_entry
from conversation_actors.settings import ArchiveSettings, Settings
from conversation_actors.state import Entry, Event, ItemsAppended
from conversation_actors.store import Claim, Outcome, Store
from tests.support.strategies import message

WEEK = timedelta(days=7)
PATIENCE = 90.0
"""Seconds until processes that are started side by side have begun, and have done their work, on a busy machine."""
_PROGRAM = """
import asyncio, json, sys
from datetime import timedelta
from conversation_actors.cli.archiving import archive_until_stopped, log_to_stderr
from conversation_actors.settings import Settings
from conversation_actors.timing import Timing
told = json.loads(sys.argv[1])
timing = Timing(archive_claim=told["claim"], archive_quiet=told["quiet"])
log_to_stderr()
asyncio.run(archive_until_stopped(is_to_migrate=False, timing=timing))
"""


def archive_settings(redis_url: str, archive_url: str, *, retention: timedelta | None = None) -> Settings:
    """Return settings with these servers."""
    archive = ArchiveSettings(url=SecretStr(archive_url), retention=retention)
    return Settings(redis_url=SecretStr(redis_url), archive=archive)


class Author:
    """An owner of one conversation, who only writes messages. `written` are the entries that were acknowledged.

    `ttl` is for how long Redis keeps the conversation from each write on.
    """

    def __init__(self, store: Store, claim: Claim, ttl: timedelta, seq: int) -> None:
        """Own it already."""
        self._store, self._claim, self.ttl = store, claim, ttl
        self.written: list[bytes] = []
        self.seq = seq

    @classmethod
    async def of(cls, store: Store, conversation_id: str, *, ttl: timedelta = WEEK) -> Self:
        """Take the conversation over, or begin it."""
        recovered = await store.activate(conversation_id, owner=secrets.token_hex(8), create=True, ttl=ttl)
        await store.index(conversation_id, participants=(), ttl=ttl)
        return cls(store, recovered.claim, ttl, recovered.seq)

    async def say(self, count: int) -> None:
        """Write so many messages, in one call."""
        following = range(self.seq + 1, self.seq + 1 + count)
        await self.write(*(ItemsAppended((message(f"m{seq}", f"word {seq}"),)) for seq in following))

    async def write(self, *events: Event) -> None:
        """Write these events, in one call."""
        written = [
            encode_entry(Entry(seq, self._claim.epoch, time.time(), event))
            for seq, event in enumerate(events, self.seq + 1)
        ]
        outcome = await self._store.append(self._claim, expected_seq=self.seq, entries=written, ttl=self.ttl)
        assert outcome is Outcome.OK
        self.seq += len(written)
        self.written += written


async def archived(database: Database, conversation_id: str) -> list[bytes]:
    """Return the entries that the archive has of a conversation's only life, in order."""
    query = select(entries.c.data).join(lives).where(lives.c.conversation_id == conversation_id).order_by(entries.c.seq)
    async with database.reading("looking") as connection:
        return [bytes(row[0]) for row in await connection.execute(query)]


async def item_ids(database: Database, conversation_id: str) -> list[str]:
    """Return the ids of the items that the archive has of a conversation, in order."""
    query = select(items.c.item_id).join(lives).where(lives.c.conversation_id == conversation_id)
    async with database.reading("looking") as connection:
        return list((await connection.execute(query.order_by(items.c.seq, items.c.place))).scalars())


async def has_all(database: Database, authors: dict[str, Author]) -> bool:
    """Tell whether the archive has as many entries of each as were written."""
    for name, author in authors.items():
        if len(await archived(database, name)) < len(author.written):
            return False
    return True


def start_archiver(
    log: Path, redis_url: str, archive_url: str, *, claim: float = 1.0, quiet: float = 60.0
) -> subprocess.Popen[bytes]:
    """Start an archiver in a process of its own, with a claim that ends soon; it logs to `log`."""
    told = json.dumps({"claim": claim, "quiet": quiet})
    environment = {**os.environ, "CONVERSATION_REDIS_URL": redis_url, "CONVERSATION_ARCHIVE_URL": archive_url}
    with log.open("ab") as file:
        return subprocess.Popen([sys.executable, "-c", _PROGRAM, told], env=environment, stdout=file, stderr=file)


def lines_with(log: Path, text: str) -> Sequence[str]:
    """Return the lines of a log that contain a text."""
    return [line for line in log.read_text(errors="replace").splitlines() if text in line]
