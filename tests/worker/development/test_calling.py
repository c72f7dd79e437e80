"""Who calls in a call in text: greeted when they call again, and not when another process goes on with their call."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest

from agent_worker.development.calling import calling
from agent_worker.development.talk import Report
from conversation_actors import ConversationHandle, SessionRecord
from conversation_actors.calls import CallFold
from conversation_actors.calls.happenings import SESSION_RECORDED
from conversation_actors.calls.names import CALL
from conversation_actors.store import MemoryStore
from tests.support.fakes import PATIENCE, FakeCluster, brief

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


async def test_who_answers_is_the_agent_of_calls_that_are_recorded(handle: ConversationHandle) -> None:
    """One that was killed is followed by the next, in the same call, which has ended when that one has."""
    watching = handle.watch(after_seq=0)
    await call(handle, is_killed=True)
    await call(handle)
    assert "agent" not in handle.leases
    await call(handle)
    fold = CallFold(handle.id, "life", idle=600.0)
    told = []
    async with asyncio.timeout(PATIENCE):
        async for entry in watching:
            told += fold.take(entry)
            if entry.seq == handle.seq:
                break
    await watching.aclose()
    records = [SessionRecord.from_dict(one.data) for one in told + fold.pass_time(1e12) if one.type == SESSION_RECORDED]
    assert [(one.end_reason, one.crashes, one.take_overs) for one in records] == [
        ("completed", 1, 1),
        ("completed", 0, 0),
    ]
    assert [[one.identity for one in record.participants] for record in records] == [["ada"], ["ada"]]


async def test_a_call_that_has_an_agent_in_a_room_keeps_it(handle: ConversationHandle) -> None:
    """Whoever answers in text is nobody's successor then, and does not end the call."""
    lease = await handle.acquire_lease("agent", holder="job-1", duration=timedelta(minutes=1))
    await call(handle)
    assert handle.leases["agent"].holder == lease.holder
    assert CALL not in handle.attributes


async def test_without_a_name_nobody_is_noted(handle: ConversationHandle) -> None:
    """The call is as it always was."""
    assert await call(handle, None) == {"line": ""}
    assert not handle.participants
