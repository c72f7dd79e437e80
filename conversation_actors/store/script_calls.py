"""Runs one script where its keys are, and waits until the write is as durable as asked."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import AskError, MovedError, NoScriptError, ResponseError

from conversation_actors.errors import ConversationError, CorruptStateError, IncompatibleVersionError
from conversation_actors.store.connection import Servers
from conversation_actors.store.durability import Acknowledgement
from conversation_actors.store.keys import ConversationKeys
from conversation_actors.store.replies import CLIENT_ERRORS, is_wrong_type, placed, timed_out, translate, wrong_type
from conversation_actors.store.scripts import SCHEMA, Script

Argument = str | bytes | int
_REDIRECTIONS = 4
"""How often one call follows a slot that moved before it gives up (a resharding moves it once)."""
_WRITTEN = (b"OK", b"DUPLICATE")


class ScriptCalls:
    """Calls of scripts on the servers behind one URL."""

    def __init__(self, servers: Servers, acknowledgement: Acknowledgement, *, timeout: float, where: str) -> None:
        """`timeout`, in seconds, is for a whole call: connect, script, and the wait for durability.

        `where` tells people which servers these are, and by which setting.
        """
        self._where = where
        self._servers = servers
        self._acknowledgement = acknowledgement
        self._timeout = timeout

    async def on_conversation(self, script: Script, keys: ConversationKeys, *arguments: Argument) -> list[Any]:
        """Run a script on a conversation's keys; the reply's first element is its outcome, as bytes.

        Raises `CorruptStateError` and `IncompatibleVersionError` for the outcomes of that meaning.
        """
        async with self.answering(script.name):
            try:
                reply = await self._call(script, keys.as_tuple(), arguments, is_durable=True)
            except ResponseError as error:
                if not is_wrong_type(error):
                    raise
                raise wrong_type(keys, await self._types(keys)) from error
        return _checked(reply, keys)

    async def on_index(self, script: Script, keys: Sequence[str], *arguments: Argument) -> list[Any]:
        """Run a script on keys of one slot. Indexes can be rebuilt, so nothing waits for their durability."""
        async with self.answering(script.name):
            return await self._call(script, keys, arguments, is_durable=False)

    @asynccontextmanager
    async def answering(self, doing: str) -> AsyncIterator[None]:
        """Bound what happens inside by the timeout, and turn every failure into one of our errors."""
        with _cancelled_for_good():
            async with self._bounded(doing):
                yield

    @asynccontextmanager
    async def _bounded(self, doing: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except ConversationError:
            raise
        except TimeoutError as error:
            self._servers.forget()
            raise placed(timed_out(self._timeout, doing=doing), self._where, doing=doing) from error
        except CLIENT_ERRORS as error:
            self._servers.forget()
            raise placed(translate(error, doing=doing), self._where, doing=doing) from error

    async def _call(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument], *, is_durable: bool
    ) -> list[Any]:
        client, is_asking = await self._servers.owner_of(keys[0]), False
        for _ in range(_REDIRECTIONS):
            try:
                return await self._send(client, script, keys, arguments, is_asking=is_asking, is_durable=is_durable)
            except MovedError:
                self._servers.forget()
                client, is_asking = await self._servers.owner_of(keys[0]), False
            except AskError as elsewhere:
                client, is_asking = self._servers.at(elsewhere.host, elsewhere.port), True
        return await self._send(client, script, keys, arguments, is_asking=is_asking, is_durable=is_durable)

    async def _send(
        self,
        client: Redis,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[Argument],
        *,
        is_asking: bool,
        is_durable: bool,
    ) -> list[Any]:
        try:
            tail = (script.digest, len(keys), *keys, *arguments)
            return await self._exchange(client, ("EVALSHA", *tail), is_asking=is_asking, is_durable=is_durable)
        except NoScriptError:
            tail = (script.source, len(keys), *keys, *arguments)
            return await self._exchange(client, ("EVAL", *tail), is_asking=is_asking, is_durable=is_durable)

    async def _exchange(
        self, client: Redis, command: Sequence[Argument], *, is_asking: bool, is_durable: bool
    ) -> list[Any]:
        """Send script and WAIT in one packet on one connection: WAIT speaks of that connection's writes."""
        wait = self._acknowledgement.command() if is_durable else None
        if not (wait or is_asking):
            alone: list[Any] = await client.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py has no types here
            return alone
        pipeline = client.pipeline(transaction=False)
        if is_asking:
            pipeline.execute_command("ASKING")
        pipeline.execute_command(*command)
        if wait:
            pipeline.execute_command(*wait)
        replies = await pipeline.execute(raise_on_error=False)
        reply: list[Any] = _raised(replies[1 if is_asking else 0])
        if wait and reply[0] in _WRITTEN:
            self._acknowledgement.judge(_raised(replies[-1]))
        return reply

    async def _types(self, keys: ConversationKeys) -> list[str]:
        client = await self._servers.owner_of(keys.meta)
        pipeline = client.pipeline(transaction=False)
        for key in keys.as_tuple():
            pipeline.execute_command("TYPE", key)
        return [name.decode() for name in await pipeline.execute()]


@contextmanager
def _cancelled_for_good() -> Iterator[None]:
    """End a task that was cancelled inside, also where that was swallowed inside.

    redis-py sends with `asyncio.wait_for`, which in Python 3.11 forgets a cancellation that comes just when it is
    done: a loop around our calls would go on for ever, and whoever ends it would wait as long.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        yield
    finally:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError


def _raised(reply: Any) -> Any:
    if isinstance(reply, Exception):
        raise reply
    return reply


def _checked(reply: list[Any], keys: ConversationKeys) -> list[Any]:
    if reply[0] == b"CORRUPT":
        key = reply[1].decode()
        message = f"{key}: {reply[2].decode()}"
        raise CorruptStateError(message, key=key, position=0)
    if reply[0] == b"SCHEMA":
        message = f"{keys.meta}: written in layout {reply[1]}; this version reads up to {SCHEMA}; upgrade this process"
        raise IncompatibleVersionError(message)
    return reply
