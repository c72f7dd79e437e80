"""What is said into an agent's first words: LiveKit's default keeps it from the first agent, and not from the next."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import numpy as np
import pytest
from livekit import rtc
from livekit.agents import Agent, AgentSession, stt
from livekit.agents.voice.io import AudioInput, AudioOutput, AudioOutputCapabilities
from livekit.plugins import deepgram, openai

from agent_worker.call.echo import listen_from_the_start
from conversation_actors import item_from_dict
from tests.support.fakes import until
from tests.support.sessions.answering import Answer, crash, seed, texts, user
from tests.support.sessions.fake_room import FakeParticipant, FakeRoom
from tests.support.sessions.fakes_call import World

_RATE = 16_000
_FRAME = _RATE // 50
_MANY = 50
"""Frames: more than are under way between the microphone and the recogniser."""


class Listener(Agent):
    """Notes the loudness of each frame that its recogniser would get. It hears and speaks itself: no model is asked."""

    def __init__(self) -> None:
        """Nothing was heard."""
        ears, voice = deepgram.STT(api_key="any"), openai.TTS(api_key="any")
        super().__init__(instructions="You listen.", stt=ears, tts=voice)
        self.heard: list[int] = []

    async def stt_node(self, audio: AsyncIterable[rtc.AudioFrame], _: Any) -> AsyncIterator[stt.SpeechEvent]:
        """Hear, and understand nothing."""
        async for frame in audio:
            self.heard.append(int(np.frombuffer(frame.data, np.int16).max()))
        nothing: tuple[stt.SpeechEvent, ...] = ()
        for event in nothing:
            yield event

    async def tts_node(self, text: AsyncIterable[str], _: Any) -> AsyncIterator[rtc.AudioFrame]:
        """Make one frame of any text."""
        async for _ in text:
            pass
        yield _frame(1)


class Microphone(AudioInput):
    """Sends one loudness, without an end."""

    def __init__(self) -> None:
        """Silent."""
        super().__init__(label="microphone")
        self.loudness = 0

    async def __anext__(self) -> rtc.AudioFrame:
        """The next frame."""
        await asyncio.sleep(0.002)
        return _frame(self.loudness)


class Loudspeaker(AudioOutput):
    """Plays until it is told that what it plays has ended."""

    def __init__(self) -> None:
        """Silent."""
        super().__init__(label="loudspeaker", capabilities=AudioOutputCapabilities(pause=False), sample_rate=_RATE)

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        """Begin to play."""
        await super().capture_frame(frame)
        self.on_playback_started(created_at=0.0)

    def flush(self) -> None:
        """All of a speech is here; it sounds on."""
        super().flush()

    def end(self) -> None:
        """What is played has ended."""
        self.on_playback_finished(playback_position=0.02, interrupted=False)

    def clear_buffer(self) -> None:
        """Play no more."""
        self.end()


def _frame(loudness: int) -> rtc.AudioFrame:
    return rtc.AudioFrame(np.full(_FRAME, loudness, np.int16).tobytes(), _RATE, 1, _FRAME)


async def _says_into_its_first_words(
    session: AgentSession[Any], agent: Listener, microphone: Microphone, loudness: int
) -> None:
    """Say something while the agent speaks, until the recogniser has had many frames since, of sound or of silence."""
    await until(lambda: session.agent_state == "speaking")
    microphone.loudness = loudness
    before = len(agent.heard)
    await until(lambda: len(agent.heard) >= before + _MANY)
    assert session.agent_state == "speaking"


async def test_a_successor_hears_who_speaks_into_its_first_words(answer: Answer) -> None:
    """The first agent's ears are shut by LiveKit's default; the next one's are open while it says that it is back."""
    alice, microphone = FakeParticipant("alice"), Microphone()
    first, second = Listener(), Listener()
    output = Loudspeaker()
    async with answer(FakeRoom(alice), agent=first, output=output, microphone=microphone) as running:
        await _says_into_its_first_words(running.session, first, microphone, 1000)
        assert 1000 not in first.heard  # else this test shows nothing
        output.end()
        await until(lambda: len(texts(running.call.items)) == 1)
        await crash(running)
    microphone.loudness = 0
    output = Loudspeaker()
    async with answer(FakeRoom(alice), "job-2", agent=second, output=output, microphone=microphone) as running:
        await _says_into_its_first_words(running.session, second, microphone, 2000)
        assert 2000 in second.heard
        output.end()


async def test_a_successor_of_an_agent_that_said_nothing_waits(answer: Answer, world: World) -> None:
    """The caller's client has adapted to no voice yet."""
    alice, microphone, agent, output = await seed(world, user("Hello?")), Microphone(), Listener(), Loudspeaker()
    async with answer(FakeRoom(alice), "job-2", agent=agent, output=output, microphone=microphone) as running:
        await _says_into_its_first_words(running.session, agent, microphone, 1000)
        assert 1000 not in agent.heard
        output.end()


@pytest.mark.parametrize("given", [3.0, None])
async def test_what_the_application_has_given_stays(given: float | None) -> None:
    """It has its reasons."""
    session: AgentSession[None] = AgentSession(aec_warmup_duration=given)
    listen_from_the_start(session, [item_from_dict({"type": "message", "role": "assistant", "content": ["Hi."]})])
    assert session.options.aec_warmup_duration == given
    await session.aclose()
