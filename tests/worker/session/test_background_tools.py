"""Tools that report, work on, and die with their process: nobody waits for them for ever."""

import asyncio
from typing import Any

import pytest
from livekit.agents import Agent, FunctionToolsExecutedEvent, RunContext, StopResponse, function_tool
from livekit.agents.llm import ChatItem, FunctionCallOutput, ToolFlag
from livekit.agents.voice.events import ToolCallEnded, ToolCallStarted, ToolExecutionUpdatedEvent

from agent_worker.offline.script import ChatRequest, Reply, RequestedCall
from agent_worker.session.notes import unanswered_item
from agent_worker.session.recorder import Recorder
from agent_worker.session.restoration import INTERRUPTED_OUTPUT, restore_late
from agent_worker.session.serialise import to_fields
from conversation_actors.items import item_from_dict
from tests.support.fakes import until
from tests.support.sessions.fakes_room import FakeConversation
from tests.support.sessions.jobs import Job, Jobs, NotedConversation, last_text
from tests.support.sessions.made_items import call, new_session, output, said, stored
from tests.support.sessions.provider_rules import refusals

FINAL = "call_1_final"


class Searcher(Agent):
    """Searches in the background, and reports as often as it is asked to."""

    def __init__(self, *, is_silent: bool = False) -> None:
        """It has found nothing."""
        super().__init__(instructions="Search.")
        self.report, self.found = asyncio.Event(), asyncio.Event()
        self.is_silent = is_silent

    @function_tool(flags=ToolFlag.CANCELLABLE)
    async def search(self, context: RunContext[Any]) -> str:
        """Search for long."""
        quietly: Any = {"silent": True} if self.is_silent else {}  # older versions know nothing of silence
        await context.update("I look.", **quietly)
        await self.report.wait()
        await context.update("Nearly there.")
        await self.found.wait()
        return "found it"


def model(request: ChatRequest) -> Reply:
    """Search when asked to; say what the tool has given last."""
    last = request.messages[-1]
    if last["role"] == "user" and last_text(request) == "Search":
        return Reply("", (RequestedCall("call_1", "search", "{}"),))
    outputs = [str(message["content"]) for message in request.messages if message["role"] == "tool"]
    return Reply(f"It says: {outputs[-1].splitlines()[0]}" if outputs else "Yes?")


def outputs_of(conversation: FakeConversation) -> dict[str, str]:
    """What is stored of tools, by the ids of their calls."""
    fields = [item.to_dict() for item in conversation.items if item.type == "function_call_output"]
    return {one["call_id"]: one["output"] for one in fields}


def told(job: Job) -> list[tuple[str, str]]:
    """What the agent that follows knows of tools."""
    items = job.session.current_agent.chat_ctx.items
    return [(item.call_id, item.output) for item in items if isinstance(item, FunctionCallOutput)]


async def searching(jobs: Jobs, searcher: Searcher) -> Job:
    """A job whose tool works in the background."""
    job = await jobs.start(searcher, NotedConversation())
    await job.say("Hello")
    await job.say("Search")
    assert "call_1" in outputs_of(job.conversation)
    return job


async def test_a_tool_that_died_is_told_as_interrupted() -> None:
    """Behind what was said, once for all successors, and the model can go on with it."""
    async with Jobs(model) as jobs:
        job = await searching(jobs, Searcher())
        expected = [*told(job), (FINAL, INTERRUPTED_OUTPUT)]
        for _ in range(3):
            job = await jobs.follow(job, Searcher())
            assert told(job) == expected
            assert refusals(job.session.current_agent.chat_ctx.items) == {}
            assert outputs_of(job.conversation)[FINAL] == INTERRUPTED_OUTPUT
        assert [item.type for item in job.conversation.items].count("function_call") == 2
        await job.say("And?")
        assert jobs.requests[-1]["messages"][-2]["content"] == INTERRUPTED_OUTPUT


async def test_reports_of_a_tool_that_died_with_the_job_are_told_before_its_end() -> None:
    """A later report is told too, and the end comes behind it."""
    async with Jobs(model) as jobs:
        searcher = Searcher()
        job = await searching(jobs, searcher)
        searcher.report.set()
        await until(lambda: "call_1_update_1" in outputs_of(job.conversation))
        following = await jobs.follow(job, Searcher())
        assert [call_id for call_id, _ in told(following)] == ["call_1", "call_1_update_1", FINAL]
        assert told(following)[-1][1] == INTERRUPTED_OUTPUT


async def test_a_tool_that_had_ended_keeps_its_result() -> None:
    """Its result is what it was."""
    async with Jobs(model) as jobs:
        searcher = Searcher()
        job = await searching(jobs, searcher)
        searcher.report.set()
        searcher.found.set()
        await until(lambda: FINAL in outputs_of(job.conversation))
        following = await jobs.follow(job, Searcher())
        assert (FINAL, "found it") in told(following)
        assert following.restored.made_up == ()


async def test_a_tool_that_was_ended_with_its_session_has_come_to_nothing() -> None:
    """In order, as at the end of a call: whoever speaks to the caller next knows that it came to nothing."""
    async with Jobs(model) as jobs:
        job = await searching(jobs, Searcher())
        await job.session.aclose()
        following = await jobs.follow(job, Searcher())
        assert told(following)[-1] == (FINAL, INTERRUPTED_OUTPUT)


@pytest.mark.parametrize("is_silent", [False, True] if "reply_required" in FunctionCallOutput.model_fields else [False])
async def test_whoever_was_promised_a_result_is_told(*, is_silent: bool) -> None:
    """The agent speaks of the end as it would have of the result; not where the tool's work was nobody's business."""
    async with Jobs(model) as jobs:
        job = await searching(jobs, Searcher(is_silent=is_silent))
        following = await jobs.follow(job, Searcher())
        assert (unanswered_item(following.session.history.items) is None) is is_silent


async def test_no_model_is_told_of_remarks() -> None:
    """What is stored beside the items is in no request, and LiveKit's items are what they were."""
    async with Jobs(model) as jobs:
        job = await searching(jobs, Searcher())
        assert any("still_running" in item.to_dict() for item in job.conversation.items)
        following = await jobs.follow(job, Searcher())
        await following.say("Well?")
        assert "still_running" not in str(jobs.requests)
        assert "still_running" not in str([to_fields(item) for item in following.session.history.items])


async def test_the_first_report_has_left_the_conversation() -> None:
    """A later one tells as much."""
    items: list[ChatItem] = [
        said("user", "Search"),
        call(1, call_id="call_1_update_1"),
        output(1, call_id="call_1_update_1"),
    ]
    conversation = stored(items)
    last = conversation.items[-1].to_dict()
    conversation.record(item_from_dict({**last, "still_running": "call_1"}))
    session, agent = new_session(), Agent(instructions="x")
    restored = await restore_late(session, conversation, agent)
    assert [one.call_id for one in restored.interrupted_calls] == [FINAL]
    assert refusals(agent.chat_ctx.items) == {}


# In the same process


@pytest.mark.parametrize("reports", [False, True])
async def test_a_tool_that_still_runs_is_not_told_as_interrupted(*, reports: bool) -> None:
    """In a conversation that opens late: LiveKit tells of it itself, once."""
    session, agent, conversation = new_session(), Agent(instructions="x"), FakeConversation()
    recorder = Recorder(session, conversation).start()
    running = call(1)
    session.emit("tool_execution_updated", started(running))
    assert recorder.running_calls == {"call_1"}
    if reports:
        conversation.record(item_from_dict({**to_fields(output(1)), "still_running": "call_1"}))
    restored = await restore_late(session, conversation, agent, running=recorder.running_calls)
    assert restored.made_up == ()
    assert session.history.items == agent.chat_ctx.items == []
    ended = ToolCallEnded(id="call_1", call_id="call_1", message="", status="done")
    session.emit("tool_execution_updated", ToolExecutionUpdatedEvent(update=ended))
    assert recorder.running_calls == frozenset()


def started(running: Any) -> ToolExecutionUpdatedEvent:
    """A tool begins."""
    return ToolExecutionUpdatedEvent(update=ToolCallStarted(function_call=running))


async def test_a_running_tool_is_recorded_again_as_running() -> None:
    """A conversation that lost everything is told again that the tool works, and a later crash is one."""
    async with Jobs(model) as jobs:
        job = await searching(jobs, Searcher())
        job.conversation._items.clear()
        job.recorder.record_again(is_afresh=True)
        marked = [item.to_dict().get("still_running") for item in job.conversation.items]
        assert marked.count("call_1") == 1
        count = len(job.conversation.history)
        job.recorder.record_again(is_afresh=False)
        assert len(job.conversation.history) == count
        following = await jobs.follow(job, Searcher())
        assert told(following)[-1] == (FINAL, INTERRUPTED_OUTPUT)


async def test_a_running_call_that_was_taken_out_is_not_recorded_again() -> None:
    """A conversation that lost everything is told of all that runs, but of what nobody is to know."""
    session, conversation = new_session(), NotedConversation()
    recorder = Recorder(session, conversation).start()
    running = call(1)
    session.emit("tool_execution_updated", started(running))
    assert [item.id for item in conversation.items] == [running.id]
    conversation.remove(running.id)
    recorder.leave_out([running.id])
    recorder.record_again(is_afresh=False)
    recorder.record_again(is_afresh=True)
    assert conversation.items == ()


async def test_a_late_result_takes_the_place_of_what_was_made_up() -> None:
    """Its result takes the place of what was made up."""
    items: list[ChatItem] = [said("user", "Search"), call(1), output(1)]
    conversation = stored(items)
    conversation.record(item_from_dict({**conversation.items[-1].to_dict(), "still_running": "call_1"}))
    first = await restore_late(new_session(), conversation, Agent(instructions="x"))
    for item in (*first.made_up, call(9, call_id=FINAL), output(9, call_id=FINAL, text="found it")):
        conversation.record(item_from_dict(to_fields(item)))
    session, agent = new_session(), Agent(instructions="x")
    restored = await restore_late(session, conversation, agent)
    assert restored.made_up == ()
    results = [item.output for item in agent.chat_ctx.items if isinstance(item, FunctionCallOutput)]
    assert results == ["found", "found it"]
    assert refusals(agent.chat_ctx.items) == {}


# Silence


def test_a_tool_that_wanted_silence_is_answered_by_nobody() -> None:
    """Its output ends the turn; where another tool of the same reply wants one, it is answered."""
    silent, loud = (output(1, text="", reply_required=False), output(2))
    asked: list[ChatItem] = [said("user", "Do it."), call(1), call(2)]
    assert unanswered_item([*asked, silent]) is None
    assert unanswered_item([*asked, loud, silent]) is loud
    assert unanswered_item([*asked, silent, loud]) is loud
    assert unanswered_item(asked) is asked[-1]
    assert unanswered_item([*asked, silent, said("user", "Hello?")]) is not None


class Muted(Agent):
    """Has a tool behind which nothing is to be said."""

    def __init__(self) -> None:
        """Without words."""
        super().__init__(instructions="Say nothing.")

    @function_tool
    async def search(self) -> str:
        """Do something."""
        raise StopResponse


async def test_a_tool_that_stopped_the_response_has_ended() -> None:
    """A successor knows that it ran, and says nothing about it."""
    async with Jobs(model) as jobs:
        job = await jobs.start(Muted(), NotedConversation())
        await job.say("Search")
        following = await jobs.follow(job, Muted())
        assert [call_id for call_id, _ in told(following)] == ["call_1"]
        assert following.restored.made_up == ()
        assert unanswered_item(following.session.history.items) is None


async def test_a_silent_tool_of_an_older_livekit_is_not_told_as_interrupted() -> None:
    """Before 1.7 there is none: the call must not look as if it had been interrupted, nor be counted as refused."""
    session, conversation = new_session(), FakeConversation()
    recorder = Recorder(session, conversation).start()
    conversation.record(item_from_dict(to_fields(said("user", "Do it."))))
    calls = [call(1), call(2)]
    given: Any = [None, output(2)]
    event = FunctionToolsExecutedEvent.model_construct(function_calls=calls, function_call_outputs=given)
    session.emit("function_tools_executed", event)
    assert outputs_of(conversation) == {"call_1": "", "call_2": "found"}
    assert recorder.refused == 0
    agent = Agent(instructions="x")
    restored = await restore_late(new_session(), conversation, agent)
    assert restored.made_up == ()
    assert refusals(agent.chat_ctx.items) == {}
