"""A law office: a rule is put into the context before the call, and is to hold for the whole of a long talk."""

from livekit.agents import Agent, AgentServer, AgentSession, ChatContext, JobContext, cli, room_io
from livekit.plugins import openai

from agent_worker import attach

server = AgentServer(num_idle_processes=1)


class Secretary(Agent):
    """Talks to clients."""

    def __init__(self, rule: str) -> None:
        """Know what must not be said."""
        context = ChatContext.empty()
        context.add_message(role="system", content=f"Always observe: {rule}")
        super().__init__(instructions="You are the secretary of a law office.", chat_ctx=context)


@server.rtc_session()
async def answer(ctx: JobContext) -> None:
    """Talk to one client."""
    session: AgentSession[None] = AgentSession(llm=openai.LLM(model="gpt-4.1"))
    await attach(session, ctx)
    await session.start(
        agent=Secretary("never name the client's wife."),
        room=ctx.room,
        room_options=room_io.RoomOptions(audio_input=False, audio_output=False),
    )


if __name__ == "__main__":
    cli.run_app(server)
