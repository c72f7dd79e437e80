"""A courier's line, with a tool that reports at once and works on in the background."""

import asyncio
from typing import Any

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, RunContext, cli, function_tool, room_io
from livekit.plugins import openai

from agent_worker import attach

server = AgentServer(num_idle_processes=1)


class Courier(Agent):
    """Finds parcels."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You tell people where their parcels are.")

    @function_tool
    async def ask_the_depot(self, context: RunContext[Any], parcel: str) -> str:
        """Ask the depot, which takes its time.

        Args:
            parcel: The number of the parcel.
        """
        await context.update(f"The depot looks for parcel {parcel}.", template="{message}")
        await asyncio.sleep(3600)
        return f"Parcel {parcel} is on its way."


@server.rtc_session()
async def answer(ctx: JobContext) -> None:
    """Help one customer."""
    session: AgentSession[None] = AgentSession(llm=openai.LLM(model="gpt-4.1"))
    await attach(session, ctx)
    await session.start(
        agent=Courier(), room=ctx.room, room_options=room_io.RoomOptions(audio_input=False, audio_output=False)
    )


if __name__ == "__main__":
    cli.run_app(server)
