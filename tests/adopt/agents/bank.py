"""A bank's adviser, who is told beforehand whom the call is with."""

from livekit.agents import Agent, AgentServer, AgentSession, ChatContext, JobContext, cli, room_io
from livekit.plugins import openai

from agent_worker import attach

server = AgentServer(num_idle_processes=1)


class Adviser(Agent):
    """Knows the customer from the start."""

    def __init__(self, chat_ctx: ChatContext) -> None:
        """Take what is known."""
        super().__init__(instructions="You advise the customers of a savings bank.", chat_ctx=chat_ctx)


@server.rtc_session()
async def advise(ctx: JobContext) -> None:
    """Advise one customer."""
    known = ChatContext.empty()
    known.add_message(role="system", content="The customer is Ms Orlova, who has been with us since 2009.")
    known.add_message(role="assistant", content="Last time we spoke about a savings plan.")
    session: AgentSession[None] = AgentSession(llm=openai.LLM(model="gpt-4.1"))
    await attach(session, ctx)
    await session.start(
        agent=Adviser(known), room=ctx.room, room_options=room_io.RoomOptions(audio_input=False, audio_output=False)
    )


if __name__ == "__main__":
    cli.run_app(server)
