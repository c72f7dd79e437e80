"""A job that ends while its call goes on ends neither the room nor anybody's part in it; the end of a call does."""

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from livekit import rtc

from agent_worker.call.ending import JOB_TASK
from agent_worker.call.opening import NOT_FINISHED, WORKER_GONE, open_conversation
from agent_worker.call.rooms_guard import guard
from agent_worker.call.starting import ENTRYPOINT_TASK
from agent_worker.tenure.assignment import Assignment, CallDeclinedError
from agent_worker.tenure.conversation import LEASE, CallConversation
from agent_worker.timing import TIMING, Timing
from conversation_actors import LeaseHeldError
from tests.support.sessions.answering import LATE, Answer
from tests.support.sessions.fakes_call import POST, ROOM, FakeParticipant, FakeRoom, World, fake_job
from tests.support.sessions.room_service import ENDED, Asked, end_room


async def _hang_up() -> None:
    await end_room()


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


async def test_a_deposed_job_ends_no_room(answer: Answer, world: World, asked: Asked) -> None:
    """Its successor is in that room."""
    async with answer(FakeRoom(FakeParticipant("alice")), greeting="") as running:
        handle = await world.cluster.handle()
        await handle.acquire_lease(LEASE, holder="job-2", duration=timedelta(minutes=1), replacing="job-1")
        await running.ended()
        await end_room()
        running.job.context.shutdown("its session closed")
        await end_room()
        assert asked == []


async def test_a_job_that_was_claimed_while_it_hung_ends_no_room(answer: Answer, world: World, asked: Asked) -> None:
    """It was claimed while it hung, and has not seen that yet."""
    async with answer(FakeRoom(FakeParticipant("alice")), greeting="") as running:
        running.call._standing.held.end()  # no beat of its own tells it
        await world.agents.claim("c", "worker-2", hold=timedelta(minutes=1), holder="job-1")
        await end_room()
        assert asked == []


async def test_without_redis_a_call_is_ended_as_long_as_nobody_can_have_it(
    answer: Answer, world: World, asked: Asked, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody takes a heartbeat for silent before its time is up; later nobody can tell whose call it is."""
    async with answer(FakeRoom(FakeParticipant("alice")), greeting="") as running:
        world.agents.trouble = TimeoutError("away")
        running.call._life.beaten_at -= 3.0
        await end_room()
        assert asked == []
        assert caplog.text.count("nobody can tell whose call it is") == 1
        running.call._life.beaten_at += 3.0
        await end_room()
        assert asked == ENDED
        world.agents.trouble = None
        assert running.job.ended == []


class Witness:
    """Says whether a call goes on, and in which loop it was asked."""

    def __init__(self, *, goes_on: bool, own: tuple[str, ...] = ()) -> None:
        """`own`: participants of its own."""
        self.loops: list[asyncio.AbstractEventLoop] = []
        self._goes_on, self._own = goes_on, own

    async def goes_on(self) -> bool:
        """See `Keeper`."""
        self.loops.append(asyncio.get_running_loop())
        return self._goes_on

    async def ends(self, _identity: str | None) -> bool:
        """See `Keeper`."""
        return False

    def deleted(self) -> None:
        """See `Keeper`."""

    def is_others(self, identity: str) -> bool:
        """See `Keeper`."""
        return identity not in self._own


@pytest.mark.parametrize("order", [(True, False), (False, True), (False, False)])
async def test_a_room_of_two_roles_stays_while_either_has_a_successor(asked: Asked, order: tuple[bool, bool]) -> None:
    """The room stays where either of them has a successor in it; each may put out what is its own."""
    first, second = Witness(goes_on=order[0], own=("avatar",)), Witness(goes_on=order[1])
    guard(ROOM, first)
    guard(ROOM, second)
    await end_room()
    assert asked == ([] if any(order) else ENDED)
    await end_room("another", person="avatar")
    await end_room(person="avatar")
    assert asked[-1] == ("remove_participant", "avatar")


@pytest.fixture
def other_job() -> Iterator[asyncio.AbstractEventLoop]:
    """The loop of a job that is another thread of the worker."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    if not loop.is_closed():
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _ended(loop: asyncio.AbstractEventLoop) -> None:
    while loop.is_running():
        time.sleep(0.001)


async def in_loop(loop: asyncio.AbstractEventLoop, keeper: Witness, *, timing: Timing = TIMING) -> None:
    """Have a job guard the room."""

    async def begin() -> None:
        guard(ROOM, keeper, timing=timing)

    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(begin(), loop))


async def test_jobs_of_one_process_decide_for_themselves(asked: Asked, other_job: asyncio.AbstractEventLoop) -> None:
    """One that has handed over to another in the same process does not keep that one from ending the call."""
    mine, other = Witness(goes_on=False), Witness(goes_on=True)
    guard(ROOM, mine)
    await in_loop(other_job, other)
    await end_room()
    assert asked == ENDED
    assert other.loops == []
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(end_room(), other_job))
    assert asked == ENDED
    assert set(other.loops) == {other_job}


async def test_a_thread_of_the_application_has_the_job_asked_in_its_own_loop(
    asked: Asked, other_job: asyncio.AbstractEventLoop
) -> None:
    """As a thread of the application's does: the job is asked in its own loop; one whose loop has ended is not."""
    keeper = Witness(goes_on=True)
    await in_loop(other_job, keeper)
    await end_room()
    assert asked == []
    assert set(keeper.loops) == {other_job}
    other_job.call_soon_threadsafe(other_job.stop)
    await asyncio.to_thread(_ended, other_job)
    await end_room()
    assert asked == ENDED


async def test_a_job_that_does_not_answer_keeps_its_room(asked: Asked, other_job: asyncio.AbstractEventLoop) -> None:
    """Whoever asks from another loop does not wait for ever: it may be that loop which waits."""
    keeper = Hanging(goes_on=False)
    await in_loop(other_job, keeper, timing=Timing(guard_answer=0.05))
    await end_room()
    assert asked == []


class Hanging(Witness):
    """Never answers."""

    async def goes_on(self) -> bool:
        """See `Keeper`."""
        await asyncio.Event().wait()
        return False


async def test_a_first_call_without_its_conversation_can_be_ended(answer: Answer, world: World, asked: Asked) -> None:
    """Nobody else ever had it: whether Redis answers or not, the caller does not stay on the line."""
    world.may_open.clear()
    async with answer(FakeRoom(FakeParticipant("alice")), greeting="", open_timeout=0.05) as running:
        assert not running.call.is_open
        assert not await running.call.confirm()
        await end_room()
        assert asked == ENDED
        world.agents.trouble = TimeoutError("away")
        await end_room()
        assert asked == ENDED * 2
        world.agents.trouble = None


async def test_a_successor_without_its_conversation_asks_redis(answer: Answer, world: World, asked: Asked) -> None:
    """The call is its own where nobody else lives in it, and another's where one does; unknown, the room stays."""
    world.may_open.clear()
    minute = timedelta(minutes=1)
    await world.agents.start("c", "job-1", valid_for=minute, group="", details=b"{}")
    await world.agents.claim("c", "worker-2", hold=minute, holder="job-1")
    async with answer(FakeRoom(FakeParticipant("alice")), "job-2", greeting="", open_timeout=0.05) as running:
        assert not running.call.is_open
        world.agents.trouble = TimeoutError("away")
        await end_room()
        world.agents.trouble = None
        await world.agents.start("c", "job-3", valid_for=minute, group="", details=b"{}")
        await end_room()
        assert asked == []
        await world.agents.claim("c", "worker-2", hold=minute, holder="job-3")
        await end_room()
        assert asked == ENDED


async def test_a_job_that_stands_by_ends_no_room(answer: Answer, world: World, asked: Asked) -> None:
    """Another agent has the call, and gives it over when this one is ready."""
    first = world.call("job-1")
    await first.open()
    planned = Assignment(conversation_id="c", replaces="job-1", is_planned=True)
    room = FakeRoom(FakeParticipant("alice"))
    async with answer(room, "job-2", assignment=planned, greeting="", waits=False) as running:
        await asyncio.wait_for(first.handover_asked.wait(), LATE)
        await end_room()
        assert asked == []
        assert running.call.is_waiting_for_handover


@pytest.mark.parametrize(("room", "ends"), [(ROOM, False), ("another", True)])
async def test_a_job_that_is_one_too_many_ends_no_room_of_the_call(
    world: World, asked: Asked, room: str, *, ends: bool
) -> None:
    """Its callbacks run all the same; where the call is in another room, this one is nobody's."""
    first = world.call("job-1", post=replace(POST, room=room))
    await first.open()
    with fake_job(FakeRoom(), metadata='{"conversation_id": "c"}', job_id="job-2") as job:
        refusing = asyncio.create_task(refuse(first))
        with pytest.raises(LeaseHeldError):
            await open_conversation(job.context)
        refusing.cancel()
        world.agents.trouble = TimeoutError("away")
        await end_room()
        assert asked == []
        world.agents.trouble = None
        await end_room()
        assert asked == (ENDED if ends else [])


async def refuse(call: CallConversation) -> None:
    """Keep the call."""
    await call.redialled.wait()
    await call.refuse_redial()


async def test_a_job_that_declines_ends_no_room(world: World, asked: Asked) -> None:
    """Another one was called to that room."""

    async def decline(_self: CallConversation) -> bool:
        message = "declined"
        raise CallDeclinedError(message)

    with pytest.MonkeyPatch.context() as patch, fake_job(FakeRoom(), metadata='{"conversation_id": "c"}') as job:
        patch.setattr(CallConversation, "open", decline)
        with pytest.raises(CallDeclinedError):
            await open_conversation(job.context)
        await end_room()
        assert asked == []


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


def test_livekit_still_names_a_jobs_tasks_as_we_know_them() -> None:
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
