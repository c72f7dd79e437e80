"""Make sessions with the models that settings name: Deepgram for hearing, OpenAI for thinking and speaking.

Each model can be a server on this machine, such as ``python -m agent_worker.offline``.
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
    """Yield a session without sound, with the real OpenAI plugin. Close it and the plugin's connections at the end.

    Raises `InvalidInputError` if the key is missing.
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
    """Make a session that hears and speaks. Raises `InvalidInputError` if a key is missing, before anything connects.

    If the speech server is on this machine, that server tells when somebody speaks. Otherwise LiveKit's own voice and
    turn detectors do, which run in the job's process.
    """
    key = language.require_key()
    llm = openai.LLM(model=language.model, base_url=language.base_url, api_key=key)
    # raw samples, because both OpenAI and a server that imitates it can send them
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
