"""Putting a session, its agent and a conversation together."""

import logging
from dataclasses import dataclass
from typing import Any

from livekit import rtc
from livekit.agents import (
    Agent,
    AgentSession,
)

from agent_worker.call.life import Call
from agent_worker.session.protocol import Conversation
from agent_worker.session.recorder import Recorder
from agent_worker.session.restoration import Restored, restore
from agent_worker.session.tools import hold_tools_back
from agent_worker.tenure.conversation import CallConversation

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Attached:
    """A session that is bound to a conversation."""

    restored: Restored
    recorder: Recorder


async def attach(
    session: AgentSession[Any], agent: Agent, conversation: Conversation, *, room: rtc.Room | None = None
) -> Attached:
    """Restore what the conversation holds, and record everything from now on. Before ``session.start``.

    That a tool call was interrupted is recorded too: every later agent, and everybody who watches, sees the
    same. With a `room`, and a conversation from `open_conversation`, the people in the room are followed,
    greeted, and spoken to again after a crash, and the session ends when another agent takes over.
    Raises `RuntimeError` if the session has started.
    """
    if isinstance(conversation, CallConversation):
        # first: it would drop the calls of other agents' tools from what is restored
        await hold_tools_back(agent, conversation.settled)
    if isinstance(conversation, CallConversation) and conversation.is_waiting_for_handover:
        # the other agent is still at it: what it leaves is restored when it has gone
        restored = Restored.nothing()
    else:
        restored = await restore(session, agent, conversation)
    failures = conversation.failures if isinstance(conversation, CallConversation) else None
    recorder = Recorder(session, conversation, failures).start()
    recorder.record(restored.interrupted_calls)
    if isinstance(conversation, CallConversation):
        Call(session, conversation, recorder, room).start()
    return Attached(restored, recorder)
