"""The desk of a museum: one agent, one tool, dispatched automatically; the room is joined at the end."""

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli, function_tool, room_io
from livekit.plugins import openai

from agent_worker import attach

server = AgentServer(num_idle_processes=1)

HOURS = {"monday": "closed", "sunday": "open from ten to six"}


class Desk(Agent):
    """Answers visitors."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You sit at the desk of a small museum. Answer in one sentence.")

    @function_tool
    async def opening_hours(self, day: str) -> str:
        """Look up when the museum is open.

        Args:
            day: The day of the week, in English.
        """
        return f"On {day} we are {HOURS[day.lower()]}."


@server.rtc_session()
async def desk(ctx: JobContext) -> None:
    """Answer one visitor."""
    session: AgentSession[None] = AgentSession(llm=openai.LLM(model="gpt-4.1"))
    await attach(session, ctx)
    await session.start(
        agent=Desk(), room=ctx.room, room_options=room_io.RoomOptions(audio_input=False, audio_output=False)
    )
    await ctx.connect()


if __name__ == "__main__":
    cli.run_app(server)
