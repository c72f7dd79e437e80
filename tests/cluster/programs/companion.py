"""A second process on one conversation: tells its history, then tells every change as it comes.

usage: companion.py CONVERSATION_ID. Prints one JSON list of texts for each state it sees.
"""

import asyncio
import json
import sys

from conversation_actors import ConversationClient, Message


async def main(conversation_id: str) -> None:
    """Add one message of its own, then print the history whenever it has changed."""
    async with ConversationClient() as client:
        conversation = await client.open(conversation_id, create=False)
        _tell([item.text for item in conversation.items if isinstance(item, Message)])
        await conversation.append(Message(role="assistant", content="hello from the companion"))
        async for _ in conversation.watch():
            snapshot = await conversation.snapshot()
            _tell([item.text for item in snapshot.items if isinstance(item, Message)])


def _tell(history: list[str]) -> None:
    sys.stdout.write(json.dumps(history) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
