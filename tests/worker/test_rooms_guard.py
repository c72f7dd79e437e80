"""A job that ends while its call goes on ends neither the room nor anybody's part in it; the end of a call does."""

import asyncio
from datetime import timedelta

import pytest
from livekit import api, rtc
from livekit.api.room_service import RoomService
from livekit.protocol.room import DeleteRoomRequest, RoomParticipantIdentity

from agent_worker.call.ending import JOB_TASK
from agent_worker.call.opening import NOT_FINISHED, WORKER_GONE, open_conversation
from agent_worker.call.starting import ENTRYPOINT_TASK
from agent_worker.tenure.conversation import LEASE
from conversation_actors import LeaseHeldError
from tests.worker.answering import LATE, Answer
from tests.worker.fakes_call import ROOM, FakeParticipant, FakeRoom, World, fake_job


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


async def _hang_up() -> None:
    await end_room()


ENDED = [("delete_room", ROOM), ("remove_participant", "alice")]
Asked = list[tuple[str, str]]


async def test_a_call_that_is_over_ends_its_room(answer: Answer, asked: Asked) -> None:
    """While the agent has it, after the application has ended the job, and when nobody is there any more."""
    alice = FakeParticipant("alice")
    async with answer(FakeRoom(alice), greeting="", linger=0.01) as running:
        await end_room()
        assert asked == ENDED
        running.job.context.shutdown("the caller is done")
        assert running.call.is_over
        await end_room()
        assert asked == ENDED * 2
    async with answer(FakeRoom(), "job-2", greeting="", linger=0.01) as running:
        assert await running.ended() == "nobody is in the room"
        assert running.call.is_over
        await end_room()
        assert asked == ENDED * 3


async def test_a_call_that_was_handed_over_keeps_its_room(
    answer: Answer, world: World, asked: Asked, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever asks is answered as ever; one line says so. Other rooms are none of this, nor is what is its own."""
    caplog.set_level("INFO")
    alice = FakeParticipant("alice")
    agent = rtc.ParticipantKind.PARTICIPANT_KIND_AGENT
    avatar = FakeParticipant("avatar", kind=agent, attributes={"lk.publish_on_behalf": "agent-1"})
    successor = FakeParticipant("agent-2", kind=agent)
    async with answer(FakeRoom(alice, avatar), greeting="") as running:
        running.room.enter(successor)
        await running.session_is_calm()
        running.call.handover_asked.set()
        assert await running.ended() == "handed over"
        await end_room()
        assert asked == []
        assert caplog.text.count("the call goes on without this job") == 2
        await end_room("another", person="bob")
        assert asked == [("delete_room", "another"), ("remove_participant", "bob")]
        await end_room(person="agent-2")
        assert len(asked) == 2
        for own in ("avatar", "agent-1"):
            await end_room(person=own)
        assert asked[2:] == [("remove_participant", "avatar"), ("remove_participant", "agent-1")]
        assert not running.call.is_over


async def test_the_deposed_ends_nothing(answer: Answer, world: World, asked: Asked) -> None:
    """Its successor is in that room."""
    async with answer(FakeRoom(FakeParticipant("alice")), greeting="") as running:
        handle = await world.cluster.handle()
        await handle.acquire_lease(LEASE, holder="job-2", duration=timedelta(minutes=1), replacing="job-1")
        await running.ended()
        await end_room()
        running.job.context.shutdown("its session closed")
        await end_room()
        assert asked == []


async def test_one_that_wakes_up_asks_first(answer: Answer, world: World, asked: Asked) -> None:
    """It was claimed while it hung, and has not seen that yet; where Redis does not answer, nothing is ended either."""
    async with answer(FakeRoom(FakeParticipant("alice")), greeting="") as running:
        running.call._held.end()  # no beat of its own tells it
        await world.agents.claim("c", "worker-2", hold=timedelta(minutes=1), holder="job-1")
        await end_room()
        assert asked == []


async def test_without_redis_a_room_stays(answer: Answer, world: World, asked: Asked) -> None:
    """Nobody can tell whose it is."""
    async with answer(FakeRoom(FakeParticipant("alice")), greeting="") as running:
        world.agents.trouble = TimeoutError("away")
        await end_room()
        assert asked == []
        world.agents.trouble = None
        assert running.job.ended == []


@pytest.mark.parametrize(
    ("reason", "ends"),
    [
        (rtc.DisconnectReason.CONNECTION_TIMEOUT, False),
        (rtc.DisconnectReason.SIGNAL_CLOSE, False),
        (rtc.DisconnectReason.CLIENT_INITIATED, True),
    ],
)
async def test_a_room_that_was_lost_is_not_ended(
    answer: Answer, asked: Asked, reason: rtc.DisconnectReason.ValueType, *, ends: bool
) -> None:
    """Somebody may be there, and be heard by the next agent; one that left on purpose does as it likes."""
    async with answer(FakeRoom(FakeParticipant("alice")), greeting="") as running:
        running.room.is_connected = False
        running.room.emit("disconnected", reason)
        await end_room()
        assert asked == (ENDED if ends else [])


async def test_a_job_that_its_worker_ends_keeps_the_room(answer: Answer, asked: Asked) -> None:
    """LiveKit closes the session, and tells why afterwards: `delete_room_on_close` comes between."""
    async with answer(FakeRoom(FakeParticipant("alice")), greeting="") as running:
        closed = asyncio.Event()
        running.session.on("close", lambda _event: closed.set())

        async def as_livekit_does() -> None:
            await asyncio.wait_for(running.session.aclose(), timeout=LATE)

        await asyncio.create_task(as_livekit_does(), name=JOB_TASK)
        await closed.wait()
        await end_room()
        assert asked == []


async def test_a_session_that_the_application_closes_does_not(answer: Answer, asked: Asked) -> None:
    """The control: it may delete the room behind that."""
    async with answer(FakeRoom(FakeParticipant("alice")), greeting="") as running:
        await running.session.aclose()
        await end_room()
        assert asked == ENDED


def test_livekits_names_for_a_jobs_tasks() -> None:
    """A new version of LiveKit that has others would delete rooms of calls that go on, and greet again."""
    import inspect

    from livekit.agents.ipc import job_proc_lazy_main

    source = inspect.getsource(job_proc_lazy_main)
    assert all(f'name="{name}"' in source for name in (JOB_TASK, ENTRYPOINT_TASK))


async def test_a_job_that_is_not_to_have_the_call_ends_nothing(world: World, asked: Asked) -> None:
    """It declines what it was called to, or finds another agent there; its callbacks run all the same."""
    there = world.call("job-1")
    await there.open()
    with fake_job(FakeRoom(), metadata='{"conversation_id": "c"}', job_id="job-2") as job:
        job.context.add_shutdown_callback(_hang_up)
        with pytest.raises(LeaseHeldError):
            await open_conversation(job.context)
        await end_room()
        await job.shut_down(NOT_FINISHED)
    assert asked == []
    await there.aclose()


async def test_before_the_session_starts_a_call_may_be_ended(world: World, asked: Asked) -> None:
    """The number that was dialled is busy: the room that is deleted is the end of the call, whatever ends the job."""
    with fake_job(FakeRoom(), metadata='{"conversation_id": "c"}') as job:
        conversation = await open_conversation(job.context)
        await end_room()
        await job.shut_down(WORKER_GONE)
    assert asked == ENDED
    assert conversation.is_over


async def test_a_room_that_was_deleted_is_the_end_of_the_call(answer: Answer, asked: Asked) -> None:
    """LiveKit tells the job to end, in the words it has for a worker that goes, before it tells of the room."""
    async with answer(FakeRoom(FakeParticipant("alice")), greeting="") as running:
        await end_room()
        assert asked == ENDED
        assert running.call.is_over
