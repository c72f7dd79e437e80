"""What is asked of LiveKit's server: what its answers mean, and whether what was asked for may have been done."""

import logging
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from google.protobuf.message import Message
from livekit import api, rtc
from livekit.protocol.agent_dispatch import ListAgentDispatchResponse
from livekit.protocol.models import ParticipantInfo
from pydantic import SecretStr

from agent_worker.call.arrivals import is_human
from agent_worker.people import PEOPLE
from agent_worker.settings import LiveKitSettings
from agent_worker.timing import Timing
from agent_worker.worker.rooms import Occupants, Original, Rooms, RoomServiceError, UnansweredError
from tests.support.sessions.fakes_call import ROOM

LIST, DISPATCH, LISTED = "ListParticipants", "CreateDispatch", "ListDispatch"


class FakeServer:
    """LiveKit's API over HTTP: every method gives the answer that a test has set, else an empty one."""

    def __init__(self) -> None:
        """Nobody is there."""
        self.people: list[ParticipantInfo] = []
        self.dispatches: list[api.AgentDispatch] = []
        self.created: list[api.CreateAgentDispatchRequest] = []
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
            LISTED: ListAgentDispatchResponse(agent_dispatches=self.dispatches),
        }
        if method == DISPATCH:
            self.created.append(api.CreateAgentDispatchRequest.FromString(await request.read()))
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


def settings(server: TestServer) -> LiveKitSettings:
    """What finds it."""
    return LiveKitSettings(url=str(server.make_url("")), api_key="key", api_secret=SecretStr("s" * 32))


@pytest.fixture
async def rooms(server: TestServer) -> AsyncIterator[Rooms]:
    """The room service on it."""
    async with Rooms(settings(server)) as entered:
        yield entered


async def dispatch(rooms: Rooms) -> None:
    """Ask for an agent."""
    await rooms.dispatch(ROOM, "support")


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


async def test_without_an_answer_in_time_nobody_knows(server: TestServer, fake: FakeServer) -> None:
    """The time is over before the answer is there."""
    async with Rooms(settings(server), timing=Timing(rooms_answer=0.0)) as rooms:
        with pytest.raises(UnansweredError):
            await dispatch(rooms)
    assert fake.asked == []


async def test_who_is_in_a_room_is_told_by_kind(rooms: Rooms, fake: FakeServer) -> None:
    """Agents are not people."""
    fake.people = [
        ParticipantInfo(identity="alice"),
        ParticipantInfo(identity="phone", kind=ParticipantInfo.Kind.SIP),
        ParticipantInfo(identity="agent-1", kind=ParticipantInfo.Kind.AGENT),
    ]
    found = await rooms.occupants(ROOM)
    assert found.people == ("alice", "phone")
    assert [agent.identity for agent in found.agents] == ["agent-1"]


@pytest.mark.parametrize("kind", [*PEOPLE, "AGENT", "EGRESS", "INGRESS"])
async def test_a_room_and_its_server_take_the_same_kinds_for_people(rooms: Rooms, fake: FakeServer, kind: str) -> None:
    """Their numbers differ; an agent in the room, and whoever asks LiveKit's server, still count the same people."""
    fake.people = [ParticipantInfo(identity="one", kind=kind)]
    in_the_room = SimpleNamespace(kind=rtc.ParticipantKind.Value(f"PARTICIPANT_KIND_{kind}"))

    assert bool((await rooms.occupants(ROOM)).people) is is_human(cast("rtc.Participant", in_the_room))


# What a successor's dispatch says


@pytest.mark.parametrize("metadata", ["", "x" * 60_000, '{"phone_number": "+49"', "ünï \u200d\n\0"])
async def test_a_successors_dispatch_says_what_the_first_one_said(
    rooms: Rooms, fake: FakeServer, metadata: str
) -> None:
    """Byte for byte, with all that both messages have; but by the name, and to the room, that is asked for."""
    listed = api.AgentDispatch(
        id="AD_7",
        agent_name="other",
        room="elsewhere",
        metadata=metadata,
        deployment="blue",
        attributes={"tier": "gold"},
        restart_policy="JRP_NEVER",
    )
    fake.dispatches = [api.AgentDispatch(id="AD_6", metadata="another's"), listed]
    assert await rooms.dispatch(ROOM, "", Original("AD_7", "an old copy")) == "AD_1"
    (made,) = fake.created
    assert (made.room, made.agent_name, made.metadata) == (ROOM, "", metadata)
    assert (made.deployment, dict(made.attributes), made.restart_policy) == (
        "blue",
        {"tier": "gold"},
        listed.restart_policy,
    )


async def test_a_dispatch_that_is_not_listed_is_copied_as_far_as_it_is_known(
    rooms: Rooms, fake: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """From a copy of its metadata, else not at all, which is told; one that had no dispatch is nothing to ask for."""
    caplog.set_level(logging.WARNING)  # the fake server tells of each request, where somebody listens to it
    fake.dispatches = [api.AgentDispatch(id="AD_6", metadata="another's")]
    await rooms.dispatch(ROOM, "support", Original("AD_7", "a copy"))
    assert caplog.records == []
    await rooms.dispatch(ROOM, "support", Original("AD_7"))
    assert len(caplog.records) == 1
    await rooms.dispatch(ROOM, "support", Original("", "simulated"))
    await rooms.dispatch(ROOM, "support")
    assert [made.metadata for made in fake.created] == ["a copy", "", "simulated", ""]
    assert fake.asked.count(LISTED) == 2


async def test_a_list_that_cannot_be_had_makes_no_dispatch(rooms: Rooms, fake: FakeServer) -> None:
    """The successor would die of what it is not told: it is asked for later."""
    fake.refusal = 503, "unavailable"
    with pytest.raises(RoomServiceError) as refused:
        await rooms.dispatch(ROOM, "support", Original("AD_7", "a copy"))
    assert not isinstance(refused.value, UnansweredError)
    assert fake.asked == [LISTED]


async def test_a_room_that_does_not_exist_is_empty(rooms: Rooms, fake: FakeServer) -> None:
    """It is an answer, and no trouble."""
    fake.refusal = 404, "not_found"
    assert await rooms.occupants(ROOM) == Occupants(exists=False)
