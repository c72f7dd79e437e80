"""Understanding an utterance from chords, of which some are noise, doubled, doubtful or not there at all."""

import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_worker.offline.utterances import CYCLE, END, MARKS, START, Chord, Event, EventKind, UtteranceReader, checksum

WHOLE, SHORT = 10, 3
SILENCE = 1.5
MANY = settings(max_examples=100, deadline=None)


def _chord(clock: int, byte: int, hops: int = WHOLE, *, second: int = 0, doubt: float = 0.0) -> Chord:
    return Chord(clock, byte, second, doubt, hops, 0.0, 0.0)


def _utterance(text: str) -> list[Chord]:
    data = text.encode()
    start, end = (_chord(mark, MARKS[mark]) for mark in (START, END))
    return [start, *_chords(data), end, *_chords(checksum(data))]


def _chords(data: bytes) -> list[Chord]:
    return [_chord(place % CYCLE, byte) for place, byte in enumerate(data)]


def _read(chords: Iterable[Chord]) -> list[Event]:
    reader = UtteranceReader(SILENCE)
    events = [event for chord in chords for event in reader.read(chord, 0.0)]
    return events + reader.read(None, SILENCE)


def _outcome(chords: Iterable[Chord]) -> tuple[EventKind, str]:
    (end,) = [event for event in _read(chords) if event.kind in {EventKind.FINISHED, EventKind.GARBLED}]
    return end.kind, end.text


@MANY
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_every_text_is_understood(text: str) -> None:
    """The reader undoes what an utterance is made of."""
    assert _outcome(_utterance(text)) == (EventKind.FINISHED, text)


@MANY
@given(place=st.integers(0, 12), clock=st.integers(0, CYCLE - 1), byte=st.integers(0, 255))
def test_a_short_chord_that_does_not_fit_is_ignored(place: int, clock: int, byte: int) -> None:
    """Noise between two chords, of any clock, does not move the others."""
    chords = _utterance("some words")
    chords.insert(place, _chord(clock, byte, SHORT))

    assert _outcome(chords) == (EventKind.FINISHED, "some words")


@MANY
@given(place=st.integers(1, 10), size=st.integers(1, 2), seed=st.integers(0, 1000))
def test_chords_that_come_again_count_once(place: int, size: int, seed: int) -> None:
    """The last one or two, as long as before or shorter."""
    chords = _utterance("some words")
    hops = random.Random(seed).choice([SHORT, WHOLE])
    again = [_chord(chord.clock, chord.byte, hops) for chord in chords[max(1, place + 1 - size) : place + 1]]

    assert _outcome([*chords[: place + 1], *again, *chords[place + 1 :]]) == (EventKind.FINISHED, "some words")


def test_the_longer_of_two_hearings_counts() -> None:
    """The first half of a chord was wrong, the whole of it is right; and the other way round."""
    whole = _utterance("abc")
    half = _chord(1, ord("x"), SHORT)

    assert _outcome([*whole[:2], half, *whole[2:]]) == (EventKind.FINISHED, "abc")
    assert _outcome([*whole[:3], half, *whole[3:]]) == (EventKind.FINISHED, "abc")


def test_a_doubtful_byte_is_tried_with_its_second_choice() -> None:
    """The checksum decides; without it the likeliest stays."""
    chords = _utterance("abc")
    chords[2] = _chord(1, ord("x"), second=ord("b"), doubt=0.9)

    assert _outcome(chords) == (EventKind.FINISHED, "abc")
    assert _outcome(chords[:-1]) == (EventKind.GARBLED, "axc")


@pytest.mark.parametrize(("first", "last", "told"), [(3, 4, "ab�defgh"), (3, 5, "ab��efgh"), (1, 2, "�bcdefgh")])
def test_what_is_missing_is_marked(first: int, last: int, told: str) -> None:
    """One character for each byte, and no other moves."""
    chords = _utterance("abcdefgh")
    del chords[first:last]

    assert _outcome(chords) == (EventKind.GARBLED, told)


def test_a_byte_that_was_not_said_is_not_believed() -> None:
    """However clearly it was heard."""
    chords = _utterance("abc")
    chords[2] = _chord(1, ord("x"))

    assert _outcome(chords) == (EventKind.GARBLED, "axc")


def test_a_start_that_is_broken_by_noise_is_one_start() -> None:
    """No utterance of one byte is made up before the real one."""
    start, *rest = _utterance("abc")
    events = _read([start, _chord(2, 7, SHORT), start, *rest])

    assert [event.kind for event in events] == [EventKind.STARTED, EventKind.FINISHED]


def test_chords_without_a_start_are_nothing() -> None:
    """Nor is a mark that carries another byte, or is too short."""
    _, *rest = _utterance("abc")

    assert _read(rest) == []
    assert _read([_chord(START, 0), *rest]) == []
    assert _read([_chord(START, MARKS[START], 1), *rest]) == []
