"""Agents as applications have them, with our one line: they type, refuse turns, and delete their rooms."""

import os
from pathlib import Path

from livekit.agents import AgentSession, JobContext, StopResponse
from livekit.agents.llm import ChatContext, ChatMessage
from livekit.agents.voice.room_io import RoomOptions
from livekit.plugins import openai
from livekit.protocol.room import DeleteRoomRequest

from agent_worker import attach
from agent_worker.example.agent import SupportAgent
from agent_worker.example.pipeline import voice_session
from agent_worker.settings import LanguageModelSettings, SpeechSettings

REFUSED = "REFUSED_TURNS"
"""A file that gets a line for each turn that was refused."""
FORBIDDEN = "transfer"


async def typing(ctx: JobContext) -> None:
    """Text only; connects by itself when its session starts."""
    settings = LanguageModelSettings()
    model = openai.LLM(model=settings.model, base_url=settings.base_url, api_key=settings.require_key())
    session: AgentSession[None] = AgentSession(llm=model, vad=None, turn_handling={"turn_detection": None})
    await attach(session, ctx)
    options = RoomOptions(audio_input=False, audio_output=False, delete_room_on_close=True)
    await session.start(agent=SupportAgent(), room=ctx.room, room_options=options)

    async def hang_up() -> None:
        await ctx.api.room.delete_room(DeleteRoomRequest(room=ctx.job.room.name))

    ctx.add_shutdown_callback(hang_up)


class Careful(SupportAgent):
    """Does not answer everything."""

    async def on_user_turn_completed(self, turn_ctx: ChatContext, new_message: ChatMessage) -> None:
        """Refuse what is forbidden."""
        assert turn_ctx is not None
        if FORBIDDEN in (new_message.text_content or "").lower():
            with Path(os.environ[REFUSED]).open("a") as refused:  # noqa: ASYNC230  # a line
                refused.write(f"{new_message.text_content}\n")
            raise StopResponse


async def careful(ctx: JobContext) -> None:
    """Speaks and listens, and connects last."""
    session = voice_session(LanguageModelSettings(), SpeechSettings())
    await attach(session, ctx)
    await session.start(agent=Careful(), room=ctx.room)
    await ctx.connect()


async def speaking_first(ctx: JobContext) -> None:
    """Speak as the job's metadata says."""
    await {"eager": eager, "hasty": hasty}[ctx.job.metadata](ctx)


class Eager(SupportAgent):
    """Speaks first, whoever hears it."""

    async def on_enter(self) -> None:
        """Greet."""
        self.session.say("Front desk, good morning. This is a greeting that nobody hears to its end.")


async def eager(ctx: JobContext) -> None:
    """Speaks as soon as it is there."""
    session = voice_session(LanguageModelSettings(), SpeechSettings())
    await attach(session, ctx)
    await session.start(agent=Eager(), room=ctx.room)


async def hasty(ctx: JobContext) -> None:
    """Speaks before its start has returned: that waits until the greeting is over."""
    session = voice_session(LanguageModelSettings(), SpeechSettings())
    await attach(session, ctx)
    await session.start(agent=Eager(), room=ctx.room, capture_run=True)
