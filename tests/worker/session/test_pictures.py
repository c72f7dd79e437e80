"""Pictures: kept as small JPEGs, made beside the call; what cannot be kept says so, and costs nothing else."""

import base64
import io
import logging
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from livekit import rtc
from livekit.agents.llm import AudioContent, ChatMessage, ImageContent
from PIL import Image

from agent_worker.failures import Failures
from agent_worker.offline import OfflineServer
from agent_worker.session import pictures as module
from agent_worker.session.active_agent import MOST_BYTES
from agent_worker.session.context import Brought
from agent_worker.session.pictures import LEFT_OUT, Pictures, as_jpeg
from agent_worker.session.recorder import Recorder
from agent_worker.session.serialise import to_fields
from agent_worker.session.stored_items import to_livekit
from agent_worker.settings import ContentSettings
from agent_worker.timing import TIMING, Timing
from conversation_actors.values import encode
from tests.support.fakes import until
from tests.support.sessions.fakes_room import FakeConversation
from tests.worker.conftest import SessionFactory

JPEG = "data:image/jpeg;base64,"
EDGE, BYTES = 1024, 48 << 10


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A picture that no format makes small."""
    bands = [Image.effect_noise((width, height), 200) for _ in mode]
    return Image.merge(mode, bands)


def address(picture: Image.Image, kind: str, **options: Any) -> str:
    """The picture as a model's vendor takes it."""
    written = io.BytesIO()
    picture.save(written, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(written.getvalue()).decode()}"


def frame(width: int, height: int) -> rtc.VideoFrame:
    """A frame of a camera."""
    return rtc.VideoFrame(width, height, rtc.VideoBufferType.RGBA, noise(width, height, "RGBA").tobytes())


def read(stored: dict[str, Any]) -> Image.Image:
    """The picture that is stored."""
    assert stored["image"].startswith(JPEG)
    picture = Image.open(io.BytesIO(base64.b64decode(stored["image"].removeprefix(JPEG))))
    picture.load()
    assert picture.format == "JPEG"
    return picture


class Desk:
    """A recorder, and what it has recorded."""

    def __init__(self, recorder: Recorder, conversation: FakeConversation, failures: Failures) -> None:
        """Nothing is recorded."""
        self.recorder, self.conversation, self.failures = recorder, conversation, failures

    def content(self, item: ChatMessage) -> list[Any]:
        """What is stored of a message now."""
        stored = next(one.to_dict() for one in self.conversation.items if one.id == item.id)
        return list(stored["content"])

    async def record(self, *parts: Any) -> list[Any]:
        """Record a message, and return its content when its pictures are made."""
        item = ChatMessage(role="user", content=list(parts))
        before = len(self.conversation.history)
        self.recorder.record([item])
        assert len(self.conversation.history) == before + 1
        await until(lambda: len(self.conversation.history) == before + 2)
        return self.content(item)


NewDesk = Callable[..., Awaitable[Desk]]


@pytest.fixture
async def new_desk(server: OfflineServer, new_session: SessionFactory) -> NewDesk:
    """Make recorders of sessions that are not started."""

    async def make(timing: Timing = TIMING) -> Desk:
        conversation, failures = FakeConversation(), Failures()
        pictures = Pictures(failures=failures, timing=timing)
        recorder = Recorder(await new_session(server), conversation, failures, pictures=pictures)
        return Desk(recorder.start(), conversation, failures)

    return make


@pytest.fixture
async def desk(new_desk: NewDesk) -> Desk:
    """A recorder of a session that is not started."""
    return await new_desk()


async def test_a_frame_is_stored_as_a_small_jpeg(desk: Desk) -> None:
    """With the words around it, in their order; its size says of what it was made."""
    before, shown, behind = await desk.record("Look:", ImageContent(image=frame(1920, 1080)), "Nice?")
    assert (before, behind) == ("Look:", "Nice?")
    picture = read(shown)
    assert max(picture.size) <= EDGE
    assert picture.width / picture.height == pytest.approx(16 / 9, rel=0.01)
    assert len(shown["image"]) <= BYTES
    assert shown["made_of"] == {"width": 1920, "height": 1080}
    assert shown["mime_type"] == "image/jpeg"


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "JPEG"])
async def test_an_address_with_data_is_stored_as_a_small_jpeg(desk: Desk, kind: str) -> None:
    """Whatever format the application has chosen."""
    (shown,) = await desk.record(ImageContent(image=address(noise(800, 600), kind)))
    assert max(read(shown).size) <= 800
    assert len(shown["image"]) <= BYTES


async def test_a_transparent_picture_is_put_on_white(desk: Desk) -> None:
    """JPEG knows no transparency, and a drawing on black could not be read."""
    drawing = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    (shown,) = await desk.record(ImageContent(image=address(drawing, "PNG")))
    assert read(shown).getpixel((32, 32)) == (255, 255, 255)
    assert "made_of" not in shown


async def test_a_photograph_stands_upright_and_says_nothing_else(desk: Desk) -> None:
    """It is turned as the camera says, and what else the camera says, such as where it was, is not kept."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "Camera of Ms Orlova"
    photo = address(noise(1600, 1200), "JPEG", exif=exif)
    (shown,) = await desk.record(ImageContent(image=photo))
    picture = read(shown)
    assert picture.height > picture.width
    assert not picture.getexif()
    assert b"Orlova" not in base64.b64decode(shown["image"].removeprefix(JPEG))


async def test_a_web_address_and_a_small_jpeg_are_stored_as_they_are(desk: Desk) -> None:
    """Nobody fetches it; a small JPEG stays as it is too. Neither is recorded a second time."""
    for image in ("https://example.com/a.png", address(Image.new("RGB", (64, 64)), "JPEG")):
        item = ChatMessage(role="user", content=[ImageContent(image=image)])
        desk.recorder.record([item])
        assert desk.content(item)[0]["image"] == image
    assert len(desk.conversation.history) == 2


def broken(_patch: pytest.MonkeyPatch) -> str:
    """No picture at all."""
    return "data:image/png;base64,AAAA"


def huge(_patch: pytest.MonkeyPatch) -> str:
    """40 MB."""
    return "data:image/png;base64," + "A" * (40 << 20)


def bomb(_patch: pytest.MonkeyPatch) -> str:
    """A few KB that would be 192 MB."""
    return address(Image.new("1", (8000, 8000)), "PNG")


def not_base64(_patch: pytest.MonkeyPatch) -> str:
    """Text that somebody has cut."""
    return "data:image/png;base64,A"


def not_data(_patch: pytest.MonkeyPatch) -> str:
    """An address that says nothing of its form."""
    return "data:,hello"


def other_format(_patch: pytest.MonkeyPatch) -> str:
    """A format whose decoder nobody needs."""
    return address(noise(64, 64), "TIFF")


def never_small(patch: pytest.MonkeyPatch) -> str:
    """One that cannot be made small enough."""
    patch.setattr(module, "_SMALLEST", 2000)
    return address(noise(600, 600), "JPEG", quality=95)


@pytest.mark.parametrize(
    "make",
    [broken, huge, bomb, not_base64, not_data, other_format, never_small],
    ids=lambda one: one.__name__,
)
async def test_a_picture_that_cannot_be_kept_says_so_in_its_place(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, make: Callable[[Any], str]
) -> None:
    """In its place, for the model too; the words around it and the other picture are there. The log says it once."""
    image, good = make(monkeypatch), ImageContent(image="https://example.com/a.png")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            content = await desk.record("Look:", ImageContent(image=image), good, "Nice?")
            assert (content[0], content[2]["image"], content[3]) == ("Look:", good.image, "Nice?")
            assert content[1].startswith("[picture left out: it")
    assert [record.message for record in caplog.records] == ["a picture was not kept"]
    assert desk.failures.counts == {"pictures": 2}
    assert desk.recorder.refused == 0


async def test_a_picture_that_takes_too_long_is_left_out(new_desk: NewDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread cannot be ended, but is waited for no longer: the message says so, and the next picture is made."""
    desk, may_end = await new_desk(Timing(picture=1.0)), threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(module, "as_jpeg", lambda *_given, **_named: may_end.wait(20))
        (shown,) = await desk.record(ImageContent(image=frame(64, 64)))
    assert shown == LEFT_OUT.format("it took too long")
    may_end.set()
    (shown,) = await desk.record(ImageContent(image=frame(64, 64)))
    assert read(shown).size == (64, 64)


async def test_without_pillow_the_message_says_what_is_missing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra of LiveKit's: the message says what is missing."""
    shown_frame = ImageContent(image=frame(64, 64))
    monkeypatch.setitem(sys.modules, "PIL", None)
    (shown,) = await desk.record(shown_frame)
    assert shown == LEFT_OUT.format("Pillow is not installed")


def _held_back(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Have no JPEG be made before the second event is set; the first tells that one was begun."""
    begun, may_end = threading.Event(), threading.Event()

    def slow(*given: Any, **named: Any) -> Any:
        begun.set()
        may_end.wait(20)
        return as_jpeg(*given, **named)

    monkeypatch.setattr(module, "as_jpeg", slow)
    return begun, may_end


async def test_messages_are_recorded_while_a_picture_is_made(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is recorded, in its place, before its picture is begun; others follow it meanwhile."""
    begun, may_end = _held_back(monkeypatch)
    first = ChatMessage(role="user", content=["Look:", ImageContent(image=frame(64, 64))])
    second = ChatMessage(role="assistant", content=["Nice."])
    desk.recorder.record([first, second])
    await until(begun.is_set)
    assert [item.id for item in desk.conversation.items] == [first.id, second.id]
    assert desk.content(first) == ["Look:", LEFT_OUT.format("its process ended before it was stored")]
    may_end.set()
    await until(lambda: isinstance(desk.content(first)[1], dict))
    assert [item.id for item in desk.conversation.items] == [first.id, second.id]


async def test_what_was_taken_out_meanwhile_does_not_come_back(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A photograph of a card, taken out while its JPEG was made."""
    begun, may_end = _held_back(monkeypatch)
    shown = ChatMessage(role="user", content=[ImageContent(image=frame(64, 64))])
    desk.recorder.record([shown])
    await until(begun.is_set)
    desk.recorder.leave_out([shown.id])
    desk.conversation.remove(shown.id)
    may_end.set()
    other = ChatMessage(role="user", content=[ImageContent(image=frame(64, 64))])
    desk.recorder.record([other])
    await until(lambda: isinstance(desk.content(other)[0], dict))
    assert [item.id for item in desk.conversation.items] == [other.id]


async def test_a_successor_has_the_picture_and_records_it_no_more(desk: Desk) -> None:
    """As LiveKit's own content, which every vendor's request is made of."""
    await desk.record("Look:", ImageContent(image=frame(1280, 720)))
    (stored,) = desk.conversation.items
    restored = to_livekit(stored)
    assert restored is not None
    shown = restored.content[1]  # type: ignore[union-attr]
    assert isinstance(shown, ImageContent)
    assert isinstance(shown.image, str)
    before = len(desk.conversation.history)
    desk.recorder.record([restored])
    assert len(desk.conversation.history) == before + 1
    assert not Pictures().are_missing(restored)


async def test_a_message_with_a_picture_is_not_recorded_again(desk: Desk) -> None:
    """When the conversation answers again, a message is compared as it was recorded."""
    shown = ChatMessage(role="user", content=[ImageContent(image=frame(640, 480))])
    desk.recorder._session.history.items.append(shown)
    desk.recorder.record([shown])
    await until(lambda: isinstance(desk.content(shown)[0], dict))
    before = len(desk.conversation.history)
    desk.recorder.record_again(is_afresh=False)
    assert len(desk.conversation.history) == before


async def test_of_too_many_pictures_the_last_ones_are_kept(server: OfflineServer, new_session: SessionFactory) -> None:
    """The last ones are kept, as many as fit; each of the others says that it was left out. So does a sound."""
    conversation = FakeConversation(item_bytes=64 << 10)
    desk = Desk(Recorder(await new_session(server), conversation).start(), conversation, Failures())
    sound = AudioContent(frame=[rtc.AudioFrame(b"\0\0" * 48_000, 48_000, 1, 48_000)], transcript="Listen.")
    shown = [ImageContent(image=address(noise(256, 256), "PNG")) for _ in range(4)]
    content = await desk.record("Look:", sound, *shown, "Nice?")
    assert (content[0], content[-1]) == ("Look:", "Nice?")
    assert content[1] == "Listen. [sound left out: it is too large]"
    kept = [isinstance(part, dict) for part in content[2:-1]]
    assert kept == sorted(kept)
    assert any(kept)
    assert all(part.startswith("[picture left out: it is too large") for part in content[2:-1] if isinstance(part, str))


def test_a_picture_in_a_brought_context_is_noted_as_words() -> None:
    """What an application puts into a context is noted in an attribute, which has no room for a frame."""
    item = ChatMessage(role="user", content=["Look:", ImageContent(image=frame(640, 480))])
    noted = Brought(None, item).to_dict()
    assert len(encode(noted, "brought")) < MOST_BYTES // 10
    assert noted["item"]["content"] == ["Look:", LEFT_OUT.format("only what was said is kept here")]
    web = ChatMessage(role="user", content=[ImageContent(image="https://example.com/a.png")])
    assert to_fields(web)["content"][0]["image"] == "https://example.com/a.png"


@pytest.mark.parametrize(("edge", "most_bytes"), [(64, 4 << 10), (300, 8 << 10), (1024, 48 << 10), (4096, 1 << 20)])
def test_the_worst_picture_stays_within_the_bounds(edge: int, most_bytes: int) -> None:
    """By the worst of pictures."""
    made = as_jpeg(frame(1200, 900), edge=edge, most_bytes=most_bytes)
    assert max(Image.open(io.BytesIO(made.data)).size) <= edge
    assert len(JPEG) + len(base64.b64encode(made.data)) <= most_bytes


def test_the_bounds_of_a_picture_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the environment."""
    monkeypatch.setenv("AGENT_IMAGE_PIXELS", "512")
    monkeypatch.setenv("AGENT_IMAGE_BYTES", "20000")
    monkeypatch.setenv("AGENT_CONTEXT_EDITS", "keep")
    chosen = ContentSettings()
    assert (chosen.image_pixels, chosen.image_bytes, chosen.context_edits) == (512, 20_000, "keep")


async def test_a_message_that_was_changed_while_its_picture_was_made_stays_changed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was recorded at first is not recorded once more behind the change: it may have been a card number."""
    _, may_go = _held_back(monkeypatch)
    picture = ImageContent(image=address(noise(64, 64), "PNG"))
    first = ChatMessage(role="user", content=["My card is 4111.", picture])
    desk.recorder.record([first])
    changed = first.model_copy(update={"content": ["My card is [hidden].", picture]})
    desk.recorder.record([changed])
    without = ChatMessage(role="user", content=["4222", ImageContent(image=address(noise(64, 64), "PNG"))])
    desk.recorder.record([without])
    desk.recorder.record([without.model_copy(update={"content": ["[hidden]"]})])
    last = ChatMessage(role="user", content=[ImageContent(image=address(noise(64, 64), "PNG"))])
    desk.recorder.record([last])  # pictures are made one after the other
    before = len(desk.conversation.history)
    may_go.set()
    await until(lambda: isinstance(desk.content(last)[0], dict))
    words, shown = desk.content(changed)
    assert words == "My card is [hidden]."
    assert read(shown).size == (64, 64)
    assert desk.content(without) == ["[hidden]"]
    assert desk.conversation.history[before:] == [changed.id, last.id]
