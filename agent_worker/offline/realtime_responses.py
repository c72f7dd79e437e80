"""The events of one response of OpenAI's Realtime API: what a model says, in sound or in writing. Pure: no I/O."""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agent_worker.offline import tones
from agent_worker.offline.realtime_items import Event, Held
from agent_worker.offline.realtime_options import RATE

_CHORDS_AT_ONCE = 8


@dataclass(slots=True)
class Response:
    """A response that is in progress."""

    id: str
    metadata: Any
    is_spoken: bool
    output: list[Held] = field(default_factory=list)

    def told(self, status: str = "in_progress", details: Event | None = None) -> Event:
        """Return the response in the form in which clients are told."""
        return {
            "id": self.id,
            "object": "realtime.response",
            "status": status,
            "status_details": details,
            "output": [held.item for held in self.output],
            "metadata": self.metadata,
            "output_modalities": ["audio" if self.is_spoken else "text"],
            "usage": None,
        }

    def place(self, held: Held, *, is_item: bool = False) -> Event:
        """Return the place of an item in the response, with the item's id or, if `is_item`, the item itself."""
        place: Event = {"response_id": self.id, "output_index": self.output.index(held)}
        return {**place, "item": held.item} if is_item else {**place, "item_id": held.id}


def done(response: Response, status: str, details: Event | None) -> Event:
    """Return the last event of a response. Its usage counts words instead of tokens, because nothing is billed."""
    words = sum(len(held.words.split()) for held in response.output)
    counted = {"total_tokens": words, "input_tokens": 0, "output_tokens": words}
    return {"type": "response.done", "response": {**response.told(status, details), "usage": counted}}


def spoken(response: Response, held: Held, text: str) -> Iterator[Event]:
    """Yield the events of a message in sound, faster than it is played.

    `held` has the part that has been said so far, so that the model knows it.
    """
    place = {**response.place(held), "content_index": 0}
    part = {"type": "output_audio", "transcript": ""}
    held.item["content"] = [part]
    yield {"type": "response.content_part.added", **place, "part": {"type": "audio", "transcript": ""}}
    pieces = list(tones.pieces(text, sample_rate=RATE))
    for start in range(0, len(pieces), _CHORDS_AT_ONCE):
        sound = np.concatenate(pieces[start : start + _CHORDS_AT_ONCE])
        held.audio_ms += round(len(sound) * 1000 / RATE)
        is_last = start + _CHORDS_AT_ONCE >= len(pieces)
        said = text if is_last else text[: round(len(text) * (start + _CHORDS_AT_ONCE) / len(pieces))]
        new, held.words = said[len(held.words) :], said
        part["transcript"] = said
        if new:
            yield {"type": "response.output_audio_transcript.delta", **place, "delta": new}
        delta = base64.b64encode(sound.astype("<i2").tobytes()).decode()
        yield {"type": "response.output_audio.delta", **place, "delta": delta}
    yield {"type": "response.output_audio_transcript.done", **place, "transcript": text}
    yield {"type": "response.output_audio.done", **place}
    yield {"type": "response.content_part.done", **place, "part": {"type": "audio", "transcript": text}}


def written(response: Response, held: Held, text: str) -> Iterator[Event]:
    """Yield the events of a message in writing, word by word."""
    place = {**response.place(held), "content_index": 0}
    part = {"type": "output_text", "text": ""}
    held.item["content"] = [part]
    yield {"type": "response.content_part.added", **place, "part": {"type": "text", "text": ""}}
    for word in re.findall(r"\S+\s*", text):
        held.words += word
        part["text"] = held.words
        yield {"type": "response.output_text.delta", **place, "delta": word}
    yield {"type": "response.output_text.done", **place, "text": text}
    yield {"type": "response.content_part.done", **place, "part": {"type": "text", "text": text}}
