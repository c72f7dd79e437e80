"""Understand utterances from chords, even if some of the chords are missing, doubled, or noise.

An utterance is a start mark, one chord for each byte of UTF-8, an end mark, and a checksum of two more chords. Pure: no
sound, no clock.
"""

import binascii
import codecs
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from heapq import nlargest
from typing import Self

CYCLE = 4
"""The number of clocks of bytes: the clock of a byte's chord is the byte's number modulo this."""
START, END = CYCLE, CYCLE + 1
"""The clocks of the marks."""
MARKS = {START: 0xA5, END: 0x5A}
"""The byte that each mark carries. Noise or music that happens to hit the clock tone of a mark has another byte."""
CHECK_BYTES = 2

PAUSE_SHOWN_SECONDS = 0.3
"""The silence inside an utterance after which everything that was understood of it is told."""
PARTIAL_CHARACTERS = 10
"""The number of new characters after which a partial text is told, too."""
MAX_TEXT_BYTES = 1 << 16
"""The most bytes of an utterance; a longer one is given up."""

_MARK_HOPS = 3
_START_AGAIN_SECONDS = 0.5
_LOST = 0xFF
"""The byte that stands for one that was not heard; it never occurs in UTF-8."""
_LOST_COST = 8
"""The cost of a missing byte. An ignored chord costs its number of hops, which is nine or ten for a whole chord."""
_MARGIN = 30
"""How much more than the likeliest reading another one may cost to be tried against the checksum."""
_DOUBTFUL = 4
"""How many bytes of the likeliest reading are tried with their second choice, one at a time."""


class EventKind(StrEnum):
    """The kinds of events that a listener is told."""

    STARTED = "started"
    PARTIAL = "partial"
    FINISHED = "finished"
    GARBLED = "garbled"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was heard.

    Each `STARTED` is followed by exactly one `FINISHED` or `GARBLED`, with any number of `PARTIAL` in between. `text`
    is what was understood of the utterance so far. Only if the kind is `FINISHED`, it is certain to be what was said.
    `began` and `ended` are seconds of the stream, from the utterance's first sample to the last one heard.
    """

    kind: EventKind
    text: str
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Chord:
    """A chord as it was heard, for `hops` hops.

    `second` is the second choice for `byte`, and `doubt` (0 to 1) says how near it comes.
    """

    clock: int
    byte: int
    second: int
    doubt: float
    hops: int
    began: float
    ended: float

    @property
    def is_mark(self) -> bool:
        """Whether the chord is a mark, and long enough to be meant as one."""
        return self.hops >= _MARK_HOPS and MARKS.get(self.clock) == self.byte


def checksum(data: bytes) -> bytes:
    """Return the checksum that follows the end mark."""
    return binascii.crc_hqx(data, 0xFFFF).to_bytes(CHECK_BYTES)


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """One way to understand chords: which of them are bytes, which are noise, and how many are missing before each.

    `cost` counts the hops that are ignored and the bytes that are missing. The reading with the least cost is the
    likeliest.
    """

    cost: int = 0
    size: int = 0
    chord: Chord | None = None
    lost: int = 0
    before: Self | None = None

    @property
    def clock(self) -> int:
        return CYCLE - 1 if self.chord is None else self.chord.clock

    def ignoring(self, chord: Chord) -> "_Reading":
        return replace(self, cost=self.cost + chord.hops)

    def taking(self, chord: Chord) -> "_Reading":
        """Return the reading with this chord as one more byte, or as the last byte again if it has the same clock.

        The last byte comes again as the rest of its chord, or because a jitter buffer repeats it.
        """
        lost = (chord.clock - self.clock - 1) % CYCLE
        if lost < CYCLE - 1 or self.chord is None:
            return _Reading(self.cost + lost * _LOST_COST, self.size + lost + 1, chord, lost, self)
        better, worse = (chord, self.chord) if chord.hops >= self.chord.hops else (self.chord, chord)
        wrong = 0 if better.byte == worse.byte else worse.hops
        return replace(self, cost=self.cost + wrong, chord=better)

    def heard(self) -> list[Chord | None]:
        """Return the reading's chords in order, with None for each one that is missing."""
        chords: list[Chord | None] = []
        reading: _Reading | None = self
        while reading is not None and reading.chord is not None:
            chords += [reading.chord, *[None] * reading.lost]
            reading = reading.before
        return chords[::-1]


def _bytes(chords: list[Chord | None]) -> bytes:
    return bytes(_LOST if chord is None else chord.byte for chord in chords)


class _Readings:
    """The likeliest readings of the same chords, one for each clock that a reading may end with."""

    def __init__(self) -> None:
        self._by_clock = {CYCLE - 1: _Reading()}

    @property
    def best(self) -> _Reading:
        return min(self._by_clock.values(), key=lambda reading: reading.cost)

    def take(self, chord: Chord) -> None:
        found: dict[int, _Reading] = {}
        for reading in self._by_clock.values():
            for longer in (reading.taking(chord), reading.ignoring(chord)):
                if longer.clock not in found or longer.cost < found[longer.clock].cost:
                    found[longer.clock] = longer
        self._by_clock = found

    def candidates(self) -> Iterator[bytes]:
        """Yield everything that may have been meant, the likeliest first."""
        best, *others = sorted(self._by_clock.values(), key=lambda reading: reading.cost)
        chords = best.heard()
        yield _bytes(chords)
        yield from (_bytes(other.heard()) for other in others if other.cost <= best.cost + _MARGIN)
        places = [(chord.doubt, place, chord.second) for place, chord in enumerate(chords) if chord is not None]
        for _, place, second in nlargest(_DOUBTFUL, places):
            data = bytearray(_bytes(chords))
            data[place] = second
            yield bytes(data)


class UtteranceReader:
    """A reader that makes utterances from chords. The same chord may come several times, each time with more hops."""

    def __init__(self, patience_seconds: float) -> None:
        """Begin with no utterance. `patience_seconds` is the silence after which an utterance counts as cut."""
        self._patience = patience_seconds
        self._open = False
        self._began = self._ended = 0.0
        self._text = _Readings()
        self._check: _Readings | None = None
        self._shown = 0

    def read(self, chord: Chord | None, silence_seconds: float) -> list[Event]:
        """Take a chord that has ended, if any, and how long nothing was heard. Return the events."""
        events = self._take(chord) if chord else []
        if self._open and silence_seconds >= PAUSE_SHOWN_SECONDS:
            events += self._show(at_least=1)
        if self._open and silence_seconds >= self._patience:
            events.append(self._close(EventKind.GARBLED))
        return events

    def _take(self, chord: Chord) -> list[Event]:
        if chord.clock == START:
            return self._start(chord) if chord.is_mark else []
        if not self._open:
            return []
        self._ended = chord.ended
        if chord.clock == END:
            if chord.is_mark and self._check is None:
                self._check = _Readings()
            return []
        if self._check is not None:
            return self._take_check(self._check, chord)
        self._text.take(chord)
        return self._show() if self._text.best.size <= MAX_TEXT_BYTES else [self._close(EventKind.GARBLED)]

    def _start(self, chord: Chord) -> list[Event]:
        if self._open and self._text.best.size <= 1 and chord.began - self._began < _START_AGAIN_SECONDS:
            # the same start mark comes again after a gap or noise in the middle of it
            self._text = _Readings()
            return []
        events = [self._close(EventKind.GARBLED)] if self._open else []
        self._open = True
        self._began, self._ended = chord.began, chord.ended
        self._text, self._check = _Readings(), None
        self._shown = 0
        return [*events, self._event(EventKind.STARTED, b"")]

    def _take_check(self, check: _Readings, chord: Chord) -> list[Event]:
        check.take(chord)
        sums = {data for data in check.candidates() if len(data) == CHECK_BYTES}
        right = next((data for data in self._text.candidates() if checksum(data) in sums), None) if sums else None
        if right is not None:
            self._open = False
            return [self._event(EventKind.FINISHED, right)]
        # after a wrong checksum the utterance stays open until silence: its last chord may come again and be right
        return [self._close(EventKind.GARBLED)] if check.best.size > 2 * CHECK_BYTES else []

    def _show(self, *, at_least: int = PARTIAL_CHARACTERS) -> list[Event]:
        best = self._text.best
        if best.size < self._shown + at_least:
            return []
        event = self._event(EventKind.PARTIAL, _bytes(best.heard()))
        if len(event.text) < self._shown + at_least:
            return []
        self._shown = len(event.text)
        return [event]

    def _close(self, kind: EventKind) -> Event:
        self._open = False
        return self._event(kind, _bytes(self._text.best.heard()))

    def _event(self, kind: EventKind, data: bytes) -> Event:
        # a character of which only some bytes are there is not shown
        text = codecs.getincrementaldecoder("utf-8")("replace").decode(data)
        return Event(kind, text, self._began, self._ended)
