"""Help for an application's tests: a client that needs no servers, and an owner that dies when it is told to.

`local_client` is a `ConversationClient` on a ``memory://`` of its own. Its owners run in this process, without Ray and
without Redis, through the same gate, with the same bounds and errors. pytest has it as the fixture
``conversation_client`` as soon as this package is installed (with pytest-asyncio, or anyio's plugin).
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from conversation_actors.client import ConversationClient
from conversation_actors.local import hosts_of_process
from conversation_actors.settings import Settings
from conversation_actors.store import forget_memory

__all__ = ["crash", "local_client"]


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
