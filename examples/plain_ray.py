"""A Ray program whose tasks all write to one conversation, and which finds the conversation's actor by plain Ray.

Run `conversation-actors dev` in one terminal, paste the `export` lines that it prints into another one, and start
`python examples/plain_ray.py` there. The program then kills the actor as a crash would: the next write is answered by
the second owner of the conversation, which has every line of the first one.
"""

import asyncio
import secrets
import sys

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
    """End the owner's process; Ray starts it again, and it recovers by itself."""
    ray.kill(ray.get_actor(actor_name(conversation_id), namespace=NAMESPACE), no_restart=False)


def epoch_of(conversation_id: str) -> int:
    """Ask the actor itself. It answers with its value, or with an error as a value."""
    actor = ray.get_actor(actor_name(conversation_id), namespace=NAMESPACE)
    view = ray.get(actor.read.remote(fresh=True))
    if isinstance(view, ConversationError):
        raise view
    return int(view.epoch)


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
