"""Large pictures of a session are in the archive: a successor sees the same bytes, or words if they cannot be had."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from livekit.agents import Agent, AgentSession
from livekit.agents.llm import ChatMessage, ImageContent
from pydantic import SecretStr

from agent_worker.offline import OfflineServer
from agent_worker.session.archived_pictures import AWAY, GONE
from agent_worker.session.recorder import Recorder
from agent_worker.session.restoration import restore, restore_late
from conversation_actors import ConversationClient, Message, Settings
from conversation_actors.archive.database import Database
from conversation_actors.errors import ArchiveUnavailableError
from conversation_actors.pictures import Picture, reference_of
from conversation_actors.settings import ArchiveSettings
from conversation_actors.store import forget_memory
from tests.support.fakes import until
from tests.support.sessions.fake_conversation import FakeConversation
from tests.worker.conftest import SessionFactory
from tests.worker.session.test_pictures import JPEG, address, frame, noise

NAME = "agents-pictures"
LEAST = 4096
LATER = Picture("image/jpeg", b"later")


class Archived(FakeConversation):
    """A conversation with an archive in memory, which may be away, or lose what it has."""

    def __init__(self) -> None:
        """Nothing is there."""
        super().__init__()
        self.archive: dict[str, str] = {}
        self.is_away = False

    def takes_picture(self, address: str) -> bool:
        """As the real one."""
        return address.startswith("data:") and len(address) >= LEAST

    async def keep_picture(self, address: str) -> str:
        """Keep it, unless the archive is away."""
        if self.is_away:
            return address
        reference = f"archive:image/jpeg;sha256,{len(self.archive):064x}"
        self.archive[reference] = address
        return reference

    async def find_pictures(self, addresses: Iterable[str]) -> Mapping[str, str]:
        """Give what is there."""
        if self.is_away:
            message = "the archive is away"
            raise ArchiveUnavailableError(message)
        return {address: self.archive[address] for address in addresses if address in self.archive}


Restore = Callable[[AgentSession[None], Archived], Awaitable[object]]


async def _restore(session: AgentSession[None], conversation: Any) -> None:
    await restore(session, Agent(instructions="x"), conversation)


async def _restore_late(session: AgentSession[None], conversation: Any) -> None:
    await session.start(Agent(instructions="x"), record=False)
    await restore_late(session, conversation)


def images(item: Any) -> list[str]:
    """Return what stands for pictures in a stored item, or in a message of a session."""
    content = item.to_dict()["content"]
    return [part["image"] for part in content if isinstance(part, dict)]


def in_session(session: AgentSession[None]) -> list[Any]:
    """Return the content of the session's last message, pictures as their addresses."""
    parts = session.history.messages()[-1].content
    return [part.image if isinstance(part, ImageContent) else part for part in parts]


async def test_successor_sees_the_same_bytes(
    server: OfflineServer, new_session: SessionFactory, tmp_path: Path
) -> None:
    """Of a camera's frame, and of a JPEG that was given: both are named in the conversation, and are in the table."""
    url = SecretStr(f"sqlite+aiosqlite:///{tmp_path / 'archive.db'}")
    database = Database(url, timeout=timedelta(seconds=20))
    await database.migrate()
    await database.aclose()
    archive = ArchiveSettings(url=url, picture_bytes=LEAST, timeout=timedelta(seconds=20))
    given = address(noise(60, 60), "JPEG", quality=95)
    assert LEAST <= len(given) <= 48 << 10
    async with ConversationClient.local(Settings(archive=archive), name=NAME) as client:
        conversation = await client.open("c")
        session = await new_session(server)
        recorder = Recorder(session, conversation).start()
        message = ChatMessage(role="user", content=["A frame:", ImageContent(image=frame(320, 240)), "And:"])
        message.content.append(ImageContent(image=given))
        recorder.record([message])
        await until(lambda: len([one for one in conversation.items if len(images(one)) == 2]) == 1)
        await conversation.flush()
        (stored,) = conversation.items
        assert all(reference_of(image) is not None for image in images(stored))
        successor = await new_session(server)
        await _restore(successor, conversation)
        said, of_frame, between, of_given = in_session(successor)
        assert (said, between, of_given) == ("A frame:", "And:", given)
        assert of_frame.startswith(JPEG)
        assert [of_frame, of_given] == images((await conversation.with_pictures())[0])
    forget_memory(NAME)


@pytest.mark.parametrize("restoring", [_restore, _restore_late], ids=["at the start", "late"])
async def test_picture_that_cannot_be_had_is_words(
    server: OfflineServer, new_session: SessionFactory, restoring: Restore
) -> None:
    """They say why; the message around it is there, and no vendor is sent an address that only the archive knows."""
    conversation = Archived()
    reference = await conversation.keep_picture(JPEG + "A" * LEAST)
    other = LATER.reference.address
    conversation.record(
        Message(
            role="user",
            content=[
                "Look:",
                {"type": "image_content", "image": reference},
                {"type": "image_content", "image": other},
                {"type": "image_content", "image": "https://example.org/lamp.jpg"},
            ],
        )
    )
    session = await new_session(server)
    await restoring(session, conversation)
    assert in_session(session) == ["Look:", JPEG + "A" * LEAST, GONE, "https://example.org/lamp.jpg"]
    conversation.is_away = True
    without = await new_session(server)
    await restoring(without, conversation)
    assert in_session(without) == ["Look:", AWAY, AWAY, "https://example.org/lamp.jpg"]


async def test_conversation_without_an_archive_tells_in_words(
    server: OfflineServer, new_session: SessionFactory
) -> None:
    """As of one that was opened with other settings than those of whoever has recorded."""
    conversation = FakeConversation()
    conversation.record(
        Message(role="user", content=[{"type": "image_content", "image": LATER.reference.address}, "there"])
    )
    session = await new_session(server)
    await _restore(session, conversation)
    assert in_session(session) == [AWAY, "there"]


async def test_recorder_leaves_a_picture_in_the_message_while_the_archive_is_away(
    server: OfflineServer, new_session: SessionFactory
) -> None:
    """As without an archive; a small one is never given to it."""
    conversation = Archived()
    conversation.is_away = True
    given, small = address(noise(60, 60), "JPEG", quality=95), address(noise(8, 8), "JPEG")
    recorder = Recorder(await new_session(server), conversation).start()
    recorder.record([ChatMessage(role="user", content=[ImageContent(image=given), ImageContent(image=small)])])
    await until(lambda: len(conversation.history) == 2)
    assert images(conversation.items[0]) == [given, small]
    conversation.is_away = False
    recorder.record([ChatMessage(role="user", content=[ImageContent(image=small)])])
    assert images(conversation.items[1]) == [small]
    assert conversation.archive == {}


async def test_recorded_again_names_the_same_picture(server: OfflineServer, new_session: SessionFactory) -> None:
    """What is stored as it was recorded is not missed, and nothing is sent again for it."""
    conversation = Archived()
    session = await new_session(server)
    recorder = Recorder(session, conversation).start()
    item = ChatMessage(role="user", content=[ImageContent(image=address(noise(60, 60), "JPEG", quality=95))])
    session.history.items.append(item)
    recorder.record([item])
    await until(lambda: len(conversation.history) == 2)
    recorder.record_again(is_afresh=False)
    assert len(conversation.history) == 2
    conversation.lose_everything()
    recorder.record_again(is_afresh=True)
    await until(lambda: images(conversation.items[0]) == [*conversation.archive][-1:])
