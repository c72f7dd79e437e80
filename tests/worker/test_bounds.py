"""A session that goes on for ever remembers so much and no more."""

import asyncio
import time
from itertools import count, pairwise
from typing import Any

import pytest
from livekit.agents import Agent, AgentSession, AgentStateChangedEvent
from livekit.agents.llm import ChatItem, ChatMessage, FunctionCall, FunctionCallOutput

from agent_worker.example.agent import SupportAgent
from agent_worker.failures import Failures
from agent_worker.offline import OfflineServer
from agent_worker.offline.script import ChatRequest, Reply, RequestedCall
from agent_worker.session.bounds import SessionBounds
from tests.worker.conftest import SessionFactory
from tests.worker.fakes import FunctionScript

ITEMS = 40
MOST = ITEMS


def turn(number: int) -> list[ChatItem]:
    """A question, a tool call with its output, and an answer."""
    at, call = time.time(), f"c{number}"
    return [
        ChatMessage(role="user", content=[f"question {number}"], created_at=at),
        FunctionCall(id=f"i{number}/fnc_0", call_id=call, name="t", arguments="{}", created_at=at),
        FunctionCallOutput(call_id=call, name="t", output="done", is_error=False, created_at=at),
        ChatMessage(role="assistant", content=[f"answer {number}"], created_at=at),
    ]


def assert_paired(items: list[ChatItem]) -> None:
    """Every call has its output behind it, and no output stands alone."""
    calls = [item.call_id for item in items if item.type == "function_call"]
    outputs = [item.call_id for item in items if item.type == "function_call_output"]
    assert calls == outputs


async def falls_silent(session: AgentSession[None]) -> None:
    """The agent listens again; return when all has been done about it."""
    session.emit("agent_state_changed", AgentStateChangedEvent(old_state="speaking", new_state="listening"))
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_thousand_turns(server: OfflineServer, new_session: SessionFactory) -> None:
    """History and context stay within the bounds at every turn, calls keep their outputs, the end is there."""
    session, agent = await new_session(server), SupportAgent()
    await session.start(agent, record=False)
    SessionBounds(session, ITEMS).start()
    for number in range(1000):
        context = agent.chat_ctx.copy()
        for item in turn(number):
            session.history.insert(item)
            context.insert(item)
        await agent.update_chat_ctx(context, exclude_invalid_function_calls=False)
        await falls_silent(session)
        for items in (session.history.items, agent.chat_ctx.items):
            assert len(items) <= MOST + 1
            assert_paired(items)
    for items in (session.history.items, agent.chat_ctx.items):
        assert len([item for item in items if item.type == "function_call"]) >= 7, "calls of tools it does not have"
        last = items[-1]
        assert isinstance(last, ChatMessage)
        assert last.text_content == "answer 999"
    assert next(message.role for message in agent.chat_ctx.messages()) == "system"


async def test_turns_that_are_really_spoken(new_session: SessionFactory) -> None:
    """Requests to the model stop growing; each begins with the instructions, and is one that OpenAI would take."""
    numbers = count()

    def decide(request: ChatRequest) -> Reply:
        if request.messages[-1]["role"] == "tool":
            return Reply("Done.")
        call = RequestedCall(f"c{next(numbers)}", "look_up_order", '{"order_id": "A-1042"}')
        return Reply("", (call,))

    async with OfflineServer(FunctionScript(decide)) as server:
        session = await new_session(server)
        SessionBounds(session, 12).start()
        await session.start(SupportAgent(), record=False)
        for number in range(30):
            await session.run(user_input=f"Where is it, {number}?")
        sizes = [len(body["messages"]) for body in server.requests]
        assert max(sizes) <= 12 + 5
        assert max(sizes[30:]) == max(sizes[:30])
        assert {body["messages"][0]["role"] for body in server.requests} == {"system"}
        assert server.accepted == 60


async def test_not_at_every_turn(server: OfflineServer, new_session: SessionFactory) -> None:
    """It is cut to less than the bound, and then left alone for a while: a provider's cache knows the beginning."""
    session = await new_session(server)
    SessionBounds(session, ITEMS).start()
    await session.start(Agent(instructions="x"), record=False)
    session.history.items.clear()
    lengths = []
    for number in range(100):
        session.history.insert(ChatMessage(role="user", content=[str(number)], created_at=float(number)))
        await falls_silent(session)
        lengths.append(len(session.history.items))
    assert max(lengths) == 38
    assert sum(1 for before, after in pairwise(lengths) if after < before) == 7
    assert min(lengths[38:]) == 30


async def test_only_when_the_agent_falls_silent(server: OfflineServer, new_session: SessionFactory) -> None:
    """Nothing is cut off under a speech; nor after `stop`."""
    session = await new_session(server)
    bounds = SessionBounds(session, 8)
    bounds.start()
    await session.start(Agent(instructions="x"), record=False)
    await falls_silent(session)
    for number in range(30):
        session.history.insert(ChatMessage(role="user", content=[str(number)], created_at=float(number)))
    session.emit("agent_state_changed", AgentStateChangedEvent(old_state="listening", new_state="thinking"))
    await asyncio.sleep(0)
    assert len(session.history.items) >= 30
    bounds.stop()
    await falls_silent(session)
    assert len(session.history.items) >= 30


async def test_a_cut_that_fails_costs_nobody_the_call(
    server: OfflineServer,
    new_session: SessionFactory,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is counted, told without words of the call, and tried again."""
    session, agent = await new_session(server), Agent(instructions="x")
    failures = Failures()
    SessionBounds(session, 8, failures).start()
    await session.start(agent, record=False)

    async def broken(*_arguments: Any, **_named: Any) -> None:
        message = "private words"
        raise TypeError(message)

    monkeypatch.setattr(agent, "update_chat_ctx", broken)
    for number in range(30):
        agent._chat_ctx.items.append(ChatMessage(role="user", content=[str(number)], created_at=float(number)))
    await falls_silent(session)
    assert "was not cut" in caplog.text
    assert "private words" not in caplog.text
    assert failures.counts == {"bounds": 1}
    monkeypatch.undo()
    await falls_silent(session)
    assert len(agent.chat_ctx.items) <= 10
