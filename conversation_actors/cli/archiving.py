"""Archiving in the foreground, and the tables that this needs."""

import asyncio
import logging
import signal
import sys

from conversation_actors.archive.extra import require_extra
from conversation_actors.log_lines import TextFormatter
from conversation_actors.settings import Settings, WebhookSettings
from conversation_actors.timing import TIMING, Timing

PROGRAM = "conversation-actors archive"


async def archive_until_stopped(
    *, is_to_migrate: bool, settings: Settings | None = None, timing: Timing = TIMING
) -> None:
    """Archive until SIGINT or SIGTERM; a second one breaks off what is under way. Raises `ConversationError`.

    What happens is sent beside: to endpoints of webhooks and to a back end, if any are configured.
    """
    require_extra()
    from conversation_actors.archive import service  # noqa: PLC0415  # SQLAlchemy takes its time
    from conversation_actors.backend.delivery import recipients_of  # noqa: PLC0415  # as above
    from conversation_actors.webhooks.service import beside_archiver  # noqa: PLC0415  # as above

    stop = asyncio.Event()
    stop_at_signals(stop)
    settings, endpoints = settings or Settings(), WebhookSettings()
    if is_to_migrate:
        await service.migrate(settings)
    backend = recipients_of(settings.backend, tenant=settings.tenant)
    beside = beside_archiver(endpoints, tenant=settings.tenant, also=backend, timing=timing)
    await service.run(settings, stop, program=PROGRAM, beside=beside, timing=timing)


async def archive_once(*, is_to_migrate: bool) -> None:
    """Archive what waits, and tell how much that was. Raises `ConversationError`."""
    require_extra()
    from conversation_actors.archive import service  # noqa: PLC0415  # as above

    settings = Settings()
    if is_to_migrate:
        await service.migrate(settings)
    count = await service.run_once(settings, program=PROGRAM)
    print(f"Archived: {count} entries.")  # noqa: T201  # a command line's way to answer


async def migrate() -> None:
    """Bring the tables up to this version, and tell which one that is. Raises `ConversationError`."""
    require_extra()
    from conversation_actors.archive import service  # noqa: PLC0415  # as above

    print(f"The archive's tables are at migration {await service.migrate(Settings())}.")  # noqa: T201  # as above


def log_to_stderr() -> None:
    """Log what an operator wants to know in lines for people."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("conversation_actors").setLevel(logging.INFO)


def stop_at_signals(stop: asyncio.Event) -> None:
    """Have the first signal set `stop`, and the second one interrupt."""
    loop = asyncio.get_running_loop()

    def told(number: int) -> None:
        stop.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told, number)
