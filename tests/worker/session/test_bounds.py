"""A session that goes on for ever remembers so much and no more."""

import asyncio
import time
from itertools import count, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit.agents import Agent, AgentSession, AgentStateChangedEvent
from livekit.agents.llm import ChatContext, ChatItem, ChatMessage, FunctionCall, FunctionCallOutput

from agent_worker.example.agent import SupportAgent
from agent_worker.failures import Failures
from agent_worker.offline import OfflineServer
from agent_worker.offline.script import ChatRequest, Reply, RequestedCall
from agent_worker.session.bounds import SessionBounds, cut
from tests.support.fakes import turns
from tests.support.sessions.fakes_room import FunctionScript
from tests.worker.conftest import SessionFactory

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


async def test_a_thousand_turns_stay_within_the_bounds(server: OfflineServer, new_session: SessionFactory) -> None:
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


async def test_requests_of_spoken_turns_stop_growing(new_session: SessionFactory) -> None:
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


async def test_a_history_is_cut_seldom_and_by_more_than_has_to_go(
    server: OfflineServer, new_session: SessionFactory
) -> None:
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


async def test_nothing_is_cut_until_the_agent_falls_silent(server: OfflineServer, new_session: SessionFactory) -> None:
    """Nothing is cut off under a speech; nor after `stop`."""
    session = await new_session(server)
    bounds = SessionBounds(session, 8)
    bounds.start()
    await session.start(Agent(instructions="x"), record=False)
    await falls_silent(session)
    for number in range(30):
        session.history.insert(ChatMessage(role="user", content=[str(number)], created_at=float(number)))
    session.emit("agent_state_changed", AgentStateChangedEvent(old_state="listening", new_state="thinking"))
    await turns()
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


async def test_system_messages_are_never_cut(server: OfflineServer, new_session: SessionFactory) -> None:
    """What the application put into the context is there after any number of turns, where it was."""
    context = ChatContext.empty()
    context.add_message(role="system", content="Pinned first.")
    session, agent = await new_session(server), Agent(instructions="x", chat_ctx=context)
    SessionBounds(session, 20).start()
    await session.start(agent, record=False)
    for number in range(60):
        context = agent.chat_ctx.copy()
        if number == 30:
            context.add_message(role="developer", content="Pinned later.", created_at=time.time())
        for item in turn(number):
            session.history.insert(item)
            context.insert(item)
        await agent.update_chat_ctx(context, exclude_invalid_function_calls=False)
        await falls_silent(session)
    spoken = [message.text_content for message in agent.chat_ctx.messages()]
    assert spoken[:3] == ["x", "Pinned first.", "Pinned later."]
    assert spoken[-1] == "answer 59"
    assert len(spoken) < 20


def words_of(items: list[ChatItem]) -> list[ChatMessage]:
    """The messages."""
    return [item for item in items if item.type == "message"]


_items = st.lists(st.sampled_from(["user", "assistant", "system", "call", "output", "orphan"]), max_size=60)


def made(kinds: list[str]) -> list[ChatItem]:
    """A history in which each output is of the oldest call that has none; others are of calls that are not there."""
    items: list[ChatItem] = []
    waiting: list[str] = []
    for number, kind in enumerate(kinds):
        if kind == "call":
            waiting.append(f"c{number}")
            items.append(FunctionCall(call_id=waiting[-1], name="t", arguments="{}"))
        elif kind in {"output", "orphan"}:
            call_id = waiting.pop(0) if waiting and kind == "output" else f"o{number}"
            items.append(FunctionCallOutput(call_id=call_id, name="t", output="x", is_error=False))
        else:
            items.append(ChatMessage(role=kind, content=[str(number)]))  # type: ignore[arg-type]  # one of the roles
    return items


@given(_items, st.integers(1, 30))
def test_any_history_is_cut_to_whole_turns_and_whole_calls(kinds: list[str], most: int) -> None:
    """The newest, in order, and system messages; no call before the first turn, and no output without its call."""
    items = made(kinds)
    left = cut(items, most)
    assert [item for item in items if item in left] == left
    pinned = [item for item in items if item.type == "message" and item.role == "system"]
    others = [item for item in left if item not in pinned]
    assert [item for item in left if item in pinned] == pinned[-most:]
    assert len(others) <= most
    first = next((index for index, item in enumerate(others) if getattr(item, "role", "") == "user"), len(others))
    assert {item.type for item in others[:first]} <= {"message"}
    outputs = {item.call_id for item in others if item.type == "function_call_output"}
    gone = {item.call_id for item in items if item.type == "function_call" and item not in left}
    assert not outputs & gone
    newest = [item for item in items if item not in pinned][-most:]
    spoken = [item for item in newest if item.type == "message"]
    assert [item for item in others if item.type == "message"] == spoken[len(spoken) - len(words_of(others)) :]
    turns = [item for item in spoken if item.role == "user"]
    assert [item for item in words_of(others) if item.role == "user"] == turns
    if others:  # what is left is the end: from its middle only what belongs to calls that are gone
        cut_off = {item.call_id for item in items if item.type == "function_call" and item not in others}
        behind = newest[newest.index(others[0]) :]
        assert [item for item in behind if getattr(item, "call_id", None) not in cut_off] == others


class _Realtime(Agent):
    """An agent whose context is kept by its model, without instructions."""

    def __init__(self) -> None:
        """Nothing was sent."""
        super().__init__(instructions="x")
        self.sent: list[list[str]] = []

    async def update_chat_ctx(self, chat_ctx: ChatContext, *, exclude_invalid_function_calls: bool = True) -> None:
        """Send all but the instructions, as LiveKit does for such a model."""
        kept = [item for item in chat_ctx.items if not item.id.startswith("lk.")]
        self.sent.append([item.id for item in kept])
        await super().update_chat_ctx(ChatContext(kept), exclude_invalid_function_calls=exclude_invalid_function_calls)


async def test_pinned_messages_stay_in_a_context_without_instructions(
    server: OfflineServer, new_session: SessionFactory
) -> None:
    """Where the instructions are not in the context, what was pinned stays all the same."""
    session, agent = await new_session(server), _Realtime()
    SessionBounds(session, 20).start()
    await session.start(agent, record=False)
    items: list[ChatItem] = [ChatMessage(id="pinned", role="system", content=["Pinned."])]
    for number in range(20):
        items += turn(number)
    await agent.update_chat_ctx(ChatContext(items), exclude_invalid_function_calls=False)
    await falls_silent(session)
    assert agent.sent[-1][0] == "pinned"
    assert len(agent.sent[-1]) <= 16
