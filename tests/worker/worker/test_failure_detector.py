"""Inside a worker: sees jobs end and heartbeats stop, and gives calls over at its own end."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, cast

import pytest
from livekit.agents.job import RunningJobInfo

from agent_worker.settings import TakeoverSettings
from agent_worker.tenure.assignment import Assignment, RestartReason
from agent_worker.timing import TIMING, Timing
from agent_worker.worker.failure_detector import FailureDetector
from agent_worker.worker.rooms import Original, RoomServiceError
from agent_worker.worker.takeover import HOLD, Takeover
from conversation_actors import HeartbeatRecord, Heartbeats, Settings
from conversation_actors.errors import StoreMisconfiguredError, StoreUnavailableError
from conversation_actors.store.heartbeats import Page
from tests.support.fakes import until
from tests.support.sessions.fake_livekit import FakeRooms, ghost, running_job
from tests.support.sessions.fakes_call import ROOM, Clock, ShakyHeartbeats, ShakyStore, on_store

DETAILS = {"room": ROOM, "agent_name": "support", "agent_identity": "agent-1", "attempt": 0}
VALID_FOR = timedelta(seconds=3)
PACE = 0.25
"""Seconds of the workers' clock from one look to the next, while it goes."""
QUICK = Timing(ask=0.01)
METADATA = '{"conversation_id": "c"}'
CRASH, DEPLOY = RestartReason.CRASH, RestartReason.DEPLOY


class Jobs:
    """The jobs of a worker; counts how often they are looked at."""

    def __init__(self, *jobs: RunningJobInfo) -> None:
        """These run."""
        self._jobs: Sequence[RunningJobInfo] = jobs
        self.looks = 0
        self.defect: Exception | None = None
        """What a look at them raises."""

    @property
    def active_jobs(self) -> Sequence[RunningJobInfo]:
        """Those that run."""
        self.looks += 1
        if self.defect is not None:
            raise self.defect
        return self._jobs

    @active_jobs.setter
    def active_jobs(self, jobs: Sequence[RunningJobInfo]) -> None:
        self._jobs = jobs


@pytest.fixture
def rooms(store: ShakyStore) -> FakeRooms:
    """A room with a caller."""
    return FakeRooms(people=["alice"], store=store)


def settings() -> TakeoverSettings:
    """Quick."""
    return TakeoverSettings(poll_interval=timedelta(seconds=0.002))


def make(
    heartbeats: Heartbeats,
    rooms: FakeRooms,
    jobs: Jobs,
    takeover: Takeover | None = None,
    *,
    named_by_participants: bool = False,
    timing: Timing = TIMING,
) -> FailureDetector:
    """A failure detector of these jobs."""
    mending = takeover or Takeover(heartbeats, rooms.as_rooms, settings(), linger=timedelta(seconds=0.02), give_up=None)
    return FailureDetector(
        jobs,
        heartbeats,
        mending,
        rooms.as_rooms,
        instance="worker-1",
        settings=settings(),
        named_by_participants=named_by_participants,
        timing=timing,
    )


@asynccontextmanager
async def running(detector: FailureDetector) -> AsyncIterator["asyncio.Task[None]"]:
    """It watches; afterwards it does no more."""
    task = asyncio.create_task(detector.run())
    await settled(detector)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def begin(heartbeats: Heartbeats, *names: str, holder: str = "job-1") -> None:
    """Agents hold these conversations."""
    for name in names:
        await heartbeats.start(name, holder, valid_for=VALID_FOR, details=DETAILS)


async def settled(detector: FailureDetector) -> None:
    """Return when a detector has looked at its jobs, and has done what it does about them."""
    jobs = cast("Jobs", detector._jobs)
    looks = jobs.looks
    await until(lambda: jobs.looks > looks + 1 and not detector._running)


async def ended(jobs: Jobs, detector: FailureDetector, store: ShakyStore) -> None:
    """All jobs are gone, and the detector has done what it does about that."""
    looked = store.agents.asked
    jobs.active_jobs = []
    await until(lambda: store.agents.asked > looked + 3)
    await settled(detector)


# Its own jobs


async def test_a_job_that_dies_is_replaced_at_once(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """Its heartbeat is still there: no clock is waited for."""
    jobs = Jobs(running_job("job-1", metadata=METADATA), running_job("job-9", metadata='{"conversation_id": "d"}'))
    await begin(heartbeats, "c")
    await begin(heartbeats, "d", holder="job-9")
    async with running(make(heartbeats, rooms, jobs)):
        assert rooms.asked == []
        jobs.active_jobs = jobs.active_jobs[1:]
        await until(lambda: bool(rooms.dispatched))
    wanted = Assignment(conversation_id="c", replaces="job-1", attempt=1, reason=CRASH)
    assert rooms.dispatched == [(ROOM, "support", wanted)]
    record = await heartbeats.find("c")
    assert record is not None
    assert record.claimant == "worker-1"


async def test_a_job_that_ended_in_order_is_let_go(heartbeats: Heartbeats, rooms: FakeRooms, store: ShakyStore) -> None:
    """Its heartbeat is gone, or is its successor's."""
    jobs = Jobs(running_job("job-1", metadata=METADATA), running_job("job-2", metadata='{"conversation_id": "d"}'))
    await begin(heartbeats, "c")
    await begin(heartbeats, "d", holder="job-2")
    await begin(heartbeats, "d", holder="job-3")
    await heartbeats.stop("c", "job-1")
    detector = make(heartbeats, rooms, jobs)
    async with running(detector):
        before = store.agents.asked
        jobs.active_jobs = []
        await until(lambda: store.agents.asked >= before + 2)
        await settled(detector)
    assert rooms.asked == []


async def test_a_job_that_ends_while_redis_is_away_is_found_by_the_clock(
    heartbeats: Heartbeats, rooms: FakeRooms, store: ShakyStore, clock: Clock
) -> None:
    """Later, by whichever worker."""
    jobs = Jobs(running_job("job-1", metadata=METADATA))
    await begin(heartbeats, "c")
    detector = make(heartbeats, rooms, jobs)
    async with running(detector):
        store.agents.trouble = StoreUnavailableError("away")
        jobs.active_jobs = []
        await settled(detector)
        assert rooms.asked == []
        store.agents.trouble = None
        clock.pace = PACE
        await until(lambda: bool(rooms.dispatched))


# Jobs that died before they had the call


async def test_a_job_that_dies_before_it_began_is_followed(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """Nothing tells of it but its worker; the caller waits all the same."""
    jobs = Jobs(running_job("job-1", metadata=METADATA))
    rooms.agents = [ghost()]
    async with running(make(heartbeats, rooms, jobs)):
        jobs.active_jobs = []
        await until(lambda: bool(rooms.dispatched))
    wanted = Assignment(conversation_id="c", replaces="job-1", attempt=1, reason=CRASH)
    assert rooms.asked == [("remove", ROOM, "agent-1"), ("dispatch", ROOM, "support", wanted)]
    record = await heartbeats.find("c")
    assert record is not None
    assert (record.holder, record.group, record.claimant) == ("job-1", "worker-1", "worker-1")


async def test_a_job_that_left_before_it_began_is_followed_by_nobody(
    heartbeats: Heartbeats, rooms: FakeRooms, store: ShakyStore
) -> None:
    """Its entrypoint has shut it down, or returned, and never was on its way to a conversation."""
    jobs = Jobs(running_job("job-1", metadata='{"kind": "not ours"}'))
    rooms.agents = [ghost("agent-of-others")]
    detector = make(heartbeats, rooms, jobs)
    async with running(detector):
        await ended(jobs, detector, store)
    assert rooms.asked == []
    assert await heartbeats.find(ROOM) is None


async def test_a_participant_that_is_about_to_leave_is_no_ghost(
    heartbeats: Heartbeats, rooms: FakeRooms, store: ShakyStore
) -> None:
    """LiveKit's server may list it for a moment behind the end of its process."""
    jobs = Jobs(running_job("job-1", metadata=METADATA))
    rooms.agents = [ghost()]
    detector = make(heartbeats, rooms, jobs)
    async with running(detector):
        jobs.active_jobs = []
        await until(lambda: rooms.looks == 1)
        rooms.agents = []
        await ended(jobs, detector, store)
    assert (rooms.looks, rooms.asked) == (2, [])


async def test_a_ghost_is_looked_for_until_livekit_answers(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """An outage at the moment of the death costs the caller no agent; it is counted."""
    jobs = Jobs(running_job("job-1", metadata=METADATA))
    rooms.agents, rooms.is_down = [ghost()], True
    detector = make(heartbeats, rooms, jobs)
    async with running(detector):
        jobs.active_jobs = []
        await until(lambda: rooms.looks > 1)
        assert rooms.asked == []
        rooms.is_down = False
        await until(lambda: bool(rooms.dispatched))
    assert detector.failures["ended jobs"] > 1


async def test_a_ghost_is_looked_for_no_longer_than_there_are_any(
    heartbeats: Heartbeats, rooms: FakeRooms, store: ShakyStore
) -> None:
    """Then nobody can tell any more."""
    jobs = Jobs(running_job("job-1", metadata=METADATA))
    rooms.agents, rooms.is_down = [ghost()], True
    detector = make(heartbeats, rooms, jobs, timing=Timing(ghost=0.02, gone=0.005))
    async with running(detector):
        await ended(jobs, detector, store)
    assert rooms.looks > 0
    assert await heartbeats.find("c") is None


@pytest.mark.parametrize("role", ["", "translator"])
@pytest.mark.parametrize("named_by_participants", [False, True])
async def test_a_job_that_dies_on_its_way_is_followed_as_what_it_was_to_be(
    heartbeats: Heartbeats, rooms: FakeRooms, role: str, *, named_by_participants: bool
) -> None:
    """In the very conversation and role that it has announced, whoever named it; it need not be in the room yet."""
    await heartbeats.announce("alice", "job-1", role=role)
    if role:
        await begin(heartbeats, "alice", holder="job-9")
    jobs = Jobs(running_job("job-1", metadata=METADATA))
    async with running(make(heartbeats, rooms, jobs, named_by_participants=named_by_participants)):
        jobs.active_jobs = []
        await until(lambda: bool(rooms.dispatched))
    wanted = Assignment(conversation_id="alice", role=role or "agent", replaces="job-1", attempt=1, reason=CRASH)
    assert rooms.dispatched == [(ROOM, "support", wanted)]
    record = await heartbeats.find("alice", role=role)
    assert record is not None
    assert (record.holder, record.group, record.claimant) == ("job-1", "worker-1", "worker-1")


async def test_a_job_that_took_its_announcement_back_is_nobodys_death(
    heartbeats: Heartbeats, rooms: FakeRooms, store: ShakyStore
) -> None:
    """It declined, was refused, or left in order before it had the call."""
    await heartbeats.announce("c", "job-1", role="translator")
    await heartbeats.withdraw("c", "job-1", role="translator")
    jobs = Jobs(running_job("job-1", metadata=METADATA))
    detector = make(heartbeats, rooms, jobs)
    async with running(detector):
        await ended(jobs, detector, store)
    assert rooms.asked == []


async def test_beside_another_role_nobody_knows_what_a_ghost_was(
    heartbeats: Heartbeats, rooms: FakeRooms, store: ShakyStore
) -> None:
    """A job that has announced nothing may have been of any role: an agent in its place would be one too many."""
    await heartbeats.start("c", "job-9", role="translator", valid_for=VALID_FOR, details=DETAILS)
    jobs = Jobs(running_job("job-1", metadata=METADATA))
    rooms.agents = [ghost(), ghost("agent-job-9")]
    detector = make(heartbeats, rooms, jobs)
    async with running(detector):
        await ended(jobs, detector, store)
    assert rooms.asked == []
    assert await heartbeats.find("c") is None


async def test_successors_that_die_before_they_begin_are_counted(
    heartbeats: Heartbeats, rooms: FakeRooms, clock: Clock
) -> None:
    """The first one's claim stays, and is the next attempt when it expires: not at once, and not for ever."""
    jobs = Jobs(running_job("job-1", metadata=METADATA))
    for job in ("job-1", "job-2"):
        await heartbeats.announce("c", job)
    detector = make(heartbeats, rooms, jobs)
    async with running(detector):
        jobs.active_jobs = []
        await until(lambda: len(rooms.dispatched) == 1)
        jobs.active_jobs = [running_job("job-2", metadata=METADATA)]
        await settled(detector)
        jobs.active_jobs = []
        await settled(detector)
        assert len(rooms.dispatched) == 1
        clock.pace = PACE
        await until(lambda: len(rooms.dispatched) == 2)
    assert rooms.dispatched[1][2] == Assignment(conversation_id="c", replaces="job-1", attempt=2, reason=CRASH)


async def test_one_more_job_of_a_call_is_nobodys_death(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """It ended because another agent is alive there; that one keeps its heartbeat."""
    jobs = Jobs(running_job("job-2", metadata=METADATA))
    await begin(heartbeats, "c")
    await heartbeats.announce("c", "job-2")
    detector = make(heartbeats, rooms, jobs)
    async with running(detector):
        jobs.active_jobs = []
        await settled(detector)
    assert rooms.looks == 0
    assert await heartbeats.beat("c", "job-1", valid_for=VALID_FOR)


async def test_with_another_agent_in_the_room_nobody_is_called(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """It may have the call, and not be heard of yet."""
    rooms.agents = [ghost("agent-2")]
    await heartbeats.announce("c", "job-1")
    jobs = Jobs(running_job("job-1", metadata=METADATA))
    patient = TakeoverSettings(retry=timedelta(seconds=0.01))
    takeover = Takeover(heartbeats, rooms.as_rooms, patient, linger=timedelta(seconds=0.02), give_up=None)
    async with running(make(heartbeats, rooms, jobs, takeover)):
        jobs.active_jobs = []
        await until(lambda: rooms.looks > 3)
    assert rooms.asked == []


async def test_a_job_that_dies_before_anybody_came_is_forgotten(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """Nobody waits in its room."""
    rooms.people = []
    await heartbeats.announce("c", "job-1")
    jobs = Jobs(running_job("job-1", metadata=METADATA))
    detector = make(heartbeats, rooms, jobs)
    async with running(detector):
        jobs.active_jobs = []
        await until(lambda: rooms.looks > 1)
        await settled(detector)
    assert rooms.asked == []
    assert await heartbeats.find("c") is None


# Conversations that participants name


async def test_a_job_with_a_named_conversation_is_replaced_at_once(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """Its heartbeat tells which one it is, though nobody is there any more who named it; no clock is waited for."""
    jobs = Jobs(running_job("job-1"))
    await begin(heartbeats, "alice")
    await begin(heartbeats, "other", holder="job-9")
    async with running(make(heartbeats, rooms, jobs, named_by_participants=True)):
        jobs.active_jobs = []
        await until(lambda: bool(rooms.dispatched))
    wanted = Assignment(conversation_id="alice", replaces="job-1", attempt=1, reason=CRASH)
    assert [assignment for *_, assignment in rooms.dispatched] == [wanted]
    assert await heartbeats.beat("other", "job-9", valid_for=VALID_FOR)


async def test_a_call_that_a_participant_named_is_given_over(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """The successor is told its name, and does not have to ask the participant."""
    await begin(heartbeats, "alice")
    jobs = Jobs(running_job("job-1"))
    giving = asyncio.create_task(make(heartbeats, rooms, jobs, named_by_participants=True).give_over())
    await until(lambda: bool(rooms.dispatched))
    jobs.active_jobs = []
    await asyncio.wait_for(giving, 5)
    wanted = Assignment(conversation_id="alice", replaces="job-1", is_planned=True, avoid="w", reason=DEPLOY)
    assert rooms.dispatched[0] == (ROOM, "support", wanted)


@pytest.mark.parametrize("metadata", ["", METADATA])
async def test_what_the_dispatch_names_is_looked_up_nowhere(
    heartbeats: Heartbeats, rooms: FakeRooms, metadata: str
) -> None:
    """LiveKit is not asked where metadata names the conversation, or the one of the room's name is this job's."""
    await begin(heartbeats, "c" if metadata else ROOM)
    jobs = Jobs(running_job("job-1", metadata=metadata))
    giving = asyncio.create_task(make(heartbeats, rooms, jobs, named_by_participants=True).give_over())
    await until(lambda: bool(rooms.dispatched))
    jobs.active_jobs = []
    await asyncio.wait_for(giving, 5)
    assert rooms.looks == 0


async def test_a_job_whose_conversation_is_not_known_is_not_followed(
    heartbeats: Heartbeats, rooms: FakeRooms, store: ShakyStore
) -> None:
    """It died before it began, and a participant may have named it: a successor could open the wrong one."""
    jobs = Jobs(running_job("job-1"))
    rooms.agents = [ghost()]
    detector = make(heartbeats, rooms, jobs, named_by_participants=True)
    async with running(detector):
        looked = store.agents.asked
        jobs.active_jobs = []
        await until(lambda: store.agents.asked > looked + 3)
        await until(lambda: not detector._running)
    assert rooms.asked == []
    assert await heartbeats.find(ROOM) is None


# Everybody's heartbeats


async def test_a_silent_agent_is_found(heartbeats: Heartbeats, rooms: FakeRooms, clock: Clock) -> None:
    """Wherever it ran; those that are heard of are left alone, also after it."""
    await begin(heartbeats, "c", "d")

    async def live() -> None:
        while True:
            assert await heartbeats.beat("d", "job-1", valid_for=VALID_FOR)
            await asyncio.sleep(0.002)

    living = asyncio.create_task(live())
    async with running(make(heartbeats, rooms, Jobs())):
        clock.pace = PACE
        await until(lambda: bool(rooms.dispatched))
        long_after = clock.now + 10 * VALID_FOR.total_seconds()
        await until(lambda: clock.now > long_after)
    living.cancel()
    assert {assignment.conversation_id for *_, assignment in rooms.dispatched} == {"c"}


async def test_agents_get_time_to_be_heard_at_the_start(heartbeats: Heartbeats, rooms: FakeRooms, clock: Clock) -> None:
    """All of Redis may just have come back, and this worker with it."""
    await begin(heartbeats, "c")
    clock.now += 60
    clock.pace, started = PACE, clock.now
    async with running(make(heartbeats, rooms, Jobs())):
        await until(lambda: bool(rooms.dispatched))
    assert clock.now - started >= VALID_FOR.total_seconds()


@pytest.mark.parametrize("error", [StoreUnavailableError("away"), StoreMisconfiguredError("NOPERM"), TypeError("x")])
async def test_after_redis_was_away_nobody_is_taken_for_dead(
    heartbeats: Heartbeats, rooms: FakeRooms, store: ShakyStore, clock: Clock, error: Exception
) -> None:
    """Agents could not be heard: their silence counts anew; and the watch itself goes on, whatever it was."""
    await begin(heartbeats, "c")
    detector = make(heartbeats, rooms, Jobs())
    async with running(detector) as task:
        clock.pace = PACE
        almost = clock.now + VALID_FOR.total_seconds() - 2 * PACE
        await until(lambda: clock.now >= almost)
        store.agents.trouble = error
        before = store.agents.asked
        await until(lambda: store.agents.asked > before + 2)
        back = clock.now
        store.agents.trouble = None
        await until(lambda: bool(rooms.dispatched))
        assert clock.now - back >= VALID_FOR.total_seconds()
        assert not task.done()
    assert detector.failures["heartbeats"] > 2


async def test_after_a_long_sleep_nobody_is_taken_for_dead(
    heartbeats: Heartbeats, rooms: FakeRooms, clock: Clock
) -> None:
    """The machine was suspended, or Redis hung: who seems dead may have been unable to say otherwise."""
    await begin(heartbeats, "c")
    async with running(make(heartbeats, rooms, Jobs())):
        clock.pace = PACE
        almost = clock.now + VALID_FOR.total_seconds() - 2 * PACE
        await until(lambda: clock.now >= almost)
        assert rooms.asked == []
        clock.now += 60
        awake = clock.now
        await until(lambda: bool(rooms.dispatched))
        assert clock.now - awake >= VALID_FOR.total_seconds()


class SlowHeartbeats(ShakyHeartbeats):
    """Every look at the records takes so many seconds, half of them on the way there."""

    seconds = 0.0

    async def silent(self, *, after: int, until: int, limit: int) -> Page:
        """See `HeartbeatStore.silent`."""
        await asyncio.sleep(self.seconds / 2)
        page = await super().silent(after=after, until=until, limit=limit)
        await asyncio.sleep(self.seconds / 2)
        return page


SLOW = TakeoverSettings(
    heartbeat=timedelta(seconds=0.3), valid_for=timedelta(seconds=1.2), poll_interval=timedelta(seconds=0.2)
)


@asynccontextmanager
async def slowly(
    monkeypatch: pytest.MonkeyPatch, store: ShakyStore, rooms: FakeRooms, *, seconds: float
) -> AsyncIterator[FailureDetector]:
    """A failure detector by a real clock, whose Redis takes so long; an agent died."""
    store.agents = slow = SlowHeartbeats(Clock())
    slow.seconds = seconds
    with on_store(monkeypatch, store):
        async with Heartbeats(Settings()) as heartbeats:
            await heartbeats.start("c", "job-1", valid_for=SLOW.valid_for, details=DETAILS)
            takeover = Takeover(heartbeats, rooms.as_rooms, SLOW, linger=timedelta(seconds=1), give_up=None)
            detector = FailureDetector(Jobs(), heartbeats, takeover, rooms.as_rooms, instance="worker-1", settings=SLOW)
            async with running(detector):
                yield detector


async def test_a_slow_redis_hides_no_death(
    monkeypatch: pytest.MonkeyPatch, store: ShakyStore, rooms: FakeRooms
) -> None:
    """Looks have a fixed rate: the time that an answer takes is no further pause, and no gap."""
    async with slowly(monkeypatch, store, rooms, seconds=0.15):
        await until(lambda: bool(rooms.dispatched))


async def test_a_redis_that_is_too_slow_is_told(
    monkeypatch: pytest.MonkeyPatch, store: ShakyStore, rooms: FakeRooms, caplog: pytest.LogCaptureFixture
) -> None:
    """What hides a death is counted for `/health`, and is one line in the log, until Redis is quick again."""
    async with slowly(monkeypatch, store, rooms, seconds=0.3) as detector:
        await until(lambda: detector.failures.get("heartbeat gaps", 0) > 2)
        assert rooms.dispatched == []
        assert len([line for line in caplog.records if line.__dict__.get("task") == "heartbeat gaps"]) == 1
        cast("SlowHeartbeats", store.agents).seconds = 0.0
        await until(lambda: bool(rooms.dispatched))


async def test_jobs_that_cannot_be_listed_end_no_watch(
    heartbeats: Heartbeats, rooms: FakeRooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted, and looked again: a job that ended meanwhile is seen to have ended."""
    jobs = Jobs(running_job("job-1", metadata=METADATA))
    await begin(heartbeats, "c")
    detector = make(heartbeats, rooms, jobs)
    async with running(detector) as task:
        jobs.defect = TypeError("broken")
        await until(lambda: detector.failures.get("jobs", 0) > 2)
        jobs.defect = None
        jobs.active_jobs = []
        await until(lambda: bool(rooms.dispatched))
        assert not task.done()


async def test_a_job_that_cannot_be_looked_at_holds_up_no_other(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """Whatever a defect it is: it is counted, the other one's call is taken over."""
    jobs = Jobs(running_job("job-1", metadata=METADATA), running_job("job-9", metadata='{"conversation_id": "d"}'))
    await begin(heartbeats, "c")
    await begin(heartbeats, "d", holder="job-9")
    detector = make(heartbeats, rooms, jobs)
    original = detector._left_by

    async def picky(info: RunningJobInfo) -> list[HeartbeatRecord]:
        if info.job.id == "job-1":
            message = "broken"
            raise TypeError(message)
        return await original(info)

    detector._left_by = picky  # type: ignore[method-assign]
    async with running(detector) as task:
        jobs.active_jobs = []
        await until(lambda: bool(rooms.dispatched) and bool(detector.failures))
        assert not task.done()
    assert [assignment.conversation_id for *_, assignment in rooms.dispatched] == ["d"]
    assert detector.failures == {"ended jobs": 1}


async def test_damaged_heartbeats_are_counted(
    heartbeats: Heartbeats, rooms: FakeRooms, store: ShakyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an operator looks, each once."""
    detector = make(heartbeats, rooms, Jobs())
    async with running(detector):
        monkeypatch.setattr(Heartbeats, "damaged", 2)
        await until(lambda: bool(detector.failures))
        looked = store.agents.asked
        await until(lambda: store.agents.asked > looked + 2)
    assert detector.failures == {"damaged heartbeats": 2}


async def test_one_that_cannot_be_mended_holds_up_nobody(
    heartbeats: Heartbeats, rooms: FakeRooms, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither an error of ours nor a defect: each is told, the others are taken over."""

    class Picky(Takeover):
        async def run(self, record: HeartbeatRecord, *, reason: RestartReason = CRASH) -> Any:
            if record.conversation_id == "defect":
                message = "broken"
                raise TypeError(message)
            if record.conversation_id == "away":
                message = "away"
                raise StoreUnavailableError(message)
            return await super().run(record, reason=reason)

    await begin(heartbeats, "defect", "away", "c")
    picky = Picky(heartbeats, rooms.as_rooms, settings(), linger=VALID_FOR, give_up=None)
    detector = make(heartbeats, rooms, Jobs(), picky)
    async with running(detector) as task:
        clock.pace = PACE
        await until(lambda: bool(rooms.dispatched))
        assert not task.done()
    told = [record.getMessage() for record in caplog.records]
    assert "a call could not be taken over" in told
    assert detector.failures["takeovers"] >= 2
    assert "a call could not be taken over yet" in told


async def test_waiting_for_one_caller_holds_up_nobody(heartbeats: Heartbeats, rooms: FakeRooms, clock: Clock) -> None:
    """Takeovers run side by side."""
    waiting, entered = asyncio.Event(), []

    class Slow(Takeover):
        async def run(self, record: HeartbeatRecord, *, reason: RestartReason = CRASH) -> Any:
            entered.append((record.conversation_id, reason))
            await waiting.wait()

    await begin(heartbeats, "c", "d", "e")
    slow = Slow(heartbeats, rooms.as_rooms, settings(), linger=VALID_FOR, give_up=None)
    detector = make(heartbeats, rooms, Jobs(), slow)
    async with running(detector):
        clock.pace = PACE
        await until(lambda: sorted(entered) == [(name, RestartReason.SILENCE) for name in ("c", "d", "e")])
    await until(lambda: not detector._running)


async def test_two_workers_mend_a_call_once(
    heartbeats: Heartbeats, rooms: FakeRooms, clock: Clock, store: ShakyStore
) -> None:
    """On one Redis, however many look, each with a reader of its own."""

    class Stopping(Takeover):
        async def run(self, record: HeartbeatRecord, *, reason: RestartReason = CRASH) -> Any:
            # else the time of its claim would be over at once
            clock.pace = 0
            return await super().run(record, reason=reason)

    await begin(heartbeats, "c")
    async with Heartbeats(Settings(), clock=clock) as other:
        mending = [
            Stopping(reader, rooms.as_rooms, settings(), linger=VALID_FOR, give_up=None)
            for reader in (heartbeats, other)
        ]
        first, second = (
            make(reader, rooms, Jobs(), takeover) for reader, takeover in zip((heartbeats, other), mending, strict=True)
        )
        second._instance = "worker-2"
        async with running(first), running(second):
            clock.pace = PACE
            await until(lambda: bool(rooms.dispatched))
            looked = store.agents.asked
            await until(lambda: store.agents.asked > looked + 20)
    assert len(rooms.dispatched) == 1


# Its own end


async def test_calls_are_given_over_until_none_is_left(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """To other workers, in order, from agent to agent; asked for again at growing intervals."""
    other = '{"conversation_id": "d"}'
    await begin(heartbeats, "c", holder="job-1")
    await begin(heartbeats, "d", holder="job-2")
    jobs = Jobs(running_job("job-1", metadata=METADATA), running_job("job-2", room_metadata=other))
    giving = asyncio.create_task(make(heartbeats, rooms, jobs, timing=Timing(ask=0.05)).give_over())
    await until(lambda: len(rooms.dispatched) == 2)
    wanted = Assignment(conversation_id="c", replaces="job-1", is_planned=True, avoid="w", reason=DEPLOY)
    assert rooms.dispatched[0] == (ROOM, "support", wanted)
    assert rooms.dispatched[1][2].replaces == "job-2"
    jobs.active_jobs = jobs.active_jobs[:1]
    times = []
    for number in (3, 4, 5):
        await until(_count(rooms, number))
        times.append(time.monotonic())
    assert times[2] - times[1] > (times[1] - times[0]) * 1.5
    assert {assignment.replaces for *_, assignment in rooms.dispatched[2:]} == {"job-1"}
    jobs.active_jobs = []
    await asyncio.wait_for(giving, 5)


def _count(rooms: FakeRooms, number: int) -> Callable[[], bool]:
    return lambda: len(rooms.dispatched) >= number


async def test_what_goes_wrong_ends_no_giving_over(
    heartbeats: Heartbeats, rooms: FakeRooms, store: ShakyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect at one call, a refusal of Redis at another, jobs that cannot be listed: counted, and asked again."""
    await begin(heartbeats, "c")
    await begin(heartbeats, "d", holder="job-2")
    jobs = Jobs(running_job("job-1", metadata=METADATA), running_job("job-2", metadata='{"conversation_id": "d"}'))
    detector = make(heartbeats, rooms, jobs, timing=QUICK)
    store.agents.trouble = StoreMisconfiguredError("NOPERM")
    rooms.dispatch_trouble = cast("RoomServiceError", TypeError("broken"))
    giving = asyncio.create_task(detector.give_over())
    await until(lambda: detector.failures.get("giving over", 0) > 3)
    store.agents.trouble = None
    told = detector.failures["giving over"]
    await until(lambda: detector.failures["giving over"] > told + 3)
    rooms.dispatch_trouble = None
    jobs.defect = TypeError("broken")
    await until(lambda: detector.failures.get("jobs", 0) > 2)
    jobs.defect = None
    await until(lambda: {assignment.replaces for *_, assignment in rooms.dispatched} == {"job-1", "job-2"})
    jobs.active_jobs = []
    await asyncio.wait_for(giving, 5)


async def test_livekit_down_is_asked_again(
    heartbeats: Heartbeats, rooms: FakeRooms, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that ends does not give up its calls."""
    caplog.set_level(logging.WARNING)
    await begin(heartbeats, "c")
    jobs = Jobs(running_job("job-1", metadata=METADATA))
    rooms.is_down = True
    giving = asyncio.create_task(make(heartbeats, rooms, jobs, timing=QUICK).give_over())
    await until(lambda: "no successor can be asked for" in caplog.text)
    rooms.is_down = False
    await until(lambda: bool(rooms.dispatched))
    jobs.active_jobs = []
    await asyncio.wait_for(giving, 5)


async def test_a_call_that_is_not_open_yet_stays(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """A successor for the room's name could be a second agent."""
    await begin(heartbeats, ROOM, holder="job-2")
    jobs = Jobs(running_job("job-1"))
    giving = asyncio.create_task(make(heartbeats, rooms, jobs, timing=QUICK).give_over())
    await until(lambda: jobs.looks > 3)  # and so it has asked for a successor of each whose time had come
    assert rooms.dispatched == []
    jobs.active_jobs = []
    await asyncio.wait_for(giving, 5)


async def test_each_role_of_a_job_is_followed(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """One that is not the agent is claimed, and called, by itself; what was let go of is not."""
    jobs = Jobs(running_job("job-1", metadata=METADATA))
    await begin(heartbeats, "c")
    await heartbeats.stop("c", "job-1")
    await heartbeats.start("c", "job-1", role="translator", valid_for=VALID_FOR, details=DETAILS)
    detector = make(heartbeats, rooms, jobs)
    async with running(detector):
        jobs.active_jobs = []
        await until(lambda: bool(rooms.dispatched))
        await settled(detector)
    wanted = Assignment(conversation_id="c", role="translator", replaces="job-1", attempt=1, reason=CRASH)
    assert rooms.dispatched == [(ROOM, "support", wanted)]


async def test_a_role_that_ended_in_order_is_nobodys_death(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """Its job had begun; that there is no record of the agent's makes none."""
    jobs = Jobs(running_job("job-1", metadata=METADATA))
    await heartbeats.start("c", "job-1", role="translator", valid_for=VALID_FOR, details=DETAILS)
    await heartbeats.stop("c", "job-1", role="translator")
    detector = make(heartbeats, rooms, jobs)
    async with running(detector):
        jobs.active_jobs = []
        await settled(detector)
    assert rooms.looks == 0
    assert await heartbeats.find("c") is None


async def test_who_follows_is_told_what_the_dead_one_was(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """Its dispatch is the model, else its metadata: of a crash, a death at the start, a deploy."""
    big = "not JSON " * 7000
    await heartbeats.start(
        "c", "job-1", valid_for=VALID_FOR, details={**DETAILS, "dispatch_id": "AD_of_job-1", "metadata": "x"}
    )
    await heartbeats.announce(ROOM, "job-0")
    jobs = Jobs(running_job("job-1", metadata="x"), running_job("job-0", metadata=big))
    async with running(make(heartbeats, rooms, jobs)):
        jobs.active_jobs = jobs.active_jobs[1:]
        await until(_count(rooms, 1))
        jobs.active_jobs = []
        await until(_count(rooms, 2))
    await begin(heartbeats, "d", holder="job-2")
    jobs = Jobs(running_job("job-2", metadata=big))
    giving = asyncio.create_task(make(heartbeats, rooms, jobs).give_over())
    await until(_count(rooms, 3))
    jobs.active_jobs = []
    await asyncio.wait_for(giving, 5)
    wanted = [Original("AD_of_job-1", "x"), Original("AD_of_job-0", None), Original("AD_of_job-2", big)]
    assert rooms.originals == wanted


async def test_a_worker_without_calls_has_none_to_give(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """And ends at once."""
    await asyncio.wait_for(make(heartbeats, rooms, Jobs()).give_over(), 1)
    assert rooms.asked == []


def test_a_claim_outlives_a_look() -> None:
    """Else a second worker would begin before the first one has asked LiveKit."""
    assert TakeoverSettings().poll_interval * 6 < HOLD
