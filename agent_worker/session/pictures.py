"""Pictures of messages as they are stored: JPEG of bounded size, made beside the call, in a thread.

A raw frame of 640 by 480 is 1.6 MB as base64, which no history has room for; making a JPEG of a large one takes a tenth
of a second, for which no handler of LiveKit's may wait. So a message is recorded at once, with words in each picture's
place, and once more when its pictures are there.
"""

import asyncio
import base64
import binascii
import io
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from livekit import rtc
from livekit.agents.llm import ChatItem, ImageContent

from agent_worker.failures import Failures
from agent_worker.settings import ContentSettings
from agent_worker.timing import TIMING, Timing

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

LEFT_OUT = "[picture left out: {}]"
"""What stands in a picture's place; the model reads it too."""
Form = str | dict[str, Any]
"""A part of a message's content, as stored."""

_JPEG = "data:image/jpeg;base64,"
_MAX_CHARACTERS = 16 << 20
"""Of a picture given as text: decoding more would hold up the call."""
_MAX_PIXELS = 40_000_000
"""Decoded: 120 MB, for the third of a second. A file of some KB may stand for thousands of times as much."""
_MAX_ADDRESS = 8 << 10
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
_QUALITIES = (80, 65, 50, 35)
_SHRINK = 0.7
MIN_EDGE = 64
"""Pixels of the longer side, below which no picture is shrunk."""
_MAX_FORMS = 200
"""Pictures remembered as they were stored: a session's history has no more."""


class PictureError(Exception):
    """A picture cannot be kept. The text says why, and quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Made:
    """A picture as JPEG; `width` and `height` are those that it was made of."""

    data: bytes
    width: int
    height: int
    is_smaller: bool


def left_out(part: ImageContent) -> Form:
    """Return the part, if a picture is a short address; else words."""
    if isinstance(part.image, str) and len(part.image) <= _MAX_ADDRESS:
        return part.model_dump(mode="json", exclude_none=True)
    return LEFT_OUT.format("only what was said is kept here")


def pictures_of(item: ChatItem) -> list[ImageContent]:
    """Return the pictures in an item."""
    return [part for part in item.content if isinstance(part, ImageContent)] if item.type == "message" else []


@runtime_checkable
class Archive(Protocol):
    """What takes large pictures, so that messages only name them."""

    def takes_picture(self, address: str) -> bool:
        """Tell whether a picture of this address (``data:…``) is one for it."""

    async def keep_picture(self, address: str) -> str:
        """Take a picture; return what stands for it, or the same address. Raises nothing for its own sake."""


class Pictures:
    """What is stored in the place of each picture of one session. What cannot be kept is told once, by its reason."""

    def __init__(
        self,
        settings: ContentSettings | None = None,
        failures: Failures | None = None,
        *,
        archive: Archive | None = None,
        timing: Timing = TIMING,
    ) -> None:
        """`failures` count what was left out. `archive` is given what is large enough for it."""
        chosen = settings or ContentSettings()
        self._edge, self._bytes = chosen.image_pixels, chosen.image_bytes
        self._failures, self._timing = failures or Failures(), timing
        self._archive = archive
        self._forms: OrderedDict[tuple[str, int], Form] = OrderedDict()
        self._one_at_a_time = asyncio.Semaphore(1)
        self._told: set[str] = set()

    def form(self, part: ImageContent) -> Form:
        """Return the part as it is stored by now: words, as long as its JPEG is not made."""
        if (known := self._known(part)) is not None:
            return known
        return LEFT_OUT.format("its process ended before it was stored")

    def are_missing(self, item: ChatItem) -> bool:
        """Whether one of the item's pictures is to be made yet."""
        return any(self._known(part) is None for part in pictures_of(item))

    async def make(self, item: ChatItem) -> None:
        """Make the item's pictures, or say in each one's place why it is not there. Raises nothing."""
        for part in pictures_of(item):
            async with self._one_at_a_time:
                if self._known(part) is None:
                    form = self._as_it_is(part) or await self._made(part, item.id)
                    self._remember(part, await self._archived(form))

    def _known(self, part: ImageContent) -> Form | None:
        form = self._as_it_is(part)
        if form is not None and not self._is_for_archive(form):
            return form
        return self._forms.get(_key(part))

    def _is_for_archive(self, form: Form) -> bool:
        return self._archive is not None and isinstance(form, dict) and self._archive.takes_picture(form["image"])

    async def _archived(self, form: Form) -> Form:
        """Return a form that names the picture in the archive, if the archive has taken it; else the same form."""
        if self._archive is None or not isinstance(form, dict) or not self._archive.takes_picture(form["image"]):
            return form
        return {**form, "image": await self._archive.keep_picture(form["image"])}

    def _as_it_is(self, part: ImageContent) -> Form | None:
        """Return the form of a picture that is stored as it was given; None if a JPEG is to be made of it."""
        image = part.image
        if isinstance(image, str):
            if image.startswith(_JPEG) and len(image) <= self._bytes:
                return part.model_dump(mode="json", exclude_none=True)
            if not image.startswith("data:") and len(image) <= _MAX_ADDRESS:
                return part.model_dump(mode="json", exclude_none=True)
        return None

    def _remember(self, part: ImageContent, form: Form) -> None:
        self._forms[_key(part)] = form
        while len(self._forms) > _MAX_FORMS:
            self._forms.popitem(last=False)

    async def _made(self, part: ImageContent, item_id: str) -> Form:
        try:
            async with asyncio.timeout(self._timing.picture):
                made = await asyncio.to_thread(as_jpeg, part.image, edge=self._edge, most_bytes=self._bytes)
        except PictureError as error:
            reason = str(error)
        except TimeoutError:
            reason = "it took too long"
        except Exception as error:  # noqa: BLE001  # decoders raise anything; its text may quote what it read
            reason = f"it cannot be read ({type(error).__name__})"
        else:
            return _stored(part, made)
        self._tell_once(reason, item_id)
        return LEFT_OUT.format(reason)

    def _tell_once(self, reason: str, item_id: str) -> None:
        self._failures.add("pictures")
        if reason not in self._told:
            self._told.add(reason)
            logger.warning("a picture was not kept", extra={"item_id": item_id, "reason": reason})


def as_jpeg(image: str | rtc.VideoFrame, *, edge: int, most_bytes: int) -> Made:
    """Make a JPEG whose longer edge has at most `edge` pixels, and whose address at most `most_bytes` characters.

    Without what a camera writes beside a picture, such as where it was taken. Blocks; raises `PictureError`, and what
    decoders raise.
    """
    picture = _from_frame(image) if isinstance(image, rtc.VideoFrame) else _from_address(image)
    width, height = picture.size
    picture.thumbnail((edge, edge))
    room = (most_bytes - len(_JPEG)) // 4 * 3
    while True:
        for quality in _QUALITIES:
            written = io.BytesIO()
            picture.save(written, "JPEG", quality=quality)
            if written.tell() <= room:
                return Made(written.getvalue(), width, height, picture.size != (width, height))
        longer = int(max(picture.size) * _SHRINK)
        if longer < MIN_EDGE:
            raise PictureError(_too_large(f"more than {most_bytes} bytes"))
        picture.thumbnail((longer, longer))


def _from_frame(frame: rtc.VideoFrame) -> "Image.Image":
    _check_pixels(frame.width, frame.height)
    rgba = frame if frame.type == rtc.VideoBufferType.RGBA else frame.convert(rtc.VideoBufferType.RGBA)
    size = (rgba.width, rgba.height)
    picture: Image.Image = _pillow().frombuffer("RGBA", size, bytes(rgba.data), "raw", "RGBA", 0, 1)
    return picture.convert("RGB")


def _from_address(address: str) -> "Image.Image":
    if len(address) > _MAX_CHARACTERS:
        raise PictureError(_too_large(f"{len(address) >> 20} MB"))
    head, comma, data = address.partition(",")
    if not (head.startswith("data:") and head.endswith(";base64") and comma):
        reason = "its address is none that can be kept"
        raise PictureError(reason)
    try:
        content = base64.b64decode(data, validate=True)
    except binascii.Error:
        reason = "it is no base64"
        raise PictureError(reason) from None
    picture = _pillow().open(io.BytesIO(content), formats=_FORMATS)
    _check_pixels(*picture.size)
    return _upright(picture)


def _upright(picture: "Image.Image") -> "Image.Image":
    from PIL import ImageOps  # noqa: PLC0415  # see `_pillow`

    turned = ImageOps.exif_transpose(picture)
    if "A" in turned.getbands() or "transparency" in turned.info:
        turned = turned.convert("RGBA")
        paper = _pillow().new("RGBA", turned.size, "white")
        turned = _pillow().alpha_composite(paper, turned)
    return turned.convert("RGB")


def _pillow() -> Any:  # its type is a module's
    """Return `PIL.Image`, imported late because that takes its time. Raises `PictureError` if it is not installed."""
    try:
        from PIL import Image  # noqa: PLC0415
    except ImportError:
        reason = "Pillow is not installed"
        raise PictureError(reason) from None
    return Image


def _check_pixels(width: int, height: int) -> None:
    if width * height > _MAX_PIXELS:
        raise PictureError(_too_large(f"{width} by {height} pixels"))


def _too_large(size: str) -> str:
    return f"it is too large, with {size}"


def _stored(part: ImageContent, made: Made) -> dict[str, Any]:
    address = _JPEG + base64.b64encode(made.data).decode()
    form = part.model_copy(update={"image": address, "mime_type": "image/jpeg"})
    stored: dict[str, Any] = form.model_dump(mode="json", exclude_none=True)
    # LiveKit passes over what it does not know
    return {**stored, "made_of": {"width": made.width, "height": made.height}} if made.is_smaller else stored


def _key(part: ImageContent) -> tuple[str, int]:
    """Return what a picture is known by: one that takes another's place should have an id of its own, and need not."""
    return part.id, id(part.image)


FormOf = Callable[[ImageContent], Form]
