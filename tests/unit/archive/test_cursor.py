"""The text by which a caller asks for the next page: what it was given, and nothing else."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversation_actors.archive.cursor import Cursor
from conversation_actors.archive.overlay import Position
from conversation_actors.errors import InvalidInputError


def written(*fields: Any) -> str:
    """Encode fields as a cursor's are."""
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")


@given(
    life=st.text(st.characters(codec="utf-8")),
    seq=st.integers(0, 1 << 62),
    place=st.integers(0, 2000),
    newest_first=st.booleans(),
)
def test_a_cursor_reads_back_as_it_was(*, life: str, seq: int, place: int, newest_first: bool) -> None:
    """The text needs no escaping in a URL."""
    cursor = Cursor(life, Position(seq, place), newest_first)
    text = cursor.encode()
    assert Cursor.decode(text) == cursor
    assert text.replace("-", "").replace("_", "").isalnum()


@given(st.one_of(st.text(), st.binary().map(lambda data: base64.urlsafe_b64encode(data).decode())))
def test_garbage_is_refused_by_name(text: str) -> None:
    """Nothing but an `InvalidInputError` comes of it."""
    with pytest.raises(InvalidInputError) as refused:
        Cursor.decode(text)
    assert refused.value.field == "cursor"


@pytest.mark.parametrize(
    "given",
    [
        None,
        7,
        b"abc",
        "",
        written(2, "life", 1, 0, 0),
        written(1, "life", 1, 0),
        written(1, 7, 1, 0, 0),
        written(1, "life", -1, 0, 0),
        written(1, "life", 1 << 63, 0, 0),
        written(1, "life", True, 0, 0),
        written(1, "life", 1.0, 0, 0),
        written(1, "life", 1, 0, 2),
        written(1, "life", 1, [], 0),
        "[" * 100_000,
    ],
    ids=repr,
)
def test_what_no_page_gave_out_is_refused(given: object) -> None:
    """Also where it looks like a cursor."""
    with pytest.raises(InvalidInputError) as refused:
        Cursor.decode(given)
    assert refused.value.field == "cursor"
