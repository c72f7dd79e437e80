"""Tasks that an agent's `on_enter` waits for: what they have come to is kept, and the running one goes on."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import pytest
from livekit.agents import Agent, AgentTask, function_tool
from livekit.agents.beta.workflows import TaskCompletedEvent, TaskGroup, TaskGroupResult
from livekit.agents.llm import ChatContext, ToolError

from agent_worker.offline.script import ChatRequest, Reply, RequestedCall
from agent_worker.session.active_agent import ActiveAgent
from agent_worker.session.had_the_word import ACTIVE_AGENT, TASKS, DoneTask, HadTasks, HadTheWord
from agent_worker.session.restoration import INTERRUPTED_OUTPUT
from agent_worker.timing import Timing
from tests.support.fakes import turns, until
from tests.support.sessions.jobs import Job, Jobs, NotedConversation, last_text, said, tools_of

_numbers = count()


def MODEL(request: ChatRequest) -> Reply:  # noqa: N802  # a model
    """Call the tool that is asked for by ``use NAME ARGUMENTS``; else say how much was sent."""
    use, _, wanted = last_text(request).partition(" ")
    name, _, arguments = wanted.partition(" ")
    if request.messages[-1]["role"] == "tool":
        return Reply("Done.")
    if use == "use" and name in request.tools:
        return Reply("", (RequestedCall(f"call_{next(_numbers)}", name, arguments or "{}"),))
    return Reply(f"I was sent {len(request.messages)}.")


@dataclass
class Answer:
    """What a question comes to."""

    number: int
    text: str


class Question(AgentTask[Answer]):
    """Asks for one thing."""

    def __init__(self, number: int, chat_ctx: ChatContext | None = None) -> None:
        """`number`: which one."""
        super().__init__(instructions=f"Ask for number {number}.", chat_ctx=chat_ctx or ChatContext.empty())
        self.number = number
        self.has_begun = False

    async def on_enter(self) -> None:
        """Say nothing."""
        self.has_begun = True

    @function_tool
    async def answer(self) -> None:
        """Take the answer."""
        self.complete(Answer(self.number, f"answer {self.number}"))

    @function_tool
    async def refuse(self) -> None:
        """Take no answer."""
        self.complete(ToolError(f"no answer to {self.number}"))

    @function_tool
    async def look_up(self) -> str:
        """Look something up."""
        return f"found {self.number}"


class Odd(Question):
    """Comes to what is no data."""

    def complete(self, result: Any) -> None:
        """End."""
        super().complete(result if isinstance(result, Exception) else NO_DATA)


NO_DATA: Any = object()


class Survey(Agent):
    """Asks five questions, one after another, as soon as it has the word."""

    def __init__(self, number: int = 5, ask: Callable[[Agent, int], Awaitable[Any]] | None = None) -> None:
        """Know nothing. `ask`: how."""
        super().__init__(instructions="You hold a survey.")
        self.number, self.ask = number, ask or (lambda _agent, number: _plainly(number))
        self.answers: list[Any] = []
        self.is_over = False

    async def on_enter(self) -> None:
        """Ask."""
        for number in range(1, self.number + 1):
            self.answers.append(await self.ask(self, number))
        self.is_over = True


async def _plainly(number: int) -> Any:
    return await Question(number)


async def _or_refusal(_agent: Agent, number: int) -> Any:
    try:
        return await Question(number)
    except ToolError as error:
        return error.message


def asks(job: Job, number: int) -> bool:
    """Whether that question has the word."""
    agent = job.session.current_agent
    return isinstance(agent, Question) and agent.number == number and agent.has_begun


async def answered(job: Job, *numbers: int) -> None:
    """Have these questions answered, one after another."""
    for number in numbers:
        await until(partial(asks, job, number))
        await job.say("use answer")


async def raising(job: Job, text: str) -> None:
    """Say what ends a task with an error: LiveKit raises that in the run too."""
    with pytest.raises(ToolError):
        await job.say(text)


async def goes_on(jobs: Jobs, before: Job, first: Agent, is_there: Callable[[Job], bool], **named: Any) -> Job:
    """Have another job follow; the first request of the task is the last one before, and what was said since."""
    last_request, last = jobs.requests[-1], before.session.history.messages()[-1]
    following = await jobs.follow(before, first, **named)
    await until(lambda: is_there(following))
    await following.say("And now?")
    request = jobs.requests[-1]
    assert said(request) == [*said(last_request), ("assistant", last.text_content), ("user", "And now?")]
    assert tools_of(request) == tools_of(last_request)
    return following


def handoffs(job: Job) -> list[str]:
    """Who got the word."""
    items = [item.to_dict() for item in job.conversation.items if item.type == "agent_handoff"]
    return [str(item["new_agent_id"]) for item in items]


async def test_a_survey_killed_in_its_third_task_goes_on_with_the_third() -> None:
    """The successor goes on with the third, whose model is asked what it would have been; the results are kept."""
    async with Jobs(MODEL) as jobs:
        job = await jobs.start(Survey(), NotedConversation())
        await answered(job, 1, 2)
        await until(partial(asks, job, 3))
        await job.say("What was the question?")
        await job.say("use look_up")
        known = handoffs(job)
        survey = Survey()
        for _ in range(3):
            survey = Survey()
            job = await goes_on(jobs, job, survey, partial(asks, number=3))
            assert survey.answers == [Answer(1, "answer 1"), Answer(2, "answer 2")]
            assert handoffs(job) == known
        await answered(job, 3, 4, 5)
        await until(lambda: survey.is_over)
    assert [one.number for one in survey.answers] == [1, 2, 3, 4, 5]
    assert job.failures.counts == {}
    assert TASKS in job.conversation.attributes
    assert job.conversation.attributes[ACTIVE_AGENT]["has_entered"] is True


async def test_what_the_agent_knows_when_its_tasks_are_done() -> None:
    """In a successor it is what it would be without one: of each task what was said in it, and no calls."""

    def told(request: Any) -> list[tuple[str, Any]]:
        return [(role, text) for role, text in said(request) if not str(text).startswith("I was sent")]

    requests = []
    for is_killed in (False, True):
        async with Jobs(MODEL) as jobs:
            survey = Survey(3)
            job = await jobs.start(survey, NotedConversation())
            await answered(job, 1)
            await until(partial(asks, job, 2))
            await job.say("Number two?")
            if is_killed:
                survey = Survey(3)
                job = await jobs.follow(job, survey)
                await until(partial(asks, job, 2))
            await answered(job, 2, 3)
            await until(lambda survey=survey: survey.is_over)  # type: ignore[misc]
            await job.say("Thank you.")
            requests.append(told(jobs.requests[-1]))
    assert requests[0] == requests[1]


async def test_tasks_that_are_given_the_agents_context() -> None:
    """What the task was given in its constructor is there once, as it was given."""

    async def ask(agent: Agent, number: int) -> Any:
        return await Question(number, agent.chat_ctx)

    context = ChatContext.empty()
    context.add_message(role="system", content="The caller is called Anna.")

    def survey() -> Survey:
        made = Survey(3, ask)
        made._chat_ctx = context.copy()
        return made

    async with Jobs(MODEL) as jobs:
        job = await jobs.start(survey(), NotedConversation())
        await answered(job, 1, 2)
        await until(partial(asks, job, 3))
        await job.say("What was the question?")
        assert ("system", "The caller is called Anna.") in said(jobs.requests[-1])
        for _ in range(2):
            job = await goes_on(jobs, job, survey(), partial(asks, number=3))


async def test_a_task_that_ended_with_an_exception_raises_it_again() -> None:
    """An exception is a result too: it is raised again."""
    async with Jobs(MODEL) as jobs:
        job = await jobs.start(Survey(2, _or_refusal), NotedConversation())
        await until(partial(asks, job, 1))
        await raising(job, "use refuse")
        await until(partial(asks, job, 2))
        await job.say("Hello?")
        survey = Survey(2, _or_refusal)
        await goes_on(jobs, job, survey, partial(asks, number=2))
        assert survey.answers == ["no answer to 1"]


async def test_killed_between_a_tasks_end_and_the_next_one() -> None:
    """What a task was completed with counts at once, also while its last words are spoken; its agent knows of them."""

    class Late(Question):
        @function_tool
        async def end(self) -> None:
            """Take the answer, and work on."""
            self.complete(Answer(self.number, "early"))
            is_complete.set()
            await may_end.wait()

    async def ask(_agent: Agent, number: int) -> Any:
        return await (Late(number) if number == 1 else Question(number))

    is_complete, may_end = asyncio.Event(), asyncio.Event()
    async with Jobs(MODEL) as jobs:
        job = await jobs.start(Survey(2, ask), NotedConversation())
        await until(partial(asks, job, 1))
        await job.say("Hello?")
        ending = asyncio.create_task(job.say("use end"))
        await is_complete.wait()
        survey = Survey(2, ask)
        following = await jobs.follow(job, survey)
        may_end.set()
        await ending
        await until(partial(asks, following, 2))
        assert survey.answers == [Answer(1, "early")]
        assert [item.text_content for item in survey.chat_ctx.messages() if item.role == "user"] == [
            "Hello?",
            "use end",
        ]
        await answered(following, 2)
        await until(lambda: survey.is_over)


async def test_tasks_begin_anew_from_where_the_application_has_changed(caplog: pytest.LogCaptureFixture) -> None:
    """Where another task stands at a place than before, all from there on begins anew, and the agent knows of it."""

    class Other(Question):
        pass

    async def ask(_agent: Agent, number: int) -> Any:
        return await (Question(number) if number == 1 else Other(number))

    async with Jobs(MODEL) as jobs:
        job = await jobs.start(Survey(3), NotedConversation())
        await answered(job, 1, 2)
        await until(partial(asks, job, 3))
        await job.say("Hello?")
        survey = Survey(3, ask)
        following = await jobs.follow(job, survey)
        await until(partial(asks, following, 2))
        assert isinstance(following.session.current_agent, Other)
        assert survey.answers == [Answer(1, "answer 1")]
        assert "Hello?" in [item.text_content for item in survey.chat_ctx.messages()]
        assert "other" in [one["agent_id"] for one in following.conversation.attributes[TASKS]["running"]]
        await answered(following, 2, 3)
        await until(lambda: survey.is_over)
    assert caplog.text.count("waits for other tasks than it did") == 1


async def test_a_task_whose_result_cannot_be_stored_runs_again(caplog: pytest.LogCaptureFixture) -> None:
    """It is told once; a successor asks that question again, has the other answers, and goes on where it was."""

    async def ask(_agent: Agent, number: int) -> Any:
        return await (Odd(number) if number == 2 else Question(number))

    async with Jobs(MODEL) as jobs:
        job = await jobs.start(Survey(4, ask), NotedConversation())
        await answered(job, 1, 2, 3)
        await until(partial(asks, job, 4))
        await job.say("Number four?")
        assert caplog.text.count("cannot be stored") == 1
        survey = Survey(4, ask)
        following = await jobs.follow(job, survey)
        await until(partial(asks, following, 2))
        # one that follows this one knows as much
        survey = Survey(4, ask)
        following = await jobs.follow(following, survey)
        await answered(following, 2)
        await until(partial(asks, following, 4))
        await following.say("And now?")
        assert ("user", "Number four?") in said(jobs.requests[-1])
        await answered(following, 4)
        await until(lambda: survey.is_over)
    assert [type(one) for one in survey.answers] == [Answer, object, Answer, Answer]


async def test_the_end_of_a_session_is_the_end_of_no_task() -> None:
    """LiveKit cancels the task, and its agent may take that for an answer: the next job does not."""
    async with Jobs(MODEL) as jobs:
        survey = Survey(3, _or_refusal)
        job = await jobs.start(survey, NotedConversation())
        await answered(job, 1)
        await until(partial(asks, job, 2))
        await job.say("Hello?")
        await job.session.aclose()
        await until(lambda: survey.is_over)
        job.word.stop()
        await goes_on(jobs, job, Survey(3, _or_refusal), partial(asks, number=2))


async def test_a_task_that_the_application_cancels_has_ended() -> None:
    """That is its end, once another one has begun."""
    async with Jobs(MODEL) as jobs:
        job = await jobs.start(Survey(2, _or_refusal), NotedConversation())
        await until(partial(asks, job, 1))
        task = job.session.current_agent
        assert isinstance(task, Question)
        task.cancel()
        await until(partial(asks, job, 2))
        await job.say("Hello?")
        survey = Survey(2, _or_refusal)
        await goes_on(jobs, job, survey, partial(asks, number=2))
        assert survey.answers == ["AgentTask question is cancelled"]


async def test_an_agent_whose_last_task_is_cancelled_has_entered() -> None:
    """When the session has not closed by then, the agent has entered, and is noted as ever."""
    async with Jobs(MODEL) as jobs:
        job = await jobs.start(Survey(1, _or_refusal), NotedConversation(), timing=Timing(task_closing=0.01))
        await until(partial(asks, job, 1))
        task = job.session.current_agent
        assert isinstance(task, Question)
        task.cancel()
        await until(lambda: job.conversation.attributes[ACTIVE_AGENT]["has_entered"])
        await until(lambda: isinstance(job.session.current_agent, Survey))


async def test_a_task_that_cannot_be_given_what_it_knew_goes_on_without(caplog: pytest.LogCaptureFixture) -> None:
    """It goes on without: the application's `on_enter` hears of no error of ours."""

    class Stubborn(Question):
        async def update_chat_ctx(self, *_arguments: Any, **_named: Any) -> None:
            """Refuse."""
            message = "private words"
            raise ValueError(message)

    async def ask(_agent: Agent, number: int) -> Any:
        return await Stubborn(number)

    async with Jobs(MODEL) as jobs:
        job = await jobs.start(Survey(1), NotedConversation())
        await until(partial(asks, job, 1))
        await job.say("Hello?")
        noted = job.conversation.attributes[TASKS]
        noted["running"][0] |= {"agent_id": "stubborn", "class": f"{Stubborn.__module__}:{Stubborn.__qualname__}"}
        following = await jobs.follow(job, Survey(1, ask))
        await until(partial(asks, following, 1))
    assert caplog.text.count("a task goes on without what it knew") == 1
    assert "private words" not in caplog.text


async def test_a_task_that_a_tool_waits_for_is_told_as_interrupted() -> None:
    """Also in a task that `on_enter` waits for: it is told as interrupted, and the one that has the tool goes on."""

    class Curious(Question):
        @function_tool
        async def ask_back(self) -> str:
            """Ask back."""
            return str(await Question(7))

    async def ask(_agent: Agent, number: int) -> Any:
        return await Curious(number)

    async with Jobs(MODEL) as jobs:
        job = await jobs.start(Survey(1, ask), NotedConversation())
        await until(partial(asks, job, 1))
        await job.say("use ask_back")
        await until(partial(asks, job, 7))
        await job.say("Seven?")
        survey = Survey(1, ask)
        following = await jobs.follow(job, survey)
        await until(partial(asks, following, 1))
        await following.say("And now?")
        assert ("tool", INTERRUPTED_OUTPUT) in said(jobs.requests[-1])
        await answered(following, 1)
        await until(lambda: survey.is_over)
        await job.say("use answer")


class Stateful(Question):
    """Keeps something, and changes its instructions."""

    def __init__(self, number: int) -> None:
        """Nothing yet."""
        super().__init__(number)
        self.tries = 0

    def saved_state(self) -> dict[str, Any]:
        """See the documentation."""
        return {"tries": self.tries}

    def restore_state(self, saved: dict[str, Any]) -> None:
        """See the documentation."""
        self.tries = saved["tries"]

    @function_tool
    async def try_again(self) -> str:
        """Count."""
        self.tries += 1
        await self.update_instructions(f"This is try {self.tries}.")
        return str(self.tries)


async def test_state_and_instructions_of_a_task_come_back() -> None:
    """Its state and its instructions come back as an agent's do."""

    async def ask(_agent: Agent, number: int) -> Any:
        return await Stateful(number)

    async with Jobs(MODEL) as jobs:
        job = await jobs.start(Survey(1, ask), NotedConversation())
        await until(partial(asks, job, 1))
        await job.say("use try_again")
        await job.say("use try_again")
        for _ in range(2):
            job = await goes_on(jobs, job, Survey(1, ask), partial(asks, number=1))
            assert isinstance(job.session.current_agent, Stateful)
            assert job.session.current_agent.tries == 2
            assert job.session.current_agent.instructions == "This is try 2."


class Intake(Agent):
    """At a clinic: a group of four questions, to which the caller may come back."""

    def __init__(self) -> None:
        """Nobody was told."""
        super().__init__(instructions="You take patients in.")
        self.told: list[str] = []
        self.result: TaskGroupResult | None = None

    async def on_enter(self) -> None:
        """Ask."""
        group = TaskGroup(summarize_chat_ctx=False, on_task_completed=self.note)
        for number in range(1, 5):
            group.add(lambda number=number: Question(number), id=f"q{number}", description=f"Number {number}")  # type: ignore[misc]
        self.result = await group

    async def note(self, event: TaskCompletedEvent) -> None:
        """Take note of an answer."""
        self.told.append(event.task_id)


async def test_a_task_group_killed_in_its_third_task_goes_on_there() -> None:
    """Also behind a step back: it goes on there, with the results it had, and has told of each once."""
    async with Jobs(MODEL) as jobs:
        job = await jobs.start(Intake(), NotedConversation())
        await answered(job, 1, 2)
        await until(partial(asks, job, 3))
        await raising(job, 'use out_of_scope {"task_ids": ["q1"]}')
        await answered(job, 1)
        await until(partial(asks, job, 3))
        await job.say("use look_up")
        known = handoffs(job)
        intake = Intake()
        for _ in range(2):
            intake = Intake()
            job = await goes_on(jobs, job, intake, partial(asks, number=3))
            assert "out_of_scope" in tools_of(jobs.requests[-1])
            assert intake.told == []
            assert handoffs(job) == known
        await raising(job, 'use out_of_scope {"task_ids": ["q2"]}')
        await answered(job, 2, 3, 4)
        await until(lambda: intake.result is not None)
    assert intake.result is not None
    assert intake.result.task_results == {f"q{number}": Answer(number, f"answer {number}") for number in range(1, 5)}
    assert intake.told == ["q2", "q3", "q4"]
    assert job.failures.counts == {}


async def test_a_group_callback_that_the_crash_cut_off_runs_again() -> None:
    """The job died while the callback ran: it runs again."""
    is_telling, may_end = asyncio.Event(), asyncio.Event()

    class Slow(Intake):
        async def note(self, event: TaskCompletedEvent) -> None:
            """Take time."""
            is_telling.set()
            await may_end.wait()
            await super().note(event)

    async with Jobs(MODEL) as jobs:
        job = await jobs.start(Slow(), NotedConversation())
        await until(partial(asks, job, 1))
        telling = asyncio.create_task(job.say("use answer"))
        await is_telling.wait()
        await until(lambda: bool(job.conversation.attributes[TASKS]["done"]))
        slow = Slow()
        following = await jobs.follow(job, slow)
        may_end.set()
        await until(partial(asks, following, 2))
        assert slow.told == ["q1"]
        await until(partial(asks, job, 2))
        telling.cancel()


@dataclass
class Notes:
    """Userdata."""

    answers: list[str] = field(default_factory=list)


async def test_userdata_is_stored_before_it_is_known_that_a_task_is_over() -> None:
    """What the application does with the last result is not lost by a crash right behind it."""

    class Noting(Survey):
        async def on_enter(self) -> None:
            """Keep the answer."""
            await Question(1)
            self.session.userdata.answers.append("one")

    async with Jobs(MODEL) as jobs:
        conversation = NotedConversation()
        stored: list[Any] = []
        note = conversation.note

        def noting(name: str, value: Any) -> None:
            note(name, value)
            if name == ACTIVE_AGENT and value["has_entered"]:
                stored.append(json.loads(json.dumps(conversation.attributes["livekit.userdata"])))

        conversation.note = noting  # type: ignore[method-assign]
        job = await jobs.start(Noting(), conversation, userdata=Notes())
        await answered(job, 1)
        await until(lambda: bool(stored))
    assert stored[0]["fields"] == {"answers": ["one"]}


async def test_the_tasks_of_an_agent_that_was_handed_over_to_are_kept() -> None:
    """Its tasks are kept as the first one's are, and what the first one's came to is gone."""

    class Second(Survey):
        def __init__(self) -> None:
            """Ask two questions."""
            super().__init__(2)

    class First(Survey):
        @function_tool
        async def hand_over(self) -> Agent:
            """Hand over."""
            return Second()

    async with Jobs(MODEL) as jobs:
        job = await jobs.start(First(1), NotedConversation())
        await answered(job, 1)
        await until(lambda: isinstance(job.session.current_agent, First))
        # LiveKit 1.6 ends no run before the next agent's `on_enter` has returned
        job.session.generate_reply(user_input="use hand_over")
        await answered(job, 1)
        await until(partial(asks, job, 2))
        await job.say("Hello?")
        assert job.conversation.attributes[TASKS]["agent_id"] == "second"
        second = Second()
        following = await goes_on(jobs, job, First(1), partial(asks, number=2), agents={"second": lambda: second})
        assert second.answers == [Answer(1, "answer 1")]
        await answered(following, 2)
        await until(lambda: second.is_over)


async def test_what_is_kept_is_gone_when_the_agent_talks_itself() -> None:
    """Nothing of it stays behind in the store."""
    async with Jobs(MODEL) as jobs:
        survey = Survey(1)
        job = await jobs.start(survey, NotedConversation())
        await answered(job, 1)
        await until(lambda: survey.is_over)
        await job.say("Thank you.")
    assert TASKS not in job.conversation.attributes


async def test_what_was_brought_into_a_task_is_left_out_first_when_there_is_no_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What was brought into a task's context is the first to go, and is told once; the results stay."""

    async def ask(_agent: Agent, number: int) -> Any:
        context = ChatContext.empty()
        context.add_message(role="system", content="A manual. " * 5000)
        return await Question(number, context)

    async with Jobs(MODEL) as jobs:
        job = await jobs.start(Survey(3, ask), NotedConversation())
        await answered(job, 1)
        await until(partial(asks, job, 2))
        await job.say("Hello?")
        noted = job.conversation.attributes[TASKS]
        assert [one["brought"] for one in noted["running"]] == [[]]
        survey = Survey(3, ask)
        await goes_on(jobs, job, survey, partial(asks, number=2))
        assert len(survey.answers) == 1
    assert "not all of a task can come back" in caplog.text


@pytest.mark.parametrize(
    "noted",
    [
        1,
        {},
        {"agent_id": "a", "class": "m:A", "since": "h", "done": 3, "running": [3, {}]},
        {"agent_id": "a", "class": "m:A", "since": "h", "done": [{"path": ["x"]}, {"path": [True]}, {"path": []}]},
        {"agent_id": "a", "class": "m:A", "since": "h", "running": [{"path": [0]}, {"path": [-1], "agent_id": "b"}]},
        {"agent_id": "b", "class": "m:A", "since": "h", "done": [{"path": [0], "agent_id": "q", "class": "m:Q"}]},
        {"agent_id": "a", "class": "m:A", "since": "i", "done": [{"path": [0], "agent_id": "q", "class": "m:Q"}]},
    ],
)
def test_notes_of_somebody_elses_tasks_are_not_taken(noted: Any) -> None:
    """What somebody else wrote, or what is of another agent, or of an earlier time it had the word, is nothing."""
    had = HadTheWord(agent_id="a", class_name="m:A", since="h")
    read = HadTasks.read(noted, had)
    assert read is None or read == HadTasks()


async def test_a_task_that_its_agent_waits_for_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time was up: the successor's `on_enter` goes on behind it at once, with the task that ran then."""
    may_wait = [0.3, 30.0, 30.0]

    async def ask(_agent: Agent, number: int) -> Any:
        try:
            async with asyncio.timeout(may_wait[number - 1]):
                return await Question(number)
        except TimeoutError:
            return "no answer"

    async with Jobs(MODEL) as jobs:
        job = await jobs.start(Survey(3, ask), NotedConversation())
        await until(partial(asks, job, 1))
        await until(partial(asks, job, 2))
        await job.say("Number two?")
        survey = Survey(3, ask)
        may_wait[0] = 30.0
        job = await goes_on(jobs, job, survey, partial(asks, number=2))
        assert survey.answers == ["no answer"]
        await answered(job, 2, 3)
        await until(lambda: survey.is_over)
        assert survey.answers == ["no answer", Answer(2, "answer 2"), Answer(3, "answer 3")]
        assert job.failures.counts == {}


async def test_groups_that_are_summarised_one_behind_another() -> None:
    """LiveKit puts a summary into the place of what was said in a group: nothing of that leaves the conversation."""

    class Twice(Agent):
        """Two groups, each with what its agent knows."""

        def __init__(self) -> None:
            """Nothing is over."""
            super().__init__(instructions="You take patients in.")
            self.is_over = False

        async def on_enter(self) -> None:
            """Ask."""
            for first in (1, 3):
                group = TaskGroup(chat_ctx=self.chat_ctx)
                for number in (first, first + 1):
                    group.add(lambda number=number: Question(number), id=f"q{number}", description="A number")  # type: ignore[misc]
                await group
            self.is_over = True

    async with Jobs(MODEL) as jobs:
        twice = Twice()
        job = await jobs.start(twice, NotedConversation())
        words = []
        for number in range(1, 5):
            await until(partial(asks, job, number))
            words.append(f"What is number {number}?")
            await job.say(words[-1])
            await job.say("use answer")
        await until(lambda: twice.is_over)
        await turns()
        there = repr([item.to_dict() for item in job.conversation.items])
        assert [one for one in words if one not in there] == []
        assert job.conversation.removals == []


async def test_tasks_of_a_job_before_are_noted_no_more() -> None:
    """The conversation has opened late, when the agent had talked already: what it waited for before is over."""
    async with Jobs(MODEL) as jobs:
        job = await jobs.start(Survey(0), NotedConversation())
        await job.say("Hello")
        done = DoneTask((0,), "question", "m:Question", {"result": 1}, "a handoff")
        had = HadTheWord("survey", has_entered=True, tasks=HadTasks((done,)))
        job.conversation.note(TASKS, {"done": [done.to_dict()]})
        job.word.stop()
        ActiveAgent(job.session, job.conversation, had=had).start()
        assert TASKS not in job.conversation.attributes


async def test_the_next_task_of_a_kind_gets_the_word_by_a_handoff() -> None:
    """The one before was complete when the job died, and is not begun again: the next one's beginning is recorded."""

    class Late(Question):
        @function_tool
        async def end(self) -> None:
            """Take the answer, and work on."""
            self.complete(Answer(self.number, "early"))
            is_complete.set()
            await may_end.wait()

    async def ask(_agent: Agent, number: int) -> Any:
        return await Late(number)

    is_complete, may_end = asyncio.Event(), asyncio.Event()
    async with Jobs(MODEL) as jobs:
        job = await jobs.start(Survey(2, ask), NotedConversation())
        await until(partial(asks, job, 1))
        await job.say("Hello?")
        ending = asyncio.create_task(job.say("use end"))
        await is_complete.wait()
        known = len(handoffs(job))
        following = await jobs.follow(job, Survey(2, ask))
        await until(partial(asks, following, 2))
        await until(lambda: bool(following.conversation.attributes[TASKS].get("running")))
        may_end.set()
        await ending
        assert handoffs(following)[known:] == ["late"]
        (running,) = following.conversation.attributes[TASKS]["running"]
        assert running["since"] in [item.id for item in following.conversation.items]
