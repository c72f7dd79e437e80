"""What is done once in a conversation's life: by one job, whoever dies, whatever is away meanwhile."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from agent_worker.settings import CallSettings, TakeoverSettings
from agent_worker.tenure.assignment import Assignment
from agent_worker.tenure.conversation import CallConversation
from agent_worker.tenure.once import NoRoomError, Todo
from conversation_actors import Lease
from conversation_actors.errors import ClusterUnavailableError, InvalidInputError
from conversation_actors.values import encode
from tests.support.fakes import Fault, until
from tests.support.sessions.fakes_call import POST, World

MARK = "livekit.once.dial"
LOST = Lease("agent", "", 0, 0.0)


def successor(world: World, holder: str = "job-2") -> CallConversation:
    """The next job, whose predecessor is known to be dead."""
    return world.call(holder, Assignment(conversation_id="c", replaces="job-1"))


async def done(call: CallConversation) -> Todo:
    """Do it, if it is to be done."""
    async with call.once("dial") as todo:
        pass
    return todo


def role_of(world: World, role: str) -> CallConversation:
    """An agent of another role; closed by the test."""
    return CallConversation(
        "c",
        holder=f"job-of-{role}",
        post=POST,
        assignment=Assignment(conversation_id="c"),
        role=role,
        store=world.cluster.settings,
        timing=world.timing,
        takeover=TakeoverSettings(heartbeat=timedelta(milliseconds=5), valid_for=timedelta(seconds=3)),
    )


class BusyError(Exception):
    """The one who is called is busy."""


async def fail(call: CallConversation) -> None:
    """Fail at it, whether it is to be done or not."""
    async with call.once("dial"):
        raise BusyError


async def test_what_is_done_once_is_not_done_again(world: World) -> None:
    """Not a second time by the same job, nor by the next one; both know that it was done."""
    call = world.call()
    await call.open()
    assert await done(call)
    again = await done(call)
    assert (bool(again), again.is_unknown) == (False, False)
    following = successor(world)
    await following.open()
    later = await done(following)
    assert (bool(later), later.is_unknown) == (False, False)


async def test_things_of_other_names_are_done_too(world: World) -> None:
    """Each name by itself."""
    call = world.call()
    await call.open()
    assert await done(call)
    async with call.once("greet") as todo:
        assert todo


async def test_the_mark_is_durable_before_the_body_begins(world: World) -> None:
    """Else a death in it would have it done twice."""
    call = world.call()
    await call.open()
    world.store.hold()
    entered = asyncio.Event()

    async def dial() -> None:
        async with call.once("dial") as todo:
            assert todo
            entered.set()

    dialling = asyncio.create_task(dial())
    await until(lambda: world.store.writes > 0)
    assert not entered.is_set()
    world.store.release()
    await asyncio.wait_for(dialling, 5)
    assert entered.is_set()


async def test_a_job_that_dies_in_the_body_leaves_the_mark_begun(world: World) -> None:
    """Nobody knows whether it was done: it is not done again, and the next job is told so."""
    call = world.call()
    await call.open()
    dialling = call.once("dial")
    assert await dialling.__aenter__()
    await call.aclose()  # the process dies
    following = successor(world)
    await following.open()
    todo = await done(following)
    assert (bool(todo), todo.is_unknown) == (False, True)
    assert await done(following) == todo


async def test_a_job_cancelled_in_the_body_leaves_the_mark_begun(world: World) -> None:
    """The job's end is the end of a process, as far as this goes."""
    call = world.call()
    await call.open()
    with pytest.raises(asyncio.CancelledError):
        async with call.once("dial"):
            raise asyncio.CancelledError
    assert (await done(call)).is_unknown


async def test_what_fails_may_be_tried_again(world: World) -> None:
    """By the same job, or the next one; what it raised is raised."""
    call = world.call()
    await call.open()
    with pytest.raises(BusyError):
        await fail(call)
    await until(lambda: MARK not in call.attributes)
    following = successor(world)
    await following.open()
    assert await done(following)


async def test_nothing_runs_where_it_was_not_due_and_errors_are_the_bodys(world: World) -> None:
    """An exception of a body that had nothing to do takes nothing back."""
    call = world.call()
    await call.open()
    await done(call)
    with pytest.raises(BusyError):
        await fail(call)
    assert not await done(call)


async def test_of_two_roles_only_one_does_what_is_done_once(world: World) -> None:
    """However they race; it is the conversation's, not a role's."""
    calls = [world.call(), *(role_of(world, f"role-{number}") for number in range(4))]
    await asyncio.gather(*(call.open() for call in calls))
    for call in calls:
        call.note("livekit.transcript", call.holder)  # other attributes change meanwhile
    todos = await asyncio.gather(*(done(call) for call in calls))
    assert sum(map(bool, todos)) == 1
    for call in calls:
        await call.aclose()


async def test_once_waits_for_the_conversation(world: World) -> None:
    """A job that started without it does nothing twice either."""
    world.ray_trouble = ClusterUnavailableError("no cluster")
    call = world.call(settings=CallSettings(open_timeout=timedelta(seconds=0.02)))
    assert not await call.open()
    dialling = asyncio.create_task(done(call))
    await until(lambda: call.failures.counts.get("open", 0) > 2)
    assert not dialling.done()
    world.ray_trouble = None
    assert await asyncio.wait_for(dialling, 5)


@pytest.mark.parametrize("is_done", [True, False])
async def test_who_stands_by_does_not_wait_for_the_call(world: World, *, is_done: bool) -> None:
    """It is given over to a job that is ready, which an entrypoint may be behind this only."""
    first = world.call()
    await first.open()
    if is_done:
        await done(first)
    standing_by = world.call("job-2", Assignment(conversation_id="c", replaces="job-1", is_planned=True))
    await standing_by.open()
    assert standing_by.is_waiting_for_handover
    todo = await asyncio.wait_for(done(standing_by), 5)
    assert bool(todo) is not is_done
    assert not todo.is_unknown
    await until(lambda: first.attributes.get(MARK, {}).get("state") == "done")
    assert not await done(first)
    standing_by.ready()
    await asyncio.wait_for(first.handover_asked.wait(), 5)
    await first.hand_over()
    await asyncio.wait_for(standing_by.wait_open(), 5)
    assert not await done(standing_by)


async def test_a_mark_whose_answer_was_lost_is_this_jobs_own(world: World) -> None:
    """It is asked for again, and found."""
    call = world.call()
    await call.open()
    await until(lambda: "livekit.agent" in call.attributes)
    world.store.append_faults += [Fault.AFTER, Fault.AFTER]
    assert await asyncio.wait_for(done(call), 5)


async def test_whose_call_it_is_no_more_does_nothing(world: World) -> None:
    """A deposed job must not dial beside its successor, whether that has done it or not."""
    call = world.call()
    await call.open()
    following = successor(world)
    await following.open()
    await asyncio.wait_for(call.deposed.wait(), 5)
    todo = await asyncio.wait_for(done(call), 5)
    assert (bool(todo), todo.is_unknown) == (False, True)
    assert await done(following)


@pytest.mark.parametrize("name", ["", "x" * 129, "a\nb", None, 7])
async def test_what_is_no_name_is_refused(world: World, name: Any) -> None:
    """Before the conversation is waited for."""
    call = world.call()
    with pytest.raises(InvalidInputError, match="once"):
        async with call.once(name):
            pass


async def lose(world: World, call: CallConversation) -> None:
    """Redis loses everything in mid-call; the agent has it opened anew."""
    assert call._standing.handle is not None
    life = call._standing.handle.leases["agent"].life
    world.store.lose_everything()
    await world.cluster.kill()
    call._upkeep.look_now()
    await until(
        lambda: (
            call._standing.handle is not None and call._standing.handle.leases.get("agent", LOST).life not in {life, ""}
        )
    )
    await until(lambda: "livekit.agent" in call.attributes)


async def test_a_lost_conversation_is_told_what_was_done(world: World) -> None:
    """Redis has lost everything in mid-call: the mark comes back with what the job knows."""
    call = world.call()
    await call.open()
    await done(call)
    await call.flush()
    await lose(world, call)
    await until(lambda: call.attributes.get(MARK, {}).get("state") == "done")
    assert not await done(call)


@pytest.mark.parametrize("has_asked", [True, False])
async def test_a_lost_conversation_is_told_what_a_dead_agent_has_done(world: World, *, has_asked: bool) -> None:
    """Its successor has seen that it was done, whether it asked for it or not."""
    first = world.call()
    await first.open()
    await done(first)
    await first.flush()
    await first.aclose()
    second = successor(world)
    await second.open()
    if has_asked:
        assert not await done(second)
    await lose(world, second)
    todo = await done(second)
    assert (bool(todo), todo.is_unknown) == (False, False)
    await until(lambda: second.attributes.get(MARK, {}).get("by") == "job-1")
    await second.flush()
    third = world.call("job-3", Assignment(conversation_id="c", replaces="job-2"))
    await third.open()
    assert not await done(third)


async def test_a_lost_conversation_is_told_what_another_role_has_done(world: World) -> None:
    """Which is seen in the middle of the call, and not asked for."""
    call = world.call()
    await call.open()
    other = role_of(world, "translator")
    await other.open()
    await done(other)
    await other.aclose()
    await until(lambda: MARK in call._telling.marks._known)
    await lose(world, call)
    await until(lambda: call.attributes.get(MARK, {}).get("state") == "done")


async def test_what_is_lost_is_not_begun_before_it_is_told(world: World) -> None:
    """Nobody has noticed yet that the conversation is gone: who asks then knows what was done in its last life."""
    first = world.call()
    await first.open()
    await done(first)
    standing_by = world.call("job-2", Assignment(conversation_id="c", replaces="job-1", is_planned=True))
    await standing_by.open()
    await until(lambda: MARK in standing_by._telling.marks._known)
    await first.aclose()
    world.store.lose_everything()
    await world.cluster.kill()
    await world.cluster.handle()
    todo = await asyncio.wait_for(done(standing_by), 5)
    assert (bool(todo), todo.is_unknown) == (False, False)
    await until(lambda: MARK in (standing_by._standing.view.attributes if standing_by._standing.view else {}))


async def test_what_was_taken_back_is_not_told_again(world: World) -> None:
    """By the one who failed at it: it may be tried again, in the next life too."""
    first = world.call()
    await first.open()
    beside = role_of(world, "translator")
    await beside.open()
    entered, may_fail = asyncio.Event(), asyncio.Event()

    async def dial() -> None:
        async with first.once("dial"):
            entered.set()
            await may_fail.wait()
            raise BusyError

    dialling = asyncio.create_task(dial())
    await entered.wait()
    await until(lambda: MARK in beside._telling.marks._known)
    may_fail.set()
    with pytest.raises(BusyError):
        await dialling
    await until(lambda: MARK not in beside._telling.marks._known)
    await lose(world, first)
    beside._upkeep.look_now()
    await until(lambda: "livekit.role.translator.agent" in beside.attributes)
    await beside.flush()
    assert await done(first)
    await beside.aclose()


async def test_who_stood_by_takes_nothing_back_that_is_another_ones(world: World) -> None:
    """It had failed at it, and the agent has done it since."""
    first = world.call()
    await first.open()
    standing_by = world.call("job-2", Assignment(conversation_id="c", replaces="job-1", is_planned=True))
    await standing_by.open()
    with pytest.raises(BusyError):
        await fail(standing_by)
    assert await done(first)
    await first.flush()
    standing_by.ready()
    await asyncio.wait_for(first.handover_asked.wait(), 5)
    await first.hand_over()
    await asyncio.wait_for(standing_by.wait_open(), 5)
    await standing_by.flush()
    assert standing_by.attributes[MARK]["by"] == "job-1"
    assert not await done(standing_by)


async def test_a_late_answer_takes_nothing_back_that_is_another_ones(world: World) -> None:
    """The mark that is there when its failure can be told was made by somebody else."""
    call = world.call()
    await call.open()
    handle = await world.cluster.handle()
    entered, may_fail = asyncio.Event(), asyncio.Event()

    async def dial() -> None:
        async with call.once("dial"):
            entered.set()
            await may_fail.wait()
            raise BusyError

    dialling = asyncio.create_task(dial())
    await entered.wait()
    await handle.set_attributes({MARK: {"state": "begun", "by": "job-9", "token": "t"}})
    may_fail.set()
    with pytest.raises(BusyError):
        await asyncio.wait_for(dialling, 5)
    await call.flush()
    assert (await handle.snapshot()).attributes[MARK]["by"] == "job-9"


async def test_where_there_is_no_room_for_its_mark_nothing_is_done(world: World) -> None:
    """The application is told so in one sentence, by an error of its own; it may be tried again."""
    call = world.call()
    await call.open()
    await call.flush()
    handle = await world.cluster.handle()
    used = len(encode(dict(handle.attributes), "attributes"))
    await handle.set_attributes({"big": "x" * ((256 << 10) - used - 40)})
    with pytest.raises(NoRoomError, match=r"once: .*full.*nothing was done"):
        async with call.once("dial"):
            pytest.fail("it was not noted that this begins")
    await handle.set_attributes({"big": None})
    async with call.once("dial") as todo:
        assert todo
