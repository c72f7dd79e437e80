"""The development stack: a Ray head node and, where no Redis is configured, a server of our own."""

import asyncio
import json
import shlex
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from conversation_actors.cli.processes import with_environment
from conversation_actors.cli.ray_head import ENVIRONMENT, RayHead
from conversation_actors.settings import Settings, data_directory
from conversation_actors.store import EmbeddedServer

DRAIN_SECONDS = 20.0
_CONNECT_SECONDS = 15.0


@dataclass
class _Signals:
    """What the person at the keyboard wants: once, to stop; twice, to stop now."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)

    def listen(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._told)

    def _told(self) -> None:
        (self.hurry if self.stop.is_set() else self.stop).set()


async def run(*, as_json: bool) -> int:
    """Start, wait, stop. Returns the exit code: 1 if Ray ended by itself. Raises `ConversationError`."""
    signals = _Signals()
    signals.listen()
    # what is told to people goes to standard error where standard output is for a program
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    configured = Settings().redis_url
    server = EmbeddedServer(data_directory()) if configured is None else None
    head = RayHead()
    try:
        if configured is not None:
            redis_url = configured.get_secret_value()
            console.print("Redis  yours, from the environment or .env")
        else:
            assert server is not None
            redis_url = await asyncio.to_thread(_start_server, server, console)
        console.print("Ray    starting, which takes some seconds …")
        address = await _unless_stopped(head.start(), signals)
        if address is None:
            return 0
        _tell(address, redis_url, console, as_json=as_json)
        return await _until_stopped(head, address, signals, console)
    finally:
        await asyncio.to_thread(head.stop, hurry=signals.hurry.is_set() or not signals.stop.is_set())
        if server is not None:
            await asyncio.to_thread(server.stop)


def _start_server(server: EmbeddedServer, console: Console) -> str:
    server.start()
    directory = data_directory()
    how = "running already, and left running" if server.is_reused else "a server of our own"
    console.print(f"Redis  {how}; its data stays in {directory}")
    return server.url


async def _unless_stopped(starting: Coroutine[Any, Any, str], signals: _Signals) -> str | None:
    """What `starting` returns; None if a signal came first."""
    work, stopped = asyncio.ensure_future(starting), asyncio.ensure_future(signals.stop.wait())
    await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if work.done():
        return await work
    work.cancel()
    with suppress(asyncio.CancelledError):
        await work
    return None


def _tell(address: str, redis_url: str, console: Console, *, as_json: bool) -> None:
    variables = {"RAY_ADDRESS": address, "CONVERSATION_REDIS_URL": redis_url}
    if as_json:
        print(json.dumps(variables), flush=True)  # noqa: T201  # the interface
    console.print(f"Ray    ready at {address}")
    if not as_json:
        console.print("\nIn another terminal:\n")
        for name, value in variables.items():
            console.print(f"export {name}={shlex.quote(value)}", markup=False)
    console.print("\nCtrl-C saves every conversation and stops all this.")


async def _until_stopped(head: RayHead, address: str, signals: _Signals, console: Console) -> int:
    ended, stopped = asyncio.create_task(head.wait()), asyncio.create_task(signals.stop.wait())
    await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if ended.done():
        print(f"Ray has ended by itself (exit code {ended.result()}): {head.last_words()}", file=sys.stderr)  # noqa: T201  # a command line's way to answer
        return 1
    ended.cancel()
    console.print("\nSaving every conversation … (Ctrl-C again: stop at once)")
    console.print(await _drain(address, signals.hurry))
    return 0


async def _drain(address: str, hurry: asyncio.Event) -> str:
    """Save every conversation, for as long as nobody is in a hurry. Returns what to tell."""
    command = [sys.executable, "-m", "conversation_actors.cli.drain", address, str(DRAIN_SECONDS)]
    process = await asyncio.create_subprocess_exec(
        *with_environment(command, changes=ENVIRONMENT),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    work, hurried = asyncio.create_task(process.communicate()), asyncio.create_task(hurry.wait())
    await asyncio.wait({work, hurried}, timeout=DRAIN_SECONDS + _CONNECT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    hurried.cancel()
    if not work.done():
        process.kill()
        await work
        return "Not all saved; they will be rebuilt from their journals."
    told, errors = await work
    if process.returncode:
        reason = errors.decode(errors="replace").strip()[-400:]
        return f"Not saved ({reason}); the conversations will be rebuilt from their journals."
    return f"Saved: {int(told)}."
