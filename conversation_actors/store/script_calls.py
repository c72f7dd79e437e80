"""Runs one script where its keys are, and waits until the write is as durable as asked."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.exceptions import AskError, MovedError, NoScriptError, ResponseError

from conversation_actors.errors import ConversationError, CorruptStateError, IncompatibleVersionError
from conversation_actors.store.connection import Servers
from conversation_actors.store.durability import Acknowledgement
from conversation_actors.store.keys import ConversationKeys
from conversation_actors.store.replies import CLIENT_ERRORS, is_wrong_type, placed, timed_out, translate, wrong_type
from conversation_actors.store.scripts import SCHEMA, LuaScript

Argument = str | bytes | int
Command = tuple[Argument, ...]
_REDIRECTIONS = 4
"""How often one call follows a slot that moved before it gives up (a resharding moves it once)."""
_WRITTEN = (b"OK", b"DUPLICATE")


class _Send(Protocol):
    """Sends something to one server; with `is_asking`, as to one that a slot is on its way to."""

    def __call__(self, client: Redis, *, is_asking: bool) -> Awaitable[Any]: ...


class ScriptCalls:
    """Calls of scripts on the servers behind one URL."""

    def __init__(self, servers: Servers, acknowledgement: Acknowledgement, *, timeout: float, where: str) -> None:
        """Give each call `timeout` seconds for all of it: connect, script, and the wait for durability.

        `where` tells people which servers these are, and by which setting.
        """
        self._where = where
        self._servers = servers
        self._acknowledgement = acknowledgement
        self._timeout = timeout

    async def on_conversation(
        self, script: LuaScript, keys: ConversationKeys, *arguments: Argument, names: Sequence[str] = ()
    ) -> list[Any]:
        """Run a script on a conversation's three keys, or on those of its keys that are named.

        The reply's first element is its outcome, as bytes.

        Raises `CorruptStateError` and `IncompatibleVersionError` for the outcomes of that meaning.
        """
        async with self.answering(script.name), self._naming_wrong_types(keys):
            after = self._acknowledgement.commands()
            reply = await self._call(script, names or keys.as_tuple(), arguments, after=after)
        return _checked(reply, keys)

    async def reading(
        self, script: LuaScript, keys: ConversationKeys, *arguments: Argument, names: Sequence[str] = ()
    ) -> list[Any]:
        """Run a script that only reads; answer when what it has read is as durable as asked."""
        async with self.answering(script.name), self._naming_wrong_types(keys):
            after = self._acknowledgement.commands(after_read=True)
            return await self._call(script, names or keys.as_tuple(), arguments, after=after)

    async def reading_plainly(
        self, keys: ConversationKeys, before: Sequence[Command], commands: Sequence[Command]
    ) -> tuple[list[Any], list[Any]]:
        """Send commands that only read, on one connection. Return what the server says to `before`, and to the rest.

        Errors in the answers to `before` are answers.

        A slot of a cluster that is on its way to another server is `StoreUnavailableError`.
        """
        after = self._acknowledgement.commands(after_read=True)

        async def send(client: Redis, *, is_asking: bool) -> list[Any]:  # noqa: ARG001  # nobody asks: see above
            pipeline = client.pipeline(transaction=False)
            for command in (*before, *commands, *after):
                pipeline.execute_command(*command)
            return await pipeline.execute(raise_on_error=False)

        async with self.answering("read"), self._naming_wrong_types(keys):
            replies = await self._redirected(keys.meta, send, follows_asking=False)
            wanted = [_raised(reply) for reply in replies[len(before) :]]
            if after:
                self._acknowledgement.judge(wanted[-1])
        return replies[: len(before)], wanted[: len(commands)]

    async def plainly(self, doing: str, key: str, command: Command) -> Any:
        """Send one command that reads one key."""

        async def send(client: Redis, *, is_asking: bool) -> Any:
            pipeline = client.pipeline(transaction=False)
            for sent in [*([("ASKING",)] if is_asking else []), command]:
                pipeline.execute_command(*sent)
            return (await pipeline.execute())[-1]

        async with self.answering(doing):
            return await self._redirected(key, send)

    async def on_index(self, script: LuaScript, keys: Sequence[str], *arguments: Argument) -> list[Any]:
        """Run a script on keys of one slot. Indexes can be rebuilt, so nothing waits for their durability."""
        async with self.answering(script.name):
            return await self._call(script, keys, arguments, after=())

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

    @asynccontextmanager
    async def _naming_wrong_types(self, keys: ConversationKeys) -> AsyncIterator[None]:
        try:
            yield
        except ResponseError as error:
            if not is_wrong_type(error):
                raise
            raise wrong_type(keys, await self._types(keys)) from error

    async def _call(
        self, script: LuaScript, keys: Sequence[str], arguments: Sequence[Argument], *, after: Sequence[Command]
    ) -> list[Any]:
        async def send(client: Redis, *, is_asking: bool) -> list[Any]:
            return await self._send(client, script, keys, arguments, is_asking=is_asking, after=after)

        reply: list[Any] = await self._redirected(keys[0], send)
        return reply

    async def _redirected(self, key: str, send: _Send, *, follows_asking: bool = True) -> Any:
        """Send to the server of a key, or to where it says that the key is."""
        client, is_asking = await self._servers.owner_of(key), False
        for _ in range(_REDIRECTIONS):
            try:
                return await send(client, is_asking=is_asking)
            except MovedError:
                self._servers.forget()
                client, is_asking = await self._servers.owner_of(key), False
            except AskError as elsewhere:
                if not follows_asking:
                    raise
                client, is_asking = self._servers.at(elsewhere.host, elsewhere.port), True
        return await send(client, is_asking=is_asking)

    async def _send(
        self,
        client: Redis,
        script: LuaScript,
        keys: Sequence[str],
        arguments: Sequence[Argument],
        *,
        is_asking: bool,
        after: Sequence[Command],
    ) -> list[Any]:
        try:
            tail = (script.digest, len(keys), *keys, *arguments)
            return await self._exchange(client, ("EVALSHA", *tail), is_asking=is_asking, after=after)
        except NoScriptError:
            tail = (script.source, len(keys), *keys, *arguments)
            return await self._exchange(client, ("EVAL", *tail), is_asking=is_asking, after=after)

    async def _exchange(
        self, client: Redis, command: Command, *, is_asking: bool, after: Sequence[Command]
    ) -> list[Any]:
        """Send script and WAIT in one packet on one connection: WAIT speaks of that connection's writes."""
        if not (after or is_asking):
            alone: list[Any] = await client.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py has no types here
            return alone
        pipeline = client.pipeline(transaction=False)
        if is_asking:
            pipeline.execute_command("ASKING")
        pipeline.execute_command(*command)
        for waiting in after:
            pipeline.execute_command(*waiting)
        replies = await pipeline.execute(raise_on_error=False)
        reply: list[Any] = _raised(replies[1 if is_asking else 0])
        if after and reply[0] in _WRITTEN:
            self._acknowledgement.judge(_raised(replies[-1]))
        return reply

    async def _types(self, keys: ConversationKeys) -> list[str]:
        client = await self._servers.owner_of(keys.meta)
        pipeline = client.pipeline(transaction=False)
        for key in keys.with_backlog:
            pipeline.execute_command("TYPE", key)
        return [name.decode() for name in await pipeline.execute()]


@contextmanager
def _cancelled_for_good() -> Iterator[None]:
    """End a task that was cancelled inside, also if that was swallowed inside.

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


def milliseconds(duration: timedelta) -> int:
    """Return a duration as Redis counts it; none is so short that it counts as nothing."""
    return max(1, round(duration.total_seconds() * 1000))
