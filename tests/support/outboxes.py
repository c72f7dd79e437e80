"""An outbox with happenings in it, as the feed would write them, and deliverers of it."""

import asyncio
import itertools
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.database import Database
from conversation_actors.archive.tables import dead_letters, deliveries, happenings, lives
from conversation_actors.settings import WebhookSettings
from conversation_actors.timing import Timing
from conversation_actors.webhooks.deliverer import Deliverer
from conversation_actors.webhooks.service import opened

TENANT = "tenant"
BEGAN = 1_700_000_000.0
_PROGRAM = """
import asyncio, sys
from datetime import timedelta
from pydantic import SecretStr
from conversation_actors.archive.database import Database
from conversation_actors.cli.archiving import log_to_stderr
from tests.support.outboxes import QUICK, TENANT
from tests.support.receivers import destination, webhooks
from conversation_actors.webhooks.service import run
log_to_stderr()
database = Database(SecretStr(sys.argv[1]), timeout=timedelta(seconds=20))
chosen = webhooks(destination(sys.argv[2]), timeout=timedelta(seconds=2))
asyncio.run(run(database, chosen, asyncio.Event(), tenant=TENANT, timing=QUICK))
"""
QUICK = Timing(
    archive_again=(0.01, 0.05),
    webhook_look=0.02,
    webhook_again=(0.02, 0.1),
    webhook_claim=1.0,
    webhook_recent=(0.2, 1.0),
    webhook_leave=0.5,
    again=0.05,
)


async def add_life(connection: AsyncConnection, conversation_id: str) -> int:
    """Return a life of the conversation; make it if it is not there."""
    known = select(lives.c.id).where(lives.c.tenant == TENANT, lives.c.conversation_id == conversation_id)
    if (found := (await connection.execute(known)).scalar()) is not None:
        return int(found)
    row = {
        "tenant": TENANT, "conversation_id": conversation_id, "life": f"life-{conversation_id}", "start": 0, "seq": 0,
        "epoch": 1, "owner": "owner", "lineage": "[]", "created_at": BEGAN, "active_at": BEGAN,
    }  # fmt: skip
    return int((await connection.execute(insert(lives).values(**row).returning(lives.c.id))).scalar_one())


class Business:
    """What happens in conversations. `happened` has the numbers by conversation, in order."""

    def __init__(self, database: Database) -> None:
        """Nothing yet."""
        self.database = database
        self.happened: dict[str, list[int]] = {}
        self._numbers = itertools.count(1)

    async def happen(self, conversation_id: str, count: int = 1, *, type: str = "turn.completed", **data: Any) -> None:  # noqa: A002  # the column's name
        """Let so much happen in a conversation, in one transaction."""
        async with self.database.writing("testing") as connection:
            await self.write(connection, conversation_id, count, type=type, **data)

    async def write(self, connection: AsyncConnection, conversation_id: str, count: int, **given: Any) -> None:
        """Write happenings in a transaction of the caller's."""
        life, kind = await add_life(connection, conversation_id), given.pop("type", "turn.completed")
        for number in itertools.islice(self._numbers, count):
            row = {
                "life_id": life, "tenant": TENANT, "conversation_id": conversation_id, "event_id": f"evt_{number}",
                "type": kind, "at": BEGAN + number, "call_id": f"life-{conversation_id}.1", "seq": number, "place": 0,
                "data": json.dumps(given),
            }  # fmt: skip
            await connection.execute(insert(happenings).values(**row))
            self.happened.setdefault(conversation_id, []).append(number)


@asynccontextmanager
async def delivering(
    database: Database, settings: WebhookSettings, *, timing: Timing = QUICK, **more: Any
) -> AsyncIterator[Deliverer]:
    """Run a deliverer, and end it in order."""
    stop = asyncio.Event()
    async with opened(database, settings, tenant=TENANT, timing=timing, **more) as deliverer:
        task = asyncio.create_task(deliverer.run(stop))
        try:
            yield deliverer
        finally:
            stop.set()
            await asyncio.wait_for(task, 30)


def start_deliverer(log: Path, archive_url: str, receiver_url: str) -> subprocess.Popen[bytes]:
    """Start a deliverer in a process of its own; it logs to `log`."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", _PROGRAM, archive_url, receiver_url]
    with log.open("ab") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=file)


async def cursors(database: Database, destination: str = "default") -> dict[str, tuple[int, int, float | None]]:
    """Return the cursors of a destination: position, attempts, and when it is due."""
    of = deliveries.c
    query = select(of.conversation_id, of.delivered_id, of.attempts, of.next_at).where(of.destination == destination)
    async with database.reading("looking") as connection:
        return {row[0]: (row[1], row[2], row[3]) for row in (await connection.execute(query)).all()}


async def dead(database: Database) -> Sequence[tuple[str, str, int, str]]:
    """Return dead letters: destination, event, attempts and reason."""
    of = dead_letters.c
    query = select(of.destination, happenings.c.event_id, of.attempts, of.last_error).join(happenings).order_by(of.id)
    async with database.reading("looking") as connection:
        return [tuple(row) for row in (await connection.execute(query)).all()]


async def count(database: Database, table: Any) -> int:
    """Return the number of a table's rows."""
    async with database.reading("looking") as connection:
        return int((await connection.execute(select(func.count()).select_from(table))).scalar_one())
