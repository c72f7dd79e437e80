"""An archiver as a program runs it: with a store, a database, and what is done beside archiving."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import NamedTuple

from conversation_actors.archive.archiver import Archiver
from conversation_actors.archive.checkpoints import Checkpoints
from conversation_actors.archive.database import Database
from conversation_actors.archive.feed import Feed
from conversation_actors.archive.feeding import Feeding
from conversation_actors.archive.filled import FilledCheckpoints
from conversation_actors.archive.outage import Outage
from conversation_actors.archive.retention import Retention, kept_by
from conversation_actors.archive.unknown import UnknownConversations
from conversation_actors.archive.upkeep import Chore, Upkeep
from conversation_actors.archive.writer import Writer
from conversation_actors.destinations import BACKEND_NAME
from conversation_actors.errors import ArchiveUnavailableError, StoreUnavailableError
from conversation_actors.failures import Failures
from conversation_actors.settings import Settings
from conversation_actors.store import Store, open_store
from conversation_actors.store.backlog import Backlog
from conversation_actors.timing import TIMING, Timing

logger = logging.getLogger(__name__)

_PATIENCE = timedelta(seconds=30)
"""How long an archiver waits for the database: nobody waits for the archiver."""
_PATIENCE_WITH_REDIS = timedelta(seconds=10)


class _Work(NamedTuple):
    """What an archiver's program does."""

    archiver: Archiver
    upkeep: Upkeep
    feeding: Feeding


class Parts(NamedTuple):
    """What an archiver works between."""

    store: Store
    database: Database


Beside = Callable[[Database, asyncio.Event], Awaitable[None]]
"""What is done with the same database until an event is set."""


def open_database(settings: Settings, *, patience: timedelta = _PATIENCE) -> Database:
    """Make the database of the settings, for who can wait. Raises `ArchiveMisconfiguredError` if there is none."""
    return Database.of(settings, timeout=patience)


@asynccontextmanager
async def opened(settings: Settings, *, program: str, patience: timedelta = _PATIENCE) -> AsyncIterator[Parts]:
    """Open the store and the database of the settings, and close both at the end; `program` asks for them.

    Raises `InvalidInputError` without a Redis server, and `ArchiveMisconfiguredError` without an archive.
    """
    settings.require_redis_url(shared_by=program)
    database = open_database(settings, patience=patience)
    timeouts = settings.timeouts.model_copy(update={"redis": max(settings.timeouts.redis, _PATIENCE_WITH_REDIS)})
    store = open_store(settings.model_copy(update={"timeouts": timeouts}))
    try:
        yield Parts(store, database)
    finally:
        await store.aclose()
        await database.aclose()


async def migrate(settings: Settings) -> str:
    """Make the tables, or bring them up to this version; return the newest migration."""
    database = open_database(settings)
    try:
        return await database.migrate()
    finally:
        await database.aclose()


async def run(
    settings: Settings, stop: asyncio.Event, *, program: str, beside: Beside | None = None, timing: Timing = TIMING
) -> None:
    """Archive until `stop` is set. Waits for servers that do not answer yet.

    What is to be done `beside` is begun again if it fails, and keeps nothing from being archived. Raises what a person
    has to change: tables that are missing, older or newer, a right that is lacking.
    """
    async with opened(settings, program=program) as parts:
        if not await _is_ready(parts, stop, timing):
            return
        work = _made(settings, parts, timing)
        logger.info("archiving", extra={"tenant": settings.tenant, "database": repr(parts.database)})
        accompanying = _accompany(work.archiver.failures, parts.database, stop, beside, timing.again)
        await asyncio.gather(*(part.run(stop) for part in work), accompanying)
    logger.info("the archiver has ended", extra={"failures": dict(work.archiver.failures.counts)})


async def _accompany(
    failures: Failures, database: Database, stop: asyncio.Event, beside: Beside | None, pause: float
) -> None:
    """Do what is done beside archiving, and begin it again if it fails, until `stop` is set."""
    while beside is not None and not stop.is_set():
        await failures.once("beside the archiver", partial(beside, database, stop))
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await stop.wait()


async def run_once(settings: Settings, *, program: str, timing: Timing = TIMING) -> int:
    """Do all that there is to do now, and return the number of entries that were archived. Raises what fails."""
    async with opened(settings, program=program) as parts:
        await parts.store.check()
        await parts.database.check()
        work = _made(settings, parts, timing)
        await work.upkeep.once()
        count = await work.archiver.once()
        await work.feeding.once()
        return count


async def _is_ready(parts: Parts, stop: asyncio.Event, timing: Timing) -> bool:
    """Wait until both servers answer, and can do what is asked of them; False if `stop` was set before."""
    outage = Outage("Redis or the archive's database", timing.archive_again)
    while not stop.is_set():
        try:
            await parts.store.check()
            await parts.database.check()
        except (StoreUnavailableError, ArchiveUnavailableError) as error:
            outage.failed("check", error)
            with suppress(TimeoutError):
                async with asyncio.timeout(outage.pause):
                    await stop.wait()
        else:
            outage.over()
            return True
    return False


def _made(settings: Settings, parts: Parts, timing: Timing) -> _Work:
    """Return an archiver between these, and what is done beside."""
    # of a server that is away the archiver tells, once
    failures = Failures(timing=timing, told_elsewhere=(ArchiveUnavailableError, StoreUnavailableError))
    writer = Writer(parts.database, settings.tenant)
    backlog, kept = parts.store.backlog(), kept_by(settings)
    unknown = UnknownConversations(
        parts.store, parts.database, writer,
        tenant=settings.tenant, limits=settings.history.limits(), retention=kept, failures=failures,
    )  # fmt: skip
    chores = [
        Chore("archive relist", backlog.relist, timing.archive_upkeep),
        Chore("archive adoption", unknown.adopt_all, timing.archive_upkeep),
        Chore("archive filling", unknown.fill_all, timing.archive_upkeep),
    ]
    if kept is not None:
        retention = Retention(writer, kept, kept_for=BACKEND_NAME if settings.backend.is_record else None)
        chores.append(Chore("archive purge", retention.purge, timing.archive_purge))
    checkpoints = FilledCheckpoints(
        Checkpoints(parts.database, settings.tenant, limits=settings.history.limits()), unknown.fill
    )
    feed = Feed(
        parts.database, settings.tenant,
        idle=settings.sessions.idle, waiting=partial(_names_waiting, backlog), failures=failures,
        reports=settings.backend.url is not None,
    )  # fmt: skip
    feeding = Feeding(feed, failures=failures, timing=timing)
    archiver = Archiver(
        backlog, writer, checkpoints=checkpoints, when_lacking=unknown.fill, when_written=feeding.wake,
        failures=failures, timing=timing,
    )  # fmt: skip
    return _Work(archiver, Upkeep(chores, failures=failures), feeding)


async def _names_waiting(backlog: Backlog) -> frozenset[str]:
    return frozenset(one.conversation_id for one in await backlog.waiting() if one.records)
