"""An archiver, or a deliverer alone, in a process of its own: as the commands run them but for how long they wait.

`AHEAD` in the environment: seconds by which the clock is ahead that ends calls of which nothing comes.
"""

import asyncio
import logging
import os
import signal
import sys
import time
from dataclasses import replace
from functools import partial

from conversation_actors.archive import service
from conversation_actors.archive.feed import Feed
from conversation_actors.backend.delivery import recipients_of
from conversation_actors.log_lines import TextFormatter
from conversation_actors.settings import Settings, WebhookSettings
from conversation_actors.timing import TIMING
from conversation_actors.webhooks.service import beside_archiver
from conversation_actors.webhooks.service import run as deliver

QUICK = replace(
    TIMING, archive_claim=1.0, archive_again=(0.05, 0.5), archive_faulty=(0.2, 1.0), archive_feed=0.25,
    webhook_look=0.05, webhook_again=(0.05, 0.5), webhook_quiet=3.0, webhook_claim=1.0, webhook_recent=(0.5, 10.0),
    webhook_sweep=5.0, webhook_leave=1.0, again=0.2,
)  # fmt: skip
"""Claims of the dead end soon, and what failed is tried again soon."""
AHEAD = "CALLS_AHEAD"


async def main(what: str) -> None:
    """Do it until SIGTERM."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings, endpoints = Settings(), WebhookSettings()
    backend = recipients_of(settings.backend, tenant=settings.tenant)
    if what == "archive":
        beside = beside_archiver(endpoints, tenant=settings.tenant, also=backend, timing=QUICK)
        ahead = float(os.environ.get(AHEAD) or 0)
        vars(service)["Feed"] = partial(Feed, clock=lambda: time.time() + ahead)
        await service.run(settings, stop, program="tests.chaos.calls", beside=beside, timing=QUICK)
        return
    database = service.open_database(settings)
    try:
        await deliver(database, endpoints, stop, tenant=settings.tenant, also=backend, timing=QUICK)
    finally:
        await database.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
