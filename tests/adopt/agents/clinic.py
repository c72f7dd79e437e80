"""A clinic that takes a patient in by a group of tasks, in which the patient may go back to what was said before."""

import os
from dataclasses import dataclass
from pathlib import Path

from livekit.agents import Agent, AgentServer, AgentSession, AgentTask, JobContext, cli, function_tool, room_io
from livekit.agents.beta.workflows import TaskCompletedEvent, TaskGroup
from livekit.plugins import openai

from agent_worker import attach

server = AgentServer(num_idle_processes=1)


@dataclass
class Entry:
    """One line of a patient's sheet."""

    about: str
    text: str


class Ask(AgentTask[Entry]):
    """Asks for one line of it."""

    def __init__(self, about: str) -> None:
        """`about`: which."""
        super().__init__(instructions=f"You take a patient in, and are at this line of the sheet: {about}.")
        self._about = about

    async def on_enter(self) -> None:
        """Ask."""
        await self.session.generate_reply(instructions=f"Ask for the {self._about} now.")

    @function_tool
    async def enter(self, text: str) -> None:
        """Enter the line.

        Args:
            text: As the patient says it.
        """
        self.complete(Entry(self._about, text))


class Reception(Agent):
    """Takes patients in."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You are at the reception of a clinic.")

    async def on_enter(self) -> None:
        """Fill in the sheet."""
        group = TaskGroup(summarize_chat_ctx=False, on_task_completed=_tick)
        group.add(lambda: Ask("name"), id="name", description="The patient's name")
        group.add(lambda: Ask("birthday"), id="birthday", description="The patient's birthday")
        group.add(lambda: Ask("complaint"), id="complaint", description="What hurts")
        entries = (await group).task_results.values()
        _note(", ".join(f"{entry.about} {entry.text}" for entry in entries))
        await self.session.say("Please take a seat.")


async def _tick(event: TaskCompletedEvent) -> None:
    _note(f"ticked {event.task_id}: {event.result.text}")


def _note(line: str) -> None:
    with Path(os.environ["EFFECTS"]).open("a") as effects:
        effects.write(f"{line}\n")


@server.rtc_session()
async def receive(ctx: JobContext) -> None:
    """Take one patient in."""
    session: AgentSession[None] = AgentSession(llm=openai.LLM(model="gpt-4.1"))
    await attach(session, ctx)
    await session.start(
        agent=Reception(), room=ctx.room, room_options=room_io.RoomOptions(audio_input=False, audio_output=False)
    )


if __name__ == "__main__":
    cli.run_app(server)
