"""A fuzzer of what a line reads: messages that are wrong in one place or in a few, and streams of such frames.

`python -m tests.support.line_fuzz --seconds 60 --seed 1` looks for a fault, and ends with 1 if there is one. The same
seed tries the same.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, NamedTuple

import msgpack

from conversation_actors.line.frames import FrameError, framed
from conversation_actors.line.messages import (
    Answer,
    ExecuteCall,
    ToClient,
    ToOwner,
    decode_to_client,
    decode_to_owner,
    encode,
)
from conversation_actors.protocol import Executed
from tests.support.line_messages import TO_CLIENT, TO_OWNER
from tests.support.line_oracle import conforms, fault_of_reader, negative_numbers, says_the_same

_MOST_KNOWN, _LONGEST = 400, 3000
"""How many bodies are changed further, and how long one may grow."""
_MOST = 300
"""The limit of the frames in a stream: most messages are shorter, and some are not."""
_COUNTS = frozenset({"call", "subscription", "credit", "after_seq", "number", "after", "appended", "epoch"})
_ATOMS: Sequence[Any] = (
    None, True, False, 0, 1, -1, 127, 128, 1 << 31, 1 << 32, -(1 << 63), (1 << 63) - 1, (1 << 64) - 1,
    0.0, -0.0, 1.5, float("nan"), float("inf"), "", "a", "ab", "agent", "\ud800", "\0", "電" * 40, b"", b"{}", b"[]",
    b'{"a":1}', b'{"a":NaN}', b'{"a":"\\ud800"}', b'{"a":' + b"[" * 300, [], [[]], {}, {"a": 1},
    msgpack.ExtType(5, b"x"), msgpack.Timestamp(1), "SetAttributes", "AppendItems", "Lease", "LeaseHeldError", "object",
)  # fmt: skip
_BYTES = bytes([0, 1, 0x7F, 0x80, 0x90, 0x91, 0x9F, 0xA0, 0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC6, 0xC7, 0xCA, 0xCB, 0xCF,
                0xD3, 0xD6, 0xDB, 0xDC, 0xDD, 0xDF, 0xE0, 0xFF])  # fmt: skip


class Finding(NamedTuple):
    """A fault, and the bytes that show it."""

    round: int
    what: str
    data: bytes


class LineFuzzer:
    """A source of wrong messages, the same ones for the same seed. What is accepted is changed further."""

    def __init__(self, seed: int) -> None:
        """Begin with one message of each form."""
        self._random = random.Random(seed)
        self._known = [encode(message)[5:] for message in (*TO_OWNER.values(), *TO_CLIENT.values(), *_small_ones())]
        self._first = len(self._known)
        self.accepted = 0

    def search(self, rounds: Iterable[int]) -> Finding | None:
        """Return the first fault in so many rounds."""
        for number in rounds:
            body = self._changed(self._random.choice(self._known))
            found = self._fault_of_decoders(body)
            if found is not None:
                return Finding(number, found, body)
            pieces = self._pieces(body)
            found = fault_of_reader(pieces, _MOST)
            if found is not None:
                return Finding(number, f"the reader {found}", b"|".join(pieces))
        return None

    def _fault_of_decoders(self, body: bytes) -> str | None:
        for decode, kinds in ((decode_to_owner, ToOwner), (decode_to_client, ToClient)):
            found = self._fault_of_decoder(body, decode, kinds)
            if found is not None:
                return f"{decode.__name__} {found}"
        return None

    def _fault_of_decoder(self, body: bytes, decode: Callable[[bytes], Any], kinds: Any) -> str | None:
        try:
            message = decode(body)
        except FrameError:
            return None
        except Exception as error:  # noqa: BLE001  # this is what is looked for
            return f"raised {error!r}"
        found = _fault_of_message(body, message, kinds)
        if found is None:
            self._keep(body)
        return found and f"returned {found}: {message!r}"

    def _keep(self, body: bytes) -> None:
        self.accepted += 1
        if len(body) >= _LONGEST:
            return
        if len(self._known) < _MOST_KNOWN:
            self._known.append(body)
        else:
            # The first of each form stay.
            self._known[self._random.randrange(self._first, _MOST_KNOWN)] = body

    def _changed(self, body: bytes) -> bytes:
        for _ in range(self._random.choice((1, 1, 1, 2, 4))):
            change = self._random.choice((self._with_other_part, self._with_other_part, self._with_other_bytes))
            body = change(body)[: 2 * _LONGEST]
        return body

    def _with_other_part(self, body: bytes) -> bytes:
        """Change one part of the value, wherever it is, and write it anew."""
        try:
            tree = msgpack.unpackb(body, unicode_errors="surrogatepass", strict_map_key=False)
            changed: bytes = msgpack.packb(self._with_part(tree), unicode_errors="surrogatepass")
        except (ValueError, OverflowError, TypeError):  # an earlier change has left no value
            return self._with_other_bytes(body)
        return changed

    def _with_part(self, tree: Any) -> Any:
        """Change one of all parts, however deep it is."""
        rng = self._random
        places = list(_places(tree))
        if not places or rng.random() < 0.02:
            return self._other(tree)
        parts, place = rng.choice(places)
        match rng.randrange(8):
            case 0:
                del parts[place]
            case 1:
                parts.insert(place, parts[place])
            case 2:
                other = rng.randrange(len(parts))
                parts[place], parts[other] = parts[other], parts[place]
            case _:
                parts[place] = self._other(parts[place])
        return tree

    def _other(self, part: Any) -> Any:
        rng = self._random
        match rng.randrange(5):
            case 0 if type(part) is list:
                return "ab"[: len(part)].ljust(len(part), "c")
            case 0 if type(part) is bytes:
                return self._with_other_bytes(part)
            case 0 if type(part) is int and abs(part) < 1 << 62:
                return part + rng.choice((-1, 1, -part - 1))
            case 1:
                return [part]
            case 2:
                # A part of another message.
                tree = msgpack.unpackb(rng.choice(self._known), unicode_errors="surrogatepass", strict_map_key=False)
                while type(tree) is list and tree and rng.random() < 0.8:
                    tree = rng.choice(tree)
                return tree
        return rng.choice(_ATOMS)

    def _with_other_bytes(self, body: bytes) -> bytes:
        """Change, lose, double or add some bytes, whatever they stand for."""
        rng = self._random
        place, end = sorted((rng.randint(0, len(body)), rng.randint(0, len(body))))
        flipped = bytes(byte ^ 1 << rng.randrange(8) for byte in body[place : place + 1])
        before, behind = body[:place], body[place:]
        return rng.choice(
            (
                before + flipped + behind[1:],
                before + bytes([rng.choice(_BYTES)]) + behind[1:],
                before + rng.randbytes(rng.randint(1, 4)) + behind,
                before + body[end:],
                body[:end] + body[place:end] + body[end:],
                before + rng.choice((b"\xff" * 4, b"\0\0\1\0", b"\x7f\xff\xff\xff")) + behind[4:],
                before + rng.choice(self._known)[place:],
            )
        )

    def _pieces(self, body: bytes) -> list[bytes]:
        """Return a stream of a few frames, one of them changed, in pieces."""
        rng = self._random
        frames = [framed(rng.choice(self._known)[: rng.choice((2, 20, _MOST))]) for _ in range(rng.randrange(3))]
        stream = b"".join([*frames, framed(body[: _MOST + 1]), *frames])
        if rng.random() < 0.7:
            stream = self._with_other_bytes(stream)
        cuts = sorted(rng.randint(0, len(stream)) for _ in range(rng.randrange(6)))
        return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


def _places(tree: Any) -> Iterator[tuple[list[Any], int]]:
    """Return each part of a value as the list that it is in, and where."""
    for place, part in enumerate(tree if type(tree) is list else ()):
        yield tree, place
        yield from _places(part)


def _small_ones() -> Iterator[ToOwner | ToClient]:
    """Return calls with one request and answers with one reply, where a change is likely to meet what is in them."""
    for message in (*TO_OWNER.values(), *TO_CLIENT.values()):
        match message:
            case ExecuteCall(call, execute):
                yield from (ExecuteCall(call, replace(execute, requests=[one])) for one in execute.requests)
            case Answer(call, Executed() as executed):
                yield from (Answer(call, replace(executed, replies=(one,))) for one in executed.replies)
            case _:
                yield message


def _fault_of_message(body: bytes, message: Any, kinds: Any) -> str | None:
    """Return what is wrong with a message that was read from a body; None if nothing is."""
    if not conforms(message, kinds):
        return "parts of wrong types"
    if negative_numbers(message, _COUNTS):
        return "a count below 0"
    try:
        return None if says_the_same(body, message) else "what did not come"
    except Exception as error:  # noqa: BLE001  # whatever is read must be fit to be written
        return f"what cannot be written again, {error!r}"


def rounds_for(seconds: float) -> Iterable[int]:
    """Yield rounds until so many seconds are over."""
    until = time.monotonic() + seconds
    for number in count():
        if time.monotonic() >= until:
            return
        yield number


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.line_fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    fuzzer, tried = LineFuzzer(options.seed), 0

    def rounds() -> Iterable[int]:
        nonlocal tried
        for number in rounds_for(options.seconds):
            tried = number + 1
            yield number

    found = fuzzer.search(rounds())
    print(f"seed {options.seed}: {tried} messages, {fuzzer.accepted} of them whole; {found or 'no fault'}")  # noqa: T201  # a program's output
    return int(found is not None)


if __name__ == "__main__":
    sys.exit(main())
