"""A reception that leaves the first and the last line to the settings, and hangs up by deleting the room."""

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli, function_tool, get_job_context, room_io
from livekit.plugins import openai

from agent_worker import attach

server = AgentServer(num_idle_processes=1)


class Receptionist(Agent):
    """Puts callers through."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You are the reception of a surgery. Hang up when the caller says goodbye.")

    @function_tool
    async def hang_up(self) -> None:
        """End the call."""
        await get_job_context().delete_room()


@server.rtc_session()
async def answer(ctx: JobContext) -> None:
    """Answer one caller."""
    session: AgentSession[None] = AgentSession(llm=openai.LLM(model="gpt-4.1"))
    await attach(session, ctx)
    await session.start(
        agent=Receptionist(), room=ctx.room, room_options=room_io.RoomOptions(audio_input=False, audio_output=False)
    )


if __name__ == "__main__":
    cli.run_app(server)
