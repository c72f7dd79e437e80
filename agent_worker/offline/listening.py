"""Deepgram's live speech to text, ``GET /v1/listen``, for the real Deepgram plugin. It understands the tone code.

It recognises the sound that `agent_worker.offline.tones` makes, and nothing else. A voice, music or noise gives
neither a transcript nor a start of speech.
"""

import asyncio
import json
import logging
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import uuid4

import numpy as np
from aiohttp import WSCloseCode, WSMsgType, web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent_worker.offline.refusals import credentials
from agent_worker.offline.tones import MAX_RATE, MIN_RATE, START_SECONDS, SYMBOL_SECONDS, Decoder, Event, EventKind

logger = logging.getLogger(__name__)

MAX_CHANNELS = 8
CUT_CONFIDENCE = 0.5
"""The confidence of a text whose checksum did not come or was wrong. A text that is certain has 1."""

Message = dict[str, Any]


class ListenOptions(BaseModel):
    """The query of a request. Fields that are not named here are accepted and ignored."""

    model_config = ConfigDict(extra="ignore")

    encoding: Literal["linear16"]
    sample_rate: int = Field(ge=MIN_RATE, le=MAX_RATE)
    channels: int = Field(default=1, ge=1, le=MAX_CHANNELS)
    interim_results: bool = False
    vad_events: bool = False


class Listener:
    """One stream of sound, without the connection: bytes and control messages in, Deepgram's messages out."""

    def __init__(self, options: ListenOptions) -> None:
        """Begin without any sound."""
        self.request_id = str(uuid4())
        self._options = options
        self._decoder = Decoder(options.sample_rate)
        self._rest = b""
        self._frames = 0

    def hear(self, sound: bytes) -> list[Message]:
        """Take sound, and return the messages about it.

        A sample may be split between two messages. Channels are mixed into one.
        """
        width = 2 * self._options.channels
        sound = self._rest + sound
        whole = len(sound) - len(sound) % width
        self._rest = sound[whole:]
        samples = np.frombuffer(sound[:whole], "<i2").reshape(-1, self._options.channels)
        self._frames += len(samples)
        return self._messages(self._decoder.feed(samples.mean(axis=1).astype(np.int16)))

    def finalize(self) -> list[Message]:
        """Return the messages about what was heard so far, without waiting for more."""
        return self._messages(self._decoder.finish(), from_finalize=True)

    def metadata(self) -> Message:
        """Return the last message of a stream."""
        return {
            "type": "Metadata",
            "transaction_key": "deprecated",
            "request_id": self.request_id,
            "created": datetime.now(UTC).isoformat(),
            "duration": self._frames / self._options.sample_rate,
            "channels": self._options.channels,
        }

    def _messages(self, events: list[Event], *, from_finalize: bool = False) -> list[Message]:
        messages = []
        for event in events:
            if event.kind is EventKind.STARTED:
                if self._options.vad_events:
                    messages.append({"type": "SpeechStarted", "channel": [0], "timestamp": event.began})
            elif event.kind is not EventKind.PARTIAL or self._options.interim_results:
                messages.append(self._results(event, from_finalize=from_finalize))
        return messages

    def _results(self, event: Event, *, from_finalize: bool) -> Message:
        final = event.kind is not EventKind.PARTIAL
        confidence = 1.0 if event.kind is EventKind.FINISHED else CUT_CONFIDENCE
        alternative = {
            "transcript": event.text,
            "confidence": confidence,
            "words": [{**word, "confidence": confidence} for word in _words(event)],
        }
        return {
            "type": "Results",
            "channel_index": [0, 1],
            "start": event.began,
            "duration": event.ended - event.began,
            "is_final": final,
            "speech_final": final,
            "from_finalize": from_finalize and final,
            "channel": {"alternatives": [alternative]},
            "metadata": {"request_id": self.request_id, "model_info": {"name": "tones", "version": "1"}},
        }


def _words(event: Event) -> Iterator[Message]:
    """Yield every word with its time in the stream. The time is approximate if the sound was stretched."""
    first = event.began + START_SECONDS
    for match in re.finditer(r"\S+", event.text):
        start, end = (first + len(event.text[:place].encode()) * SYMBOL_SECONDS for place in match.span())
        bare = re.sub(r"^\W+|\W+$", "", match[0]).lower()
        yield {
            "word": bare or match[0],
            "punctuated_word": match[0],
            "start": min(start, event.ended),
            "end": min(end, event.ended),
        }


async def listen(
    request: web.Request, connections: set[web.WebSocketResponse], on_heard: Callable[[str], None]
) -> web.StreamResponse:
    """Hold a connection until the client ends it. It is in `connections` meanwhile.

    `on_heard` gets every final transcript that is not empty. A request without a key or with a wrong query is refused
    in the form of Deepgram's errors.
    """
    if credentials(request.headers, "token") is None:
        return _refuse(401, "INVALID_AUTH", "Invalid credentials.")
    try:
        listener = Listener(ListenOptions.model_validate(dict(request.query)))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return _refuse(400, "INVALID_QUERY_PARAMETER", f"{first['loc'][0]}: {first['msg']}.")
    socket = web.WebSocketResponse(compress=False)
    socket.headers["dg-request-id"] = listener.request_id
    try:
        await socket.prepare(request)
        connections.add(socket)
        await _converse(socket, listener, on_heard)
    except ConnectionResetError:
        # an agent that is killed does not say goodbye, and may be killed before the socket is open
        logger.debug("the client hung up")
        return socket if socket in connections else web.Response()
    finally:
        connections.discard(socket)
    return socket


async def _converse(socket: web.WebSocketResponse, listener: Listener, on_heard: Callable[[str], None]) -> None:
    async for message in socket:
        control = _control(message.data) if message.type is WSMsgType.TEXT else None
        if message.type is WSMsgType.BINARY:
            answers = listener.hear(message.data)
            # other callers must not wait while much sound is heard at once
            await asyncio.sleep(0)
        elif control in {"Finalize", "CloseStream"}:
            answers = listener.finalize()
        elif control == "KeepAlive":
            answers = []
        else:
            await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"DATA-0000: unknown message")
            return
        for answer in answers:
            text = answer["channel"]["alternatives"][0]["transcript"] if answer.get("is_final") else ""
            if text:
                on_heard(text)
            await socket.send_json(answer)
        if control == "CloseStream":
            await socket.send_json(listener.metadata())
            await socket.close()
            return


def _control(text: str) -> str | None:
    """Return the type of a control message, or None for anything else."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return None
    kind = message.get("type") if isinstance(message, dict) else None
    return kind if isinstance(kind, str) else None


def _refuse(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"err_code": code, "err_msg": message, "request_id": str(uuid4())}, status=status)
