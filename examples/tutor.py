"""A tutor that hears and speaks by one realtime model, and keeps the score in the session's `userdata`.

Run `agent-worker dev examples/tutor.py` with `OPENAI_API_KEY`, open the page that it names, and take a lesson; with
`--offline` it needs no account, and knows a few sentences only. Kill the job's process in the middle of the lesson: the
next tutor greets nobody again, and goes on with the question and the score that its predecessor had.
"""

from dataclasses import dataclass, field

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, RunContext, cli, function_tool
from livekit.plugins import openai

from agent_worker import attach

server = AgentServer(num_idle_processes=1)
QUESTIONS = ("What is seven times eight?", "What is twelve times twelve?", "What is nine times six?")


@dataclass
class Lesson:
    """How far a pupil is. It is stored whenever a tool has changed it."""

    asked: int = 0
    right: list[str] = field(default_factory=list)


class Tutor(Agent):
    """Asks, and keeps the score."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You are a patient tutor of arithmetic. Ask one question at a time.")

    async def on_enter(self) -> None:
        """Greet."""
        self.session.generate_reply(instructions="Greet the pupil, and offer the first question.")

    @function_tool
    async def next_question(self, context: RunContext[Lesson]) -> str:
        """Take the next question of the lesson."""
        lesson = context.userdata
        if lesson.asked == len(QUESTIONS):
            return f"That was all: {len(lesson.right)} of {lesson.asked} were right."
        lesson.asked += 1
        return QUESTIONS[lesson.asked - 1]

    @function_tool
    async def mark_right(self, context: RunContext[Lesson], answer: str) -> str:
        """Note that the pupil's answer to the question was right."""
        context.userdata.right.append(answer)
        return f"{answer} is right. {len(context.userdata.right)} of {context.userdata.asked} so far."


@server.rtc_session()
async def teach(ctx: JobContext) -> None:
    """Teach one pupil."""
    session = AgentSession[Lesson](llm=openai.realtime.RealtimeModel(voice="marin"), userdata=Lesson())
    await attach(session, ctx)
    await session.start(agent=Tutor(), room=ctx.room)


if __name__ == "__main__":
    cli.run_app(server)
