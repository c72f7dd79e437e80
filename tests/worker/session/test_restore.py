"""Restoring: a new agent goes on where the old one was, with all it knew."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from livekit.agents import Agent, AgentSession, llm
from livekit.agents.llm import (
    AgentHandoff,
    ChatContext,
    ChatItem,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
)

from agent_worker.call.attach import attach
from agent_worker.example.agent import SupportAgent
from agent_worker.offline import OfflineServer
from agent_worker.offline.transcript import Transcript
from agent_worker.session.recorder import Recorder
from agent_worker.session.restoration import INTERRUPTED_OUTPUT, restore, restore_late
from agent_worker.session.serialise import to_fields
from agent_worker.session.stored_items import to_livekit
from conversation_actors.items import Item, Message, item_from_dict
from tests.support.sessions.fakes_room import FakeConversation
from tests.worker.conftest import SessionFactory, Starter

Say = Callable[[AgentSession[None], str], Awaitable[str]]


def _conversation(*items: ChatItem) -> FakeConversation:
    conversation = FakeConversation()
    for item in items:
        conversation.record(item_from_dict(to_fields(item)))
    return conversation


def _call(number: int, **fields: Any) -> FunctionCall:
    return FunctionCall(id=f"item_{number}/fnc_0", call_id=f"c{number}", name="t", arguments="{}", **fields)


def _output(number: int, **fields: Any) -> FunctionCallOutput:
    fields = {"output": "done", "is_error": False, **fields}
    return FunctionCallOutput(call_id=f"c{number}", name="t", **fields)


def _said(text: str, **fields: Any) -> ChatMessage:
    return ChatMessage(role="user", content=[text], **fields)


async def test_a_new_agent_goes_on_at_the_right_place(
    server: OfflineServer, transcript: Transcript, started: Starter, say: Say
) -> None:
    """The second agent's first request to the model holds all that was said and done, tool pairs included."""
    conversation = FakeConversation()
    async with started(server, SupportAgent(), conversation) as (first, _):
        for turn in transcript.turns[:10]:
            await say(first, turn.user)
    async with started(server, SupportAgent(), conversation) as (second, attached):
        for turn in transcript.turns[10:]:
            assert await say(second, turn.user) == turn.reply
    assert attached.restored.unreadable == attached.restored.left_out == 0
    sent = next(body for body in server.requests if body["messages"][-1].get("content") == transcript.turns[10].user)
    uses = [use for turn in transcript.turns[:10] for step in turn.steps for use in step.calls]
    assert [m["content"] for m in sent["messages"] if m["role"] == "tool"] == [use.output for use in uses]
    assert [m["content"] for m in sent["messages"] if m["role"] == "user"] == [t.user for t in transcript.turns[:11]]


async def test_the_history_comes_back_as_it_was(
    server: OfflineServer, transcript: Transcript, started: Starter, say: Say, new_session: SessionFactory
) -> None:
    """Ids, order, times and every field of the new session's history are those of the old one's."""
    conversation = FakeConversation()
    async with started(server, SupportAgent(), conversation) as (first, _):
        for turn in transcript.turns:
            await say(first, turn.user)
    second = await new_session(server)
    restored = await restore(second, SupportAgent(), conversation)
    old = [to_fields(item) for item in first.history.items if item.type != "agent_config_update"]
    assert [to_fields(item) for item in second.history.items] == old
    assert restored.items == len(old)
    assert (restored.function_calls, restored.function_call_outputs) == (12, 12)


async def test_calls_of_tools_the_new_agent_lacks_are_sent_all_the_same(
    server: OfflineServer, started: Starter
) -> None:
    """LiveKit's own way would drop them, and the model would not know what was done."""
    conversation = _conversation(_said("Hi"), _call(1), _output(1))
    async with started(server, Agent(instructions="x"), conversation) as (session, _):
        await session.generate_reply()
    assert [message["role"] for message in server.requests[-1]["messages"]] == ["system", "user", "assistant", "tool"]


async def test_an_interrupted_tool_call_is_told_to_the_new_agent(
    server: OfflineServer, transcript: Transcript, started: Starter
) -> None:
    """A call without an output gets one that says so, in request, history and conversation; it is not run."""
    use = transcript.turns[1].steps[0].calls[0]
    items: list[ChatItem] = [
        _said(transcript.turns[0].user),
        ChatMessage(role="assistant", content=[transcript.turns[0].reply]),
        _said(transcript.turns[1].user),
        FunctionCall(id="item_9/fnc_0", call_id="c9", name=use.name, arguments='{"order_id": "A-1024"}'),
    ]
    conversation = _conversation(*items)
    async with started(server, SupportAgent(), conversation) as (session, attached):
        await session.generate_reply()
    assert len(attached.restored.interrupted_calls) == 1
    told = [message for message in server.requests[-1]["messages"] if message["role"] == "tool"]
    assert [(message["tool_call_id"], message["content"]) for message in told] == [("c9", INTERRUPTED_OUTPUT)]
    outputs = [item.to_dict() for item in conversation.items if item.type == "function_call_output"]
    assert [(output["call_id"], output["is_error"]) for output in outputs] == [("c9", True)]
    assert server.accepted == 1


async def test_an_interruption_is_settled_once(server: OfflineServer, new_session: SessionFactory) -> None:
    """A second take-over finds the first one's output and makes up no other."""
    conversation = _conversation(_said("Hi"), _call(1))
    await attach(await new_session(server), SupportAgent(), conversation)
    again = await attach(await new_session(server), SupportAgent(), conversation)
    assert again.restored.interrupted_calls == ()
    assert [item.type for item in conversation.items] == ["message", "function_call", "function_call_output"]


async def test_a_late_real_output_replaces_the_made_up_one(server: OfflineServer, new_session: SessionFactory) -> None:
    """A deposed agent's tool may still have ended; two outputs of one call would be refused by the model."""
    conversation = _conversation(_said("Hi"), _call(1))
    await attach(await new_session(server), SupportAgent(), conversation)
    conversation.record(item_from_dict(to_fields(_output(1, id="real"))))
    session = await new_session(server)
    restored = await restore(session, SupportAgent(), conversation)
    assert [item.id for item in session.history.items if item.type == "function_call_output"] == ["real"]
    assert restored.duplicate_outputs == 1


async def test_a_clock_that_was_ahead_does_not_change_the_order(
    server: OfflineServer, transcript: Transcript, started: Starter, say: Say
) -> None:
    """Items stamped two hours in the future stay before the new user message, in the conversation's order."""
    ahead = time.time() + 7200
    turn = transcript.turns[0]
    reply = ChatMessage(role="assistant", content=[turn.reply], created_at=ahead - 60)
    conversation = _conversation(_said(turn.user, created_at=ahead), reply)
    async with started(server, SupportAgent(), conversation) as (session, _):
        await say(session, transcript.turns[1].user)
    first = next(body["messages"] for body in server.requests)
    said = [message["content"] for message in first if message["role"] != "system"]
    assert said == [turn.user, turn.reply, transcript.turns[1].user]
    times = [item.created_at for item in session.history.items]
    assert times == sorted(times)


async def test_what_livekit_cannot_read_is_skipped_and_counted(
    server: OfflineServer, new_session: SessionFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """A foreign kind and a broken item cost only themselves, and are not quoted in the log."""
    conversation = _conversation(_said("one"), _said("two"))
    conversation.record(item_from_dict({"type": "hologram", "id": "x", "text": "private words"}))
    conversation.record(item_from_dict({"type": "message", "id": "y", "role": "user", "content": [{"type": "smell"}]}))
    session = await new_session(server)
    restored = await restore(session, SupportAgent(), conversation)
    assert (restored.messages, restored.unreadable) == (2, 2)
    assert "private words" not in caplog.text


async def test_items_of_other_writers_are_read(server: OfflineServer, new_session: SessionFactory) -> None:
    """Text content, an output without `is_error`, and an instruction that somebody appended."""
    conversation = FakeConversation()
    conversation.record(Message(role="user", content="Hello"))
    conversation.record(Message(role="system", content="The caller prefers German."))
    conversation.record(item_from_dict(to_fields(_call(1))))
    conversation.record(item_from_dict({"type": "function_call_output", "id": "o", "call_id": "c1", "output": "x"}))
    session = await new_session(server)
    restored = await restore(session, SupportAgent(), conversation)
    assert (restored.messages, restored.function_call_outputs, restored.unreadable) == (2, 1, 0)


async def test_ids_with_a_common_head_do_not_break_every_request(server: OfflineServer, started: Starter) -> None:
    """LiveKit asserts that there is one message for what is before a slash in an id."""
    spoken = [ChatMessage(id=f"support/{n}", role="assistant", content=[f"{n}"]) for n in range(3)]
    async with started(server, SupportAgent(), _conversation(*spoken, _said("Hi"))) as (session, _):
        handle = session.generate_reply()
        await handle
    assert handle.exception() is None
    assert [m["content"] for m in server.requests[-1]["messages"] if m["role"] == "assistant"] == ["0", "1", "2"]


async def test_words_stand_before_the_calls_of_their_reply(server: OfflineServer, new_session: SessionFactory) -> None:
    """Recorded is the call first (before its tool runs), then what was said meanwhile; LiveKit has it the other way."""
    words = ChatMessage(id="item_1", role="assistant", content=["One moment."])
    session = await new_session(server)
    await restore(session, SupportAgent(), _conversation(_said("Hi"), _call(1), words, _output(1)))
    kinds = [item.type for item in session.history.items]
    assert kinds == ["message", "message", "function_call", "function_call_output"]


async def test_restoring_a_running_session_is_refused(server: OfflineServer, started: Starter) -> None:
    """It would have two histories in one."""
    async with started(server, SupportAgent(), FakeConversation()) as (session, _):
        with pytest.raises(RuntimeError, match="before session"):
            await attach(session, SupportAgent(), FakeConversation())


def _briefed() -> Agent:
    """An agent that the application gives something to go by."""
    context = ChatContext.empty()
    context.add_message(role="system", content="The caller is called Anna.")
    context.add_message(role="assistant", content="An example.")
    return Agent(instructions="x", chat_ctx=context)


async def test_the_context_that_an_agent_was_made_with_stays_in_front(server: OfflineServer, started: Starter) -> None:
    """In front of the history, in the first call as in any other."""
    async with started(server, _briefed(), FakeConversation()) as (session, _):
        await session.generate_reply()
    conversation = _conversation(_said("Hi", created_at=1.0), _call(1, created_at=2.0), _output(1, created_at=3.0))
    async with started(server, _briefed(), conversation) as (session, _):
        await session.generate_reply()
    first, second = ([message["role"] for message in body["messages"]] for body in server.requests)
    assert first == ["system", "system", "assistant"]
    assert second == [*first, "user", "assistant", "tool"]


async def test_what_the_agent_was_made_with_is_there_once(server: OfflineServer, new_session: SessionFactory) -> None:
    """An item that is in the history too is the history's."""
    said = _said("Hi")
    agent = Agent(instructions="x", chat_ctx=ChatContext([said]))
    session = await new_session(server)
    await restore(session, agent, _conversation(_said("Before", created_at=1.0), said))
    assert [item.text_content for item in agent.chat_ctx.messages()] == ["Before", "Hi"]


async def test_a_late_conversation_comes_behind_what_the_agent_was_made_with(
    server: OfflineServer, new_session: SessionFactory
) -> None:
    """The order is that of a restore in time; what was said meanwhile comes last."""
    session, agent = await new_session(server), _briefed()
    await session.start(agent, record=False)
    await session.run(user_input="Late")
    conversation = _conversation(_said("Hi"), ChatMessage(role="assistant", content=["Hello."]))
    await restore_late(session, conversation)
    await session.generate_reply()
    sent = [str(message["content"]) for message in server.requests[-1]["messages"]]
    assert [*sent[:6]] == ["x", "The caller is called Anna.", "An example.", "Hi", "Hello.", "Late"]
    assert [item.text_content for item in session.history.messages()][:3] == ["Hi", "Hello.", "Late"]


_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_ids = st.text("abcdefghijklmnop0123456789_/", min_size=1, max_size=12).map(lambda text: "item_" + text)
_times = st.floats(0, 4e9)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=5,
)
_extras = st.dictionaries(_text, _json, max_size=2)
_images = st.builds(
    ImageContent,
    image=st.sampled_from(["https://example.com/a.jpg", "data:image/jpeg;base64,AAAA"]),
    inference_detail=st.sampled_from(["auto", "high", "low"]),
    mime_type=st.none() | st.just("image/png"),
)
_breakpoints = [st.builds(kind) for kind in [getattr(llm, "CacheBreakpoint", None)] if kind]
"""Content that the oldest releases of livekit-agents do not have."""
_messages = st.builds(
    ChatMessage,
    id=_ids,
    role=st.sampled_from(["system", "developer", "user", "assistant"]),
    content=st.lists(st.one_of(_text, _images, *_breakpoints), max_size=3),
    interrupted=st.booleans(),
    transcript_confidence=st.none() | st.floats(0, 1),
    extra=_extras,
    metrics=st.fixed_dictionaries(
        {}, optional={"llm_node_ttft": st.floats(0, 9), "provider_request_ids": st.lists(_text)}
    ),
    created_at=_times,
)
_calls = st.builds(
    FunctionCall,
    id=_ids,
    call_id=_ids,
    name=_text,
    arguments=_text,
    extra=_extras,
    group_id=st.none() | _ids,
    created_at=_times,
)
_outputs = st.builds(
    FunctionCallOutput,
    id=_ids,
    call_id=_ids,
    name=_text,
    output=_text,
    is_error=st.booleans(),
    reply_required=st.booleans(),
    created_at=_times,
)
_handoffs = st.builds(AgentHandoff, id=_ids, old_agent_id=st.none() | _text, new_agent_id=_text, created_at=_times)


@settings(max_examples=60, deadline=None)
@given(st.one_of(_messages, _calls, _outputs, _handoffs))
def test_every_kind_of_item_makes_the_round_trip(item: ChatItem) -> None:
    """LiveKit → stored bytes → LiveKit: `ChatContext.to_dict` before and after are equal."""

    def livekit(one: ChatItem) -> Any:
        return ChatContext([one]).to_dict(exclude_image=False, exclude_audio=False, exclude_timestamp=False)

    stored = item_from_dict(to_fields(item))
    back = to_livekit(item_from_dict(stored.to_dict()))
    assert back is not None
    assert livekit(back) == livekit(item)
    assert stored.to_dict() == livekit(item)["items"][0]


class _StoredConversation(FakeConversation):
    """A conversation whose items have been bytes."""

    @property
    def items(self) -> tuple[Item, ...]:
        """What is stored, decoded."""
        return tuple(item.to_stored(limit=1 << 20).to_item() for item in super().items)


def _exchange(number: int, call: FunctionCall, output: FunctionCallOutput) -> list[ChatItem]:
    call_id = f"call{number}"
    return [
        call.model_copy(update={"id": f"item_c{number}/fnc_0", "call_id": call_id}),
        output.model_copy(update={"id": f"item_o{number}", "call_id": call_id, "name": call.name}),
    ]


def _history(parts: list[Any]) -> list[ChatItem]:
    """A history as LiveKit has one: every id once, every call with its output behind it, and behind a question."""
    items: list[ChatItem] = [_said("Hello", id="item_first")]
    for number, part in enumerate(parts):
        if isinstance(part, tuple):
            items += _exchange(number, *part)
        else:
            items.append(part.model_copy(update={"id": f"item_{number}"}))
    return items


_spoken = _messages.filter(lambda message: message.role in {"user", "assistant"})
_histories = st.lists(_spoken | _handoffs | st.tuples(_calls, _outputs), max_size=8).map(_history)


def _in_context(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of a history, what an agent's context has: neither who had the word nor what is blank."""
    kept = []
    for item in items:
        parts = [part for part in item.get("content", ()) if not isinstance(part, str) or part.strip()]
        says_something = any(isinstance(part, str) or part["type"] == "image_content" for part in parts)
        if item["type"] == "message" and says_something:
            kept.append({**item, "content": parts})
        elif item["type"] in {"function_call", "function_call_output"}:
            kept.append(item)
    return kept


def _as_dicts(items: list[ChatItem]) -> list[dict[str, Any]]:
    stored = ChatContext(items).to_dict(exclude_image=False, exclude_audio=False, exclude_timestamp=False)
    return [item for item in stored["items"] if not item["id"].startswith("lk.")]


async def _taken_through(history: list[ChatItem]) -> tuple[list[ChatItem], list[ChatItem]]:
    """What a new session's history, and its agent's context, are after recording and restoring."""
    conversation = _StoredConversation()
    session: AgentSession[None] = AgentSession(vad=None, turn_handling={"turn_detection": None})
    recorder = Recorder(session, conversation)
    recorder.record(history)
    assert recorder.refused == 0
    agent = Agent(instructions="x")
    restored = await restore(session, agent, conversation)
    assert restored.items == len(history)
    assert (restored.interrupted_calls, restored.unreadable, restored.duplicate_outputs) == ((), 0, 0)
    return session.history.items, agent.chat_ctx.items


@settings(max_examples=60, deadline=None)
@given(_histories, st.floats(0, 1e9), st.lists(st.floats(0, 1e3), min_size=20, max_size=20))
def test_a_history_is_what_it_was(history: list[ChatItem], start: float, steps: list[float]) -> None:
    """Recorded, stored and restored, of every kind: `ChatContext.to_dict` is the same, in the same order."""
    for number, item in enumerate(history):
        item.created_at = start + sum(steps[: number + 1])
    before = _as_dicts(history)
    in_history, in_context = asyncio.run(_taken_through(history))
    assert _as_dicts(in_history) == before
    assert _as_dicts(in_context) == _in_context(before)


@settings(max_examples=60, deadline=None)
@given(_histories, st.lists(st.floats(-7200, 7200), min_size=20, max_size=20))
def test_skewed_clocks_do_not_change_the_order(history: list[ChatItem], off: list[float]) -> None:
    """Stamped two hours ahead or behind, in any order: the conversation's order stands, and all but the times."""
    now = time.time()
    for item, seconds in zip(history, off, strict=False):
        item.created_at = now + seconds
    before = _as_dicts(history)
    for items, expected in zip(asyncio.run(_taken_through(history)), (before, _in_context(before)), strict=True):
        after = _as_dicts(items)
        times = [item.pop("created_at") for item in after]
        assert after == [{name: value for name, value in item.items() if name != "created_at"} for item in expected]
        assert times == sorted(times)
        assert all(at <= time.time() for at in times)
