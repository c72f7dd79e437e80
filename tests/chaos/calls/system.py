"""The system of one history: Redis, a database, two archivers, a deliverer, and those who are told.

Those are a receiver of webhooks, and a back end.
"""

import json
import os
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import Table, func, or_, select

from conversation_actors import ArchiveSettings, SessionRecord, Settings, Timeouts
from conversation_actors.archive.database import Database
from conversation_actors.archive.sessions import SessionCursor, WantedSessions, page_of_sessions
from conversation_actors.archive.tables import dead_letters, deliveries, feeds, happenings, lives
from conversation_actors.destinations import BACKEND_NAME
from conversation_actors.store import Store, open_store
from tests.chaos.archive.play import DIRECTIVES, TIMEOUTS
from tests.chaos.archive.postgres import HurtPostgres
from tests.chaos.calls.checker import Try
from tests.chaos.calls.receiver import BASE, BEGUN, TOKEN, WEBHOOKS, open_socket
from tests.chaos.calls.workers import AHEAD
from tests.chaos.crew import Crew
from tests.support.postgres import PostgresServer, has_postgres
from tests.support.ray_cluster import program_environment
from tests.support.receivers import SECRET
from tests.support.servers import Server, free_port, newest

ARCHIVERS, DELIVERERS = 2, 1
_SECONDS = timedelta(seconds=60)
_IDLE, _LATER = 600.0, 1200.0
"""Seconds after which a call counts as lost of which nothing comes, and by which clocks are ahead when all is played.

No call of which something is still to come is lost so, and nobody waits for those that are.
"""
_PAGE = 1000


@dataclass
class System:
    """What runs, and what came of it."""

    directory: Path
    settings: Settings
    store: Store
    database: Database
    redis: Server
    postgres: HurtPostgres | None
    archivers: Crew
    deliverers: Crew
    receiver: Crew
    journal: Path

    @property
    def crews(self) -> tuple[Crew, ...]:
        """All processes that may die."""
        return (self.archivers, self.deliverers, self.receiver)

    def keep(self) -> None:
        """Have everybody run who is to run."""
        for crew in self.crews:
            crew.keep()

    def let_time_pass(self) -> None:
        """Have archivers take the place of these whose clocks are ahead, so that what is over is over."""
        self.archivers.environment[AHEAD] = str(_LATER)
        self.archivers.kill(*self.archivers.running)

    async def unrest(self, now: float) -> str:
        """Return what there still is to do, for people; nothing if all is archived, told and delivered."""
        if (lag := (await self.store.backlog().lag()).records) > 0:
            return f"{lag} entries wait to be archived"
        counted = {
            "lives are not read to their end": (lives, lives.c.fed < lives.c.seq),
            "calls are to end": (feeds, feeds.c.due_at < now + _LATER),
            "conversations are to be delivered": (deliveries, deliveries.c.next_at.is_not(None)),
        }
        async with self.database.reading("looking") as connection:
            for what, (table, condition) in counted.items():
                query = select(func.count()).select_from(table).where(condition)
                if count := (await connection.execute(query)).scalar_one():
                    return f"{count} {what}"
            behind = or_(deliveries.c.delivered_id.is_(None), deliveries.c.delivered_id < happenings.c.id)
            same = (deliveries.c.conversation_id == happenings.c.conversation_id,)
            query = select(func.count()).select_from(happenings.outerjoin(deliveries, *same)).where(behind)
            if count := (await connection.execute(query)).scalar_one():
                return f"{count} happenings are to be delivered"
        return ""

    async def records(self) -> dict[str, list[SessionRecord]]:
        """Return the records of all calls by conversation, as a client is given them, page by page."""
        found: defaultdict[str, list[SessionRecord]] = defaultdict(list)
        after: SessionCursor | None = None
        while True:
            wanted = WantedSessions(_PAGE, after=after)
            page, after = await page_of_sessions(self.database, self.settings.tenant, wanted)
            for one in page:
                found[one.conversation_id].append(one)
            if after is None:
                return found

    async def count(self, table: Table) -> int:
        """Return the number of a table's rows."""
        async with self.database.reading("looking") as connection:
            return int((await connection.execute(select(func.count()).select_from(table))).scalar_one())

    async def dead_letters(self) -> int:
        """Return how many there are."""
        return await self.count(dead_letters)

    def tries(self) -> dict[str, dict[str, list[Try]]]:
        """Return all requests that the receiver of webhooks and the back end have met, by conversation, in order."""
        found: dict[str, dict[str, list[Try]]] = {WEBHOOKS: {}, BACKEND_NAME: {}}
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        for line in map(json.loads, lines):
            those = found[line["to"]].setdefault(line["data"]["conversation_id"], [])
            those.append(Try(line["id"], line["type"], line["data"], line["answer"]))
        return found


@asynccontextmanager
async def running(directory: Path, *, sqlite: bool, misbehaves: float) -> AsyncIterator[System]:
    """Start everything in a directory, and end it. The receiver `misbehaves` with this share of the requests."""
    binary = newest()
    assert binary is not None
    with ExitStack() as stack:
        redis = stack.enter_context(Server(binary, directory / "redis", DIRECTIVES))
        postgres = None
        if not sqlite and has_postgres():
            postgres = stack.enter_context(PostgresServer({"synchronous_commit": "on"}))
        url = f"sqlite+aiosqlite:///{directory / 'archive.db'}" if postgres is None else postgres.url()
        port = free_port()
        stack.enter_context(open_socket(port))
        settings = Settings(
            redis_url=SecretStr(redis.url),
            archive=ArchiveSettings(url=SecretStr(url)),
            timeouts=Timeouts.model_validate(TIMEOUTS),
        )
        database, store = Database(SecretStr(url), timeout=_SECONDS), open_store(settings)
        archivers, deliverers, receiver = _crews(directory, redis.url, url, port, misbehaves)
        system = System(
            directory, settings, store, database, redis, None if postgres is None else HurtPostgres(postgres),
            archivers, deliverers, receiver, directory / "journal",
        )  # fmt: skip
        try:
            await database.migrate()
            system.keep()
            yield system
        finally:
            for crew in system.crews:
                crew.clear()
            await store.aclose()
            await database.aclose()


def _crews(directory: Path, redis_url: str, archive_url: str, port: int, misbehaves: float) -> tuple[Crew, Crew, Crew]:
    environment = program_environment(
        CONVERSATION_REDIS_URL=redis_url, CONVERSATION_ARCHIVE_URL=archive_url,
        CONVERSATION_SESSION_IDLE=str(_IDLE), CONVERSATION_WEBHOOK_URL=f"http://127.0.0.1:{port}/hook",
        CONVERSATION_WEBHOOK_SECRET=SECRET, CONVERSATION_WEBHOOK_PRIVATE_NETWORKS="true",
        CONVERSATION_WEBHOOK_TIMEOUT="1", CONVERSATION_BACKEND_URL=f"http://127.0.0.1:{port}{BASE}",
        CONVERSATION_BACKEND_TOKEN=TOKEN, CONVERSATION_BACKEND_PRIVATE_NETWORKS="true",
        CONVERSATION_BACKEND_TIMEOUT="1", PYTHONPATH=os.environ["PYTHONPATH"],
    )  # fmt: skip
    work = (sys.executable, "-m", "tests.chaos.calls.workers")
    taking = (sys.executable, "-m", "tests.chaos.calls.receiver", str(port), str(directory / "journal"))
    return (
        Crew("archiver", (*work, "archive"), directory, environment, count=ARCHIVERS, begun=b"archiving"),
        Crew("deliverer", (*work, "deliver"), directory, environment, count=DELIVERERS, begun=b"delivering"),
        Crew("receiver", (*taking, str(misbehaves)), directory, environment, count=1, begun=BEGUN.encode()),
    )
