"""An agent that writes down what its job was told, and waits; for our command line, and for LiveKit's own."""

import asyncio
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from livekit.agents import AgentServer, JobContext, cli

from agent_worker import open_conversation

NOTES = "TOLD_NOTES"
"""A file that gets a line of JSON for each job that has its conversation."""


def no_load(_server: AgentServer) -> float:
    """Nothing: whatever else this machine does, jobs are taken."""
    return 0.0


server = AgentServer(port=0, num_idle_processes=1, load_fnc=no_load)


def digest(metadata: str) -> str:
    """What two equal texts have in common, and no others."""
    return hashlib.sha256(metadata.encode()).hexdigest()


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    """Be the agent, dial once, and stay."""
    await ctx.connect()
    conversation = await open_conversation(ctx, role=os.environ.get("TOLD_ROLE", "agent"))
    async with conversation.once("dial") as todo:
        told: dict[str, Any] = {
            "job": ctx.job.id,
            "pid": os.getpid(),
            "worker": ctx.worker_id,
            "metadata": digest(ctx.job.metadata),
            "conversation": conversation.id,
            "room": ctx.room.name,
            "is_restart": conversation.is_restart,
            "reason": conversation.restart_reason,
            "dials": bool(todo),
        }
    with Path(os.environ[NOTES]).open("a") as notes:  # noqa: ASYNC230  # a line
        notes.write(json.dumps(told) + "\n")
    conversation.ready()
    asyncio.ensure_future(_give_over(ctx, conversation))  # noqa: RUF006  # ends with the job


async def _give_over(ctx: JobContext, conversation: Any) -> None:
    """Do what a session does: go when a successor asks."""
    await conversation.handover_asked.wait()
    await conversation.hand_over()
    ctx.shutdown("handed over")


if __name__ == "__main__":
    cli.run_app(server)
