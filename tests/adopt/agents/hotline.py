"""A hotline that hangs up for everybody when its session ends, and once more when its job does."""

from livekit import api
from livekit.agents import Agent, AgentServer, AgentSession, JobContext, RunContext, cli, function_tool, room_io
from livekit.plugins import openai

from agent_worker import attach

server = AgentServer(num_idle_processes=1)


class Operator(Agent):
    """Ends the call when the caller is done."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You are the operator of a hotline. Hang up when the caller says goodbye.")

    @function_tool
    async def hang_up(self, context: RunContext[None]) -> None:
        """End the call."""
        context.session.shutdown(drain=True)


@server.rtc_session()
async def answer(ctx: JobContext) -> None:
    """Answer one caller."""
    room = ctx.job.room.name

    async def close_the_line() -> None:
        async with api.LiveKitAPI() as livekit:
            await livekit.room.delete_room(api.DeleteRoomRequest(room=room))

    ctx.add_shutdown_callback(close_the_line)
    session: AgentSession[None] = AgentSession(llm=openai.LLM(model="gpt-4.1"))
    await attach(session, ctx)
    await session.start(
        agent=Operator(),
        room=ctx.room,
        room_options=room_io.RoomOptions(audio_input=False, audio_output=False, delete_room_on_close=True),
    )


if __name__ == "__main__":
    cli.run_app(server)
