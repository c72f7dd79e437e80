"""A pharmacy's telephone, which begins with a fixed sentence of its own."""

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli, function_tool, room_io
from livekit.plugins import openai

from agent_worker import attach

server = AgentServer(num_idle_processes=1)


class Pharmacist(Agent):
    """Knows what is in stock."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You answer the telephone of a pharmacy. Never give medical advice.")

    async def on_enter(self) -> None:
        """Begin."""
        await self.session.say("Linden pharmacy, this call may be recorded.")

    @function_tool
    async def in_stock(self, article: str) -> str:
        """Look an article up.

        Args:
            article: Its name.
        """
        return f"We have {article}."


@server.rtc_session()
async def answer(ctx: JobContext) -> None:
    """Answer one caller."""
    await ctx.connect()
    session: AgentSession[None] = AgentSession(llm=openai.LLM(model="gpt-4.1"))
    await attach(session, ctx)
    await session.start(
        agent=Pharmacist(), room=ctx.room, room_options=room_io.RoomOptions(audio_input=False, audio_output=False)
    )


if __name__ == "__main__":
    cli.run_app(server)
