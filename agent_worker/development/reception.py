"""When the page of a development worker is open: from the worker's registration on, as the developer is told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from agent_worker.development.agent_calls import AgentCalls
from agent_worker.development.page import PageServer
from agent_worker.environment import registration_variables
from agent_worker.worker.registration import Registration, follow

STARTING = "Starting the agent, which takes about ten seconds; the address of its page follows."
REMINDER_SECONDS = 20.0


class Reception:
    """Follows the registrations of one worker, whose process may be another one each time."""

    def __init__(self, livekit_url: str, write: Callable[[str], object], *, reminder: float = REMINDER_SECONDS) -> None:
        """`reminder`: seconds until it is said that the worker is still not registered, and between two of these."""
        self._livekit = urlsplit(livekit_url)
        self._write, self._reminder = write, reminder
        self._registration: Registration | None = None

    @property
    def is_open(self) -> bool:
        """Whether LiveKit's server has the worker, as far as that is known here."""
        return self._registration is not None and self._registration.is_running

    @asynccontextmanager
    async def following(self, page: PageServer, calls: AgentCalls) -> AsyncIterator[dict[str, str]]:
        """Follow a worker that has these variables.

        The page gets the agent's name, the developer the page's address, and whoever waits for an agent another one.
        """

        def told(registration: Registration) -> None:
            is_first, self._registration = self._registration is None, registration
            page.agent_name = registration.agent_name
            calls.start_over()
            if is_first:
                self._write(f"Talk to the agent: {page.url}")

        with TemporaryDirectory(prefix="agent-worker-") as directory:
            path = Path(directory) / "registration.json"
            tasks = [asyncio.create_task(follow(path, told)), asyncio.create_task(self._remind())]
            try:
                yield registration_variables(str(path))
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _remind(self) -> None:
        """Say what is waited for, while it is."""
        self._write(STARTING)
        seconds = 0.0
        while True:
            await asyncio.sleep(self._reminder)
            seconds += self._reminder
            if self._registration is not None:
                return
            where = f"{self._livekit.scheme}://{self._livekit.hostname}"
            where = where if self._livekit.port is None else f"{where}:{self._livekit.port}"
            self._write(f"Still starting after {seconds:g} s: the LiveKit server at {where} has no worker of ours yet.")
