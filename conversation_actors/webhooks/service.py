"""A deliverer as a program runs it: made of the settings, on the archive's database."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Sequence
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
from conversation_actors.webhooks.endpoint import Endpoint
from conversation_actors.webhooks.lane import Lane, Terms
from conversation_actors.webhooks.recipient import Recipient
from conversation_actors.webhooks.resolver import Lookup, look_up
from conversation_actors.webhooks.sender import MOST_PAUSE, Sender

logger = logging.getLogger(__name__)


def recipients_of(
    settings: WebhookSettings, *, tenant: str, also: Sequence[Recipient] = ()
) -> tuple[Recipient, ...]:  # fmt: skip
    """Return all that is delivered to: the endpoints of webhooks, and others `also`."""
    return (*(Endpoint(one, settings, tenant=tenant) for one in settings.all), *also)


@asynccontextmanager
async def opened(
    database: Database,
    settings: WebhookSettings,
    *,
    tenant: str,
    also: Sequence[Recipient] = (),
    trusted: ssl.SSLContext | None = None,
    lookup: Lookup = look_up,
    failures: Failures | None = None,
    timing: Timing = TIMING,
) -> AsyncIterator[Deliverer]:
    """Make a deliverer of the settings, with connections that are closed at the end. It delivers to others `also`."""
    recipients = recipients_of(settings, tenant=tenant, also=also)
    claim = timing.webhook_claim + max([one.timeout.total_seconds() for one in recipients], default=0.0)
    failures = failures or Failures(timing=timing)
    async with AsyncExitStack() as stack:
        lanes = {}
        for one in recipients:
            sender = await stack.enter_async_context(
                Sender(timeout=one.timeout, allow_private=one.allows_private, trusted=trusted, lookup=lookup)
            )
            terms = Terms(
                attempts=one.attempts, again=timing.webhook_again, working=timing.webhook_claim,
                quiet=timing.webhook_quiet,
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
    database: Database,
    settings: WebhookSettings,
    stop: asyncio.Event,
    *,
    tenant: str,
    also: Sequence[Recipient] = (),
    timing: Timing = TIMING,
) -> None:
    """Deliver until `stop` is set, and remove what is delivered and old; only that if there is no destination."""
    failures = Failures(timing=timing)
    endpoints = {one.name: one.shown for one in recipients_of(settings, tenant=tenant, also=also)}
    purge = OutboxPurge(database, tenant, list(endpoints), settings.keep).purge
    upkeep = Upkeep([Chore("webhooks purge", purge, timing.archive_purge)], failures=failures)
    if not endpoints:
        await upkeep.run(stop)
        return
    async with opened(
        database, settings, tenant=tenant, also=also, failures=failures, timing=timing
    ) as deliverer:  # fmt: skip
        logger.info("delivering", extra={"tenant": tenant, "endpoints": endpoints})
        await asyncio.gather(deliverer.run(stop), upkeep.run(stop))
    logger.info("the deliverer has ended", extra={"failures": dict(failures.counts)})


def beside_archiver(
    settings: WebhookSettings, *, tenant: str, also: Sequence[Recipient] = (), timing: Timing = TIMING
) -> Beside:
    """Return what an archiver does beside archiving."""
    return partial(_run_beside, settings=settings, tenant=tenant, also=also, timing=timing)


async def _run_beside(
    database: Database,
    stop: asyncio.Event,
    *,
    settings: WebhookSettings,
    tenant: str,
    also: Sequence[Recipient],
    timing: Timing,
) -> None:
    await run(database, settings, stop, tenant=tenant, also=also, timing=timing)
