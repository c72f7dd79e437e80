"""An interpreter who listens to a call that another agent holds, and repeats in Danish what the caller says."""

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli, room_io
from livekit.plugins import openai

from agent_worker import attach

server = AgentServer(num_idle_processes=1)


class Interpreter(Agent):
    """Says it in Danish."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You are an interpreter. Say in Danish what the caller says, and nothing else.")


@server.rtc_session(agent_name="interpreter")
async def interpret(ctx: JobContext) -> None:
    """Interpret one call."""
    session: AgentSession[None] = AgentSession(llm=openai.LLM(model="gpt-4.1"))
    await attach(session, ctx, role="interpreter")
    await session.start(
        agent=Interpreter(), room=ctx.room, room_options=room_io.RoomOptions(audio_input=False, audio_output=False)
    )


if __name__ == "__main__":
    cli.run_app(server)
