"""A theatre's box office: a realtime model hears and thinks, and a voice of its own speaks what the model writes."""

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli, function_tool
from livekit.plugins import openai

from agent_worker import attach

server = AgentServer(num_idle_processes=1)


class Cashier(Agent):
    """Knows what is played."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You sell the tickets of a theatre.")

    @function_tool
    async def playing(self, day: str) -> str:
        """Look up what is played.

        Args:
            day: The day of the week.
        """
        return f"On {day} we play Hamlet."


@server.rtc_session()
async def answer(ctx: JobContext) -> None:
    """Talk to one caller."""
    session: AgentSession[None] = AgentSession(
        llm=openai.realtime.RealtimeModel(modalities=["text"]),
        tts=openai.TTS(model="tts-1", response_format="pcm"),
    )
    await attach(session, ctx)
    await session.start(agent=Cashier(), room=ctx.room)
    await session.say("The Globe, good evening.")


if __name__ == "__main__":
    cli.run_app(server)
