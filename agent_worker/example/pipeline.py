"""The models of a session, by settings: Deepgram hears, OpenAI thinks and speaks.

Every one of them can be a server on this machine, such as ``python -m agent_worker.offline``.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from livekit.agents import AgentSession, inference

from agent_worker.settings import LanguageModelSettings, SpeechSettings
from conversation_actors.errors import InvalidInputError

try:
    from livekit.plugins import deepgram, openai
except ImportError as error:
    _MESSAGE = (
        "models: the example agent needs LiveKit's plugins for OpenAI and Deepgram: "
        "pip install 'conversation-actors[agent]', or run an agent of your own"
    )
    raise InvalidInputError(_MESSAGE, field="models") from error

_TTS_FORMAT = "pcm"


@asynccontextmanager
async def text_session(settings: LanguageModelSettings) -> AsyncIterator[AgentSession[None]]:
    """Give a session without sound, with the real OpenAI plugin; close it at the end, with the plugin's connections.

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


def voice_session(language: LanguageModelSettings, speech: SpeechSettings) -> AgentSession[Any]:
    """Make a session that hears and speaks. Raises `InvalidInputError` for a missing key, before anything connects.

    With a speech server on this machine that server tells when somebody speaks; else LiveKit's own voice and
    turn detectors do, which run in the job's process.
    """
    key = language.require_key()
    llm = openai.LLM(model=language.model, base_url=language.base_url, api_key=key)
    # a whole sentence in one answer, raw samples: the same for OpenAI and for a server that imitates it
    tts = openai.TTS(
        model=speech.tts_model,
        voice=speech.tts_voice,
        base_url=language.base_url,
        api_key=key,
        response_format=_TTS_FORMAT,
    )
    stt = deepgram.STT(
        model=speech.stt_model,
        language=speech.stt_language,
        base_url=speech.stt_url,
        api_key=speech.require_stt_key(),
    )
    if speech.is_local:
        return AgentSession(
            stt=stt,
            llm=llm,
            tts=tts,
            vad=None,
            turn_handling={
                "turn_detection": "stt",
                "interruption": {"mode": "vad"},
                "endpointing": {"min_delay": 0.1, "max_delay": 0.5},
            },
            aec_warmup_duration=None,
        )
    return AgentSession(
        stt=stt,
        llm=llm,
        tts=tts,
        vad=inference.VAD(),
        turn_handling={
            "turn_detection": inference.TurnDetector(version="v1-mini"),
            "interruption": {"mode": "vad"},
        },
    )
