"""A deliverer as a program runs it: made of the settings, on the archive's database."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from conversation_actors.archive.database import Database
from conversation_actors.archive.outbox import Outbox
from conversation_actors.archive.outbox_news import News
from conversation_actors.archive.outbox_purge import OutboxPurge
from conversation_actors.archive.service import Beside
from conversation_actors.archive.settling import Settling
from conversation_actors.archive.upkeep import Chore, Upkeep
from conversation_actors.failures import Failures
from conversation_actors.settings import WebhookSettings
from conversation_actors.timing import TIMING, Timing
from conversation_actors.webhooks.deliverer import Deliverer
from conversation_actors.webhooks.lane import Lane, Terms
from conversation_actors.webhooks.resolver import Lookup, look_up
from conversation_actors.webhooks.sender import MOST_PAUSE, Sender

logger = logging.getLogger(__name__)


@asynccontextmanager
async def opened(
    database: Database,
    settings: WebhookSettings,
    *,
    tenant: str,
    trusted: ssl.SSLContext | None = None,
    lookup: Lookup = look_up,
    failures: Failures | None = None,
    timing: Timing = TIMING,
) -> AsyncIterator[Deliverer]:
    """Make a deliverer of the settings, with connections that are closed at the end."""
    answer = settings.timeout.total_seconds()
    claim = timing.webhook_claim + answer
    failures = failures or Failures(timing=timing)
    terms = Terms(
        tenant=tenant, most_bytes=settings.bytes, attempts=settings.attempts, again=timing.webhook_again,
        working=timing.webhook_claim, quiet=timing.webhook_quiet,
    )  # fmt: skip
    async with AsyncExitStack() as stack:
        lanes = {}
        for one in settings.all:
            sender = await stack.enter_async_context(
                Sender(
                    one, timeout=settings.timeout, allow_private=settings.private_networks, trusted=trusted,
                    lookup=lookup,
                )
            )  # fmt: skip
            lanes[one.name] = Lane(one, sender, terms, failures=failures)
        news = News(
            database, tenant, list(lanes), recent=timing.webhook_recent[1],
            furthest=2 * (timing.webhook_again[1] + claim) + MOST_PAUSE,
        )  # fmt: skip
        yield Deliverer(
            Outbox(database, tenant, claim=claim), news, Settling(database, tenant), lanes,
            failures=failures, timing=timing,
        )  # fmt: skip


async def run(
    database: Database, settings: WebhookSettings, stop: asyncio.Event, *, tenant: str, timing: Timing = TIMING
) -> None:
    """Deliver until `stop` is set, and remove what is delivered and old; only that if there is no destination."""
    failures = Failures(timing=timing)
    names = [one.name for one in settings.all]
    purge = OutboxPurge(database, tenant, names, settings.keep).purge
    upkeep = Upkeep([Chore("webhooks purge", purge, timing.archive_purge)], failures=failures)
    if not names:
        await upkeep.run(stop)
        return
    async with opened(database, settings, tenant=tenant, failures=failures, timing=timing) as deliverer:
        endpoints = {one.name: one.shown for one in settings.all}
        logger.info("delivering webhooks", extra={"tenant": tenant, "endpoints": endpoints})
        await asyncio.gather(deliverer.run(stop), upkeep.run(stop))
    logger.info("the deliverer has ended", extra={"failures": dict(failures.counts)})


def beside_archiver(settings: WebhookSettings, *, tenant: str, timing: Timing = TIMING) -> Beside:
    """Return what an archiver does beside archiving."""
    return partial(_run_beside, settings=settings, tenant=tenant, timing=timing)


async def _run_beside(
    database: Database, stop: asyncio.Event, *, settings: WebhookSettings, tenant: str, timing: Timing
) -> None:
    await run(database, settings, stop, tenant=tenant, timing=timing)
