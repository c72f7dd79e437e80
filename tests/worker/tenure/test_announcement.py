"""What a job tells of where it is going, before it is the agent there, and when that is taken back."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from agent_worker.call.opening import JOB_CRASHED, NOT_FINISHED, open_conversation
from agent_worker.settings import CallSettings
from agent_worker.tenure.assignment import Assignment, CallDeclinedError, RestartReason
from agent_worker.tenure.conversation import LEASE, CallConversation
from conversation_actors import Heartbeats, LeaseHeldError
from conversation_actors.errors import ClusterUnavailableError, ConversationNotFoundError, StoreMisconfiguredError
from conversation_actors.store.heartbeats import MemoryHeartbeats
from tests.support.fakes import until
from tests.support.sessions.fakes_call import POST, ROOM, Clock, FakeRoom, World, Worlds, fake_job

KEEP = timedelta(minutes=1)
HERE = [("c", "")]


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A conversation that can be opened."""
    async with Worlds(monkeypatch, Clock(), close=0.5) as made:
        yield made


@pytest.fixture
async def heartbeats(world: World) -> AsyncIterator[Heartbeats]:
    """What a worker looks into when a job has died."""
    async with Heartbeats(world.cluster.settings, lease=LEASE) as entered:
        yield entered


def short() -> CallSettings:
    """A small budget for opening."""
    return CallSettings(open_timeout=timedelta(seconds=0.05))


async def announced(heartbeats: Heartbeats, job: str = "job-1") -> None:
    """Return when the job is known to be on its way to the conversation."""

    async def look() -> None:
        while await heartbeats.held_by(job) != HERE:  # noqa: ASYNC110  # there is no event for what is in Redis
            await asyncio.sleep(0.002)

    await asyncio.wait_for(look(), 5)


async def test_it_is_known_before_anything_is_waited_for(world: World, heartbeats: Heartbeats) -> None:
    """Neither Ray, nor an owner, nor another agent has answered; it is no sign of life."""
    world.may_open.clear()
    call = world.call(settings=short())
    assert not await call.open()
    await announced(heartbeats)
    assert await heartbeats.find("c") is None
    world.may_open.set()
    await asyncio.wait_for(call.wait_open(), 5)
    assert await heartbeats.held_by("job-1") == HERE


async def test_each_role_is_known_by_itself(world: World, heartbeats: Heartbeats) -> None:
    """By its name."""
    world.may_open.clear()
    call = CallConversation(
        "c",
        holder="job-1",
        post=POST,
        assignment=Assignment(),
        role="translator",
        store=world.cluster.settings,
        timing=world.timing,
        call=short(),
    )
    assert not await call.open()
    assert await heartbeats.held_by("job-1") == [("c", "translator")]
    await call.release()
    assert await heartbeats.held_by("job-1") == []
    await call.aclose()


async def test_who_is_called_elsewhere_is_on_its_way_there(world: World, heartbeats: Heartbeats) -> None:
    """What its room is named by was not what it was called for."""
    follows = Assignment(conversation_id="c", replaces="job-0", attempt=1, reason=RestartReason.CRASH)
    made = await heartbeats.expect(ROOM, "support", follows.told(), keep=KEEP)
    await heartbeats.amend(replace(made, call="AD_1"), keep=KEEP)
    call = CallConversation(
        ROOM,
        holder="job-1",
        post=replace(POST, dispatch_id="AD_1"),
        assignment=Assignment(),
        store=world.cluster.settings,
        timing=world.timing,
    )
    assert await call.open()
    assert await heartbeats.held_by("job-1") == HERE
    await call.aclose()


async def test_who_leaves_before_it_has_the_call_takes_it_back(world: World, heartbeats: Heartbeats) -> None:
    """Also where Ray is away, and between two tries nothing is connected; and it tries no more."""
    world.ray_trouble = ClusterUnavailableError("no cluster")
    call = world.call(settings=short())
    assert not await call.open()
    await announced(heartbeats)
    await call.release()
    world.ray_trouble = None
    assert await heartbeats.held_by("job-1") == []
    asked = world.agents.asked
    await asyncio.sleep(0.05)
    assert world.agents.asked == asked
    assert not call.is_open


async def test_an_opening_that_is_broken_off_leaves_no_heartbeat(
    world: World, heartbeats: Heartbeats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job ends in order in the very moment in which it becomes the agent: nobody is to follow."""
    begun = asyncio.Event()

    async def start(self: Heartbeats, conversation_id: str, holder: str, **told: object) -> None:
        await world.agents.start(conversation_id, holder, valid_for=KEEP, group="", details=b"{}")
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Heartbeats, "start", start)
    call = world.call(settings=short())
    opening = asyncio.create_task(call.open())
    await begun.wait()
    await call.release()
    assert await heartbeats.find("c") is None
    assert await heartbeats.held_by("job-1") == []
    assert not await heartbeats.beat("c", "job-1", valid_for=KEEP)
    await opening


async def test_who_is_refused_takes_it_back(world: World, heartbeats: Heartbeats) -> None:
    """Another agent is alive there; that one's own is not touched."""
    first, second = world.call("job-1"), world.call("job-2")
    await first.open()
    with pytest.raises(LeaseHeldError):
        await second.open()
    assert await heartbeats.held_by("job-2") == []
    assert await heartbeats.held_by("job-1") == HERE
    assert await heartbeats.find("c") is not None


async def test_who_declines_takes_it_back(world: World, heartbeats: Heartbeats) -> None:
    """Whoever called it asks for another one."""
    with fake_job(FakeRoom(), metadata='{"conversation_id": "c"}', job_id="job-2") as job:
        avoided = Assignment(conversation_id="c", replaces="job-1", avoid=job.context.worker_id)
        made = await heartbeats.expect(ROOM, "support", avoided.told(), keep=KEEP)
        job.context.job.dispatch_id = "AD_1"
        await heartbeats.amend(replace(made, call="AD_1"), keep=KEEP)
        with pytest.raises(CallDeclinedError):
            await open_conversation(job.context)
        assert await heartbeats.held_by("job-2") == []
        await job.shut_down(NOT_FINISHED)


@pytest.mark.parametrize(("reason", "left"), [("user requested", []), (JOB_CRASHED, HERE), (NOT_FINISHED, HERE)])
async def test_how_a_job_ends_before_it_has_the_call(
    world: World, heartbeats: Heartbeats, reason: str, left: list[tuple[str, str]]
) -> None:
    """In order it takes it back; where the call is not over it stays: somebody has to come."""
    world.ray_trouble = ClusterUnavailableError("no cluster")
    with fake_job(FakeRoom(), metadata='{"conversation_id": "c"}') as job:
        await open_conversation(job.context, call=short())
        await announced(heartbeats)
        await job.shut_down(reason)
    assert await heartbeats.held_by("job-1") == left


async def test_what_goes_wrong_with_it_costs_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted; the conversation opens all the same, and the job ends in order all the same."""

    async def refuse(self: MemoryHeartbeats, conversation_id: str, holder: str) -> None:
        message = "NOPERM"
        raise StoreMisconfiguredError(message)

    monkeypatch.setattr(type(world.agents), "announce", refuse)
    monkeypatch.setattr(type(world.agents), "withdraw", refuse)
    call = world.call()
    assert await call.open()
    assert call.failures.counts["announce"] == 1
    world.may_open.clear()
    other = world.call("job-2", settings=short())
    assert not await other.open()
    await other.release()
    assert other.failures.counts["announce"] == 2


async def test_a_withdrawal_that_is_cut_short_is_made_up_for(
    world: World, heartbeats: Heartbeats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job ends in order while it takes it back, as it was refused."""
    first, second = world.call("job-1"), world.call("job-2", settings=short())
    await first.open()
    withdrawing, original = asyncio.Event(), Heartbeats.withdraw

    async def withdraw(self: Heartbeats, conversation_id: str, holder: str, *, role: str = "") -> None:
        is_first = not withdrawing.is_set()
        withdrawing.set()
        if is_first:
            await asyncio.Event().wait()
        await original(self, conversation_id, holder, role=role)

    monkeypatch.setattr(Heartbeats, "withdraw", withdraw)
    opening = asyncio.create_task(second.open())
    await withdrawing.wait()
    await second.release()
    assert await heartbeats.held_by("job-2") == []
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)


async def test_a_missing_owner_keeps_it(world: World, heartbeats: Heartbeats) -> None:
    """What may be mended by the next try is no refusal."""
    world.ray_trouble = ConversationNotFoundError("gone")
    call = world.call(settings=short())
    assert not await call.open()
    await until(lambda: call.failures.counts.get("open", 0) > 1)
    assert await heartbeats.held_by("job-1") == HERE
