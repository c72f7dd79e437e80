"""Open twenty conversations, print the owners' process ids as JSON, and hold them until a line comes."""

import asyncio
import json
import sys

from conversation_actors import ConversationClient


async def main() -> None:
    """Do it, with the settings of the environment."""
    async with ConversationClient() as client:
        handles = [await client.open(f"{sys.argv[1]}-{number}") for number in range(20)]
        sys.stdout.write(json.dumps([(await handle.info()).pid for handle in handles]) + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(main())
