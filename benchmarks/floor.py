"""The least that an append over a socket of an actor's own costs: 250 bytes there and back, and one Lua script between.

No message has a type, a proof or a number, and nobody repeats anything: what a durable append costs more is ours.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

from benchmarks.actors import NEAR_OWNERS
from benchmarks.peers import FENCED_APPEND, ITEMS, TTL_SECONDS

ECHO = "an actor's Unix socket: echo"
WRITE = "an actor's Unix socket: one Lua script"
_BODY = bytes(250)
_LENGTH = struct.Struct("!I")


def listen(redis_url: str, path: str) -> Any:
    """Start an actor whose method `listen` returns once it listens on the Unix socket. See `actors` on its class."""
    import ray  # noqa: PLC0415  # the suite itself never imports it

    script, arguments, size = FENCED_APPEND, (-ITEMS, TTL_SECONDS), _LENGTH.size + len(_BODY)

    class Serving(asyncio.Protocol):
        def __init__(self, append: Any) -> None:
            self._append, self._received = append, b""
            self._tasks: set[asyncio.Task[None]] = set()

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self._transport: Any = transport

        def data_received(self, data: bytes) -> None:
            self._received += data
            while len(self._received) >= size:
                message, self._received = self._received[:size], self._received[size:]
                if message[4:5] == b"e":
                    self._transport.write(message)
                    continue
                task = asyncio.ensure_future(self._write(message))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

        async def _write(self, message: bytes) -> None:
            await self._append(keys=["{floor}:meta", "{floor}:items"], args=[1, message, *arguments])
            self._transport.write(message)

    class Listening:
        async def listen(self) -> None:
            from redis.asyncio import Redis  # noqa: PLC0415  # in the actor's process

            redis: Any = Redis.from_url(redis_url)
            append = redis.register_script(script)
            self._server = await asyncio.get_running_loop().create_unix_server(lambda: Serving(append), path)

    return ray.remote(Listening).options(num_cpus=0, resources=NEAR_OWNERS, enable_task_events=False).remote()


class Caller(asyncio.Protocol):
    """A connection to such an actor, which answers one call after the other."""

    def __init__(self) -> None:
        """Wait for `connection_made`."""
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Count what came: every answer is as long as every other."""
        self._received += len(data)
        whole, self._received = divmod(self._received, _LENGTH.size + len(_BODY))
        for _ in range(whole):
            self._waiting.popleft().set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """Let nobody wait for ever."""
        for waiting in self._waiting:
            waiting.set_exception(error or ConnectionResetError("the actor has ended"))
        self._waiting.clear()

    def ask(self, kind: bytes) -> Callable[[], asyncio.Future[None]]:
        """Return a call that sends a body of this kind: ``e`` for echo, ``w`` for a write."""
        message = _LENGTH.pack(len(_BODY)) + kind + _BODY[1:]

        def call() -> asyncio.Future[None]:
            assert self._transport is not None
            answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(answer)
            self._transport.write(message)
            return answer

        return call


async def connect(actor: Any, path: str) -> dict[str, Callable[[], asyncio.Future[None]]]:
    """Return a call for each of `ECHO` and `WRITE`."""
    await actor.listen.remote()
    _, caller = await asyncio.get_running_loop().create_unix_connection(Caller, path)
    return {ECHO: caller.ask(b"e"), WRITE: caller.ask(b"w")}
