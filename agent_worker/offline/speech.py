"""OpenAI's text to speech, ``POST /v1/audio/speech``, for the real OpenAI plugin. It speaks the tone code.

The result is no voice: only a `Decoder` of `agent_worker.offline.tones` understands it. The voice, the instructions and
the speed are accepted and change nothing.
"""

import base64
import json
import logging
from collections.abc import Iterator
from typing import Any, Literal
from uuid import uuid4

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from agent_worker.offline import tones

logger = logging.getLogger(__name__)

SAMPLE_RATE = 24_000
MAX_INPUT_CHARACTERS = 4096


class SpeechRequest(BaseModel):
    """The body of ``POST /v1/audio/speech``. Fields that are not named here are accepted and ignored."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(min_length=1)
    input: str = Field(min_length=1, max_length=MAX_INPUT_CHARACTERS)
    voice: str = Field(min_length=1)
    response_format: Literal["pcm"]
    """A required field, because OpenAI's default is mp3, which this server does not make."""
    speed: float = Field(default=1.0, ge=0.25, le=4.0)
    stream_format: Literal["audio", "sse"] = "audio"


async def speak(request: web.Request, wanted: SpeechRequest) -> web.StreamResponse:
    """Stream the sound: 16 bits little-endian, 24 kHz, mono. The first chord is sent at once."""
    kind, encoded = ("audio/pcm", _pcm) if wanted.stream_format == "audio" else ("text/event-stream", _events)
    identified = {"x-request-id": f"req_{uuid4().hex}"}  # as OpenAI does; LiveKit warns without it
    response = web.StreamResponse(headers={"Content-Type": kind, "Cache-Control": "no-cache", **identified})
    try:
        await response.prepare(request)
        for piece in encoded(wanted.input):
            await response.write(piece)
        await response.write_eof()
    except ConnectionResetError:
        # an agent that is interrupted hangs up in the middle of a sentence
        logger.debug("the client hung up during a sentence")
    return response


def _pcm(text: str) -> Iterator[bytes]:
    for samples in tones.pieces(text, sample_rate=SAMPLE_RATE):
        yield samples.astype("<i2").tobytes()


def _events(text: str) -> Iterator[bytes]:
    for sound in _pcm(text):
        yield _event({"type": "speech.audio.delta", "audio": base64.b64encode(sound).decode()})
    words = len(text.split())
    # words instead of tokens, as in the chat: there is no tokenizer here, and nothing is billed
    usage = {"input_tokens": words, "output_tokens": words, "total_tokens": 2 * words}
    yield _event({"type": "speech.audio.done", "usage": usage})


def _event(body: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(body)}\n\n".encode()
