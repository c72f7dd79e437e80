"""A hotel's night porter, who greets with words of the model's as soon as he has the word."""

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli, function_tool, room_io
from livekit.plugins import openai

from agent_worker import attach

server = AgentServer(num_idle_processes=1)


class Porter(Agent):
    """Looks after guests at night."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You are the night porter of a hotel. Be discreet.")

    async def on_enter(self) -> None:
        """Greet."""
        await self.session.generate_reply(instructions="Greet the guest, and ask what is needed.")

    @function_tool
    async def wake_up_call(self, time: str) -> str:
        """Note when a guest wants to be woken.

        Args:
            time: As hours and minutes.
        """
        return f"We wake you at {time}."


@server.rtc_session()
async def night(ctx: JobContext) -> None:
    """Talk to one guest."""
    session: AgentSession[None] = AgentSession(llm=openai.LLM(model="gpt-4.1"))
    await attach(session, ctx)
    await session.start(
        agent=Porter(), room=ctx.room, room_options=room_io.RoomOptions(audio_input=False, audio_output=False)
    )


if __name__ == "__main__":
    cli.run_app(server)
