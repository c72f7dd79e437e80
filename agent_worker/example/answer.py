"""The entrypoint of the example agent, as a model for a team's own."""

import asyncio

from livekit.agents import JobContext
from livekit.agents.voice.room_io import RoomOptions
from pydantic import Field

from agent_worker.call.attach import attach
from agent_worker.call.opening import open_conversation
from agent_worker.example.agent import SupportAgent
from agent_worker.example.pipeline import voice_session
from agent_worker.setting_types import Lines
from agent_worker.settings import CallSettings, LanguageModelSettings, SpeechSettings


class ShopSettings(CallSettings):
    """Settings of a call with the shop's agent, which greets with these lines and has no other words for greeting."""

    greeting: Lines = Field(default_factory=lambda: {"": "Hello, you're speaking with the assistant. How can I help?"})
    """Said once to somebody who is here for the first time."""
    welcome_back: Lines = Field(default_factory=lambda: {"": "Welcome back. Shall we go on where we left off?"})
    """Said once to somebody who comes back after having been away."""


async def answer_call(ctx: JobContext) -> None:
    """Answer one call."""
    connecting = asyncio.ensure_future(ctx.connect())
    conversation = await open_conversation(ctx, call=ShopSettings())
    await connecting
    session = voice_session(LanguageModelSettings(), SpeechSettings())
    agent = SupportAgent.of(conversation.items)
    await attach(session, agent, conversation, room=ctx.room)
    # a page that is reloaded is the same person on the same call
    await session.start(agent=agent, room=ctx.room, room_options=RoomOptions(close_on_disconnect=False))
