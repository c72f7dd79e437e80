"""Putting a session, its agent and a conversation together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from livekit.agents import Agent, AgentSession
from livekit.plugins import openai

from agent_worker.conversation import Conversation
from agent_worker.recorder import Recorder
from agent_worker.restore import Restored, restore
from agent_worker.settings import LanguageModelSettings


@dataclass(frozen=True, slots=True)
class Attached:
    """A session that is bound to a conversation."""

    restored: Restored
    recorder: Recorder


async def attach(session: AgentSession[Any], agent: Agent, conversation: Conversation) -> Attached:
    """Restore what the conversation holds, and record everything from now on. Before ``session.start``.

    That a tool call was interrupted is recorded too: every later agent, and everybody who watches, sees the same.
    Raises `RuntimeError` if the session has started.
    """
    restored = await restore(session, agent, conversation)
    recorder = Recorder(session, conversation).start()
    recorder.record(restored.interrupted_calls)
    return Attached(restored, recorder)


@asynccontextmanager
async def text_session(settings: LanguageModelSettings) -> AsyncIterator[AgentSession[None]]:
    """A session without sound, with the real OpenAI plugin; closed at the end, with the plugin's connections.

    Raises `InvalidInputError` for a missing key.
    """
    model = openai.LLM(model=settings.model, base_url=settings.base_url, api_key=settings.require_key())
    # the defaults would load a voice detector and a turn detector, for sound that never comes
    session: AgentSession[None] = AgentSession(llm=model, vad=None, turn_handling={"turn_detection": None})
    try:
        yield session
    finally:
        await session.aclose()
        await model.aclose()
