"""What is asked of LiveKit's server: what its answers mean, and whether what was asked for may have been done."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from google.protobuf.message import Message
from livekit import api
from livekit.protocol.models import ParticipantInfo, ParticipantPermission
from pydantic import SecretStr

from agent_worker.settings import LiveKitSettings
from agent_worker.tenure.assignment import Assignment
from agent_worker.worker import rooms as module
from agent_worker.worker.rooms import Occupants, Rooms, RoomServiceError, UnansweredError
from tests.worker.fakes_call import ROOM

LIST, DISPATCH = "ListParticipants", "CreateDispatch"


class FakeServer:
    """LiveKit's API over HTTP: every method gives the answer that a test has set, else an empty one."""

    def __init__(self) -> None:
        """Nobody is there."""
        self.people: list[ParticipantInfo] = []
        self.refusal: tuple[int, str] | None = None
        """Status and code of every answer."""
        self.asked: list[str] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one call."""
        method = request.match_info["method"]
        self.asked.append(method)
        if self.refusal is not None:
            status, code = self.refusal
            return web.json_response({"code": code, "msg": "no"}, status=status)
        answers: dict[str, Message] = {
            LIST: api.ListParticipantsResponse(participants=self.people),
            DISPATCH: api.AgentDispatch(id="AD_1"),
        }
        return web.Response(body=answers[method].SerializeToString(), content_type="application/protobuf")


@pytest.fixture
def fake() -> FakeServer:
    """LiveKit's server."""
    return FakeServer()


@pytest.fixture
async def server(fake: FakeServer) -> AsyncIterator[TestServer]:
    """Where it listens."""
    app = web.Application()
    app.router.add_post("/twirp/{service}/{method}", fake.answer)
    running = TestServer(app)
    async with running:
        yield running


@pytest.fixture
async def rooms(server: TestServer) -> AsyncIterator[Rooms]:
    """The room service on it."""
    settings = LiveKitSettings(url=str(server.make_url("")), api_key="key", api_secret=SecretStr("s" * 32))
    async with Rooms(settings) as entered:
        yield entered


async def dispatch(rooms: Rooms) -> None:
    """Ask for an agent."""
    await rooms.dispatch(ROOM, "support", Assignment(conversation_id="c"))


async def test_a_dispatch_is_asked_for_once(rooms: Rooms, fake: FakeServer) -> None:
    """And has been made when this returns."""
    await dispatch(rooms)
    assert fake.asked == [DISPATCH]


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "unauthenticated"), (403, "permission_denied"), (404, "not_found"), (429, "resource_exhausted")],
)
async def test_a_refused_dispatch_was_not_made(rooms: Rooms, fake: FakeServer, status: int, code: str) -> None:
    """Nobody comes of it."""
    fake.refusal = status, code
    with pytest.raises(RoomServiceError) as refused:
        await dispatch(rooms)
    assert not isinstance(refused.value, UnansweredError)


@pytest.mark.parametrize(("status", "code"), [(500, "internal"), (503, "unavailable"), (408, "deadline_exceeded")])
async def test_a_dispatch_that_failed_inside_may_have_been_made(
    rooms: Rooms, fake: FakeServer, status: int, code: str
) -> None:
    """One node asks another: what the first one did not hear may have been done."""
    fake.refusal = status, code
    with pytest.raises(UnansweredError):
        await dispatch(rooms)


async def test_a_server_that_is_not_there_did_nothing(rooms: Rooms, server: TestServer) -> None:
    """No connection, no dispatch."""
    await server.close()
    with pytest.raises(RoomServiceError) as refused:
        await dispatch(rooms)
    assert not isinstance(refused.value, UnansweredError)


async def test_without_an_answer_in_time_nobody_knows(
    rooms: Rooms, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is over before the answer is there."""
    monkeypatch.setattr(module, "_SECONDS", 0.0)
    with pytest.raises(UnansweredError):
        await dispatch(rooms)
    assert fake.asked == []


async def test_only_tokens_name_conversations(rooms: Rooms, fake: FakeServer) -> None:
    """Not who may change its own attributes, not an agent, and not what is no id."""
    own = ParticipantPermission(can_update_metadata=True)
    fake.people = [
        ParticipantInfo(identity="alice", attributes={"conversation_id": "of-alice"}),
        ParticipantInfo(identity="mallory", attributes={"conversation_id": "of-alice-2"}, permission=own),
        ParticipantInfo(identity="bob"),
        ParticipantInfo(identity="carol", attributes={"conversation_id": "not\nan id"}),
        ParticipantInfo(
            identity="agent-1", kind=ParticipantInfo.Kind.AGENT, attributes={"conversation_id": "of-the-agent"}
        ),
    ]
    found = await rooms.occupants(ROOM)
    assert found.people == ("alice", "mallory", "bob", "carol")
    assert found.conversations == ("of-alice",)


async def test_a_room_that_does_not_exist_is_empty(rooms: Rooms, fake: FakeServer) -> None:
    """It is an answer, and no trouble."""
    fake.refusal = 404, "not_found"
    assert await rooms.occupants(ROOM) == Occupants(exists=False)
