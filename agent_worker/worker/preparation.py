"""What a job process does before its first call: the application's own setup, and joining Ray beside it."""

import asyncio
import contextlib
import logging
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from livekit.agents import JobProcess

from agent_worker.worker.logs import accept_dev_secret
from conversation_actors import ConversationClient, Settings

logger = logging.getLogger(__name__)

_JOIN_SECONDS = 15.0
PATIENCE_SECONDS = 5.0
"""How long a process waits for Ray, with the application's own setup: LiveKit gives both ten seconds by default."""


async def join_cluster() -> None:
    """Join the Ray cluster of the settings. Raises what `ConversationClient.join_cluster` does, and `TimeoutError`."""
    async with asyncio.timeout(_JOIN_SECONDS), ConversationClient(Settings()) as client:
        await client.join_cluster()
        logger.debug("joined the cluster")


@dataclass(frozen=True, slots=True)
class Preparation:
    """LiveKit's `setup_fnc`: runs the application's own, once, and joins Ray meanwhile, so that no call waits for that.

    What the application's raises is raised. That Ray was joined is not promised: the call tries again, and can do
    without. A SIGTERM to all of a worker's processes (systemd's default) does not end the calls: only the worker
    decides that, and tells its jobs by itself. It can be pickled if the application's own can.
    """

    setup: Callable[[JobProcess], Any] | None = None
    patience: float = PATIENCE_SECONDS
    """Seconds, from the beginning, until a process is ready though it has not joined Ray; it goes on joining."""
    join: Callable[[], Awaitable[None]] = join_cluster
    """Joins Ray, in a thread with an event loop of its own."""

    def __call__(self, process: JobProcess) -> None:
        """Prepare one process."""
        accept_dev_secret()
        with contextlib.suppress(ValueError):  # not the main thread: LiveKit runs jobs in threads on some systems
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        joining = threading.Thread(target=self._join, name="join-ray", daemon=True)
        joining.start()
        began = time.monotonic()
        if self.setup is not None:
            self.setup(process)
        joining.join(max(0.0, self.patience - (time.monotonic() - began)))

    def _join(self) -> None:
        async def joined() -> None:
            await self.join()

        try:
            asyncio.run(joined())
        except Exception as error:  # noqa: BLE001  # see the class
            logger.warning("not connected to Ray yet", extra={"reason": f"{type(error).__name__}: {error}"})
