"""A room whose data messages are followed into a conversation."""

from collections.abc import Callable
from typing import Any

import pytest

from agent_worker.call.arrivals import who
from agent_worker.call.data_messages import DataMessages
from agent_worker.settings import CallSettings, RoomSettings
from agent_worker.tenure.assignment import Assignment
from agent_worker.tenure.conversation import CallConversation
from conversation_actors import DataMessage
from tests.support.sessions.fake_room import FakeParticipant, FakeRoom, FakeStream
from tests.support.sessions.fakes_call import World

COMMAND, FILES = "commands", "files.pdf"
ALICE_SENDS = b'{"do": "hold"}'


class FollowedData:
    """A room whose data messages are followed."""

    def __init__(self, room: FakeRoom, call: CallConversation, data: DataMessages) -> None:
        """By an agent that has the conversation."""
        self.room, self.call, self.data = room, call, data
        self.alice = room.remote_participants["alice"]

    @property
    def kept(self) -> list[DataMessage]:
        """What is in the conversation."""
        return [item for item in self.call.items if isinstance(item, DataMessage)]

    async def settled(self) -> list[DataMessage]:
        """The same, when all that came is durable."""
        await self.data.until_read(10)
        await self.call.flush()
        return self.kept

    def stream(self, kind: str, topic: str = COMMAND, **told: Any) -> FakeStream:
        """Alice begins to send something that somebody takes."""
        stream = self.room.stream(kind, self.alice, topic, **told)
        assert stream is not None
        return stream


FollowData = Callable[..., Any]


@pytest.fixture
def follow_data(world: World) -> FollowData:
    """Follow a room, as an agent that has the conversation."""

    async def begin(
        room: FakeRoom | None = None, holder: str = "job-1", *, call: CallConversation | None = None, **settings: Any
    ) -> FollowedData:
        room = room or FakeRoom(FakeParticipant("alice"))
        if call is None:
            replaces = None if holder == "job-1" else "job-1"
            call = world.call(holder, Assignment(conversation_id="c", replaces=replaces), settings=CallSettings())
            assert await call.open()
        settings = {"data_topics": (COMMAND, "files.*"), **settings}
        data = DataMessages(room.as_room, call, RoomSettings(**settings), lambda one: who(one, room.as_room))
        data.watch()
        return FollowedData(room, call, data)

    return begin
