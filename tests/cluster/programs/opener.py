"""A program with a runtime environment: opens a conversation, appends to it, prints the owner's process id, ends.

``opener.py ID DIRECTORY [alone]``: the conversation, and the working directory of its job; alone, it starts no process.
"""

import asyncio
import sys

import ray

from conversation_actors import ConversationClient, Message


async def main() -> None:
    """Open it as the first one does."""
    conversation_id, directory, *alone = sys.argv[1:]
    ray.init(
        runtime_env={"env_vars": {"OF_THE_JOB": "1"}, "working_dir": directory},
        log_to_driver=False,
        configure_logging=False,
    )
    if alone:
        sys.executable = "/nowhere/python"
    async with ConversationClient() as client:
        handle = await client.open(conversation_id)
        await handle.append(Message(role="user", content="from the job"))
        print((await handle.info()).pid, flush=True)  # noqa: T201  # the test reads it


if __name__ == "__main__":
    asyncio.run(main())
