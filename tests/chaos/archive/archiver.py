"""An archiver's process, as `conversation-actors archive` runs it but for how long it waits."""

import asyncio
import logging
import signal
import sys
from dataclasses import replace

from conversation_actors.archive.service import run
from conversation_actors.log_lines import TextFormatter
from conversation_actors.settings import Settings
from conversation_actors.timing import TIMING

QUICK = replace(TIMING, archive_claim=1.0, archive_quiet=0.3, archive_again=(0.05, 0.5), archive_faulty=(0.2, 1.0))
"""Claims of the dead end soon, what is at rest leaves the listing soon, and what failed is tried again soon."""


async def main() -> None:
    """Archive until SIGTERM."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await run(Settings(), stop, program="tests.chaos.archive", timing=QUICK)


if __name__ == "__main__":
    asyncio.run(main())
