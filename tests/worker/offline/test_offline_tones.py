"""The tone code: what was said comes out as it was, or is said to be garbled, after all that a call does to sound."""

from collections.abc import Iterator
from itertools import pairwise

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent_worker.offline import tones, utterances
from agent_worker.offline.tones import Decoder, Event, EventKind, encode

Sound = NDArray[np.float64]

SENTENCE = "Your lamp, order A-1024, comes on Friday between 9 and 12. Größe: 你好 🙂"
RATE = 48_000
MANY = settings(max_examples=40, deadline=None)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
ENDS = {EventKind.FINISHED, EventKind.GARBLED}


def _say(text: str, rate: int = RATE) -> Sound:
    return encode(text, sample_rate=rate).astype(np.float64)


def _silence(seconds: float, rate: int = RATE) -> Sound:
    return np.zeros(round(seconds * rate))


def _hear(
    sound: Sound, rate: int = RATE, *, chunk: int = 960, patience_seconds: float = tones.PATIENCE_SECONDS
) -> list[Event]:
    decoder = Decoder(rate, patience_seconds=patience_seconds)
    samples = np.clip(np.round(sound), -32768, 32767).astype(np.int16)
    events = [
        event for start in range(0, len(samples), chunk) for event in decoder.feed(samples[start : start + chunk])
    ]
    return events + decoder.finish()


def _ends(events: list[Event]) -> list[tuple[EventKind, str]]:
    return [(event.kind, event.text) for event in events if event.kind in ENDS]


def _finished(text: str) -> list[tuple[EventKind, str]]:
    return [(EventKind.FINISHED, text)]


def _resampled(sound: Sound, before: int, after: int) -> Sound:
    return np.interp(np.arange(len(sound) * after // before) * before / after, np.arange(len(sound)), sound)


def _through_opus(sound: Sound, bit_rate: int) -> Sound:
    """Encode and decode as a call does: Opus for voice, 20 ms packets."""
    encoder = av.CodecContext.create("libopus", "w")
    decoder = av.CodecContext.create("libopus", "r")
    assert isinstance(encoder, av.AudioCodecContext)
    assert isinstance(decoder, av.AudioCodecContext)
    for codec in (encoder, decoder):
        codec.sample_rate, codec.layout, codec.format = RATE, "mono", "s16"
    encoder.bit_rate = bit_rate
    encoder.options = {"application": "voip", "frame_duration": "20"}
    pieces = []
    for piece in _frames(sound, RATE // 50):
        pieces += [heard for packet in encoder.encode(piece) for heard in decoder.decode(packet)]
    pieces += [heard for packet in encoder.encode(None) for heard in decoder.decode(packet)]
    return np.concatenate([piece.to_ndarray().reshape(-1) for piece in pieces]).astype(np.float64)


def _frames(sound: Sound, size: int) -> Iterator[av.AudioFrame]:
    padded = np.concatenate([sound, np.zeros(-len(sound) % size)]).astype(np.int16)
    for start in range(0, len(padded), size):
        frame = av.AudioFrame.from_ndarray(padded[np.newaxis, start : start + size], format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE, start
        yield frame


def _restretched(sound: Sound, seed: int) -> Sound:
    """Leave out or repeat 5 to 12 ms in every piece of 60 ms, blended over 2.5 ms: what a jitter buffer does."""
    random = np.random.default_rng(seed)
    fade = RATE // 400
    up = np.linspace(0.0, 1.0, fade)
    result = [sound[:0]]
    for start in range(0, len(sound), RATE * 6 // 100):
        piece = sound[start : start + RATE * 6 // 100]
        size = int(random.integers(RATE // 200, RATE * 12 // 1000))
        if len(piece) > size + 4 * fade:
            place = int(random.integers(fade, len(piece) - size - 2 * fade))
            first, second = (place, place + size) if random.random() < 0.5 else (place + size, place)
            blend = piece[first : first + fade] * (1 - up) + piece[second : second + fade] * up
            piece = np.concatenate([piece[:first], blend, piece[second + fade :]])
        result.append(piece)
    return np.concatenate(result)


@MANY
@given(text=TEXTS, rate=st.sampled_from([8_000, 11_025, 16_000, 24_000, 44_100, 48_000]), chunk=st.integers(50, 20_000))
def test_any_text_comes_back_at_any_rate_in_chunks_of_any_size(text: str, rate: int, chunk: int) -> None:
    """Also empty text, control characters and emojis; and an utterance is as long as was said."""
    events = _hear(_say(text, rate), rate, chunk=chunk)

    assert _ends(events) == _finished(text)
    assert len(_say(text, rate)) / rate == pytest.approx(tones.seconds(text), abs=0.01)


@MANY
@given(
    text=TEXTS,
    gain=st.floats(0.05, 1.0),
    noise=st.floats(0.0, 0.5),
    before=st.floats(0.0, 0.5),
    seed=st.integers(0, 1000),
)
def test_it_survives_volume_noise_and_resampling(
    text: str, gain: float, noise: float, before: float, seed: int
) -> None:
    """24 to 48 to 16 kHz, 5 % of the volume, noise 6 dB below the tones, silence (with the noise) around."""
    sound = np.concatenate([_silence(before, 24_000), _say(text, 24_000), _silence(0.1, 24_000)])
    sound = _resampled(_resampled(sound, 24_000, 48_000), 48_000, 16_000) * gain
    loudness = gain * 32767 * np.linalg.norm(tones.AMPLITUDES) / np.sqrt(2)
    sound += np.random.default_rng(seed).normal(0.0, noise * loudness, len(sound))

    assert _ends(_hear(sound, 16_000)) == _finished(text)


@pytest.mark.parametrize("bit_rate", [12_000, 24_000, 48_000])
@pytest.mark.parametrize("gain", [0.1, 1.0])
def test_it_survives_opus(bit_rate: int, gain: float) -> None:
    """The codec of every call, at its usual rates and at less."""
    sound = np.concatenate([_silence(0.3), _say(SENTENCE) * gain, _silence(0.3)])

    assert _ends(_hear(_through_opus(sound, bit_rate))) == _finished(SENTENCE)


@pytest.mark.parametrize("seed", range(8))
def test_it_survives_a_jitter_buffer(seed: int) -> None:
    """Each 60 ms shortened or lengthened by up to a fifth."""
    sound = np.concatenate([_silence(0.2), _say(SENTENCE), _silence(0.2)])

    assert _ends(_hear(_restretched(sound, seed))) == _finished(SENTENCE)


@MANY
@given(place=st.floats(0.0, 1.0), pause=st.floats(0.0, 1.4))
def test_it_survives_a_speaker_that_stops_anywhere_and_goes_on(place: float, pause: float) -> None:
    """A busy machine sends nothing for a moment, in the middle of a chord too; nothing is lost or doubled."""
    sound = _say("going on")
    cut = round(place * len(sound))

    assert _ends(_hear(np.concatenate([sound[:cut], _silence(pause), sound[cut:]]))) == _finished("going on")


@MANY
@given(place=st.floats(0.1, 0.9), size=st.floats(0.005, 0.045))
def test_it_survives_a_piece_that_is_played_twice(place: float, size: float) -> None:
    """Also one with the end of a chord and the beginning of the next."""
    sound = _say("once more")
    cut = round(place * len(sound))

    assert _ends(_hear(np.concatenate([sound[:cut], sound[cut - round(size * RATE) :]]))) == _finished("once more")


def test_it_survives_frames_that_come_one_by_one() -> None:
    """20 ms of sound, 60 ms of silence, and so on: the worst that was seen on a machine with no time left."""
    frames = np.split(_say("a b c"), range(960, len(_say("a b c")), 960))
    sound = np.concatenate([part for frame in frames for part in (frame, _silence(0.06))])

    assert _ends(_hear(sound)) == _finished("a b c")


@pytest.mark.parametrize("gain", [(1.0, 0.05), (0.05, 1.0), (3.0, 3.0)])
def test_it_survives_a_volume_that_changes_or_is_too_high(gain: tuple[float, float]) -> None:
    """An automatic gain control goes up or down in the middle, or clips."""
    sound = _say(SENTENCE)

    assert _ends(_hear(sound * np.geomspace(*gain, len(sound)))) == _finished(SENTENCE)


def test_partial_texts_come_every_ten_characters() -> None:
    """Each is the beginning of the text, and never has a character of which a byte is missing."""
    events = _hear(_say(SENTENCE))
    partial = [event.text for event in events if event.kind is EventKind.PARTIAL]

    assert [event.kind for event in events[:2]] == [EventKind.STARTED, EventKind.PARTIAL]
    assert all(SENTENCE.startswith(text) for text in partial)
    assert [len(text) for text in partial] == list(range(10, len(SENTENCE) + 1, 10))


def test_the_last_event_comes_at_once() -> None:
    """Within 60 ms of the last sound, with nothing but the silence that belongs to the utterance."""
    decoder = Decoder(RATE)
    samples = encode("now", sample_rate=RATE)

    assert _ends(decoder.feed(samples)) == _finished("now")
    assert decoder.finish() == []


def test_events_have_their_time_in_the_stream() -> None:
    """Seconds from the first sample; `finish` does not add to them."""
    decoder = Decoder(RATE)
    decoder.feed(_silence(2.0).astype(np.int16))
    decoder.finish()
    events = decoder.feed(encode("time", sample_rate=RATE))

    assert events[0].began == pytest.approx(2.0, abs=0.03)
    assert events[-1].ended == pytest.approx(2.0 + tones.seconds("time") - tones.PAUSE_SECONDS, abs=0.03)


@MANY
@given(place=st.floats(0.03, 0.85))
def test_an_utterance_that_breaks_off_is_garbled_and_the_next_is_not(place: float) -> None:
    """Its text is told after 300 ms, its end after 1.5 s; at most the character that was cut is wrong."""
    text = "cut in the middle"
    sound = _say(text)[: round(place * len(_say(text)))]
    said = min(int((len(sound) / RATE - tones.START_SECONDS) / tones.SYMBOL_SECONDS), len(text))
    decoder = Decoder(RATE)
    events = decoder.feed(sound.astype(np.int16)) + decoder.feed(_silence(0.35).astype(np.int16))
    assert _ends(events) == []
    assert len(events[-1].text) >= said

    ((kind, heard),) = _ends(decoder.feed(_silence(1.2).astype(np.int16)))
    assert (kind, heard) == (EventKind.GARBLED, events[-1].text)
    assert text.startswith(heard[:-1])
    assert _ends(decoder.feed(encode("next", sample_rate=RATE))) == _finished("next")


def test_a_new_start_ends_what_broke_off() -> None:
    """Without any silence in between."""
    cut = _say("interrupted")[: round(0.42 * RATE)]
    events = _hear(np.concatenate([cut, _say("new")]))

    assert _ends(events) == [(EventKind.GARBLED, "interr"), (EventKind.FINISHED, "new")]


def test_how_long_a_speaker_is_waited_for_can_be_chosen() -> None:
    """Two seconds of silence are too much for one decoder, and nothing to another."""
    sound = _say("wait for me")
    sound = np.concatenate([sound[: RATE // 2], _silence(2.0), sound[RATE // 2 :]])

    assert _ends(_hear(sound, patience_seconds=2.5)) == _finished("wait for me")
    assert [kind for kind, _ in _ends(_hear(sound))] == [EventKind.GARBLED]


def test_what_is_lost_is_not_made_up() -> None:
    """A missing chord leaves a mark in a garbled text; so do two, and a tail without its start is nothing."""
    sound = _say("abcdefgh")
    start = round((tones.START_SECONDS + 2 * tones.SYMBOL_SECONDS) * RATE)
    one = round(tones.SYMBOL_SECONDS * RATE)

    assert _ends(_hear(np.delete(sound, slice(start, start + one)))) == [(EventKind.GARBLED, "ab�defgh")]
    assert _ends(_hear(np.delete(sound, slice(start, start + 2 * one)))) == [(EventKind.GARBLED, "ab��efgh")]
    assert _hear(sound[start:]) == []


def test_a_wrong_checksum_is_garbled() -> None:
    """Two letters that changed places have the right clock, and were not said."""
    sound = _say("abcdefgh")
    one = round(tones.SYMBOL_SECONDS * RATE)
    start = round(tones.START_SECONDS * RATE)
    other = _say("abcdxfgh")
    sound[start + 4 * one : start + 5 * one] = other[start + 4 * one : start + 5 * one]

    assert _ends(_hear(sound)) == [(EventKind.GARBLED, "abcdxfgh")]


def test_chords_behind_a_wrong_checksum_end_it() -> None:
    """Memory is bounded there too: the end of one utterance and the bytes of another."""
    first, second = _say("abc"), _say("x" * 40)
    tail = len(first) - round((tones.PAUSE_SECONDS + 2 * tones.SYMBOL_SECONDS) * RATE)
    events = _hear(np.concatenate([first[:tail], second[round(tones.START_SECONDS * RATE) :]]))

    assert _ends(events) == [(EventKind.GARBLED, "abc")]
    assert events[-1].ended < tones.seconds("abc") + 0.1


def test_an_utterance_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded, whoever sings."""
    monkeypatch.setattr(utterances, "MAX_TEXT_BYTES", 20)

    assert _ends(_hear(_say("a" * 30))) == [(EventKind.GARBLED, "a" * 21)]


@pytest.mark.parametrize("volume", [0.001, 0.1, 1.0])
def test_sound_that_is_no_code_is_nothing(volume: float) -> None:
    """Silence, noise, a sweep, a chord that stands, and a buzz like a voice, loud and low: no event at all."""
    time = np.arange(4 * RATE) / RATE
    sweep = np.sin(2 * np.pi * (100 + 500 * time) * time)
    pitch = 120 + 20 * np.sin(2 * np.pi * 2 * time)
    harmonics = np.arange(1, 30)[:, np.newaxis]
    buzz = (np.sin(2 * np.pi * harmonics * np.cumsum(pitch) / RATE) / harmonics).sum(axis=0) / 3
    noise = np.random.default_rng(1).normal(0.0, 0.3, len(time))
    chord = (np.sin(2 * np.pi * 440 * time) + np.sin(2 * np.pi * 1320 * time)) / 2

    for sound in (np.zeros(len(time)), noise, sweep, buzz, chord):
        assert _hear(sound * volume * 32767) == []


@MANY
@given(data=st.data(), seed=st.integers(0, 1000))
def test_each_start_has_one_end(data: st.DataObject, seed: int) -> None:
    """However sound is cut and glued: started, finished or garbled, started …; and never a text nobody said."""
    said = ["one", "two and more", "three"]
    sound = np.concatenate([_say(text, 16_000) for text in said])
    places = sorted(data.draw(st.lists(st.integers(0, len(sound)), max_size=6)))
    parts = np.split(sound, places)
    np.random.default_rng(seed).shuffle(keep := [part for part in parts if len(part)])
    events = [event for event in _hear(np.concatenate(keep), 16_000) if event.kind is not EventKind.PARTIAL]

    assert [event.kind is EventKind.STARTED for event in events] == [index % 2 == 0 for index in range(len(events))]
    assert all(event.text in said for event in events if event.kind is EventKind.FINISHED)
    assert all(earlier.began <= later.began for earlier, later in pairwise(events))


@pytest.mark.parametrize("rate", [0, 7_999, 96_001])
def test_a_rate_out_of_range_is_refused(rate: int) -> None:
    """The tones would not fit, or it is no rate of sound."""
    with pytest.raises(ValueError, match="sample_rate"):
        encode("x", sample_rate=rate)
    with pytest.raises(ValueError, match="sample_rate"):
        Decoder(rate)


def test_a_lone_surrogate_is_refused() -> None:
    """It has no UTF-8."""
    with pytest.raises(UnicodeEncodeError):
        encode("\ud800", sample_rate=RATE)
