"""A ferry's booking line, run by LiveKit's own command line; how busy it is counts by calls."""

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli, function_tool, room_io
from livekit.plugins import openai

from agent_worker import attach


def busy(server: AgentServer) -> float:
    """How busy a worker is: ten calls are as many as it takes."""
    return len(server.active_jobs) / 10


server = AgentServer(num_idle_processes=1, port=0, load_fnc=busy)


class Purser(Agent):
    """Books crossings."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You take bookings for a ferry.")

    @function_tool
    async def next_crossing(self, harbour: str) -> str:
        """Look up when the next ferry leaves.

        Args:
            harbour: Where from.
        """
        return f"The next ferry from {harbour} leaves at noon."


@server.rtc_session()
async def book(ctx: JobContext) -> None:
    """Talk to one passenger."""
    session: AgentSession[None] = AgentSession(llm=openai.LLM(model="gpt-4.1"))
    await attach(session, ctx)
    await session.start(
        agent=Purser(), room=ctx.room, room_options=room_io.RoomOptions(audio_input=False, audio_output=False)
    )


if __name__ == "__main__":
    cli.run_app(server)
