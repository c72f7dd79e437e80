"""Large snapshots as zstd frames. A frame carries the size of its content, and a checksum of it; both are checked.

Snapshots are stored so, in Redis and in the archive. Entries are not: most are small, and a person can read them. Nor
is what an owner sends its readers: on the way it would cost more time than it saves, even over a gigabit a second.
"""

import zstandard

from conversation_actors.codec.lines import corrupt

LARGE = 8 << 10
"""Bytes from which on a value is compressed: a smaller one saves a few KiB at most, and stays readable."""
MOST_CONTENT = 128 << 20
"""Bytes of a frame's content: twice the largest window. What is larger is stored as it is, and so are such frames
refused: a few bytes in Redis cannot fill the memory of whoever reads them."""

_MAGIC = b"\x28\xb5\x2f\xfd"  # no JSON begins so
_LEVEL = 1
"""A save holds its owner's loop up. Level 3 takes twice the time, and 4 % off the bytes of 200 items."""
_PIECE = 256


def compressed(data: bytes) -> bytes:
    """Return the form to store: a frame, if the value is large and becomes smaller by it."""
    if not LARGE <= len(data) <= MOST_CONTENT:
        return data
    frame: bytes = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True, write_content_size=True).compress(data)
    return frame if len(frame) < len(data) else data


def is_compressed(data: bytes) -> bool:
    """Tell whether a value is a frame, whole or not."""
    return data.startswith(_MAGIC)


def decompressed(frame: bytes) -> bytes:
    """Return what `compressed` was given.

    Raises `CorruptStateError` with the position in the frame, to 256 bytes, at which the damage shows. That of text
    shows at the frame's end, where the checksum is.
    """
    try:
        size = zstandard.get_frame_parameters(frame).content_size
    except zstandard.ZstdError as error:
        reason = f"a compressed value's beginning cannot be read: {error}"
        raise corrupt(reason, 0) from error
    if size == zstandard.CONTENTSIZE_UNKNOWN:
        raise corrupt("a compressed value does not say how large it is", 0)
    if size > MOST_CONTENT:
        raise corrupt(f"a compressed value says that it has {size} bytes; at most {MOST_CONTENT} are read", 0)
    try:
        content: bytes = _decompressor().decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise corrupt(f"a compressed value cannot be read: {error}", _position(frame, size)) from error
    if len(content) != size:
        raise corrupt(f"a compressed value has {len(content)} bytes where it says {size}", 0)
    return content


def _decompressor() -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor(max_window_size=MOST_CONTENT)


def _position(frame: bytes, size: int) -> int:
    """Return where the first piece begins that cannot be decompressed, or that is too much; else the frame's end."""
    rest, produced = _decompressor().decompressobj(), 0
    for position in range(0, len(frame), _PIECE):
        try:
            produced += len(rest.decompress(frame[position : position + _PIECE]))
        except zstandard.ZstdError:
            return position
        if produced > size or rest.unused_data:
            return position
    return len(frame)
