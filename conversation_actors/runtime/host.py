"""What the Ray actor of a conversation does: all of `conversation_actors.runtime.actor` but its being one."""

import asyncio
import logging
import os
import threading
from contextlib import suppress

import ray
from ray.exceptions import AsyncioActorExit

from conversation_actors.activation.activation import Place
from conversation_actors.activation.host import Host
from conversation_actors.line.server import LineServer
from conversation_actors.protocol import LineAddress
from conversation_actors.runtime.fork_server import is_forked, was_ready
from conversation_actors.runtime.ray_environment import tls_files
from conversation_actors.runtime.termination import on_sigterm
from conversation_actors.settings import Direct, Settings
from conversation_actors.store import open_store

logger = logging.getLogger(__name__)

_EXIT_SECONDS = 3.0
_RAYLET_SECONDS = 5.0
"""How long the raylet may take to let an actor go."""


class ActivationHost(Host):
    """A `Host` that is a Ray worker's process: it hears SIGTERM, tells the pool, and ends the process when it exits.

    It listens for lines of its clients' own, unless it cannot or is not to.
    """

    def __init__(self, conversation_id: str, settings: Settings) -> None:
        """See `Host`."""
        super().__init__(conversation_id, settings, open_store(settings))
        self._line = LineServer(self, self._owner, failures=self._failures)
        self._address: LineAddress | None = None
        self._listening = asyncio.create_task(self._failures.once("line", self._listen))
        on_sigterm(self._on_sigterm)

    async def ping(self) -> None:
        """Give a sign of life: the process runs, and so does its event loop. Recovers nothing, and is no use."""

    async def _listen(self) -> None:
        """Listen where this process can be reached. What fails is noted, and leaves clients to Ray's calls."""
        if self._settings.direct is Direct.OFF:
            return
        tls = None
        if (files := tls_files()) is not None:
            from conversation_actors.line.tls import server_context  # noqa: PLC0415  # where Ray speaks TLS only

            tls = server_context(*files)
        self._address = await self._line.listen(ray.util.get_node_ip_address(), tls=tls)

    async def _line_address(self) -> LineAddress | None:
        await asyncio.shield(self._listening)
        return self._address

    def _place(self) -> Place:
        return Place(os.getpid(), ray.get_runtime_context().get_node_id(), is_forked())

    def _was_ready(self) -> bool:
        return was_ready()

    def _on_restart(self) -> None:
        self._tasks.append(asyncio.create_task(self._failures.once("pool", self._tell_pool)))

    async def _tell_pool(self) -> None:
        """Have the pool count the worker that was taken. What fails here is noted; a pool that is not told recounts."""
        if self._settings.pool.maximum:
            from conversation_actors.runtime.warm_pool import tell_of_restart  # noqa: PLC0415  # after a crash only

            await tell_of_restart(ray.get_runtime_context().get_node_id(), was_ready=was_ready())

    async def _exit(self) -> None:
        # Ray's exit waits for the raylet, and for as long as that hangs: a fenced owner would stay for ever.
        last_resort = threading.Timer(_RAYLET_SECONDS, os._exit, (1,))
        last_resort.daemon = True
        last_resort.start()
        await self._failures.once("exit", self._line.aclose)
        await self._failures.once("exit", self._store.aclose)
        with suppress(AsyncioActorExit):  # how Ray unwinds a method; this is a task, with nobody to unwind to
            ray.actor.exit_actor()

    def _on_sigterm(self) -> None:
        self._tasks.append(asyncio.create_task(self._leave_orderly()))

    async def _leave_orderly(self) -> None:
        """Spare the next activation the replay, then go, whatever comes between. Nothing acknowledged depends on it."""
        activation = self._activation
        if activation is not None and not activation.stopped.done():
            try:
                async with asyncio.timeout(_EXIT_SECONDS):
                    await activation.passivate()
            except Exception as error:  # noqa: BLE001  # whatever it was, the process is to go
                self._failures.note("snapshot at SIGTERM", error)
                await self._failures.once("exit", activation.aclose)
        await self._exit()
