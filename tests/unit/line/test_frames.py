"""Frames in a stream: however the stream is cut, the same frames come out of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversation_actors.line import frames
from conversation_actors.line.frames import FrameError, FrameReader, FrameTooLargeError, framed
from conversation_actors.protocol import PROTOCOL

_bodies = st.lists(st.binary(max_size=20), max_size=5)


@given(_bodies, st.data())
def test_a_stream_may_come_in_any_pieces(bodies: list[bytes], data: st.DataObject) -> None:
    """No byte is lost or doubled where it is cut."""
    stream = b"".join(map(framed, bodies))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    reader, found = FrameReader(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += reader.feed(stream[start:end])

    assert found == bodies
    assert reader.pending == 0


def test_each_byte_may_come_alone() -> None:
    """What is held is what came of the unfinished frame."""
    reader, stream = FrameReader(), framed(b"one") + framed(b"")
    held = []
    found = []
    for place in range(len(stream)):
        found += reader.feed(stream[place : place + 1])
        held.append(reader.pending)

    assert found == [b"one", b""]
    assert held == [1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 0]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"\0\0\0\0", "0 bytes"),
        (b"\xff\xff\xff\xff", "4294967295 bytes"),
        ((101).to_bytes(4, "big"), "101 bytes"),
        (b"\0\0\0\x05" + bytes([PROTOCOL - 1]), f"protocol {PROTOCOL - 1}"),
        (b"\0\0\0\x05\0", "protocol 0"),
    ],
)
def test_a_header_that_begins_no_frame_is_refused_at_once(header: bytes, reason: str) -> None:
    """Before a byte of what it announces has come, in one piece or byte by byte; nothing is held afterwards."""
    with pytest.raises(FrameError, match=reason):
        FrameReader(100).feed(header)

    reader = FrameReader(100)
    reader.feed(framed(b"before") + header[:-1])
    with pytest.raises(FrameError, match=reason):
        reader.feed(header[-1:])
    assert reader.pending == 0


def test_nothing_is_found_after_a_fault() -> None:
    """Where the next frame begins is not known any more."""
    reader = FrameReader()
    with pytest.raises(FrameError):
        reader.feed(b"\0\0\0\0")
    with pytest.raises(FrameError):
        reader.feed(framed(b"whole"))


def test_the_largest_frame_is_read_and_a_larger_one_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is one for both sides."""
    monkeypatch.setattr(frames, "MAX_FRAME", 10)
    largest = framed(b"123456789")
    assert FrameReader(10).feed(largest) == [b"123456789"]
    with pytest.raises(FrameTooLargeError, match="11 bytes; the limit is 10"):
        framed(b"1234567890")


def test_a_large_frame_in_small_pieces_is_looked_at_once() -> None:
    """The whole is not searched again for every piece: that would take the square of the time."""

    class Counting(FrameReader):
        looks = 0

        def _split(self, data: bytes | memoryview) -> tuple[list[bytes], int]:
            self.looks += 1
            return super()._split(data)

    reader, frame = Counting(), framed(bytes(100_000))
    found = [body for place in range(0, len(frame), 100) for body in reader.feed(frame[place : place + 100])]

    assert found == [bytes(100_000)]
    assert reader.looks == 2
