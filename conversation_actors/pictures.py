"""Pictures in the content of messages: the data themselves, or a reference to them in the archive.

A picture is the `image` of a part of a message's content, with LiveKit's field names:

    {"type": "image_content", "image": "data:image/jpeg;base64,/9j/4AAQ…"}                the data
    {"type": "image_content", "image": "archive:image/jpeg;sha256,9f86d0…"}               a reference

The reference names the media type, and the SHA-256 of the data in hexadecimal. The part's other fields stay as they
are. No program fetches such an address by itself: whoever shows a message takes the picture out of the archive first
(`ConversationHandle.with_pictures`).
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeGuard

from conversation_actors.items import Item, Message

PICTURE = "image_content"
"""The type of a part of a message's content that is a picture."""
MOST_BYTES = 16 << 20
"""Of a picture that is kept in the archive, as base64."""

_MEDIA_TYPE = r"[a-z0-9][a-z0-9.+-]{0,60}/[a-z0-9][a-z0-9.+-]{0,60}"
_DATA = re.compile(rf"data:({_MEDIA_TYPE});base64,")
_REFERENCE = re.compile(rf"archive:({_MEDIA_TYPE});sha256,([0-9a-f]{{64}})")


@dataclass(frozen=True, slots=True)
class Reference:
    """A picture that is in the archive: its media type, and the SHA-256 of its data in hexadecimal."""

    media_type: str
    digest: str

    @property
    def address(self) -> str:
        """What stands for the picture in a message."""
        return f"archive:{self.media_type};sha256,{self.digest}"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture's data, and their media type."""

    media_type: str
    data: bytes

    @property
    def address(self) -> str:
        """The data as a message has them."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode()}"

    @property
    def reference(self) -> Reference:
        """What stands for the picture once the archive has it."""
        return Reference(self.media_type, sha256(self.data).hexdigest())


def is_large(address: object, least: int) -> bool:
    """Tell whether an address is data of `least` characters or more, as base64, and of what an archive takes."""
    return isinstance(address, str) and address.startswith("data:") and least <= len(address) <= MOST_BYTES


def picture_of(address: str) -> Picture | None:
    """Return the picture in an address of data; None if the address would not come back as the very same text."""
    head = _DATA.match(address)
    if head is None:
        return None
    try:
        data = base64.b64decode(address[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        return None
    picture = Picture(head[1], data)
    return picture if picture.address == address else None


def reference_of(address: object) -> Reference | None:
    """Return what an address refers to in the archive; None if it is anything else."""
    found = _REFERENCE.fullmatch(address) if isinstance(address, str) else None
    return None if found is None else Reference(found[1], found[2])


def addresses_in(items: Iterable[Item]) -> Iterator[str]:
    """Yield the addresses of all pictures in items."""
    for item in items:
        for part in _pictures(item):
            yield part["image"]


def references_in(items: Iterable[Item]) -> dict[str, Reference]:
    """Return what items refer to in the archive, by address."""
    found = {address: reference_of(address) for address in addresses_in(items)}
    return {address: reference for address, reference in found.items() if reference is not None}


def with_addresses(item: Item, changed: Mapping[str, str]) -> Item:
    """Return the item with other addresses of its pictures; the same item if `changed` has none of them."""
    return replaced(item, lambda part: {**part, "image": changed.get(part["image"], part["image"])})


def replaced(item: Item, replace: Callable[[Mapping[str, Any]], str | dict[str, Any]]) -> Item:
    """Return the item with something else in the place of each picture; the same item if nothing changes."""
    if not isinstance(item, Message) or not any(True for _ in _pictures(item)):
        return item
    content = [replace(part) if _is_picture(part) else part for part in item.content]
    return item if content == item.content else item.model_copy(update={"content": content})


def _pictures(item: Item) -> Iterator[Mapping[str, Any]]:
    if isinstance(item, Message) and isinstance(item.content, list):
        yield from (part for part in item.content if _is_picture(part))


def _is_picture(part: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(part, Mapping) and part.get("type") == PICTURE and isinstance(part.get("image"), str)
