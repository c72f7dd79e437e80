"""The agent that had the word has it again, with its tools, its state, and what it knew."""

import asyncio
from typing import Any

import pytest
from livekit.agents import Agent, AgentTask, RunContext, function_tool
from livekit.agents.llm import ChatContext

from agent_worker.session.active_agent import MOST_BYTES, agent_with_the_word
from agent_worker.session.entering import entrance_of
from agent_worker.session.had_the_word import ACTIVE_AGENT
from agent_worker.session.restoration import INTERRUPTED_OUTPUT, restore_late
from tests.support.fakes import turns
from tests.support.sessions.jobs import Job, Jobs, NotedConversation, calls_when_asked, said, tools_of

MODEL = calls_when_asked(
    "to_billing", "to_same", "to_copy", "charge", "back", "to_clerk", "to_slow", "note_down", "ask", "answer"
)


class Front(Agent):
    """The first agent; it hands over, in the ways in which applications do."""

    def __init__(self, *, chat_ctx: ChatContext | None = None) -> None:
        """Bring what was given."""
        super().__init__(instructions="You are at the front desk.", chat_ctx=chat_ctx)

    @function_tool
    async def to_billing(self) -> Agent:
        """Hand over, and tell nothing."""
        return Billing()

    @function_tool
    async def to_same(self) -> tuple[Agent, str]:
        """Hand over with all that was said."""
        return Billing(chat_ctx=self.chat_ctx), "Transferred."

    @function_tool
    async def to_copy(self) -> Agent:
        """Hand over to somebody who looks at the last words."""
        return Brief(self.chat_ctx)

    @function_tool
    async def to_clerk(self) -> Agent:
        """Hand over to one of two clerks."""
        return Clerk("Anna", 3)

    @function_tool
    async def ask(self) -> str:
        """Begin a task."""
        return await Question()


class Billing(Agent):
    """Has a tool that the front desk lacks."""

    def __init__(self, chat_ctx: ChatContext | None = None) -> None:
        """Know what is given."""
        super().__init__(instructions="You do the bills.", chat_ctx=chat_ctx)

    @function_tool
    async def charge(self) -> str:
        """Charge something."""
        return "charged"

    @function_tool
    async def back(self) -> Agent:
        """Hand back."""
        return Front(chat_ctx=self.chat_ctx.copy(exclude_instructions=True))


class Brief(Billing):
    """Takes the last words over when it enters, and a remark of its own."""

    def __init__(self, before: ChatContext | None = None) -> None:
        """Remember where to look."""
        super().__init__()
        self._before = before

    async def on_enter(self) -> None:
        """Copy the last words, as the restaurant of LiveKit's examples does."""
        context = self.chat_ctx.copy()
        if self._before is not None:
            last = self._before.copy(exclude_instructions=True, exclude_function_call=True).truncate(max_items=6)
            known = {item.id for item in context.items}
            context.items.extend([item for item in last.items if item.id not in known])
            context.add_message(role="system", content="You are Brief. The caller is in a hurry.")
            await self.update_chat_ctx(context)


class Clerk(Agent):
    """Cannot be made without its name, and keeps a count."""

    def __init__(self, name: str, count: int = 0) -> None:
        """`name` is the clerk's."""
        super().__init__(instructions=f"You are {name}.")
        self.name, self.count = name, count

    def saved_state(self) -> dict[str, Any]:
        """What is the clerk's own."""
        return {"name": self.name, "count": self.count}

    @function_tool
    async def note_down(self) -> str:
        """Count."""
        self.count += 1
        return str(self.count)


class Question(AgentTask[str]):
    """A task with a tool that ends it."""

    def __init__(self) -> None:
        """Begin."""
        super().__init__(instructions="Ask for the name.")

    @function_tool
    async def answer(self) -> None:
        """End."""
        self.complete("Anna")


def clerk(saved: dict[str, Any] | None) -> Clerk:
    """The clerk who has saved that."""
    assert saved is not None
    return Clerk(saved["name"], saved["count"])


async def crash(jobs: Jobs, job: Job, first: Agent | None = None, **named: Any) -> Job:
    """Have another job follow, in which the caller goes on; compare the first request with the last one before."""
    before, requests = jobs.requests[-1], len(jobs.requests)
    last = job.session.history.items[-1]
    assert last.type == "message"
    following = await jobs.follow(job, first or Front(), **named)
    await following.say("And now?")
    request = jobs.requests[requests]
    assert said(request) == [*said(before), ("assistant", last.text_content), ("user", "And now?")]
    assert tools_of(request) == tools_of(before)
    return following


def handoffs(conversation: NotedConversation) -> list[tuple[Any, Any]]:
    """Who gave the word to whom."""
    items = [item.to_dict() for item in conversation.items if item.type == "agent_handoff"]
    return [(item.get("old_agent_id"), item["new_agent_id"]) for item in items]


async def talked(jobs: Jobs, first: Agent, *texts: str, **named: Any) -> Job:
    """A job in which the caller has said this."""
    job = await jobs.start(first, NotedConversation(), **named)
    for text in texts:
        await job.say(text)
    return job


async def test_the_successor_of_a_single_agent_asks_the_model_what_it_would_have_been_asked() -> None:
    """Its first request is the last one before and what has happened since, and no handoff is recorded."""
    async with Jobs(MODEL) as jobs:
        job = await talked(jobs, Front(), "Hello", "use charge", "How are you?")
        following = await crash(jobs, job)
        following = await crash(jobs, following)
    assert handoffs(following.conversation) == [(None, "front")]
    assert following.failures.counts == {}


async def test_what_the_application_put_into_the_context() -> None:
    """It stays in front of the history, once, however often the agent crashes."""
    context = ChatContext.empty()
    context.add_message(role="system", content="The caller is called Anna.")
    context.add_message(role="user", content="An example of a question.")
    context.add_message(role="assistant", content="An example of an answer.")

    def agent() -> Agent:
        return Front(chat_ctx=context.copy())

    async with Jobs(MODEL) as jobs:
        job = await talked(jobs, agent(), "Hello")
        assert len(jobs.requests[0]["messages"]) == 5
        for _ in range(3):
            job = await crash(jobs, job, agent())


async def test_what_is_new_at_each_start_is_there_once() -> None:
    """An application that makes the same message anew in each job, with another id, has it once all the same."""

    def agent() -> Agent:
        context = ChatContext.empty()
        context.add_message(role="system", content="The caller is called Anna.")
        return Front(chat_ctx=context)

    async with Jobs(MODEL) as jobs:
        job = await talked(jobs, agent(), "Hello")
        for _ in range(3):
            job = await crash(jobs, job, agent())


@pytest.mark.parametrize("way", ["to_billing", "to_same", "to_copy"])
async def test_the_agent_that_was_handed_over_to_has_the_word_in_the_next_job(way: str) -> None:
    """Whether the other agent was told nothing, everything, or the last words: it has its tools, and knows the same."""
    async with Jobs(MODEL) as jobs:
        texts = [*(f"number {number}" for number in range(8)), f"use {way}", "What now?", "use charge", "Thank you."]
        job = await talked(jobs, Front(), *texts)
        assert isinstance(job.session.current_agent, Billing)
        assert "use charge" in str(jobs.requests[-1])
        assert "charge" in tools_of(jobs.requests[-1])
        expected = handoffs(job.conversation)
        for _ in range(3):
            job = await crash(jobs, job)
            assert type(job.agent) is (Brief if way == "to_copy" else Billing)
    assert handoffs(job.conversation) == expected
    assert job.failures.counts == {}


async def test_an_agent_that_has_not_heard_a_word_has_the_word_in_the_next_job() -> None:
    """Before the other agent has heard a word, too."""
    async with Jobs(MODEL) as jobs:
        job = await talked(jobs, Front(), "Hello", "use to_billing")
        following = await jobs.follow(job, Front())
        await following.say("And now?")
    assert said(jobs.requests[-1]) == [("system", "You do the bills."), ("user", "And now?")]


async def test_the_first_agent_has_the_word_again_when_it_was_handed_back() -> None:
    """The agent that began has the word again, though it is another object."""
    async with Jobs(MODEL) as jobs:
        job = await talked(jobs, Front(), "Hello", "use to_same", "use back", "What now?")
        following = await crash(jobs, job)
    assert isinstance(following.agent, Front)


async def test_a_factory_makes_an_agent_that_needs_arguments_from_its_saved_state() -> None:
    """Its factory gets what it has saved, behind each tool."""
    async with Jobs(MODEL) as jobs:
        job = await talked(jobs, Front(), "Hello", "use to_clerk", "use note_down", "What now?")
        following = await crash(jobs, job, agents={"clerk": clerk})
        assert isinstance(following.agent, Clerk)
        assert following.agent.count == 4


async def test_the_saved_state_tells_which_of_two_agents_of_one_class_had_the_word() -> None:
    """Of one class and one id: what is saved tells which one it was."""

    class Teller(Clerk):
        def restore_state(self, saved: dict[str, Any]) -> None:
            self.name, self.count = saved["name"], saved["count"]

        @function_tool
        async def to_clerk(self) -> Agent:
            """Hand over to another of us."""
            return Teller("Berta", 7)

    async with Jobs(MODEL) as jobs:
        job = await talked(jobs, Teller("Anna"), "Hello", "use to_clerk", "use note_down", "What now?")
        following = await crash(jobs, job, Teller("Anna"))
        assert isinstance(following.agent, Teller)
        assert (following.agent.name, following.agent.count) == ("Berta", 8)


async def test_the_id_tells_which_of_two_agents_of_one_class_had_the_word() -> None:
    """Of one class with ids of their own: the factory under the right one."""

    class Named(Agent):
        def __init__(self, name: str) -> None:
            super().__init__(id=name, instructions=f"You are {name}.")

        @function_tool
        async def to_clerk(self) -> Agent:
            """Hand over to the other one."""
            return Named("berta")

    async with Jobs(MODEL) as jobs:
        job = await talked(jobs, Named("anna"), "Hello", "use to_clerk", "What now?")
        following = await crash(
            jobs, job, Named("anna"), agents={one: lambda one=one: Named(one) for one in ("anna", "berta")}
        )
        assert following.agent.id == "berta"


async def test_a_class_that_would_make_an_agent_of_another_id_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    """A class that makes an agent of another id without arguments does not make the right one."""
    noted = {ACTIVE_AGENT: {"agent_id": "berta", "class": f"{__name__}:Billing"}}
    first = Front()
    assert (await agent_with_the_word(first, noted, {})).agent is first
    assert "name the other one" in caplog.text
    noted = {ACTIVE_AGENT: {"agent_id": "billing", "class": f"{__name__}:Billing"}}
    assert isinstance((await agent_with_the_word(first, noted, {})).agent, Billing)


async def test_an_agent_that_the_userdata_holds_is_taken_from_there() -> None:
    """Applications that keep their agents at hand get that one."""

    def userdata() -> dict[str, Any]:
        return {"agents": {"clerk": Clerk("Anna"), "front": Front()}}

    async with Jobs(MODEL) as jobs:
        job = await talked(jobs, Front(), "Hello", "use to_clerk", "use note_down", "What now?")
        agents = userdata()
        following = await crash(jobs, job, userdata=agents)
        assert following.agent is agents["agents"]["clerk"]


@pytest.mark.parametrize("kind", ["unknown", "raises", "no agent"])
async def test_the_first_agent_goes_on_when_the_other_one_cannot_be_made(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The first agent goes on with all that was said, and one line of the log says what to do about it."""

    def raises() -> Agent:
        message = "private words"
        raise KeyError(message)

    kinds: dict[str, dict[str, Any]] = {"raises": {"clerk": raises}, "no agent": {"clerk": lambda: "me"}}
    agents = kinds.get(kind, {})
    async with Jobs(MODEL) as jobs:
        job = await talked(jobs, Front(), "Hello", "use to_clerk", "What now?")
        first = Front()
        following = await jobs.follow(job, first, agents=agents)
        assert following.agent is first
        await following.say("And now?")
        spoken = [content for role, content in said(jobs.requests[-1]) if role == "user"]
    assert spoken == ["Hello", "use to_clerk", "What now?", "And now?"]
    assert [record.message for record in caplog.records if "agents={" in record.message] == [
        "the first agent has the word again: name the other one in agents={id: factory}"
    ]
    assert "private words" not in caplog.text


async def test_instructions_that_were_changed_in_the_call_stay_changed() -> None:
    """Instructions that the application has changed in the call stay changed."""
    async with Jobs(MODEL) as jobs:
        job = await talked(jobs, Front(), "Hello")
        await job.session.current_agent.update_instructions("You are in a hurry.")
        await job.say("Be quick.")
        for _ in range(2):
            job = await crash(jobs, job)


async def test_what_was_added_later_stays_in_its_place() -> None:
    """A message that the application puts into the context during the call is there, where it was."""
    async with Jobs(MODEL) as jobs:
        job = await talked(jobs, Front(), "Hello", "What is new?")
        context = job.session.current_agent.chat_ctx.copy()
        context.add_message(role="system", content="It is Tuesday.")
        await job.session.current_agent.update_chat_ctx(context)
        await job.say("Thank you.")
        for _ in range(2):
            job = await crash(jobs, job)


async def test_the_running_agent_gets_the_context_of_a_conversation_that_opens_late() -> None:
    """The agent that runs already gets the same context, and behind it what was said in its session."""
    context = ChatContext.empty()
    context.add_message(role="system", content="The caller is called Anna.")

    def agent() -> Agent:
        return Front(chat_ctx=context.copy())

    async with Jobs(MODEL) as jobs:
        job = await talked(jobs, agent(), "Hello", "use to_billing", "use back", "What is new?")
        before, left = jobs.requests[-1], job.conversation.left_by_a_crash()
        answer = job.session.history.messages()[-1].text_content
        late = await talked(jobs, agent(), "Hello?")
        word = await agent_with_the_word(late.session.current_agent, left.attributes, {})
        assert word.agent is late.session.current_agent
        await restore_late(late.session, left, had=word.had)
        await late.say("And now?")
        own = [("user", "Hello?"), ("assistant", "I was sent 3."), ("user", "And now?")]
        assert said(jobs.requests[-1]) == [*said(before), ("assistant", answer), *own]


async def test_a_task_speaks_for_the_agent_that_waits_for_it() -> None:
    """A crash during a task: the agent goes on, its call of the tool has an unknown outcome; no task begins alone."""
    async with Jobs(MODEL) as jobs:
        job = await talked(jobs, Front(), "Hello", "use ask", "My name?")
        assert isinstance(job.session.current_agent, Question)
        following = await jobs.follow(job, Front())
        await following.say("And now?")
        assert isinstance(following.agent, Front)
        assert [one.name for one in following.restored.interrupted_calls] == ["ask"]
        await job.say("use answer")


async def test_pinned_messages_are_in_the_first_request_after_a_long_call() -> None:
    """After 130 turns the first request is the last one before, with what the application pinned."""
    context = ChatContext.empty()
    context.add_message(role="system", content="Never promise anything.")
    async with Jobs(MODEL) as jobs:
        job = await talked(jobs, Front(chat_ctx=context), *(f"number {number}" for number in range(130)))
        last = said(jobs.requests[-1])
        assert last[:2] == [("system", "You are at the front desk."), ("system", "Never promise anything.")]
        assert len(last) < 210
        job.conversation._items = dict(list(job.conversation._items.items())[-200:])
        await crash(jobs, job, Front(chat_ctx=context.copy()))


async def test_an_agent_too_large_to_be_noted_comes_back_as_it_is_made(caplog: pytest.LogCaptureFixture) -> None:
    """What does not fit comes back as the agent is made with it; one line of the log tells."""
    context = ChatContext.empty()
    context.add_message(role="system", content="A manual. " * MOST_BYTES)
    async with Jobs(MODEL) as jobs:
        job = await talked(jobs, Front(chat_ctx=context), "Hello", "use charge")
        added = job.session.current_agent.chat_ctx.copy()
        added.add_message(role="system", content="It is Tuesday.")
        await job.session.current_agent.update_chat_ctx(added)
        await job.say("Thank you.")
        noted = job.conversation.attributes[ACTIVE_AGENT]
        assert [one["item"]["content"] for one in noted["brought"]] == [["It is Tuesday."]]
        await crash(jobs, job, Front(chat_ctx=context.copy()))
    assert caplog.text.count("not all of the agent can come back") == 2


async def test_noted_only_when_something_changes() -> None:
    """A call of one agent writes it when the agent begins, and when its `on_enter` is over."""
    async with Jobs(MODEL) as jobs:
        job = await talked(jobs, Front(), *(f"number {number}" for number in range(20)))
    assert job.conversation.noted.count(ACTIVE_AGENT) == 2


class Slow(Billing):
    """Has a tool that takes its time."""

    def __init__(self, chat_ctx: ChatContext | None = None) -> None:
        """Nothing runs."""
        super().__init__(chat_ctx)
        self.runs, self.may_end = asyncio.Event(), asyncio.Event()

    @function_tool
    async def answer(self) -> str:
        """Take time."""
        self.runs.set()
        await self.may_end.wait()
        return "done"


async def test_an_agent_whose_tool_ran_in_the_crash_is_told_that_the_outcome_is_unknown() -> None:
    """The agent that called it has the word, and is told that the outcome is unknown, behind the last request."""

    class Patient(Front):
        @function_tool
        async def to_slow(self) -> Agent:
            """Hand over."""
            return Slow()

    async with Jobs(MODEL) as jobs:
        job = await talked(jobs, Patient(), "Hello", "use to_slow", "What now?")
        slow = job.session.current_agent
        assert isinstance(slow, Slow)
        asked = asyncio.create_task(job.say("use answer"))
        await slow.runs.wait()
        before = jobs.requests[-1]
        following = await jobs.follow(job, Patient())
        await following.say("And now?")
        request = jobs.requests[-1]
        slow.may_end.set()
        await asked
    told = [("assistant", [("answer", "{}")]), ("tool", INTERRUPTED_OUTPUT), ("user", "And now?")]
    assert said(request) == [*said(before), *told]
    assert tools_of(request) == tools_of(before)


class Greeter(Front):
    """Puts something into its context when it enters, as soon as it may, and again while it talks."""

    def __init__(self, may_enter: asyncio.Event, told: list[str]) -> None:
        """`told` are the words for its context."""
        super().__init__()
        self.may_enter, self.told = may_enter, told

    async def on_enter(self) -> None:
        """Wait as if for a database."""
        await self.may_enter.wait()
        await self.remember(self.told[0])
        self.later = asyncio.create_task(self.remember_later())

    async def remember(self, words: str) -> None:
        """Put words into the context."""
        context = self.chat_ctx.copy()
        context.add_message(role="system", content=words)
        await self.update_chat_ctx(context)

    async def remember_later(self) -> None:
        """Do something that outlives the entrance."""
        await asyncio.sleep(0)
        if len(self.told) > 1:
            await self.remember(self.told[1])


async def test_what_on_enter_puts_into_the_context_is_there_once_in_each_job() -> None:
    """It is there once, though `on_enter` runs again in each job; what comes later is taken."""
    may_enter = asyncio.Event()
    may_enter.set()
    async with Jobs(MODEL) as jobs:
        job = await talked(jobs, Greeter(may_enter, ["You are the greeter."]), "Hello")
        for number in range(2):
            job = await crash(jobs, job, Greeter(may_enter, [f"You are the greeter, {number} times."]))
        following = await jobs.follow(job, Greeter(may_enter, ["You are the greeter.", "It is Tuesday."]))
        await following.say("And now?")
        told = [content for role, content in said(jobs.requests[-1]) if role == "system"]
    assert told == ["You are at the front desk.", "You are the greeter.", "It is Tuesday."]


async def test_an_agent_that_died_while_it_entered_enters_in_the_next_job() -> None:
    """What it had not put into the context yet is put there by the next one."""
    may_enter = asyncio.Event()
    async with Jobs(MODEL) as jobs:
        job = await talked(jobs, Greeter(may_enter, ["You are the greeter."]))
        assert job.conversation.attributes[ACTIVE_AGENT]["has_entered"] is False
        may_enter.set()
        following = await jobs.follow(job, Greeter(may_enter, ["You are the greeter."]))
        await following.say("And now?")
        told = [content for role, content in said(jobs.requests[-1]) if role == "system"]
    assert told == ["You are at the front desk.", "You are the greeter."]


async def test_an_agent_that_is_cut_off_while_it_enters_has_not_entered() -> None:
    """It has not entered, as far as the next job is concerned."""
    agent = Greeter(asyncio.Event(), ["You are the greeter."])
    entrance = entrance_of(agent)
    entering = asyncio.create_task(agent.on_enter())
    await turns()
    entering.cancel()
    await asyncio.wait({entering})
    assert not entrance.is_over


async def test_an_agent_that_gets_the_word_again_is_followed_once() -> None:
    """However often it is asked for: its `on_enter` is what it was, and tells the same listener once."""
    agent, told = Agent(instructions="x"), list[Agent]()
    listener = told.append
    entrance_of(agent).tell(listener)
    followed = agent.on_enter
    entrance_of(agent).tell(listener)
    assert agent.on_enter is followed
    await agent.on_enter()
    assert told == [agent]


async def test_the_handoff_that_gave_the_word_is_noted_and_stays_in_a_successor() -> None:
    """The handoff that gave it to the agent is noted, and is the same one in a successor."""
    async with Jobs(MODEL) as jobs:
        job = await talked(jobs, Front(), "Hello")
        [handoff] = [item for item in job.session.history.items if item.type == "agent_handoff"]
        following = await crash(jobs, job, Front())
        assert following.conversation.attributes[ACTIVE_AGENT]["since"] == handoff.id


async def test_a_last_look_at_a_session_that_has_ended_raises_nothing() -> None:
    """A last look at a session that has ended costs nothing."""
    async with Jobs(MODEL) as jobs:
        job = await talked(jobs, Front(), "Hello", "use to_billing", "What now?")
        await job.session.aclose()
        noted = job.conversation.attributes[ACTIVE_AGENT]
        job.word.stop()
        job.userdata.stop()
        assert job.failures.counts == {}
        assert job.conversation.attributes[ACTIVE_AGENT] == noted


async def test_the_last_state_that_could_be_stored_stays(caplog: pytest.LogCaptureFixture) -> None:
    """The last one that could stays, and one line tells so."""

    class Odd(Clerk):
        def saved_state(self) -> dict[str, Any]:
            return {"count": self.count if self.count < 2 else object()}

    async with Jobs(MODEL) as jobs:
        job = await talked(jobs, Odd("Anna"), *["use note_down"] * 4)
    assert job.conversation.attributes[ACTIVE_AGENT]["state"] == {"count": 1}
    assert caplog.text.count("not all of the agent can come back") == 1


@pytest.mark.parametrize("state", [3, [1], {"a": float("nan")}, {"a": "x" * (5 << 20)}, {"a": object()}])
async def test_a_state_that_is_no_json_object_or_too_large_is_left_out(
    state: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """What is no JSON object, or too much, is told once; the agent comes back without it."""

    class Odd(Front):
        def saved_state(self) -> Any:
            return state

        def restore_state(self, saved: dict[str, Any]) -> None:
            raise AssertionError(saved)

    async with Jobs(MODEL) as jobs:
        job = await talked(jobs, Odd(), "Hello", "How are you?")
        await crash(jobs, job, Odd())
    assert caplog.text.count("not all of the agent can come back") == 2


async def test_an_agent_whose_state_hook_raises_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    """An agent whose hook raises begins anew, and the call goes on."""

    class Forgetful(Clerk):
        def restore_state(self, saved: dict[str, Any]) -> None:
            raise KeyError(str(saved))

    async with Jobs(MODEL) as jobs:
        job = await talked(jobs, Forgetful("Anna"), "use note_down")
        following = await crash(jobs, job, Forgetful("Anna"))
    assert isinstance(following.agent, Forgetful)
    assert "begins anew" in caplog.text


@pytest.mark.parametrize(
    "noted",
    [
        {},
        {ACTIVE_AGENT: 1},
        {ACTIVE_AGENT: {}},
        {ACTIVE_AGENT: {"agent_id": 3}},
        {ACTIVE_AGENT: {"class": "os:system"}},
    ],
)
async def test_a_note_that_names_no_agent_gives_the_first_one_the_word(noted: dict[str, Any]) -> None:
    """What names no agent gives the first one the word."""
    first = Front()
    assert (await agent_with_the_word(first, noted, {})).agent is first
    assert (await agent_with_the_word(first, noted.get, {})).agent is first


async def test_a_noted_class_that_is_no_agent_is_neither_made_nor_imported(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing else is made by a name that somebody noted, and no module of another program is imported for it."""
    first = Front()
    for name in ("os:system", "antigravity:Agent", "tests.support.sessions.jobs:Jobs", "tests.nowhere:Agent", ":", "x"):
        noted = {ACTIVE_AGENT: {"agent_id": "other", "class": name, "heard": 3, "brought": [1, {"item": 2}]}}
        assert (await agent_with_the_word(first, noted, {})).agent is first
    assert caplog.text.count("name the other one") == 6


async def test_a_restored_agent_hands_over_and_is_followed() -> None:
    """RunContext is what a tool of a restored agent gets; and its handoffs are followed."""

    class Caller(Front):
        @function_tool
        async def note_down(self, context: RunContext[Any]) -> Agent:
            """Hand over."""
            assert context.session.current_agent is self
            return Billing()

    async with Jobs(MODEL) as jobs:
        job = await talked(jobs, Caller(), "Hello")
        following = await crash(jobs, job, Caller())
        await following.say("use note_down")
        await following.say("What now?")
        assert isinstance(following.session.current_agent, Billing)
        third = await crash(jobs, following, Caller())
        assert isinstance(third.agent, Billing)
    assert handoffs(third.conversation) == [(None, "caller"), ("caller", "billing")]
