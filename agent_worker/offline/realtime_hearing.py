"""The sound that a realtime session has heard and that is in no item yet."""

import numpy as np

from agent_worker.offline.realtime_options import RATE
from agent_worker.offline.tones import Decoder, Event, EventKind


class SoundBuffer:
    """A buffer that takes sound and gives what was understood of it."""

    def __init__(self) -> None:
        """Begin without any sound."""
        self._decoder = Decoder(RATE)
        self._frames = 0
        self._words: list[str] = []

    @property
    def milliseconds(self) -> float:
        """The duration of the sound in the buffer."""
        return self._frames * 1000 / RATE

    def append(self, sound: bytes) -> list[Event]:
        """Add sound (16-bit samples), and return what was recognised in it."""
        samples = np.frombuffer(sound[: len(sound) // 2 * 2], "<i2")
        self._frames += len(samples)
        return self._understood(self._decoder.feed(samples))

    def finish(self) -> None:
        """Understand the rest of the sound as if silence followed."""
        self._understood(self._decoder.finish())

    def _understood(self, events: list[Event]) -> list[Event]:
        ended = (one for one in events if one.kind in {EventKind.FINISHED, EventKind.GARBLED})
        self._words += [one.text for one in ended if one.text]
        return events

    def take(self) -> str:
        """Return what was said, and forget it."""
        words, self._words, self._frames = " ".join(self._words), [], 0
        return words
