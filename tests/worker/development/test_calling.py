"""Who calls in a call in text: greeted when they call again, and not when another process goes on with their call."""

import io
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from agent_worker.development.calling import calling
from agent_worker.development.talk import Report
from conversation_actors import ConversationHandle
from conversation_actors.store import MemoryStore
from tests.support.fakes import FakeCluster, brief

WELCOME = "Welcome back. Shall we go on where we left off?"


@pytest.fixture
async def handle() -> AsyncIterator[ConversationHandle]:
    """A new conversation."""
    async with FakeCluster(MemoryStore(), brief()) as cluster:
        yield await cluster.handle()


async def call(handle: ConversationHandle, caller: str | None = "ada", *, is_killed: bool = False) -> dict[str, Any]:
    """Hold one call; return what was told of the arrival, with the line to say."""
    out = io.StringIO()
    async with AsyncExitStack() as stack:
        line = await stack.enter_async_context(calling(handle, caller, Report(out)))
        if is_killed:
            stack.pop_all()  # nothing of it happens any more
    told = [json.loads(one) for one in out.getvalue().splitlines()]
    assert [one["event"] for one in told] == (["arrived"] if is_killed else ["arrived", "left"] if caller else [])
    return {"line": line, **{name: told[0][name] for name in ("welcome", "visits") if told}}


async def test_who_calls_again_is_welcomed_back(handle: ConversationHandle) -> None:
    """With the second call; the first begins with the caller's own words."""
    assert await call(handle) == {"line": "", "welcome": "first", "visits": 1}
    assert await call(handle) == {"line": WELCOME, "welcome": "back", "visits": 2}
    assert not handle.participants["ada"].connected


async def test_another_process_goes_on_with_the_call(handle: ConversationHandle) -> None:
    """The one before was killed, and its caller is still there: nobody is greeted, until they call again."""
    await call(handle, is_killed=True)
    assert await call(handle) == {"line": "", "welcome": "resume", "visits": 1}
    assert await call(handle) == {"line": WELCOME, "welcome": "back", "visits": 2}


async def test_without_a_name_nobody_is_noted(handle: ConversationHandle) -> None:
    """The call is as it always was."""
    assert await call(handle, None) == {"line": ""}
    assert not handle.participants
