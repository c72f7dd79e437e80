"""What is said into an agent's first words: LiveKit's default keeps it from the first agent, and not from the next."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import numpy as np
import pytest
from livekit import rtc
from livekit.agents import Agent, AgentSession, stt, tts
from livekit.agents.types import APIConnectOptions
from livekit.agents.voice.io import AudioInput, AudioOutput, AudioOutputCapabilities

from agent_worker.call.echo import listen_from_the_start
from conversation_actors import item_from_dict
from tests.support.fakes import until
from tests.support.sessions.answering import Answer, crash, seed, texts, user
from tests.support.sessions.fake_room import FakeParticipant, FakeRoom
from tests.support.sessions.fakes_call import World

_RATE = 16_000
_FRAME = _RATE // 50


class Ears(stt.STT[str]):
    """A recogniser that is never asked: `Listener.stt_node` hears instead of it."""

    def __init__(self) -> None:
        """It could stream, as those in calls do."""
        super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=True))

    async def _recognize_impl(self, *_: Any, **__: Any) -> stt.SpeechEvent:
        raise NotImplementedError


class Voice(tts.TTS[str]):
    """A voice that is never asked: `Listener.tts_node` speaks instead of it."""

    def __init__(self) -> None:
        """One channel."""
        super().__init__(capabilities=tts.TTSCapabilities(streaming=False), sample_rate=_RATE, num_channels=1)

    def synthesize(self, text: str, *, conn_options: APIConnectOptions | None = None) -> tts.ChunkedStream:
        """Not asked."""
        raise NotImplementedError


class Listener(Agent):
    """Notes the loudness of all that its recogniser gets."""

    def __init__(self) -> None:
        """Nothing was heard."""
        super().__init__(instructions="You listen.", stt=Ears(), tts=Voice())
        self.heard: set[int] = set()

    async def stt_node(self, audio: AsyncIterable[rtc.AudioFrame], _: Any) -> AsyncIterator[stt.SpeechEvent]:
        """Hear, and understand nothing."""
        async for frame in audio:
            self.heard.add(int(np.frombuffer(frame.data, np.int16).max()))
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


async def _says_into_its_first_words(session: AgentSession[Any], microphone: Microphone, loudness: int) -> None:
    await until(lambda: session.agent_state == "speaking")
    microphone.loudness = loudness
    await asyncio.sleep(0.2)
    assert session.agent_state == "speaking"


async def test_a_successor_hears_who_speaks_into_its_first_words(answer: Answer) -> None:
    """The first agent's ears are shut by LiveKit's default; the next one's are open while it says that it is back."""
    alice, microphone = FakeParticipant("alice"), Microphone()
    first, second = Listener(), Listener()
    output = Loudspeaker()
    async with answer(FakeRoom(alice), agent=first, output=output, microphone=microphone) as running:
        await _says_into_its_first_words(running.session, microphone, 1000)
        assert 1000 not in first.heard  # else this test shows nothing
        output.end()
        await until(lambda: len(texts(running.call.items)) == 1)
        await crash(running)
    microphone.loudness = 0
    output = Loudspeaker()
    async with answer(FakeRoom(alice), "job-2", agent=second, output=output, microphone=microphone) as running:
        await _says_into_its_first_words(running.session, microphone, 2000)
        assert 2000 in second.heard
        output.end()


async def test_a_successor_of_an_agent_that_said_nothing_waits(answer: Answer, world: World) -> None:
    """The caller's client has adapted to no voice yet."""
    alice, microphone, agent, output = await seed(world, user("Hello?")), Microphone(), Listener(), Loudspeaker()
    async with answer(FakeRoom(alice), "job-2", agent=agent, output=output, microphone=microphone) as running:
        await _says_into_its_first_words(running.session, microphone, 1000)
        assert 1000 not in agent.heard
        output.end()


@pytest.mark.parametrize("given", [3.0, None])
async def test_what_the_application_has_given_stays(given: float | None) -> None:
    """It has its reasons."""
    session: AgentSession[None] = AgentSession(aec_warmup_duration=given)
    listen_from_the_start(session, [item_from_dict({"type": "message", "role": "assistant", "content": ["Hi."]})])
    assert session.options.aec_warmup_duration == given
    await session.aclose()
