"""A helpdesk of two: the first hands over to a second one that needs to be told nothing."""

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli, function_tool, room_io
from livekit.plugins import openai

from agent_worker import attach

server = AgentServer(num_idle_processes=1)


class FirstLevel(Agent):
    """Tries the simple things."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You are the first level of a helpdesk. Fetch a specialist for printers.")

    async def on_enter(self) -> None:
        """Greet."""
        self.session.generate_reply(instructions="Greet, and ask for the problem.")

    @function_tool
    async def fetch_specialist(self) -> tuple[Agent, str]:
        """Hand over to somebody who knows printers."""
        return Specialist(), "The specialist is on the line."


class Specialist(Agent):
    """Knows printers."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You know everything about printers.")

    @function_tool
    async def order_toner(self, model: str) -> str:
        """Order toner.

        Args:
            model: The printer's model.
        """
        return f"Toner for the {model} is on its way."


@server.rtc_session()
async def help_somebody(ctx: JobContext) -> None:
    """Help one caller."""
    session: AgentSession[None] = AgentSession(llm=openai.LLM(model="gpt-4.1"))
    await attach(session, ctx)
    await session.start(
        agent=FirstLevel(),
        room=ctx.room,
        room_options=room_io.RoomOptions(audio_input=False, audio_output=False),
    )


if __name__ == "__main__":
    cli.run_app(server)
