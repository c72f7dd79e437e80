"""Pictures in messages: what a reference to the archive looks like, and that the same text comes back for it."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversation_actors.items import DataMessage, FunctionCall, Item, Message, item_from_dict
from conversation_actors.pictures import (
    MOST_BYTES,
    Picture,
    Reference,
    is_large,
    picture_of,
    reference_of,
    references_in,
    with_addresses,
)

DIGEST = "6fd76923c2cbb5f0b1ffbfb3c1c4b5b87d5e7a1d9f8d6a0c7a2b9a5bbd1a5d2c"
SOME = Picture("image/jpeg", b"\xff\xd8picture")


def shown(*images: Any) -> Message:
    """Return a message with words and pictures."""
    parts: list[str | dict[str, Any]] = ["Look:"]
    parts += [{"type": "image_content", "id": "img_1", "image": image, "mime_type": "image/jpeg"} for image in images]
    return Message(role="user", content=parts)


def test_reference_has_the_documented_form() -> None:
    """It is stored for years, and read by programs of others: `archive:<media type>;sha256,<digest>`."""
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert Picture("image/png", b"").reference.address == f"archive:image/png;sha256,{empty}"
    assert reference_of(f"archive:image/png;sha256,{empty}") == Reference("image/png", empty)


@given(st.sampled_from(["image/jpeg", "image/svg+xml", "image/vnd.x-icon"]), st.binary(max_size=100))
def test_picture_and_reference_come_back_from_their_addresses(media_type: str, data: bytes) -> None:
    """Byte for byte."""
    picture = Picture(media_type, data)
    assert picture_of(picture.address) == picture
    assert reference_of(picture.reference.address) == picture.reference
    assert reference_of(picture.address) is None
    assert picture_of(picture.reference.address) is None


@pytest.mark.parametrize(
    "address",
    [
        "https://example.org/lamp.jpg",
        "data:image/jpeg,plain",
        "data:image/jpeg;base64,AAA",
        "data:image/jpeg;base64,AAAA\n",
        "data:image/jpeg;base64,AAAB====",
        "data:image/jpeg;base64,AAF=",
        "data:IMAGE/JPEG;base64,AAAA",
        "data:image/jpeg;charset=x;base64,AAAA",
        "data:;base64,AAAA",
        "data:image/jpeg;base64,Ä",
        "",
    ],
)
def test_address_that_would_not_come_back_as_it_is_stays(address: str) -> None:
    """A picture is taken out only if the very same text can be put in its place again."""
    assert picture_of(address) is None


@pytest.mark.parametrize(
    "address",
    [
        None,
        7,
        "",
        f"archive:image/jpeg;sha256,{DIGEST[:-1]}",
        f"archive:image/jpeg;sha256,{DIGEST}0",
        f"archive:image/jpeg;sha256,{DIGEST.upper()}",
        f"archive:image/jpeg;sha512,{DIGEST}",
        f"archive:;sha256,{DIGEST}",
        f"archive:image/jpeg;sha256,{DIGEST}\n",
        f"see archive:image/jpeg;sha256,{DIGEST}",
    ],
)
def test_anything_else_is_no_reference(address: Any) -> None:
    """Neither foreign data nor what somebody typed is looked for."""
    assert reference_of(address) is None


def test_pictures_are_large_by_their_text() -> None:
    """As base64, which is the room that they would take; the largest are too large for the archive."""
    address = SOME.address
    assert is_large(address, len(address))
    assert not is_large(address, len(address) + 1)
    assert not is_large("https://example.org/" + "x" * 99_999, 100)
    assert not is_large("data:" + "x" * MOST_BYTES, 100)


def test_item_with_a_reference_keeps_everything_else() -> None:
    """Also fields that this version does not know, and what others have given in other parts."""
    fields = {**shown(SOME.address, "https://example.org/a.jpg").to_dict(), "later": {"field": 1}}
    item = item_from_dict(fields)
    named = with_addresses(item, {SOME.address: SOME.reference.address})
    assert references_in([named]) == {SOME.reference.address: SOME.reference}
    assert SOME.address not in str(named.to_dict())
    assert with_addresses(named, {SOME.reference.address: SOME.address}).to_stored() == item.to_stored()


@pytest.mark.parametrize(
    "item",
    [
        Message(role="user", content="archive:image/jpeg;sha256," + DIGEST),
        Message(role="user", content=["archive:image/jpeg;sha256," + DIGEST, {"type": "image_content"}]),
        Message(role="user", content=[{"type": "image_content", "image": {"url": "x"}}]),
        Message(role="user", content=[{"type": "audio_content", "image": f"archive:image/jpeg;sha256,{DIGEST}"}]),
        FunctionCall(call_id="c", name="f", arguments=f"archive:image/jpeg;sha256,{DIGEST}"),
        DataMessage(topic="t", kind="packet", size=3, data=base64.b64encode(b"abc").decode()),
    ],
    ids=["words", "a part without a picture", "no text", "another kind of part", "a call", "data"],
)
def test_only_pictures_in_messages_count(item: Item) -> None:
    """Whatever else has such a text keeps it."""
    assert references_in([item]) == {}
    assert with_addresses(item, {f"archive:image/jpeg;sha256,{DIGEST}": "other"}) is item
