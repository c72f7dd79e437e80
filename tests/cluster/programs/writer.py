"""Appends numbered messages to a conversation, many at a time, and notes on disk which were acknowledged.

usage: writer.py CONVERSATION_ID NAME COUNT IN_FLIGHT FILE
"""

import asyncio
import os
import sys
from pathlib import Path

from conversation_actors import ConversationClient, Message


async def main(conversation_id: str, name: str, count: int, in_flight: int, path: Path) -> None:
    """Write until all is acknowledged."""
    numbers = iter(range(count))
    async with ConversationClient() as client:
        conversation = await client.open(conversation_id)
        with path.open("w") as acknowledged:

            async def write() -> None:
                for number in numbers:
                    text = f"{name}-{number:05}"
                    await conversation.append(Message(role="user", content=text))
                    acknowledged.write(f"{text}\n")
                    acknowledged.flush()
                    os.fsync(acknowledged.fileno())

            await asyncio.gather(*(write() for _ in range(in_flight)))


if __name__ == "__main__":
    identifier, writer, messages, parallel, file = sys.argv[1:]
    asyncio.run(main(identifier, writer, int(messages), int(parallel), Path(file)))
