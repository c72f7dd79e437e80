"""The fuzzer of what a line reads: it finds nothing in the product, and finds faults that are planted there."""

import logging
import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from conversation_actors import values
from conversation_actors.line import executing, fields, messages, records
from conversation_actors.line.frames import MAX_FRAME, FrameReader
from conversation_actors.protocol import PROTOCOL
from tests.support.line_fuzz import LineFuzzer, rounds_for

logger = logging.getLogger(__name__)
Plant = Callable[[pytest.MonkeyPatch], None]

_SECONDS = float(os.environ.get("LONG_FUZZ_SECONDS", "600"))


def test_no_fault_is_found() -> None:
    """A few thousand messages, the same ones each time."""
    fuzzer = LineFuzzer(seed=1)

    assert fuzzer.search(range(5000)) is None
    assert fuzzer.accepted > 300  # what is refused at once reaches no code behind


@pytest.mark.long
@pytest.mark.timeout(_SECONDS + 120)
def test_no_fault_is_found_in_a_long_time() -> None:
    """Others each time."""
    seed = random.randrange(10**6)
    fuzzer = LineFuzzer(seed)
    found = fuzzer.search(rounds_for(_SECONDS))
    logger.warning("seed %d: %d messages were whole in %.0f s", seed, fuzzer.accepted, _SECONDS)

    assert found is None, seed


def _everywhere(patch: pytest.MonkeyPatch, name: str, function: Callable[..., Any]) -> None:
    for module in (executing, fields, messages, records):
        if hasattr(module, name):
            patch.setattr(module, name, function)


def _text_for_a_row(patch: pytest.MonkeyPatch) -> None:
    def row_of(given: Any, length: int) -> Any:
        if not isinstance(given, tuple | str) or len(given) != length:
            fields.refuse("a row", given)
        return given

    _everywhere(patch, "row_of", row_of)


def _truth_for_a_count(patch: pytest.MonkeyPatch) -> None:
    def read_count(given: Any) -> int:
        if not isinstance(given, int) or given < 0:
            fields.refuse("a count", given)
        return given

    _everywhere(patch, "read_count", read_count)


def _negative_count(patch: pytest.MonkeyPatch) -> None:
    _everywhere(patch, "read_count", fields.read_integer)


def _unknown_name(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(records, "_registered", lambda name, registry: registry[fields.read_text(name)])


def _bad_json(patch: pytest.MonkeyPatch) -> None:
    command = records.COMMANDS["SetAttributes"]
    unguarded = fields.Field(values.encode_checked, lambda given: values.decode(fields.read_bytes(given)))
    patch.setattr(command, "_fields", (unguarded, *command._fields[1:]))


def _lost_lease(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(executing, "_guard", lambda _: None)


def _any_version(patch: pytest.MonkeyPatch) -> None:
    split = FrameReader._split

    def unchecked(reader: FrameReader, data: bytes | memoryview) -> tuple[list[bytes], int]:
        if len(data) > 4:
            data = bytes(data[:4]) + bytes([PROTOCOL]) + bytes(data[5:])
        return split(reader, data)

    patch.setattr(FrameReader, "_split", unchecked)


def _late_frame(patch: pytest.MonkeyPatch) -> None:
    split = FrameReader._split

    def counting_wrong(reader: FrameReader, data: bytes | memoryview) -> tuple[list[bytes], int]:
        found = split(reader, data)
        reader._missing += 1
        return found

    patch.setattr(FrameReader, "_split", counting_wrong)


def _too_large_by_one(patch: pytest.MonkeyPatch) -> None:
    made = FrameReader.__init__
    patch.setattr(FrameReader, "__init__", lambda reader, most=MAX_FRAME: made(reader, most + 1))


@pytest.mark.parametrize(
    "plant",
    [
        _text_for_a_row,
        _truth_for_a_count,
        _negative_count,
        _unknown_name,
        _bad_json,
        _lost_lease,
        _any_version,
        _late_frame,
        _too_large_by_one,
    ],
)
def test_planted_fault_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Soon: most within a few hundred messages."""
    fuzzer = LineFuzzer(seed=1)
    plant(monkeypatch)
    found = fuzzer.search(range(5000))

    logger.info("%s", found)
    assert found is not None
