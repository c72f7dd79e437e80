"""A bakery in the older style: `WorkerOptions`, and a catalogue that is loaded before there is a call."""

from livekit.agents import Agent, AgentSession, JobContext, JobProcess, WorkerOptions, cli, function_tool, room_io
from livekit.plugins import openai

from agent_worker import attach


class Baker(Agent):
    """Knows the prices."""

    def __init__(self, prices: dict[str, float]) -> None:
        """Take the catalogue."""
        super().__init__(instructions=f"You sell {', '.join(prices)}.")
        self._prices = prices

    @function_tool
    async def price(self, article: str) -> str:
        """Look a price up.

        Args:
            article: What is to be bought.
        """
        return f"A {article} is {self._prices[article]:.2f} euros."


def load_catalogue(process: JobProcess) -> None:
    """Read the prices."""
    process.userdata["prices"] = {"roll": 0.45, "loaf": 3.8}


async def sell(ctx: JobContext) -> None:
    """Serve one customer."""
    session: AgentSession[None] = AgentSession(llm=openai.LLM(model="gpt-4.1"))
    await attach(session, ctx)
    await session.start(
        agent=Baker(ctx.proc.userdata["prices"]),
        room=ctx.room,
        room_options=room_io.RoomOptions(audio_input=False, audio_output=False),
    )


options = WorkerOptions(entrypoint_fnc=sell, prewarm_fnc=load_catalogue, num_idle_processes=1)

if __name__ == "__main__":
    cli.run_app(options)
