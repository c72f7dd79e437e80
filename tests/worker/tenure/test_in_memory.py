"""A whole call of an agent's on ``memory://``: lease, heartbeats, words and successor, without any server."""

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest

from agent_worker.settings import TakeoverSettings
from agent_worker.tenure.assignment import Assignment
from agent_worker.tenure.conversation import AGENT, CallConversation, Post
from conversation_actors import ConversationClient, Heartbeats, Settings
from conversation_actors.store import forget_memory
from conversation_actors.testing import crash
from tests.support.observation import texts, user
from tests.support.servers import wait_until


@pytest.fixture
async def store() -> AsyncIterator[Settings]:
    """Settings of a store of this test alone."""
    name = secrets.token_hex(8)
    yield Settings().in_memory(name)
    forget_memory(name)


def call_of(holder: str, store: Settings, assignment: Assignment | None = None) -> CallConversation:
    """The conversation as one agent's job has it."""
    return CallConversation(
        "c",
        holder=holder,
        post=Post(room="room", agent_name="support", agent_identity=holder),
        assignment=assignment or Assignment(conversation_id="c"),
        store=store,
        takeover=TakeoverSettings(heartbeat=timedelta(seconds=0.1)),
    )


async def test_a_call_goes_on_in_memory(store: Settings) -> None:
    """What the agent records outlives its owner's crash; it beats while it lives; its successor deposes it."""
    async with AsyncExitStack() as stack:
        first = call_of("job-1", store)
        stack.push_async_callback(first.aclose)
        assert await first.open()
        first.record(user("one"))
        await first.flush()
        await crash("c")
        first.record(user("two"))
        await first.flush()
        heartbeats = await stack.enter_async_context(Heartbeats(store))

        async def beats() -> bool:
            record = await heartbeats.find("c")
            return record is not None and record.holder == "job-1"

        await wait_until(beats, "the agent's heartbeat")
        second = call_of("job-2", store, Assignment(conversation_id="c", replaces="job-1"))
        stack.push_async_callback(second.aclose)
        assert await second.open()
        await first.deposed.wait()
        second.record(user("three"))
        await second.flush()
        client = await stack.enter_async_context(ConversationClient(store))
        read = await client.read("c")
        assert texts(read.items) == ["one", "two", "three"]
        assert read.attributes[AGENT]["holder"] == "job-2"
        await second.release()
