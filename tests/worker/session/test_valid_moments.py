"""At whatever moment of a real session its agent dies: the next request is one that every vendor takes."""

from itertools import count
from typing import Any

from livekit.agents import Agent, RunContext, function_tool

from agent_worker.offline.script import ChatRequest, Reply, RequestedCall
from agent_worker.session.restoration import restore
from conversation_actors.items import StoredItem
from conversation_actors.state.facts import Limits
from conversation_actors.state.window import Window
from tests.support.fakes import until
from tests.support.sessions.fakes_room import FakeConversation
from tests.support.sessions.jobs import Job, Jobs, NotedConversation, last_text, said
from tests.support.sessions.made_items import new_session
from tests.support.sessions.provider_rules import refusals

_WINDOWS = (3, 7, 11, 40)
_numbers = count(1)


class Desk(Agent):
    """Looks its caller up when it enters, and later whatever it is asked for."""

    def __init__(self) -> None:
        """Without words."""
        super().__init__(instructions="You are the front desk.")

    async def on_enter(self) -> None:
        """Greet by name."""
        await self.session.generate_reply(instructions="Look the caller up.")

    @function_tool
    async def look_up(self) -> str:
        """Look something up."""
        return "Anna, gold"

    @function_tool
    async def search(self, context: RunContext[Any]) -> str:
        """Search, and report on the way."""
        await context.update("I look.")
        return "found it"


def model(request: ChatRequest) -> Reply:
    """Use tools before the caller has said anything, with words and without, one and several at once."""
    last = request.messages[-1]
    words = last_text(request)
    if last["role"] == "tool" or (last["role"] == "system" and words):
        return Reply("Here it is.")
    if not words:
        return Reply("", (RequestedCall(f"call_{next(_numbers)}", "look_up", "{}"),))
    calls = {"search": ("search",), "look": ("look_up",), "both": ("look_up", "look_up")}.get(words.split()[0], ())
    spoken = "One moment." if "please" in words else ""
    return Reply(
        spoken if calls else "Yes.", tuple(RequestedCall(f"call_{next(_numbers)}", one, "{}") for one in calls)
    )


def window_of(conversation: FakeConversation, most: int) -> FakeConversation:
    """What a conversation holds that keeps so many items."""
    window, left = Window(), FakeConversation()
    for item in conversation.items:
        arriving = [StoredItem.parse(item.to_stored().data)]
        leaving = window.evictions(arriving, Limits(items=most))
        window.put(arriving)
        window.remove(leaving, orphans_kept=100)
    for stored in window:
        left.record(stored.to_item())
    return left


async def assert_valid_for_whoever_follows(job: Job) -> None:
    """Whatever the conversation still holds."""
    for most in _WINDOWS:
        session, agent = new_session(), Agent(instructions="x")
        await restore(session, agent, window_of(job.conversation, most))
        assert refusals(agent.chat_ctx.items) == {}
        assert refusals(session.history.items) == {}


async def test_a_crash_at_every_moment_of_a_call_leaves_a_valid_context() -> None:
    """Of twenty turns with tools of all kinds, in a session that is cut, through a crash at each fifth."""
    asked = ("look, please", "both", "Hello", "search", "look", "both, please", "And?", "search, please")
    async with Jobs(model, items=14) as jobs:
        job = await jobs.start(Desk(), NotedConversation())
        await until(lambda: any(item.type == "message" for item in job.conversation.items))
        for turn in range(20):
            await job.say(asked[turn % len(asked)])
            await assert_valid_for_whoever_follows(job)
            if turn > 4:  # the first agent's context is LiveKit's, and begins with the tool by which it greets
                assert refusals(job.session.current_agent.chat_ctx.items) == {}
            if turn % 5 == 4:
                job = await jobs.follow(job, Desk())
        assert job.failures.counts == {}


async def test_what_was_looked_up_before_the_caller_said_anything() -> None:
    """Each successor's model is told of it in words, once, in the same request."""
    async with Jobs(model) as jobs:
        job = await jobs.start(Desk(), NotedConversation())
        await until(lambda: any(item.type == "message" for item in job.conversation.items))
        await job.say("Hello")
        requests = []
        for _ in range(3):
            job = await jobs.follow(job, Desk())
            await job.say("Hello again")
            requests.append(said(jobs.requests[-1]))
            await assert_valid_for_whoever_follows(job)
        assert [str(request).count("Anna, gold") for request in requests] == [1, 1, 1]
        assert requests[2][: len(requests[1]) - 1] == requests[1][:-1]
        kinds = [item.type for item in job.conversation.items]
        assert kinds.count("function_call") == kinds.count("function_call_output") == 1, "the conversation keeps them"
