"""A hotel's concierge, who hears and speaks by one realtime model, and greets as soon as the guest is there."""

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli, function_tool
from livekit.plugins import openai

from agent_worker import attach

server = AgentServer(num_idle_processes=1)


class Concierge(Agent):
    """Books tables."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You are the concierge of a hotel. Be brief.")

    async def on_enter(self) -> None:
        """Greet."""
        self.session.generate_reply(instructions="Greet the guest, and offer to book a table.")

    @function_tool
    async def book_table(self, guests: int, time: str) -> str:
        """Book a table in the restaurant.

        Args:
            guests: How many they are.
            time: As hours and minutes.
        """
        return f"A table for {guests} at {time}."


@server.rtc_session()
async def answer(ctx: JobContext) -> None:
    """Talk to one guest."""
    session: AgentSession[None] = AgentSession(llm=openai.realtime.RealtimeModel(voice="marin"))
    await attach(session, ctx)
    await session.start(agent=Concierge(), room=ctx.room)


if __name__ == "__main__":
    cli.run_app(server)
