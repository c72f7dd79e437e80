"""An energy company: a receptionist hands callers over to a clerk, who is made with what the receptionist learnt."""

from typing import Any

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli, function_tool, room_io
from livekit.plugins import openai

from agent_worker import attach

server = AgentServer(num_idle_processes=1)


class Receptionist(Agent):
    """Finds out what a call is about."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You are the receptionist of an energy company. Find out who calls and why.")

    @function_tool
    async def to_the_clerk(self, customer: str, bill: str) -> Agent:
        """Hand the caller over to the clerk.

        Args:
            customer: The caller's name.
            bill: The number of the bill in question.
        """
        return Clerk(customer, bill)


class Clerk(Agent):
    """Knows the bills."""

    def __init__(self, customer: str, bill: str) -> None:
        """Know whose bill it is."""
        super().__init__(instructions=f"You are a clerk. {customer} calls about bill {bill}.")
        self._known = {"customer": customer, "bill": bill}

    async def on_enter(self) -> None:
        """Take the caller over."""
        await self.session.generate_reply(instructions="Introduce yourself as the clerk.")

    @function_tool
    async def amount_due(self) -> str:
        """Look up what is still to be paid."""
        return f"Bill {self._known['bill']} of {self._known['customer']} is open with 84 euros."

    def saved_state(self) -> dict[str, Any]:
        """What another process needs to make this clerk again."""
        return self._known


@server.rtc_session()
async def answer(ctx: JobContext) -> None:
    """Answer one caller."""
    session: AgentSession[None] = AgentSession(llm=openai.LLM(model="gpt-4.1"))
    await attach(session, ctx, agents={"clerk": lambda saved: Clerk(**saved)})
    await session.start(
        agent=Receptionist(), room=ctx.room, room_options=room_io.RoomOptions(audio_input=False, audio_output=False)
    )


if __name__ == "__main__":
    cli.run_app(server)
