"""Two agents in one room, each with its role: what is said and noted of the call is one agent's to say and to note."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest

from agent_worker.call.person_notes import LAST_ANSWER, LAST_QUERY
from agent_worker.offline import OfflineServer
from agent_worker.tenure.assignment import Assignment
from agent_worker.tenure.role import AGENT_ROLE
from tests.support.sessions.answering import GREETING, Answer, Running, user
from tests.support.sessions.fakes_call import FakeParticipant, FakeRoom, World
from tests.support.sessions.fakes_room import FunctionScript
from tests.support.sessions.room_service import Asked
from tests.support.sessions.room_service import end_room as hang_up
from tests.worker.call.test_person_notes import Talk, decide

OTHER = "interpreter"


QUIET = {"greeting": "", "back_line": "", "farewell": "Goodbye."}
End = Callable[[Running], Awaitable[None]]


async def end_room(_running: Running) -> None:
    """Hang up."""
    await hang_up()


async def close(running: Running) -> None:
    """Leave the call to its agent."""
    await running.session.aclose()


class Pair:
    """The agent of a call, and an interpreter beside it."""

    def __init__(self, agent: Running, other: Running) -> None:
        """Both are there."""
        self.agent, self.other = agent, other


async def begin(stack: AsyncExitStack, answer: Answer, **given: Any) -> Pair:
    """Have the agent answer, and then the other one."""
    alice = FakeParticipant("alice", name="Ada")
    server = await stack.enter_async_context(OfflineServer(FunctionScript(decide)))
    agent = await stack.enter_async_context(answer(FakeRoom(alice), on=server, **given))
    await agent.session_is_calm()
    await agent.call.flush()
    assignment = Assignment(conversation_id="c", role=OTHER)
    beside = answer(FakeRoom(alice), "job-2", on=server, assignment=assignment, role=OTHER, **given)
    other = await stack.enter_async_context(beside)
    await other.session_is_calm()
    await other.call.flush()
    await other.session_is_calm()
    return Pair(agent, other)


async def test_who_comes_to_a_call_beside_its_agent_is_not_back(answer: Answer) -> None:
    """It has never been away; and the caller was greeted already."""
    async with AsyncExitStack() as stack:
        pair = await begin(stack, answer)
        assert (pair.agent.heard.lines, pair.other.heard.lines) == ([GREETING], [])


async def test_the_last_line_is_not_said_by_who_leaves_a_call_to_its_agent(answer: Answer) -> None:
    """An interpreter that is done has not ended the call."""
    async with AsyncExitStack() as stack:
        pair = await begin(stack, answer, greeting="", farewell="Goodbye.")
        await pair.other.session.aclose()
        assert pair.other.heard.lines == []
        await pair.agent.session.aclose()
        assert pair.agent.heard.lines == ["Goodbye."]


async def test_the_last_words_are_noted_by_the_agent(answer: Answer) -> None:
    """Another one hears the same words, and answers with others, or with none."""
    async with AsyncExitStack() as stack:
        pair = await begin(stack, answer, greeting="")
        talk, other = Talk(pair.agent), Talk(pair.other)
        await talk.ask("Where is it?")
        other.hear("Hvor er den?", language="da")
        await other.ask("Where is it?")
        await talk.call.flush()
        await other.call.flush()
        other.hear("When?")
        other.session._conversation_item_added(user("When?"))
        await other.session.aclose()
        await other.call.flush()
        assert await talk.context() == {LAST_QUERY: "Where is it?", LAST_ANSWER: "On its way."}
        assert await talk.language() is None


async def test_the_agent_that_comes_second_is_not_back_either(answer: Answer) -> None:
    """Whoever was there alone has greeted the caller."""
    alice = FakeParticipant("alice")
    async with answer(
        FakeRoom(alice), "job-2", assignment=Assignment(conversation_id="c", role=OTHER), role=OTHER
    ) as one:
        await one.hears(GREETING)
        async with answer(FakeRoom(alice), assignment=Assignment(conversation_id="c")) as agent:
            await agent.session_is_calm()
            await agent.call.flush()
            await agent.session_is_calm()
            assert (one.heard.lines, agent.heard.lines) == ([GREETING], [])


@pytest.mark.parametrize(("end", "lines"), [(end_room, ["Goodbye."]), (close, [])])
async def test_who_ends_the_call_for_all_says_the_last_line(
    answer: Answer, world: World, asked: Asked, end: End, lines: list[str]
) -> None:
    """Whatever its role, beside an agent elsewhere: nobody else gets to it."""
    assert asked == []
    handle = await world.cluster.handle()
    await handle.acquire_lease(AGENT_ROLE, holder="job-1", duration=timedelta(minutes=1))
    assignment = Assignment(conversation_id="c", role=OTHER)
    async with answer(FakeRoom(FakeParticipant("alice")), "job-2", assignment=assignment, role=OTHER, **QUIET) as other:
        await other.session_is_calm()
        await other.call.flush()
        await end(other)
        assert other.heard.lines == lines
    await handle.aclose()
