"""What may be stored, and how a refusal names the place."""

import json
import math
from enum import IntEnum, StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversation_actors.errors import InvalidInputError, ItemTooLargeError
from conversation_actors.values import MAX_DEPTH, check_id, check_text, decode, encode, encode_checked
from tests.support.strategies import json_texts, json_values


class Colour(StrEnum):
    """Text that is more than text."""

    RED = "red"


class Level(IntEnum):
    """A number that is more than a number."""

    HIGH = 3


def nested(depth: int) -> Any:
    """Return a list in a list in a list, `depth` of them."""
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def cycle() -> list[Any]:
    """Return a list that holds itself."""
    value: list[Any] = []
    value.append(value)
    return value


@given(json_values)
def test_what_is_encoded_reads_back_equal_in_value_and_type(value: Any) -> None:
    """1, 1.0 and True stay three different things."""
    assert repr(decode(encode(value, "value"))) == repr(value)


@given(json_values)
def test_stored_form_is_one_line_of_utf8_json(value: Any) -> None:
    """No line break splits it, and any JSON reader reads it."""
    data = encode(value, "value")
    assert b"\n" not in data
    assert json.loads(data.decode()) == value


@pytest.mark.parametrize(
    ("value", "field", "reason"),
    [
        (math.nan, "metadata", "nan is not a finite number"),
        ({"a": [1, math.inf]}, "metadata.a[1]", "inf is not a finite number"),
        ([-math.inf], "metadata[0]", "-inf is not a finite number"),
        (1 << 64, "metadata", "more than 64 bits"),
        ({"n": -(1 << 63) - 1}, "metadata.n", "more than 64 bits"),
        ([10**5000], "metadata[0]", "more than 64 bits"),
        (b"bytes", "metadata", "bytes cannot be stored"),
        ({"a": (1, 2)}, "metadata.a", "tuple cannot be stored"),
        ({"a": {1, 2}}, "metadata.a", "set cannot be stored"),
        (object(), "metadata", "object cannot be stored"),
        ({"a": {1: 2}}, "metadata.a.1", "the key 1 is not text"),
        ({None: 2}, "metadata.None", "the key None is not text"),
        (nested(MAX_DEPTH + 1), "metadata" + "[0]" * MAX_DEPTH, "nested more than 32 deep"),
        (cycle(), "metadata" + "[0]" * MAX_DEPTH, "nested more than 32 deep"),
        ("\ud800", "metadata", "lone surrogate at character 1"),
        ({"\udfff": 1}, "metadata", "lone surrogate"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) and value.isascii() else type(value).__name__,
)
def test_unstorable_value_is_refused_by_its_path(value: object, field: str, reason: str) -> None:
    """The error names the first value that cannot be stored, and why."""
    with pytest.raises(InvalidInputError, match=reason) as refusal:
        encode(value, "metadata")
    assert refusal.value.field == field
    assert str(refusal.value).startswith(field)


@pytest.mark.parametrize("value", [nested(MAX_DEPTH), (1 << 64) - 1, -(1 << 63), 1e308, 5e-324, "\U0010ffff", "\0", ""])
def test_extremes_are_stored(value: Any) -> None:
    """The limits themselves are allowed."""
    assert decode(encode(value, "value")) == value


def test_subclasses_are_stored_as_what_they_are_made_of() -> None:
    """An enum of text is text, an enum of numbers a number, a bool stays a bool."""
    assert encode([Colour.RED, Level.HIGH, True], "value") == b'["red",3,true]'
    assert encode({Colour.RED: 1}, "value") == b'{"red":1}'


def test_large_value_is_refused_with_size_and_limit() -> None:
    """Sizes are bytes of the stored form, not characters."""
    assert encode("üü", "name", limit=6) == '"üü"'.encode()
    with pytest.raises(ItemTooLargeError, match="name: 6 bytes; the limit is 5") as refusal:
        encode("üü", "name", limit=5)
    assert (refusal.value.field, refusal.value.size, refusal.value.limit) == ("name", 6, 5)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"nul",
        b"1 2",
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"[1e999]",
        b"18446744073709551616",
        b"1" * 5000,
        b"[" * 100_000,
        b'"\xff"',
        b'"\xed\xa0\x80"',
        rb'"\ud800"',
        rb'{"\udc00":1}',
        b"\xef\xbb\xbf1",
        "[1]".encode("utf-16"),
        "[1]".encode("utf-16-le"),
        "[1]".encode("utf-32-be"),
    ],
    ids=lambda data: repr(data[:20]),
)
def test_what_encode_would_not_write_is_not_read(data: bytes) -> None:
    """Readers of JSON disagree about these; taking them in would let them out again."""
    with pytest.raises(ValueError, match=r"."):
        decode(data)


@given(st.binary(max_size=40))
def test_any_bytes_give_a_storable_value_or_a_value_error(data: bytes) -> None:
    """Whatever is read can be written again."""
    try:
        value = decode(data)
    except ValueError:
        return
    assert decode(encode(value, "value")) == value


def test_foreign_escapes_are_read() -> None:
    """A writer may escape what needs no escape; a pair of surrogates is one character."""
    assert decode(rb'"\u00fc\ud83d\ude00"') == "ü😀"


@pytest.mark.parametrize("identity", ["a", "x" * 256, "客户-42", "with space", "a/b:c{d}", "😀", Colour.RED])
def test_id_is_1_to_256_characters(identity: str) -> None:
    """Unicode counts by character."""
    assert check_id(identity, "id") == identity


@pytest.mark.parametrize(
    "identity",
    [
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "👩\u200d🔧",
        "❤\ufe0f",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "room\u00a07",
        "\u200f\u05e9\u05dc",
        "co\u00adoperation",
        "\u3000",
        "a\u2028b",
        "\ue000",
    ],
)
def test_id_is_any_writing(identity: str) -> None:
    """Joiners, no-break spaces, marks of direction and emoji sequences: LiveKit takes them as names of rooms."""
    assert check_id(identity, "id") == identity


@pytest.mark.parametrize(
    ("identity", "reason"),
    [
        ("", "0 characters; the limit is 1 to 256"),
        ("x" * 257, "257 characters; the limit is 1 to 256"),
        ("a\nb", r"holds a control character: 'a\\nb'"),
        ("a\x00", "holds a control character"),
        ("a\x85b", r"holds a control character: 'a\\x85b'"),
        ("a\x7f", "holds a control character"),
        ("\u0378", "holds an unassigned character"),
        ("\ufffe", "holds an unassigned character"),
        ("\ud800", r"holds a surrogate: '\\ud800'"),
        (b"bytes", "expected text, got bytes"),
        (7, "expected text, got int"),
        (None, "expected text, got NoneType"),
    ],
)
def test_bad_id_is_refused(identity: object, reason: str) -> None:
    """With the field and the limit in the error's text, which any terminal can show."""
    with pytest.raises(InvalidInputError, match=reason) as refusal:
        check_id(identity, "conversation_id")
    assert refusal.value.field == "conversation_id"
    assert str(refusal.value).startswith("conversation_id: ")
    assert str(refusal.value).encode()


def test_text_is_checked_in_its_stored_form() -> None:
    """Quotes and escapes count."""
    assert check_text("abc", "text", limit=5) == "abc"
    with pytest.raises(ItemTooLargeError, match="text: 6 bytes; the limit is 5"):
        check_text("abcd", "text", limit=5)


@pytest.mark.parametrize("value", [5, None, b"abc", ["a"]])
def test_text_of_another_type_is_refused(value: object) -> None:
    """Nothing is turned into text silently."""
    with pytest.raises(InvalidInputError, match="text: expected text, got"):
        check_text(value, "text", limit=100)


plain = st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats(allow_nan=False) | json_texts


@given(st.dictionaries(json_texts, plain, max_size=5))
def test_one_value_has_one_stored_form(value: dict[str, Any]) -> None:
    """Objects of plain values take a faster way to the bytes that the standard library makes of them."""
    try:
        expected = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except ValueError:
        with pytest.raises(InvalidInputError):
            encode(value, "value")
    else:
        assert encode(value, "value") == encode_checked(value) == expected


def is_storable(value: Any) -> bool:
    """Whether every number may be stored, and every text."""
    if isinstance(value, dict):
        return all(is_storable(name) and is_storable(part) for name, part in value.items())
    if isinstance(value, list):
        return all(is_storable(part) for part in value)
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    return math.isfinite(value) if isinstance(value, float) else -(1 << 63) <= (value or 0) < 1 << 64


def as_the_standard_library_reads(data: bytes) -> str:
    """Return what JSON these bytes are, types and signs of zeros included; empty if they may not be stored."""
    try:
        value = json.loads(data.decode())
    except ValueError:
        return ""
    return repr(value) if is_storable(value) else ""


@given(
    json_values.map(lambda value: json.dumps(value).encode()) | json_values.map(lambda value: encode(value, "value")),
    st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=1), st.integers(0, 2)), max_size=3),
)
def test_damage_is_found_as_by_the_standard_library(data: bytes, damage: list[tuple[int, bytes, int]]) -> None:
    """Bytes that are damaged anywhere are refused, or read, exactly as the slower decoder would."""
    for place, written, removed in damage:
        data = data[:place] + written + data[place + removed :]
    try:
        read = repr(decode(data))
    except ValueError:
        read = ""
    assert read == as_the_standard_library_reads(data)


@pytest.mark.parametrize("depth", [201, 1200, 5000])
def test_what_is_nested_too_deep_is_not_read(depth: int) -> None:
    """Whatever this Python's own decoder takes: the next process may have another one."""
    with pytest.raises(ValueError, match="too deep"):
        decode(b'{"a":' + b"[" * depth + b"]" * depth + b"}")
