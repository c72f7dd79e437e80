"""A Ray program whose tasks all write to one conversation, and which finds the conversation's actor by plain Ray.

Run `conversation-actors dev` in one terminal, paste the `export` lines that it prints into another one, and start
`python examples/plain_ray.py` there. The program then kills the actor as a crash would: the next write is answered by
the second owner of the conversation, which has every line of the first one.
"""

import asyncio
import secrets
import sys
import time
from typing import Any

import ray

from conversation_actors import ConversationClient, ConversationError, Message, Settings
from conversation_actors.runtime import NAMESPACE, actor_name

WORKERS = 4


@ray.remote(num_cpus=0)  # type: ignore[untyped-decorator]  # Ray's annotations are partial
def report(settings: Settings, conversation_id: str, finding: str) -> int:
    """Append one line from a worker of Ray's, whose environment is the cluster's; return the line's position."""

    async def append() -> int:
        async with ConversationClient(settings) as client:
            conversation = await client.open(conversation_id)
            return (await conversation.append(Message(role="assistant", content=finding))).seq

    return asyncio.run(append())


def crash(conversation_id: str) -> None:
    """End the owner's process, and wait until Ray has started it again: it recovers by itself."""
    before = epoch_of(conversation_id)
    ray.kill(ray.get_actor(actor_name(conversation_id), namespace=NAMESPACE), no_restart=False)
    while epoch_of(conversation_id) == before:
        time.sleep(0.01)


def epoch_of(conversation_id: str) -> int:
    """Ask the actor itself. It answers with its value, or with an error as a value."""
    view = _read(conversation_id)
    if isinstance(view, ConversationError):
        raise view
    return int(view.epoch)


def _read(conversation_id: str) -> Any:
    """Return what the actor answers. Ask again while Ray starts it again."""
    while True:
        try:
            actor = ray.get_actor(actor_name(conversation_id), namespace=NAMESPACE)
            return ray.get(actor.read.remote(fresh=True))
        except ray.exceptions.RayActorError:
            time.sleep(0.01)


async def main(conversation_id: str) -> None:
    """Have several workers write, kill the owner, and go on."""
    settings = Settings()  # RAY_ADDRESS, CONVERSATION_REDIS_URL
    async with ConversationClient(settings) as client:
        conversation = await client.open(conversation_id)  # joins the cluster, unless this program has called ray.init
        findings = [f"finding {number}" for number in range(1, WORKERS + 1)]
        reports = [report.remote(settings, conversation_id, finding) for finding in findings]
        positions = sorted(await asyncio.gather(*reports))
        print(f"{WORKERS} workers have written at {positions}; the owner is number {epoch_of(conversation_id)}")
        await asyncio.to_thread(crash, conversation_id)
        receipt = await conversation.append(Message(role="assistant", content="summary"))
        print(f"the owner was killed; number {receipt.epoch} has written at {receipt.seq}")
        print(f"kept: {', '.join(sorted(item.text for item in conversation.items))}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else f"findings-{secrets.token_hex(3)}"))
