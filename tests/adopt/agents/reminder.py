"""A clinic's outbound caller: it dials the number that its dispatch names, and can do nothing without it."""

import json
import os
from pathlib import Path

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli, function_tool, room_io
from livekit.plugins import openai

from agent_worker import attach

server = AgentServer(num_idle_processes=1)


class Reminder(Agent):
    """Reminds a patient of an appointment."""

    def __init__(self, patient: str, phone_number: str) -> None:
        """Know who is called."""
        super().__init__(
            instructions=f"You are on the phone with {patient} ({phone_number}). Remind them of their appointment."
        )
        self._patient = patient

    @function_tool
    async def confirm_appointment(self, day: str) -> str:
        """Confirm the appointment.

        Args:
            day: The day the patient has agreed to.
        """
        _note(f"confirmed {self._patient} {day}")
        return f"{self._patient} comes on {day}."


def _note(line: str) -> None:
    with Path(os.environ["EFFECTS"]).open("a") as effects:
        effects.write(f"{line}\n")


@server.rtc_session(agent_name="appointment-reminder")
async def call_out(ctx: JobContext) -> None:
    """Call one patient."""
    whom = json.loads(ctx.job.metadata)
    session: AgentSession[None] = AgentSession(llm=openai.LLM(model="gpt-4.1"))
    conversation = await attach(session, ctx)
    await ctx.connect()
    await session.start(
        agent=Reminder(whom["patient"], whom["phone_number"]),
        room=ctx.room,
        room_options=room_io.RoomOptions(audio_input=False, audio_output=False),
    )
    async with conversation.once("dial") as todo:
        if todo:
            _note(f"dialled {whom['phone_number']}")


if __name__ == "__main__":
    cli.run_app(server)
