"""How a worker tells whoever started it that calls reach it now, and by which name rooms ask for its agent.

A room that is created before a worker is registered gets no agent by automatic dispatch, ever.
"""

import asyncio
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp

if TYPE_CHECKING:
    from livekit.agents import AgentServer  # whoever only reads a registration has no use for it

logger = logging.getLogger(__name__)

_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Registration:
    """A worker as LiveKit's server has it. `agent_name` is empty if rooms get its agent without asking for it."""

    worker_id: str
    agent_name: str
    pid: int = field(default_factory=os.getpid)

    @property
    def is_running(self) -> bool:
        """Whether the worker's process is there; one that was killed takes no calls, whatever it has written."""
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, PermissionError):  # the latter: somebody else has the number by now
            return False
        return True

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read what a worker has written; None before it did."""
        try:
            told = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        return cls(worker_id=told["worker_id"], agent_name=told["agent_name"], pid=told["pid"])

    def write(self, path: Path) -> None:
        """Replace the file in one step: nobody reads half of it."""
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(self)), "utf-8")
        draft.replace(path)


class Registrar:
    """Writes a worker's `Registration` each time that LiveKit's server takes the worker on."""

    def __init__(self, server: "AgentServer", path: Path, *, agent_name: str | None, otherwise: str) -> None:
        """`agent_name` None: the worker is asked for it, over HTTP; `otherwise`: if it does not answer."""
        self._server, self._path = server, path
        self._agent_name, self._otherwise = agent_name, otherwise
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Write from now on."""
        self._server.on("worker_registered", self._on_registered)

    def _on_registered(self, worker_id: str, _server_info: Any) -> None:
        task = asyncio.create_task(self._tell(worker_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, worker_id: str) -> None:
        name = self._agent_name
        if name is None:
            name = await self._asked()
        Registration(worker_id, name).write(self._path)

    async def _asked(self) -> str:
        url = f"http://127.0.0.1:{self._server.worker_info.http_port}/worker"
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS)) as session,
                session.get(url) as answer,
            ):
                told = await answer.json()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            logger.warning("the worker does not tell its agent's name", extra={"reason": type(error).__name__})
            return self._otherwise
        # a field without a value is not written
        return str(told.get("agent_name", ""))


async def follow(path: Path, told: Callable[[Registration], object], *, pause: float = 0.2) -> None:
    """Call `told` with a worker's registration, and with each one that differs from the one before; until cancelled."""
    known: Registration | None = None
    while True:
        current = await asyncio.to_thread(Registration.read, path)
        if current is not None and current != known:
            known = current
            told(current)
        await asyncio.sleep(pause)
