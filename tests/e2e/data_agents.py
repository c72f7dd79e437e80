"""An agent that reads files that its caller sends, by LiveKit's own means; with our one line."""

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Any

from livekit.agents import AgentSession, JobContext
from livekit.agents.voice.room_io import RoomOptions
from livekit.plugins import openai

from agent_worker import attach
from agent_worker.example.agent import SupportAgent
from agent_worker.settings import LanguageModelSettings

READ = "READ_FILES"
"""A file that gets a line for each file that was read to its end: who sent it, and its digest."""


async def reading(ctx: JobContext) -> None:
    """Text only; each file is read part by part."""
    settings = LanguageModelSettings()
    model = openai.LLM(model=settings.model, base_url=settings.base_url, api_key=settings.require_key())
    session: AgentSession[None] = AgentSession(llm=model, vad=None, turn_handling={"turn_detection": None})
    await attach(session, ctx)
    tasks: set[asyncio.Task[None]] = set()

    async def read(reader: Any, identity: str) -> None:
        digest = hashlib.sha256()
        async for chunk in reader:
            digest.update(chunk)
        with Path(os.environ[READ]).open("a") as files:  # noqa: ASYNC230  # a line
            files.write(f"{identity} {digest.hexdigest()}\n")

    def begin(reader: Any, identity: str) -> None:
        tasks.add(asyncio.create_task(read(reader, identity)))

    ctx.room.register_byte_stream_handler("files.bill", begin)
    options = RoomOptions(audio_input=False, audio_output=False)
    await session.start(agent=SupportAgent(), room=ctx.room, room_options=options)
