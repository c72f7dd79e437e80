"""Run the offline models as a process beside a worker: restart it if it dies, and end it with the worker."""

import asyncio
import json
import logging
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from agent_worker.environment import offline_environment
from agent_worker.offline.transcript import bundled
from conversation_actors.errors import InvalidInputError

logger = logging.getLogger(__name__)

_STOP_SECONDS = 5.0
_PAUSE_SECONDS = 0.5


@asynccontextmanager
async def models(transcript: Path | None) -> AsyncIterator[dict[str, str]]:
    """Run the offline models, and yield the environment variables that point at them.

    If no transcript is given, yield no variables and run nothing. If a caller says something that is not in the bundled
    transcript, the models make small talk; any other transcript is followed to the letter. The models are started again
    on the same port if they die. They end with this process, no matter how it ends. Raises `InvalidInputError` if they
    cannot be started.
    """
    if transcript is None:
        yield {}
        return
    arguments = [] if transcript == bundled() else ["--transcript", str(transcript)]
    server, told = await _started(*arguments)
    keeping = asyncio.create_task(_keep_up(server, *arguments, "--port", str(urlsplit(told["base_url"]).port)))
    try:
        yield offline_environment(told["base_url"], told["deepgram_url"])
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def _started(*arguments: str) -> tuple[Process, dict[str, str]]:
    command = [sys.executable, "-m", "agent_worker.offline", "--json", "--until-input-ends", *arguments]
    server = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, start_new_session=True)
    try:
        assert server.stdout is not None
        line = await server.stdout.readline()
    except asyncio.CancelledError:
        await _stop(server)
        raise
    if not line:
        await server.wait()
        message = "offline: the stand-ins for the models did not start; what they said stands above"
        raise InvalidInputError(message, field="offline")
    told: dict[str, str] = json.loads(line)
    return server, told


async def _keep_up(server: Process, *arguments: str) -> None:
    """Start the models again each time they end, until cancelled. Then stop them."""
    while True:
        try:
            await server.wait()
        finally:
            await _stop(server)
        logger.error("the offline models ended, and are started again", extra={"code": server.returncode})
        await asyncio.sleep(_PAUSE_SECONDS)
        with suppress(InvalidInputError):  # the port may be taken for a moment; the loop then tries again
            server, _ = await _started(*arguments)


async def _stop(server: Process) -> None:
    with suppress(ProcessLookupError):
        server.terminate()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await server.wait()
    except TimeoutError:
        server.kill()
        await server.wait()
