"""Tasks that an agent's `on_enter` waits for: what they have come to is kept, and the running one goes on."""

from dataclasses import dataclass
from functools import partial

from livekit.agents import Agent, AgentTask, function_tool

from tests.unit.fakes import until
from tests.worker.jobs import Job, Jobs, NotedConversation, calls_when_asked, said, tools_of

MODEL = calls_when_asked("answer")


@dataclass
class Answer:
    """What a question comes to."""

    number: int
    text: str


class Question(AgentTask[Answer]):
    """Asks for one thing."""

    def __init__(self, number: int) -> None:
        """`number`: which one."""
        super().__init__(instructions=f"Ask for number {number}.")
        self.number = number

    @function_tool
    async def answer(self) -> None:
        """Take the answer."""
        self.complete(Answer(self.number, f"answer {self.number}"))


class Survey(Agent):
    """Asks five questions, one after another, as soon as it has the word."""

    def __init__(self, count: int = 5) -> None:
        """Know nothing."""
        super().__init__(instructions="You hold a survey.")
        self.count = count
        self.answers: list[Answer] = []
        self.is_over = False

    async def on_enter(self) -> None:
        """Ask."""
        for number in range(1, self.count + 1):
            self.answers.append(await Question(number))
        self.is_over = True


def asks(job: Job, number: int) -> bool:
    """Whether that question has the word."""
    agent = job.session.current_agent
    return isinstance(agent, Question) and agent.number == number


async def test_a_survey_killed_in_its_third_task() -> None:
    """The successor goes on with the third, whose model is asked what it would have been; the results are kept."""
    async with Jobs(MODEL) as jobs:
        job = await jobs.start(Survey(), NotedConversation())
        for number in (1, 2):
            await until(partial(asks, job, number))
            await job.say(f"Hello {number}")
            await job.say("use answer")
        await until(lambda: asks(job, 3))
        await job.say("What was the question?")
        before, last = jobs.requests[-1], job.session.history.messages()[-1]
        survey = Survey()
        following = await jobs.follow(job, survey)
        await until(lambda: asks(following, 3))
        assert survey.answers == [Answer(1, "answer 1"), Answer(2, "answer 2")]
        await following.say("And now?")
        assert said(jobs.requests[-1]) == [*said(before), ("assistant", last.text_content), ("user", "And now?")]
        assert tools_of(jobs.requests[-1]) == ["answer"]
        for number in (3, 4, 5):
            await until(partial(asks, following, number))
            await following.say("use answer")
        await until(lambda: survey.is_over)
    assert [one.number for one in survey.answers] == [1, 2, 3, 4, 5]
    assert following.failures.counts == {}
