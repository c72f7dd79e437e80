"""A library's information, whose entrypoint greets when the session has started."""

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli, function_tool, room_io
from livekit.plugins import openai

from agent_worker import attach

server = AgentServer(num_idle_processes=1)


class Librarian(Agent):
    """Finds books."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You help the visitors of a library to find books.")

    @function_tool
    async def find_shelf(self, title: str) -> str:
        """Find the shelf of a book.

        Args:
            title: The book's title.
        """
        return f"{title} stands on shelf 12."


@server.rtc_session()
async def answer(ctx: JobContext) -> None:
    """Help one visitor."""
    await ctx.connect()
    session: AgentSession[None] = AgentSession(llm=openai.LLM(model="gpt-4.1"))
    await attach(session, ctx)
    await session.start(
        agent=Librarian(), room=ctx.room, room_options=room_io.RoomOptions(audio_input=False, audio_output=False)
    )
    await session.generate_reply(instructions="Welcome the visitor to the library.")


if __name__ == "__main__":
    cli.run_app(server)
