"""A cinema whose agents are kept in the userdata, and read there what is known of a visit before they speak."""

from dataclasses import dataclass, field

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, RunContext, cli, function_tool, room_io
from livekit.plugins import openai

from agent_worker import attach

server = AgentServer(num_idle_processes=1)


@dataclass
class Visit:
    """What is known of a visitor, and the agents there are."""

    film: str | None = None
    seats: int = 0
    agents: dict[str, Agent] = field(default_factory=dict)


class Part(Agent):
    """Somebody who reads up on the visit before speaking."""

    async def on_enter(self) -> None:
        """Read what is known, and begin to speak."""
        visit: Visit = self.session.userdata
        context = self.chat_ctx.copy()
        context.add_message(role="system", content=f"Known of this visit: film {visit.film}, seats {visit.seats}.")
        await self.update_chat_ctx(context)
        self.session.generate_reply(tool_choice="none")


class Doorman(Part):
    """Asks which film it is to be."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You stand at the door of a cinema. Ask which film the visitor wants to see.")

    @function_tool
    async def choose_film(self, context: RunContext[Visit], film: str) -> Agent:
        """Note the film, and send the visitor to the box office.

        Args:
            film: Its title.
        """
        context.userdata.film = film
        return context.userdata.agents["box_office"]


class BoxOffice(Part):
    """Sells the tickets."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You sell the tickets of a cinema.")

    @function_tool
    async def sell_tickets(self, context: RunContext[Visit], count: int) -> str:
        """Sell tickets.

        Args:
            count: How many more.
        """
        context.userdata.seats += count
        return f"{context.userdata.seats} tickets for {context.userdata.film}."


@server.rtc_session()
async def visit(ctx: JobContext) -> None:
    """Serve one visitor."""
    known = Visit()
    known.agents = {"doorman": Doorman(), "box_office": BoxOffice()}
    session = AgentSession[Visit](llm=openai.LLM(model="gpt-4.1"), userdata=known)
    await attach(session, ctx)
    await session.start(
        agent=known.agents["doorman"],
        room=ctx.room,
        room_options=room_io.RoomOptions(audio_input=False, audio_output=False),
    )


if __name__ == "__main__":
    cli.run_app(server)
