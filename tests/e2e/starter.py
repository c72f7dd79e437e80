"""LiveKit's starter agent with our three lines in it (marked), and a tool that takes its time."""

import asyncio
import os
from pathlib import Path

from livekit.agents import Agent, JobContext, function_tool

from agent_worker import attach, open_conversation  # one
from agent_worker.example.pipeline import voice_session
from agent_worker.settings import LanguageModelSettings, SpeechSettings

RUNS = "STARTER_TOOL_RUNS"
"""A file that gets a line for each time the tool runs."""
SECONDS = 4.0


class Assistant(Agent):
    """Looks orders up, slowly."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You are a helpful voice assistant.")

    @function_tool
    async def look_up_order(self, order_id: str) -> str:
        """Tell where an order is."""
        with Path(os.environ[RUNS]).open("a") as runs:  # noqa: ASYNC230  # a line
            runs.write(f"{order_id}\n")
        await asyncio.sleep(SECONDS)
        return f"There is no order {order_id}."


async def entrypoint(ctx: JobContext) -> None:
    """What every LiveKit agent has."""
    session = voice_session(LanguageModelSettings(), SpeechSettings())
    agent = Assistant()
    conversation = await open_conversation(ctx)  # two
    await attach(session, agent, conversation, room=ctx.room)  # three
    await session.start(agent=agent, room=ctx.room)
