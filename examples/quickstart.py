"""A notebook: every line that is typed is durable when its number is printed, whatever is killed meanwhile.

Run `conversation-actors dev` in one terminal, paste the `export` lines that it prints into another one, and start
`python examples/quickstart.py` there. Type a line, run the `kill -9` that is printed (or kill this program and start it
again), and type the next line: nothing is lost, and the numbers go on.
"""

import asyncio
import sys

from conversation_actors import ConversationClient, ConversationHandle, Message


async def write(notebook: ConversationHandle, line: str) -> None:
    """Keep one line, and tell by which owner it was written."""
    receipt = await notebook.append(Message(role="user", content=line))
    owner = await notebook.info()
    print(f"{receipt.seq}. {line} [owner {receipt.epoch}: kill -9 {owner.pid}]", flush=True)


async def main(name: str) -> None:
    """Print what is in the notebook, and write down what is typed."""
    async with ConversationClient() as client:  # RAY_ADDRESS, CONVERSATION_REDIS_URL
        notebook = await client.open(name)
        for item in notebook.items:
            print(f"- {item.text}", flush=True)
        while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
            await write(notebook, line)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "quickstart"))
