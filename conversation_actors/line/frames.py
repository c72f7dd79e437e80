"""Frames: where a message begins and ends in a stream of bytes, and by which protocol it was made.

A frame is four bytes of length (big-endian), one byte of version, and a body. The length counts the version and the
body.
"""

import struct

from conversation_actors.protocol import PROTOCOL

MAX_FRAME = 64 << 20
"""The largest length of a frame."""
_LENGTH = struct.Struct("!I")
_HEADER = struct.Struct("!IB")


class FrameError(Exception):
    """What came is no frame, or its body is no message of this version."""


class FrameTooLargeError(ValueError):
    """A message that may not be sent by a line, or that a frame cannot hold: send it by Ray's call."""


def framed(body: bytes) -> bytes:
    """Return the body as a frame. Raises `FrameTooLargeError` if no reader would accept it."""
    length = len(body) + 1
    if length > MAX_FRAME:
        message = f"a frame of {length} bytes; the limit is {MAX_FRAME}"
        raise FrameTooLargeError(message)
    return _HEADER.pack(length, PROTOCOL) + body


class FrameReader:
    """What has come of one stream of frames, and is not yet a whole one.

    A reader that has raised `FrameError` raises it again for whatever comes later: no frame is found after bytes that
    are none.
    """

    def __init__(self, most: int = MAX_FRAME) -> None:
        """Take the largest length of a frame, in bytes of version and body."""
        self._most = most
        self._held = bytearray()
        self._missing = _LENGTH.size  # bytes to come until there is news
        self._fault: str | None = None

    @property
    def pending(self) -> int:
        """Bytes of an unfinished frame that are held."""
        return len(self._held)

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes of the stream, and return the bodies of the frames that are whole now.

        Raises `FrameError` as soon as a header is there that begins no frame: its length is 0 or too large, or its
        version is another one. Frames before it in the same bytes are lost.
        """
        if self._fault is not None:
            raise FrameError(self._fault)
        if self._held:
            self._held += data
            if len(data) < self._missing:
                self._missing -= len(data)
                return []
        try:
            if not self._held:
                bodies, at = self._split(data)
                self._held += data[at:]
            else:
                with memoryview(self._held) as held:
                    bodies, at = self._split(held)
                del self._held[:at]
        except FrameError as error:
            self._fault = str(error)
            self._held.clear()
            raise
        return bodies

    def _split(self, data: bytes | memoryview) -> tuple[list[bytes], int]:
        """Return the bodies of all whole frames, and where the first frame that is not whole begins."""
        bodies: list[bytes] = []
        at, end = 0, len(data)
        while end - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(data, at)
            if not 0 < length <= self._most:
                message = f"a frame of {length} bytes; 1 to {self._most} are allowed"
                raise FrameError(message)
            start, next_one = at + _HEADER.size, at + _LENGTH.size + length
            if start <= end and data[start - 1] != PROTOCOL:
                message = f"a frame of protocol {data[start - 1]}; this side speaks {PROTOCOL}"
                raise FrameError(message)
            if next_one > end:
                self._missing = (
                    next_one - end if start <= end else start - end
                )  # the version is judged without the rest
                return bodies, at
            bodies.append(bytes(data[start:next_one]))
            at = next_one
        self._missing = at + _LENGTH.size - end
        return bodies, at
