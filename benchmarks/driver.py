"""The process that uses one Ray cluster. It reads one command a line from standard input and writes one answer a line.

A process can join one cluster only, so the suite has one driver for each cluster. Times are taken in the driver, beside
the calls. A command is ``{"call": "activation:reopen", "given": {…}}``. It names a coroutine function of a module of
`benchmarks.measured`, which is called with the `Session` and the given arguments.
"""

import asyncio
import json
import os
import sys
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from typing import Any

from conversation_actors import ConversationClient, ConversationHandle, HistoryLimits, Message, Settings, Timeouts
from conversation_actors.settings import Direct, PoolSettings

TEXT = "x" * 200
Command = Callable[..., Awaitable[Any]]


def a_message() -> Message:
    """Return the message that every benchmark appends: 200 bytes of text."""
    return Message(role="user", content=TEXT)


@dataclass
class Session:
    """One process's part in a cluster: a client for each kind of settings, and the handles in use."""

    redis_url: str
    ray_address: str
    has_pool: bool
    stack: AsyncExitStack
    handles: dict[str, ConversationHandle] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    """Values that commands keep for later commands."""
    _clients: dict[tuple[int, Direct], ConversationClient] = field(default_factory=dict)

    def settings(self, history: int, direct: Direct) -> Settings:
        """Return settings with long timeouts: a plain cluster on a busy machine may take minutes to open conversations.

        `history` is the bound of the history, in items; `direct` tells whether handles may use lines of their own.
        """
        return Settings(
            redis_url=self.redis_url,
            ray_address=self.ray_address,
            idle_timeout=timedelta(hours=1),
            history=HistoryLimits(items=history, bytes=64 << 20),
            timeouts=Timeouts(open=timedelta(minutes=5), command=timedelta(minutes=2)),
            pool=self._pool_settings(),
            direct=direct,
        )

    async def client(self, history: int = 200, direct: Direct = Direct.AUTO) -> ConversationClient:
        """Return the client with these settings. The first use makes it and joins the cluster."""
        kind = (history, direct)
        if kind not in self._clients:
            made = ConversationClient(self.settings(*kind))
            self._clients[kind] = await self.stack.enter_async_context(made)
            await made.join_cluster()
        return self._clients[kind]

    async def open(
        self, conversation_id: str, history: int = 200, *, direct: Direct = Direct.AUTO, wait: bool = True
    ) -> ConversationHandle:
        """Open a conversation, and keep its handle. Without `wait`, do not wait for its owner."""
        handle = await (await self.client(history, direct)).open(conversation_id, wait=wait)
        self.handles[conversation_id] = handle
        return handle

    async def retire(self, conversation_id: str) -> None:
        """Passivate a conversation, close its handle, and wait until its process has ended."""
        handle = self.handles.pop(conversation_id)
        pid = (await handle.info()).pid
        await handle.passivate()
        await handle.aclose()
        await gone(pid)

    def _pool_settings(self) -> PoolSettings:
        return PoolSettings() if self.has_pool else PoolSettings(maximum=0)


async def fill(handle: ConversationHandle, messages: int) -> None:
    """Record so many messages, in portions that fit into the outbox."""
    for begin in range(0, messages, 5000):
        for _ in range(begin, min(begin + 5000, messages)):
            handle.record(a_message())
        await handle.flush()


async def gone(pid: int) -> None:
    """Wait until a process has ended, for ten seconds at most."""
    for _ in range(500):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        await asyncio.sleep(0.02)


async def _answer(session: Session, command: dict[str, Any]) -> dict[str, Any]:
    module, _, name = command["call"].partition(":")
    try:
        call: Command = getattr(import_module(f"benchmarks.measured.{module}"), name)
        return {"answer": await call(session, **command["given"])}
    except Exception as error:  # noqa: BLE001  # the suite tells the error, and goes on with another benchmark
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


async def _serve(answers: int, redis_url: str, ray_address: str, *, has_pool: bool) -> None:
    """Answer commands until standard input ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=16 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with AsyncExitStack() as stack:
        session = Session(redis_url, ray_address, has_pool, stack)
        while line := await reader.readline():
            answer = await _answer(session, json.loads(line))
            os.write(answers, json.dumps(answer).encode() + b"\n")
    # the suite ends the cluster afterwards, and leaving it properly would take seconds


def main() -> None:
    """Run ``driver.py RAY_ADDRESS pool|none``, with the URL of Redis in ``BENCH_REDIS_URL``."""
    redis_url, ray_address, pool = os.environ.pop("BENCH_REDIS_URL"), *sys.argv[1:3]
    answers = os.dup(1)
    os.dup2(2, 1)  # anything that is printed goes into the log
    asyncio.run(_serve(answers, redis_url, ray_address, has_pool=pool == "pool"))
    os._exit(0)


if __name__ == "__main__":
    main()
