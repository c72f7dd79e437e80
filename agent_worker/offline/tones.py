"""An acoustic code: text as chords that survive a telephone line, so that words really travel as sound.

One byte of UTF-8 is one chord of three tones, 320 to 3560 Hz, for 50 ms: one of sixteen tones for the byte's low half,
one of sixteen for its high half, and a clock tone that changes from chord to chord (0, 1, 2, 3, 0 …). The clock
separates the chords, and shows whether a chord was lost or stretched. There are no silences between chords that a
jitter buffer could shorten. An utterance is a start chord, its bytes, an end chord, and a checksum of two bytes.

The sound is no speech: only a `Decoder` understands it, and a `Decoder` understands nothing else.
"""

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from agent_worker.offline.utterances import (
    CHECK_BYTES,
    CYCLE,
    END,
    MARKS,
    START,
    Chord,
    Event,
    EventKind,
    UtteranceReader,
    checksum,
)

__all__ = ["Decoder", "Event", "EventKind", "Samples", "encode", "pieces", "seconds"]

Samples = NDArray[np.int16]
"""Samples of mono sound, 16 bits signed."""

SYMBOL_SECONDS = 0.05
START_SECONDS = 0.12
END_SECONDS = 0.08
PAUSE_SECONDS = 0.06
"""Silence after an utterance, so that a filter that cuts the end of a stream does not cut the last chord."""
RAMP_SECONDS = 0.004
AMPLITUDES = (0.28, 0.2, 0.2)
"""The amplitudes of the clock tone and of the two other tones, as parts of full scale. The clock tone is the loudest,
because a chord without it is lost and a codec must not drop it. Together they leave room for what a codec adds."""

PATIENCE_SECONDS = 1.5
"""The silence after which an utterance counts as cut. Shorter silences inside an utterance have been measured on a
machine with five runnable processes on each core: a busy caller or server sends nothing, then goes on where it was."""
MIN_RATE, MAX_RATE = 8_000, 96_000

# The spectrum of 25 ms has a line every 40 Hz. Through a Hann window a tone reaches the next line but not the one
# after it, so tones that are 80 Hz apart do not disturb each other.
_WINDOW_SECONDS = 0.025
_HOP_SECONDS = 0.005
_LINE_HZ = 40
_LINES = np.concatenate([np.arange(8, 24, 3), np.arange(27, 90, 2)])
"""The spectral lines of the tones: six for the clock, wider apart and away from the others, and sixteen for each half
of a byte."""
_CLOCK, _LOW, _HIGH = slice(0, 6), slice(6, 22), slice(22, 38)

_FLOOR = 1e-6
"""The least sum of the squared amplitudes of a chord; 60 dB below full scale is silence."""
_PURE = 0.5
"""The least part of the energy at all tones that a chord has. White noise reaches 0.4 once in a thousand windows."""
_CLEAR = 0.7
"""The least part of the clock tones' energy that the strongest one has. Less means a change between two chords."""
_CHANGE_HOPS = 2
_GAP_HOPS = 6
_HOPS_AT_ONCE = 256


def encode(text: str, *, sample_rate: int) -> Samples:
    """Return the sound of one utterance.

    Raises `UnicodeEncodeError` for lone surrogates, and `ValueError` for a rate out of range.
    """
    return np.concatenate(list(pieces(text, sample_rate=sample_rate)))


def pieces(text: str, *, sample_rate: int) -> Iterator[Samples]:
    """Return an iterator over the sound of one utterance, chord by chord. Raises as `encode` does, at once."""
    _check_rate(sample_rate)
    return _chords(text.encode(), sample_rate)


def seconds(text: str) -> float:
    """Return how long the utterance of a text takes."""
    symbols = len(text.encode()) + CHECK_BYTES
    return START_SECONDS + symbols * SYMBOL_SECONDS + END_SECONDS + PAUSE_SECONDS


def _check_rate(sample_rate: int) -> None:
    if not MIN_RATE <= sample_rate <= MAX_RATE:
        message = f"sample_rate: {sample_rate}; must be {MIN_RATE} to {MAX_RATE}"
        raise ValueError(message)


def _chords(data: bytes, rate: int) -> Iterator[Samples]:
    yield _chord(START, MARKS[START], START_SECONDS, rate)
    yield from _bytes(data, rate)
    yield _chord(END, MARKS[END], END_SECONDS, rate)
    yield from _bytes(checksum(data), rate)
    yield np.zeros(round(PAUSE_SECONDS * rate), np.int16)


def _bytes(data: bytes, rate: int) -> Iterator[Samples]:
    for clock, byte in zip(itertools.cycle(range(CYCLE)), data, strict=False):
        yield _chord(clock, byte, SYMBOL_SECONDS, rate)


def _chord(clock: int, byte: int, duration: float, rate: int) -> Samples:
    time = np.arange(round(duration * rate)) / rate
    tones = _LINES[[_CLOCK.start + clock, _LOW.start + byte % 16, _HIGH.start + byte // 16]] * _LINE_HZ
    wave = np.sin(2 * np.pi * np.outer(time, tones)) @ AMPLITUDES
    edge = np.minimum(time, duration - time) / RAMP_SECONDS
    ramp = 0.5 - 0.5 * np.cos(np.pi * np.clip(edge, 0.0, 1.0))
    samples: Samples = np.round(wave * ramp * 32767).astype(np.int16)
    return samples


class Decoder:
    """A listener that hears utterances in a stream of samples, which comes in pieces of any size.

    It copes with changes of volume, noise, resampling, speech codecs, and with pieces of some milliseconds that are
    left out or repeated. A text is `FINISHED` only if its checksum is right. The last event of an utterance comes up to
    60 ms after its last sound. If an utterance breaks off, what was understood of it is told after 300 ms and its last
    event comes after `patience_seconds` (1.5 s by default).
    """

    def __init__(self, sample_rate: int, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        """Listen to sound of this rate. Raises `ValueError` for a rate out of range.

        `patience_seconds` is the silence after which an utterance counts as cut. A speaker whose machine is busy falls
        silent in the middle of a word and then goes on. A larger value waits for such a speaker longer.
        """
        _check_rate(sample_rate)
        self._patience = patience_seconds
        self._rate = sample_rate
        self._hop = round(_HOP_SECONDS * sample_rate)
        window = round(_WINDOW_SECONDS * sample_rate)
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
        # scaled so that a tone of full scale has the amplitude 1
        self._shape = (hann * 2 / hann.sum() / 32768).astype(np.float32)
        self._waiting = np.zeros(0, np.int16)
        self._chords = _ChordTracker(round(patience_seconds / _HOP_SECONDS))
        self._utterances = UtteranceReader(patience_seconds)
        self._hops = 0

    def feed(self, samples: Samples) -> list[Event]:
        """Take more samples, and return what was heard."""
        self._waiting = np.concatenate([self._waiting, samples])
        events: list[Event] = []
        window = len(self._shape)
        while (ready := (len(self._waiting) - window) // self._hop + 1) > 0:
            ready = min(ready, _HOPS_AT_ONCE)
            windows = np.lib.stride_tricks.sliding_window_view(self._waiting, window)[:: self._hop][:ready]
            powers = np.abs(np.fft.rfft(windows * self._shape)[:, _LINES]) ** 2
            self._waiting = self._waiting[ready * self._hop :]
            for power, clock in zip(powers, _clocks(powers), strict=True):
                events += self._hear(power, int(clock))
        return events

    def finish(self) -> list[Event]:
        """Hear the rest as if silence followed, because the stream has ended. The decoder can be fed again."""
        hops = self._hops + len(self._waiting) // self._hop
        events = self.feed(np.zeros(round((self._patience + 2 * _WINDOW_SECONDS) * self._rate), np.int16))
        # a silence that nobody sent does not count as time of the stream
        self._hops, self._waiting = hops, np.zeros(0, np.int16)
        return events

    def _hear(self, power: NDArray[np.float32], clock: int) -> list[Event]:
        now = (self._hops * self._hop + len(self._shape) / 2) / self._rate
        self._hops += 1
        chord = self._chords.hear(power, clock, now)
        return self._utterances.read(chord, self._chords.silent_hops * _HOP_SECONDS)


def _clocks(powers: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the clock tone of each hop's chord, or -1 if the hop has no chord or is a change between two."""
    strongest = [powers[:, group].max(axis=1) for group in (_CLOCK, _LOW, _HIGH)]
    chord = np.sum(strongest, axis=0)
    heard = (
        (chord > _FLOOR)
        & (chord > _PURE * powers.sum(axis=1))
        & (strongest[0] > _CLEAR * powers[:, _CLOCK].sum(axis=1))
    )
    return np.where(heard, powers[:, _CLOCK].argmax(axis=1), -1)


class _Run:
    """Hops with the same clock tone. They belong to one chord, because two chords in a row never share a clock tone."""

    def __init__(self, clock: int, began: float) -> None:
        self.clock = clock
        self.began = began
        self.ended = began
        self.hops = 0
        self._power = np.zeros(len(_LINES), np.float32)

    def add(self, power: NDArray[np.float32], now: float) -> None:
        # hops that also contain a part of a neighbouring chord hardly count
        low, high = power[_LOW], power[_HIGH]
        purity = low.max() * high.max() / max(low.sum() * high.sum(), np.finfo(np.float32).tiny)
        self._power += power * purity**4
        self.hops += 1
        self.ended = now

    def chord(self) -> Chord:
        (low, other_low, low_doubt), (high, other_high, high_doubt) = (
            _two_best(self._power[group]) for group in (_LOW, _HIGH)
        )
        second = other_low | high << 4 if low_doubt > high_doubt else low | other_high << 4
        doubt = max(low_doubt, high_doubt)
        return Chord(self.clock, low | high << 4, second, doubt, self.hops, self.began, self.ended)


def _two_best(power: NDArray[np.float32]) -> tuple[int, int, float]:
    """Return the two strongest tones, and the power of the second as a part of that of the first."""
    *_, second, first = (int(tone) for tone in np.argsort(power))
    return first, second, float(power[second] / max(power[first], np.finfo(np.float32).tiny))


class _ChordTracker:
    """A tracker that makes chords from hops.

    A chord ends when another clock tone has lasted two hops, or when nothing was heard for six. The same chord may come
    again: with more hops if the same clock tone goes on after a silence, or unchanged before the next chord.
    """

    def __init__(self, patience_hops: int) -> None:
        self._patience_hops = patience_hops
        self.silent_hops = 0
        self._run: _Run | None = None
        self._next: _Run | None = None

    def hear(self, power: NDArray[np.float32], clock: int, now: float) -> Chord | None:
        """Take a hop, and return the chord that it ended, if any."""
        if clock < 0:
            return self._hear_nothing()
        self.silent_hops = 0
        if self._run is None:
            self._run = _Run(clock, now)
        if clock == self._run.clock:
            self._next = None
            self._run.add(power, now)
            return None
        if self._next is None or self._next.clock != clock:
            self._next = _Run(clock, now)
        self._next.add(power, now)
        if self._next.hops < _CHANGE_HOPS:
            return None
        ended, self._run, self._next = self._run, self._next, None
        return ended.chord()

    def _hear_nothing(self) -> Chord | None:
        self.silent_hops += 1
        if self.silent_hops == self._patience_hops:
            self._run = None
        if self.silent_hops != _GAP_HOPS or self._run is None:
            return None
        self._next = None
        return self._run.chord()
