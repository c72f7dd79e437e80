"""A client that goes on whatever becomes of the head. Reads words from stdin, answers each by one line of JSON.

``append`` and ``open``: how it went, and how long it took. ``record``: nothing is waited for. ``flush``. ``items``.
"""

import asyncio
import json
import sys
import time
from typing import Any

from conversation_actors import ConversationClient, ConversationError, ConversationHandle, Message


async def answer(client: ConversationClient, handle: ConversationHandle, word: str, number: int) -> Any:
    """Do what the word says."""
    message = Message(role="user", content=f"{word}-{number}")
    match word:
        case "append":
            return (await handle.append(message)).seq
        case "open":
            return (await client.open(f"{handle.id}-{number}")).seq
        case "record":
            return handle.record(message)
        case "flush":
            return await handle.flush()
        case "items":
            return [item.text for item in handle.items if isinstance(item, Message)]
    raise ValueError(word)


async def main() -> None:
    """Answer until stdin ends."""
    async with ConversationClient() as client:
        handle = await client.open(sys.argv[1])
        number = 0
        while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
            number += 1
            started, error, value = time.monotonic(), "", None
            try:
                value = await answer(client, handle, line, number)
            except ConversationError as failure:
                error = f"{type(failure).__name__}: {failure}"
            told = {"value": value, "error": error, "seconds": time.monotonic() - started}
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()


asyncio.run(main())
