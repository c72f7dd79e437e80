"""Large snapshots are stored as zstd frames: what was ever written stays readable, and damage is told by its position.

The golden file is what the first version that compressed has written. It is read, and not compared with what is written
today: another version of zstd may write other bytes.
"""

import random
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from conversation_actors.activation.recovery import restate
from conversation_actors.codec import compression, decode_snapshot, encode_snapshot, stored_snapshot
from conversation_actors.codec.compression import LARGE, MOST_CONTENT, compressed, decompressed
from conversation_actors.errors import CorruptStateError, IncompatibleVersionError
from conversation_actors.state import ConversationState, Limits, Window
from tests.support.fakes import Activations, FaultyStore, append, done, ids, stored
from tests.support.strategies import message
from tests.unit.codec.test_codec import counted_state

GOLDEN = Path(__file__).parents[2] / "data" / "codec" / "compressed" / "snapshot.bin"
MAGIC = zstandard.FRAME_HEADER
BOMB_BLOCK = ((128 << 10) << 3 | 0b010).to_bytes(3, "little") + b"x"
"""128 KiB of one letter, in four bytes; not the last block."""
LAST_BLOCK = b"\x01\x00\x00"
"""Nothing, and the frame's end."""


def large_state() -> ConversationState:
    """Return a conversation with something in every place, and 90 messages."""
    state, dice = counted_state(), random.Random(19)
    words = ["lamp", "parcel", "Tuesday", "courier", "Straße", "注文", "refund", "signature", "doorstep", "invoice"]
    said = (message(f"m{number}", " ".join(dice.choices(words, k=20))) for number in range(1000, 1090))
    state.window = Window((*state.window, *said), state.window.orphans)
    return state


def frame_of(content_size: int, *blocks: bytes) -> bytes:
    """Return a frame that says to have so many bytes of content, without a checksum."""
    return MAGIC + b"\xe0" + content_size.to_bytes(8, "little") + b"".join(blocks)


def damage(data: bytes) -> CorruptStateError:
    """Return the error that reading a snapshot raises."""
    with pytest.raises(CorruptStateError) as error:
        decode_snapshot(data)
    assert 0 <= error.value.position <= len(data)
    return error.value


def test_golden_frame_reads_as_it_was_meant() -> None:
    """As the state it was written of; and what is stored of it today is a frame as well."""
    state = decode_snapshot(GOLDEN.read_bytes())
    assert encode_snapshot(state) == encode_snapshot(large_state())
    assert stored_snapshot(state).startswith(MAGIC)
    assert encode_snapshot(decode_snapshot(stored_snapshot(state))) == encode_snapshot(state)


@given(st.binary(max_size=64), st.integers(0, 2000))
def test_what_is_compressed_comes_back(data: bytes, times: int) -> None:
    """Byte for byte; and what does not become smaller, or is small, is stored as it is."""
    value = b"{" + data * times
    kept = compressed(value)
    assert len(kept) <= len(value)
    assert (kept is value) or (decompressed(kept) == value and len(value) >= LARGE)


def test_small_snapshot_stays_readable_for_a_person() -> None:
    """Up to 8 KiB; and so does what is beyond the bound of what would be read back."""
    assert stored_snapshot(counted_state()) == encode_snapshot(counted_state())
    assert compressed(b"x" * (LARGE - 1)) == b"x" * (LARGE - 1)
    assert len(compressed(b"x" * LARGE)) < 100


def test_too_large_value_is_stored_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written that would be refused when it is read."""
    monkeypatch.setattr(compression, "MOST_CONTENT", LARGE + 1)
    assert decompressed(compressed(b"x" * (LARGE + 1))) == b"x" * (LARGE + 1)
    assert compressed(b"x" * (LARGE + 2)) == b"x" * (LARGE + 2)


def test_incompressible_value_is_stored_as_it_is() -> None:
    """A frame around it would only be larger."""
    noise = random.Random(1).randbytes(2 * LARGE)
    assert compressed(noise) is noise


def test_every_truncation_of_a_frame_is_corruption() -> None:
    """At every byte; the position is inside of what is left, or at its end."""
    frame = GOLDEN.read_bytes()
    for cut in range(len(frame)):
        assert damage(frame[:cut]).position <= cut


def test_no_changed_bit_of_a_frame_is_taken_for_content() -> None:
    """The checksum tells what the format lets pass."""
    frame, dice = stored_snapshot(large_state()), random.Random(2)
    content = decompressed(frame)
    for position in range(4, len(frame)):
        bad = bytearray(frame)
        bad[position] ^= 1 << dice.randrange(8)
        with suppress(CorruptStateError):
            assert decompressed(bytes(bad)) == content  # a bit that means nothing


def test_damage_is_told_where_it_shows() -> None:
    """That of a block's form at the block; that of its content at the end, by the checksum."""
    content = bytes(random.Random(3).choices(b"abcdefgh", k=1 << 20))
    frame, block = bytearray(compressed(content)), zstandard.frame_header_size(compressed(content))
    for _ in range(3):
        block += 3 + (int.from_bytes(frame[block : block + 3], "little") >> 3)
    kind = frame[block]
    frame[block] |= 0b110
    with pytest.raises(CorruptStateError, match="cannot be read") as error:
        decompressed(bytes(frame))
    assert 0 <= block - error.value.position < 256
    frame[block] = kind
    frame[-1] ^= 1
    with pytest.raises(CorruptStateError, match="cannot be read") as error:
        decompressed(bytes(frame))
    assert len(frame) - 256 <= error.value.position < len(frame)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (MAGIC, "beginning cannot be read"),
        (MAGIC + b"\x00", "beginning cannot be read"),
        (zstandard.ZstdCompressor(write_content_size=False).compress(b"{}" * 9000), "does not say how large"),
        (frame_of(MOST_CONTENT + 1, LAST_BLOCK), "at most"),
        (frame_of((1 << 64) - 3, LAST_BLOCK), "at most"),
        (frame_of(MOST_CONTENT, LAST_BLOCK), "cannot be read|bytes where it says"),
        (frame_of(9000, *[BOMB_BLOCK] * 100_000, LAST_BLOCK), "cannot be read"),
        (frame_of(0, *[BOMB_BLOCK] * 100, LAST_BLOCK), ""),
        (frame_of(0, LAST_BLOCK), ""),
        (compressed(b"x" * LARGE) + b"y", "cannot be read"),
        (compressed(b"x" * LARGE) * 2, "cannot be read"),
        (frame_of(9000, b"\x07\x00\x00"), "cannot be read"),
    ],
    ids=[
        "nothing but the magic",
        "cut header",
        "no size",
        "more than the bound",
        "a size as no memory has",
        "less than it says",
        "more than it says",
        "more than nothing",
        "nothing",
        "something behind it",
        "a second frame",
        "a block of no kind",
    ],
)
def test_hostile_frame_is_corruption(frame: bytes, reason: str) -> None:
    """Whatever it says and has, it takes no more memory than what it may have, and a position is told."""
    tracemalloc.start()
    try:
        assert reason in str(damage(frame)) or any(part in str(damage(frame)) for part in reason.split("|"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * MOST_CONTENT


def test_frame_of_a_dictionary_is_corruption() -> None:
    """Nobody has written one."""
    dictionary = zstandard.ZstdCompressionDict(b"What a long time ago it is. " * 99)
    frame = zstandard.ZstdCompressor(dict_data=dictionary).compress(b"What a long time ago it is. " * 999)
    damage(frame)


def test_damage_in_the_content_is_told_as_the_contents() -> None:
    """With its position there; a newer schema is no damage."""
    content = encode_snapshot(large_state())
    bad = content[:5000] + b"\xff" + content[5001:]
    with pytest.raises(CorruptStateError) as damaged:
        decode_snapshot(compressed(bad))
    error = damaged.value
    assert "decompressed, byte 5000: " in str(error)
    assert error.position == 5000
    with pytest.raises(IncompatibleVersionError, match="999"):
        decode_snapshot(compressed(content.replace(b'"v":2', b'"v":999', 1)))


async def test_owner_stores_a_large_state_compressed_and_the_next_one_recovers_it(start: Activations) -> None:
    """In a third of the bytes; and damage to it names the key."""
    store = FaultyStore()
    owner = await start(store)
    for number in range(60):
        await done(owner, append(f"u{number}", f"message {number}: " + "where is my order of last Tuesday? " * 8))
    await owner.passivate()
    state, found = await stored(store)
    assert ids(state) == [f"u{number}" for number in range(60)]
    kept = found.stored.snapshot
    assert kept is not None
    assert kept.startswith(MAGIC)
    assert len(kept) * 3 < len(encode_snapshot(state))
    with pytest.raises(CorruptStateError) as error:
        restate(replace(found.stored, snapshot=kept[:-1]), Limits())
    assert error.value.key == "conv:default:{c}:snapshot"
    assert str(error.value).startswith("conv:default:{c}:snapshot: byte ")
