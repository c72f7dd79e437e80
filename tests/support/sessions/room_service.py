"""LiveKit's room service, of which is noted what it is asked for."""

import pytest
from livekit import api
from livekit.api.room_service import RoomService
from livekit.protocol.room import DeleteRoomRequest, RoomParticipantIdentity

from tests.support.sessions.fakes_call import ROOM

ENDED = [("delete_room", ROOM), ("remove_participant", "alice")]
Asked = list[tuple[str, str]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What LiveKit's server is asked for: the method, and the room or who is to go."""
    told: list[tuple[str, str]] = []

    async def delete_room(_service: RoomService, delete: DeleteRoomRequest) -> None:
        told.append(("delete_room", delete.room))

    async def remove_participant(_service: RoomService, remove: RoomParticipantIdentity) -> None:
        told.append(("remove_participant", remove.identity))

    monkeypatch.setattr(RoomService, "delete_room", delete_room)
    monkeypatch.setattr(RoomService, "remove_participant", remove_participant)
    return told


async def end_room(room: str = ROOM, *, person: str = "alice") -> None:
    """What applications do when they think that a call is over."""
    async with api.LiveKitAPI("http://127.0.0.1:1", "key", "secret") as client:
        await client.room.delete_room(DeleteRoomRequest(room=room))
        await client.room.remove_participant(RoomParticipantIdentity(room=room, identity=person))
