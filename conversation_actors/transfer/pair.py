"""Redis and the archive of one tenant, opened together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from conversation_actors.archive.copying import Copies
from conversation_actors.archive.database import Database
from conversation_actors.archive.writer import Writer
from conversation_actors.settings import Settings
from conversation_actors.store import Store, open_store
from conversation_actors.store.redis_copies import RedisCopies
from conversation_actors.transfer.catching_up import CatchingUp

_TIMEOUT = timedelta(hours=1)
"""How long one conversation may take to be read or written: it may be larger than the memory."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What conversations are read from, and written to."""

    store: Store
    redis: RedisCopies
    copies: Copies
    writer: Writer
    catching_up: CatchingUp


@asynccontextmanager
async def open_pair(settings: Settings, *, program: str) -> AsyncIterator[Pair]:
    """Open both, and close them at the end. Raises as `Database.check` and `Settings.require_redis_url` do."""
    settings.require_redis_url(shared_by=program)
    quick = Database.of(settings)
    try:
        await quick.check()
    finally:
        await quick.aclose()
    store, redis = open_store(settings), RedisCopies(settings)
    database = Database.of(settings, timeout=_TIMEOUT)
    try:
        copies, writer = Copies(database, settings.tenant), Writer(database, settings.tenant)
        yield Pair(store, redis, copies, writer, CatchingUp(store, writer, copies, settings.history.limits()))
    finally:
        await database.aclose()
        await redis.aclose()
        await store.aclose()
