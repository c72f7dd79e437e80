"""Help for an application's tests: a client without servers, an owner that dies when told to, a back end's double.

`local_client` is a `ConversationClient` on a ``memory://`` of its own. Its owners run in this process, without Ray and
without Redis, through the same gate, with the same bounds and errors. pytest has it as the fixture
``conversation_client`` as soon as this package is installed (with pytest-asyncio, or anyio's plugin).
`backend_double` is a back end as docs/backend.md describes it, over real HTTP; it needs aiohttp.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from conversation_actors.client import ConversationClient
from conversation_actors.local import hosts_of_process
from conversation_actors.settings import Settings
from conversation_actors.store import forget_memory

if TYPE_CHECKING:
    from conversation_actors.testing.backend import BackendDouble

__all__ = ["backend_double", "crash", "local_client"]


@asynccontextmanager
async def local_client(settings: Settings | None = None) -> AsyncIterator[ConversationClient]:
    """Open a client on an empty store that nobody else has, and forget the store afterwards.

    `settings` are those of `ConversationClient.local`: all but the servers'. Example:

        async with local_client() as client:
            conversation = await client.open("support-42")
            await conversation.append(Message(role="user", content="Hello"))
    """
    name = secrets.token_hex(8)
    try:
        async with ConversationClient.local(settings, name=name) as client:
            yield client
    finally:
        forget_memory(name)


async def crash(conversation_id: str) -> None:
    """End a conversation's owner as if its process had been killed: at once, without a snapshot or an answer.

    Nothing that was acknowledged is lost: the next call recovers the conversation, one `epoch` later. Calls that wait
    for an answer repeat themselves there. Only owners of ``memory://`` in this process are found; raises `LookupError`
    if no owner of this conversation runs. Example:

        await crash("support-42")
        await conversation.append(Message(role="user", content="Are you still there?"))
    """
    if not await hosts_of_process().kill(conversation_id):
        message = f"no owner of {conversation_id!r} runs in this process"
        raise LookupError(message)


@asynccontextmanager
async def backend_double(*, token: str = "") -> "AsyncIterator[BackendDouble]":
    """Run a back end in this process, in memory, on a port of its own; with a `token`, it demands that.

    Raises `AssertionError` at the end if a request came that does not fit the OpenAPI document. Example:

        async with backend_double() as backend:
            backend.context = ["Ada is a customer since 2019."]
            assert backend.messages("support-42") == []
    """
    serving = import_module("conversation_actors.testing.backend").serving  # with it aiohttp is imported
    async with serving(token) as double:
        yield double
