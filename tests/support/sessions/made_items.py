"""Items of a history, and conversations and sessions that hold them, made without a call."""

from collections.abc import Sequence
from typing import Any

from livekit.agents import AgentSession
from livekit.agents.llm import ChatItem, ChatMessage, FunctionCall, FunctionCallOutput

from agent_worker.session.serialise import to_fields
from conversation_actors.items import item_from_dict
from tests.support.sessions.fakes_room import FakeConversation


def said(role: Any, text: str, number: int = 0, **fields: Any) -> ChatMessage:
    """A message."""
    return ChatMessage(role=role, content=[text], created_at=float(number), **fields)


def call(number: int, *, call_id: str | None = None, **fields: Any) -> FunctionCall:
    """A call of a tool."""
    fields = {"id": f"item_{number}/fnc_0", "created_at": float(number), **fields}
    return FunctionCall(call_id=call_id or f"call_{number}", name="search", arguments='{"n": 1}', **fields)


def output(number: int, *, call_id: str | None = None, text: str = "found", **fields: Any) -> FunctionCallOutput:
    """What it gave."""
    fields = {"id": f"output_{number}", "name": "search", "created_at": float(number), **fields}
    return FunctionCallOutput(call_id=call_id or f"call_{number}", output=text, is_error=False, **fields)


def stored(items: Sequence[ChatItem]) -> FakeConversation:
    """A conversation of these items, in this order."""
    conversation = FakeConversation()
    for item in items:
        conversation.record(item_from_dict(to_fields(item)))
    return conversation


def new_session() -> AgentSession[None]:
    """A session that nobody starts."""
    return AgentSession(vad=None, turn_handling={"turn_detection": None})
