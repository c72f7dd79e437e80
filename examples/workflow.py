"""A table is booked step by step: a `TaskGroup` asks for day and guests, and then an `AgentTask` for the name.

Run `agent-worker dev examples/workflow.py` with `OPENAI_API_KEY`, open the page that it names, and type; with
`--offline` it needs no account, and knows a few sentences only. Kill the job's process between two questions: the next
agent goes on with the question that was open, has the answers that were given, and books once.
"""

import os
from pathlib import Path

from livekit.agents import Agent, AgentServer, AgentSession, AgentTask, JobContext, cli, function_tool, room_io
from livekit.agents.beta.workflows import TaskCompletedEvent, TaskGroup
from livekit.plugins import openai

from agent_worker import attach

server = AgentServer(num_idle_processes=1)
BOOKINGS = Path(os.environ.get("BOOKINGS", "bookings.txt"))
"""The restaurant's book."""


class Question(AgentTask[str]):
    """Asks for one thing, until it is known."""

    def __init__(self, about: str) -> None:
        """`about`: what to ask for."""
        super().__init__(instructions=f"You book a table. Ask for {about}, and for nothing else.")
        self._about = about

    async def on_enter(self) -> None:
        """Ask."""
        await self.session.generate_reply(instructions=f"Ask for {self._about} now.")

    @function_tool
    async def write_down(self, answer: str) -> None:
        """Write the answer down, in a few words."""
        self.complete(answer)


class Host(Agent):
    """Takes a booking as soon as somebody is there."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You are the host of a restaurant.")

    async def on_enter(self) -> None:
        """Ask everything, and book. What was answered before a crash is not asked again."""
        steps = TaskGroup(summarize_chat_ctx=False, on_task_completed=_tick)
        steps.add(lambda: Question("the day"), id="day", description="The day of the visit")
        steps.add(lambda: Question("the guests"), id="guests", description="How many guests will come")
        answers = (await steps).task_results
        name = await Question("the name")
        _note(f"booked {answers['day']}, {answers['guests']} guests, {name}")
        await self.session.say(f"A table for {answers['guests']} on {answers['day']}. See you then!")


async def _tick(event: TaskCompletedEvent) -> None:
    """Note that a step is done: called once for each, whichever job gets to it."""
    _note(f"{event.task_id}: {event.result}")


def _note(line: str) -> None:
    with BOOKINGS.open("a") as file:
        file.write(f"{line}\n")


@server.rtc_session()
async def book(ctx: JobContext) -> None:
    """Take one booking."""
    session: AgentSession[None] = AgentSession(llm=openai.LLM(model="gpt-4.1-mini"))
    await attach(session, ctx)
    # typed words only; examples/support.py has a voice
    options = room_io.RoomOptions(audio_input=False, audio_output=False)
    await session.start(agent=Host(), room=ctx.room, room_options=options)


if __name__ == "__main__":
    cli.run_app(server)
