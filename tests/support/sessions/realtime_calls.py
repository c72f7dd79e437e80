"""Calls with a realtime model: a microphone that speaks in tones, and an agent with the real OpenAI plugin."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest_asyncio
from livekit import rtc
from livekit.agents import Agent, function_tool, tts
from livekit.agents.voice.io import AudioInput, AudioOutput, AudioOutputCapabilities
from livekit.plugins import openai

from agent_worker.offline import OfflineServer, encode
from agent_worker.offline.realtime_options import RATE
from agent_worker.offline.script import ChatRequest, Reply, RequestedCall
from tests.support.sessions.answering import Running
from tests.support.sessions.fakes_room import FunctionScript

_FRAME = RATE // 50
_TOLD = re.compile(r"Say exactly this(?:, and nothing else| first): ([^\n]*)")


class Microphone(AudioInput):
    """Sends silence, and what is said, ten times faster than anybody speaks."""

    def __init__(self) -> None:
        """Silent."""
        super().__init__(label="microphone")
        self._frames: list[bytes] = []

    def say(self, text: str) -> None:
        """Say something."""
        sound = encode(text, sample_rate=RATE).tobytes()
        self._frames += [sound[start : start + 2 * _FRAME] for start in range(0, len(sound), 2 * _FRAME)]

    async def __anext__(self) -> rtc.AudioFrame:
        """The next fiftieth of a second."""
        await asyncio.sleep(0.002)
        data = self._frames.pop(0) if self._frames else b""
        return rtc.AudioFrame(data.ljust(2 * _FRAME, b"\0"), RATE, 1, _FRAME)


class Loudspeaker(AudioOutput):
    """Something that wants sound, which a session without a voice has not."""

    def __init__(self) -> None:
        """Silent."""
        super().__init__(label="loudspeaker", capabilities=AudioOutputCapabilities(pause=False))

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        """Play nothing: no model here makes a sound."""
        await super().capture_frame(frame)

    def flush(self) -> None:
        """The end of what is played."""
        super().flush()
        self.on_playback_finished(playback_position=0.01, interrupted=False)

    def clear_buffer(self) -> None:
        """Play no more."""


class Concierge(Agent):
    """Greets by its model's words, and has a tool."""

    def __init__(
        self,
        server: OfflineServer,
        http: aiohttp.ClientSession,
        *,
        is_greeting: bool = True,
        voice: tts.TTS[Any] | None = None,
        **options: Any,
    ) -> None:
        """`server`: where the model is."""
        model = openai.realtime.RealtimeModel(base_url=server.base_url, api_key="any", http_session=http, **options)
        super().__init__(instructions="You are the concierge of a hotel.", llm=model, tts=voice)
        self._is_greeting = is_greeting

    async def on_enter(self) -> None:
        """Greet."""
        if self._is_greeting:
            await self.session.generate_reply(instructions="Greet the guest.")

    @function_tool
    async def book(self, table: str) -> str:
        """Book a table.

        Args:
            table: For how many.
        """
        return f"A table for {table} is booked."


def obedient(answers: Callable[[str], Reply]) -> FunctionScript:
    """A model that says what it is told to say, greets where it is asked to, and else answers what was said last."""

    def decide(request: ChatRequest) -> Reply:
        instructions = str(request.messages[0]["content"])
        last = request.messages[-1]
        if last["role"] == "tool":
            return Reply(str(last["content"]))
        said = [one["content"] for one in request.messages if one["role"] == "user"]
        if "Greet the guest." in instructions:
            return Reply("Good evening.")
        told = _TOLD.findall(instructions)
        if told:
            is_answered = "answer what the caller said" not in instructions
            return Reply(" ".join(_parts(told[-1], None if is_answered else answers(said[-1]))))
        return answers(said[-1]) if said else Reply("Nobody asked.")

    return FunctionScript(decide)


def answer_guest(said: str) -> Reply:
    """Book a table for two, and else repeat what was said."""
    if said == "A table for two":
        return Reply(calls=(RequestedCall("call_1", "book", '{"table": "two"}'),))
    return Reply(f"You said {said}.")


@pytest_asyncio.fixture
async def models() -> AsyncIterator[OfflineServer]:
    """Where the models are."""
    async with OfflineServer(obedient(answer_guest)) as server:
        yield server


def _parts(line: str, answer: Reply | None) -> Iterator[str]:
    yield line
    if answer is not None:
        yield answer.text


@asynccontextmanager
async def reconnecting(running: Running) -> AsyncIterator[None]:
    """Wait at the end until the plugin has begun a new session with its provider."""
    happened = asyncio.Event()
    session = running.session.current_agent.realtime_llm_session
    session.once("session_reconnected", lambda *_event: happened.set())
    yield
    async with asyncio.timeout(10):
        await happened.wait()
