"""LiveKit's console, and its fake jobs in tests: the agent runs as if nothing was attached to it."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from livekit.agents import Agent, JobContext, function_tool
from livekit.agents.testing import fake_job_context
from livekit.api.room_service import RoomService

from agent_worker.call.attach import attach
from agent_worker.call.opening import open_conversation
from agent_worker.offline import OfflineServer
from agent_worker.offline.script import ChatRequest, Reply, RequestedCall
from agent_worker.tenure.conversation import CallConversation
from conversation_actors.errors import InvalidInputError
from tests.support.sessions.fake_conversation import FunctionScript
from tests.worker.conftest import SessionFactory

AT_ONCE = 1.0


@pytest_asyncio.fixture
async def context(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[JobContext]:
    """A job of LiveKit's own for tests, without a key; there is no Redis, and no Ray."""
    monkeypatch.setenv("CONVERSATION_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.delenv("LIVEKIT_API_KEY", raising=False)
    with fake_job_context() as made:
        yield made
        made._tempdir.cleanup()


class Clerk(Agent):
    """Has a tool."""

    def __init__(self) -> None:
        """Nothing looked up yet."""
        super().__init__(instructions="x")
        self.looked = 0

    @function_tool
    async def look(self) -> str:
        """Look it up."""
        self.looked += 1
        return "found"


def looks(request: ChatRequest) -> Reply:
    """Call the tool, then tell what it found."""
    last = request.messages[-1]
    if last["role"] == "user":
        return Reply("", (RequestedCall("c1", "look", "{}"),))
    return Reply(f"It is {last['content']}.")


async def test_the_session_starts_as_it_is(
    context: JobContext, new_session: SessionFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """At once, without a key; its tools run; nothing of it is wrapped or recorded; one line says so."""
    caplog.set_level(logging.INFO)
    delete = RoomService.delete_room
    agent = Clerk()
    async with OfflineServer(FunctionScript(looks)) as server:
        session = await new_session(server)
        start, say, close, shut_down = session.start, session.say, session.aclose, context.shutdown
        async with asyncio.timeout(AT_ONCE):
            conversation = await attach(session, context)
        assert [line.message for line in caplog.records if line.name.startswith("agent_worker")] == [
            "a fake job: the agent runs as it is, nothing is recorded and nobody follows it"
        ]
        await session.start(agent=agent, record=False)
        assert (session.start, session.say, session.aclose, context.shutdown) == (start, say, close, shut_down)
        await session.run(user_input="Where is it?")
        assert agent.looked == 1
        assert session.history.messages()[-1].text_content == "It is found."
        assert (conversation.is_open, conversation.is_restart, conversation.items) == (False, False, ())
        assert conversation.restart_reason is None
        assert not conversation.is_waiting_for_handover
        await session.aclose()
    assert RoomService.delete_room is delete
    assert conversation.failures.counts == {}


async def fail(conversation: CallConversation) -> None:
    """Fail at what is to be done once."""
    async with conversation.once("dial") as todo:
        assert todo
        message = "busy"
        raise ValueError(message)


async def test_what_is_done_once_is_done(
    context: JobContext, new_session: SessionFactory, server: OfflineServer
) -> None:
    """In each run anew, at once; and not twice in one."""
    conversation = await attach(await new_session(server), context)
    async with asyncio.timeout(AT_ONCE):
        with pytest.raises(ValueError, match="busy"):
            await fail(conversation)
        for is_due in (True, False):
            async with conversation.once("dial") as todo:
                assert bool(todo) is is_due
                assert not todo.is_unknown
        with pytest.raises(InvalidInputError):
            async with conversation.once(""):
                pass


async def test_the_long_form_too(context: JobContext, new_session: SessionFactory, server: OfflineServer) -> None:
    """Whatever the application does with the conversation returns at once, and is forgotten."""
    agent = Clerk()
    session = await new_session(server)
    start = session.start
    async with asyncio.timeout(AT_ONCE):
        conversation = await open_conversation(context, role="interpreter")
        attached = await attach(session, agent, conversation, room=context.room)
        assert (attached.restored.items, conversation.role) == (0, "interpreter")
        conversation.note("order", {"id": 1})
        conversation.ready()
        await conversation.wait_open()
        await conversation.flush()
        await conversation.settled()
        assert await conversation.is_durable(10.0)
        assert await conversation.confirm()
    assert session.start == start
    assert attached.recorder.recorded == 0


async def test_its_end_is_the_end_of_the_call(
    context: JobContext, new_session: SessionFactory, server: OfflineServer
) -> None:
    """So the application's own callbacks do what they do in a call that is over."""
    conversation = await attach(await new_session(server), context)
    assert (conversation.is_over, conversation.goes_on_elsewhere) == (False, False)
    for callback in context._shutdown_callbacks:
        await callback("user requested")
    assert (conversation.is_over, conversation.goes_on_elsewhere) == (True, False)
