"""A canteen that takes orders: what was ordered is in the session's userdata, and tools change it."""

from dataclasses import dataclass, field

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, RunContext, cli, function_tool, room_io
from livekit.plugins import openai

from agent_worker import attach

server = AgentServer(num_idle_processes=1)


@dataclass
class Tray:
    """What somebody has taken so far."""

    dishes: list[str] = field(default_factory=list)
    seat: int | None = None


class Counter(Agent):
    """Takes orders."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You stand at the counter of a canteen and take orders.")

    @function_tool
    async def add_dish(self, context: RunContext[Tray], dish: str) -> str:
        """Put a dish on the tray.

        Args:
            dish: The dish.
        """
        context.userdata.dishes.append(dish)
        return f"{dish} is on the tray."

    @function_tool
    async def choose_seat(self, context: RunContext[Tray], number: int) -> str:
        """Keep a seat.

        Args:
            number: The number on the seat.
        """
        context.userdata.seat = number
        return f"Seat {number} is yours."

    @function_tool
    async def look_at_tray(self, context: RunContext[Tray]) -> str:
        """Say what is on the tray."""
        tray = context.userdata
        return f"You have {' and '.join(tray.dishes) or 'nothing'}, and seat {tray.seat}."


@server.rtc_session()
async def serve(ctx: JobContext) -> None:
    """Serve one guest."""
    session = AgentSession[Tray](llm=openai.LLM(model="gpt-4.1"), userdata=Tray())
    await attach(session, ctx)
    await session.start(
        agent=Counter(), room=ctx.room, room_options=room_io.RoomOptions(audio_input=False, audio_output=False)
    )


if __name__ == "__main__":
    cli.run_app(server)
