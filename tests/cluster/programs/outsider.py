"""Opens a conversation where something is missing, and prints the error: its type, then its sentence."""

import asyncio
import sys

from conversation_actors import ConversationClient, ConversationError


async def main() -> None:
    """Open, and leave at once."""
    try:
        async with ConversationClient() as client:
            await client.open("never")
            sys.stdout.write("connected\n")
    except ConversationError as error:
        sys.stdout.write(f"{type(error).__name__}\n{error}\n")


if __name__ == "__main__":
    asyncio.run(main())
