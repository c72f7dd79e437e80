"""A survey: five tasks, one behind another, which an agent waits for as soon as it has the word."""

import os
from dataclasses import dataclass
from pathlib import Path

from livekit.agents import Agent, AgentServer, AgentSession, AgentTask, JobContext, cli, function_tool, room_io
from livekit.plugins import openai

from agent_worker import attach

server = AgentServer(num_idle_processes=1)
QUESTIONS = ("name", "birthday", "age", "town", "colour")


@dataclass
class Sheet:
    """What was answered."""

    answers: str = ""


class Question(AgentTask[str]):
    """Asks for one thing, and knows nothing of the others."""

    def __init__(self, about: str) -> None:
        """`about`: what."""
        super().__init__(instructions=f"You ask somebody for one thing, and take down the answer. It is the {about}.")
        self._about = about

    async def on_enter(self) -> None:
        """Ask."""
        await self.session.generate_reply(instructions=f"Ask for the {self._about} now.")

    @function_tool
    async def take_down(self, answer: str) -> None:
        """Take the answer down.

        Args:
            answer: In one word or two.
        """
        self.complete(answer)


class Interviewer(Agent):
    """Holds the survey."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You hold a survey.")

    async def on_enter(self) -> None:
        """Ask everything, and thank for it."""
        answers = [await Question(about) for about in QUESTIONS]
        self.session.userdata.answers = ", ".join(answers)
        _note(self.session.userdata.answers)
        await self.session.say("That was all, thank you.")

    @function_tool
    async def read_out(self) -> str:
        """Read out what was answered."""
        return f"You said {self.session.userdata.answers}."


def _note(line: str) -> None:
    with Path(os.environ["EFFECTS"]).open("a") as effects:
        effects.write(f"{line}\n")


@server.rtc_session()
async def interview(ctx: JobContext) -> None:
    """Ask one caller."""
    session: AgentSession[Sheet] = AgentSession(llm=openai.LLM(model="gpt-4.1"), userdata=Sheet())
    await attach(session, ctx)
    await session.start(
        agent=Interviewer(), room=ctx.room, room_options=room_io.RoomOptions(audio_input=False, audio_output=False)
    )


if __name__ == "__main__":
    cli.run_app(server)
