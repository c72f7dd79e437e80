"""Looks at a conversation where no Ray can be reached: reads it, lists all, deletes it. Prints what it finds."""

import asyncio
import json
import sys

from conversation_actors import ConversationClient, ConversationError


async def main(conversation_id: str) -> None:
    """Look, delete, and try to open."""
    async with ConversationClient() as client:
        snapshot = await client.read(conversation_id)
        listed = [found.conversation_id async for found in client.list()]
        await client.delete(conversation_id)
        refusal = ""
        try:
            await client.open(conversation_id)
        except ConversationError as error:
            refusal = type(error).__name__
    found = {"epoch": snapshot.epoch, "seq": snapshot.seq, "is_listed": conversation_id in listed, "open": refusal}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
