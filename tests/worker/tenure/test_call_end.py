"""How a call ended: noted by the agent that ends it in order, before the lease goes back, and by nobody else."""

from datetime import timedelta
from typing import Any

import pytest
from livekit.agents import CloseReason

from agent_worker.tenure.assignment import Assignment
from agent_worker.tenure.call_end import NOBODY_HERE, CallEnd
from agent_worker.tenure.conversation import LEASE, CallConversation
from conversation_actors import (
    AttributesChanged,
    ConversationHandle,
    LeaseReleased,
    StoreUnavailableError,
)
from conversation_actors.calls.names import AGENT, CALL, COMPLETED, LEFT, attribute_of_role
from tests.support.sessions.fakes_call import World


async def ends(world: World) -> list[dict[str, Any]]:
    """Every end of a call that was ever noted."""
    told = await entries(await world.cluster.handle())
    return [event.changes[CALL] for event in told if isinstance(event, AttributesChanged) and event.changes.get(CALL)]


async def entries(handle: ConversationHandle) -> list[Any]:
    """All events of the conversation so far."""
    events: list[Any] = []
    last = handle.seq
    async for entry in handle.watch(after_seq=0):
        events.append(entry.event)
        if entry.seq >= last:
            break
    return events


async def opened(world: World, holder: str = "job-1", **given: Any) -> CallConversation:
    """A job that is the agent."""
    call = world.call(holder, **given)
    assert await call.open()
    await call.flush()
    return call


async def test_the_end_is_noted_before_the_lease_goes_back(world: World) -> None:
    """As the last thing that this agent says: whoever reads entries in order knows by then why the lease goes."""
    call = await opened(world)
    await call.release(CallEnd.by_application("the order is placed"))
    *_, noted, released = await entries(await world.cluster.handle())
    assert isinstance(released, LeaseReleased)
    assert isinstance(noted, AttributesChanged)
    at = noted.changes[CALL].pop("at")
    assert at > 0
    assert noted.changes == {CALL: {"ended": COMPLETED, "holder": "job-1", "reason": "the order is placed"}}
    assert AGENT not in call.attributes


async def test_an_end_is_noted_once(world: World) -> None:
    """However often it is told; the first words count."""
    call = await opened(world)
    call.ended(CallEnd(LEFT))
    call.ended(CallEnd.by_application("hung up"))
    await call.release(CallEnd.by_application("again"))
    await call.release()
    (end,) = await ends(world)
    assert (end["ended"], end["reason"]) == (LEFT, "hung up")


@pytest.mark.parametrize(("is_left", "ended"), [(True, LEFT), (False, COMPLETED)])
async def test_whether_somebody_was_there_tells_an_end_of_which_nobody_says_anything(
    world: World, ended: str, *, is_left: bool
) -> None:
    """Such as that of a room that LiveKit's server has deleted."""
    call = await opened(world)
    call.later(lambda handle, lease: handle.join("alice", device_id="phone", lease=lease))
    if is_left:
        call.later(lambda handle, lease: handle.leave("alice", lease=lease))
    await call.release()
    (end,) = await ends(world)
    assert end["ended"] == ended
    assert "reason" not in end


async def test_who_gives_the_call_over_notes_no_end(world: World) -> None:
    """The call goes on with the successor."""
    call = await opened(world)
    await call.hand_over()
    assert LEASE not in (await world.cluster.handle()).leases
    assert await ends(world) == []


async def test_who_dies_notes_no_end(world: World) -> None:
    """Nothing is released either."""
    call = await opened(world)
    await call.aclose()
    assert LEASE in (await world.cluster.handle()).leases
    assert await ends(world) == []


async def test_who_was_taken_for_dead_notes_no_end(world: World) -> None:
    """A worker has claimed the heartbeat a moment ago, and calls a successor: what goes on has not ended."""
    call = await opened(world)
    call._upkeep.renew_no_more()
    await world.agents.claim("c", "worker-2", hold=timedelta(minutes=1), holder="job-1")
    await call.release()
    assert await ends(world) == []


async def test_another_role_ends_no_call(world: World) -> None:
    """An interpreter leaves; the call is that of its agent."""
    role = "interpreter"
    call = await opened(world, assignment=Assignment(conversation_id="c", role=role), role=role)
    await call.release()
    events = await entries(await world.cluster.handle())
    changed = {name for event in events if isinstance(event, AttributesChanged) for name in event.changes}
    assert not changed & {CALL, attribute_of_role(CALL, role)}


async def test_the_next_agent_does_not_see_the_old_end(world: World) -> None:
    """Of the call before; it is the end of that one, and not of this."""
    await (await opened(world)).release()
    assert CALL in (await world.cluster.handle()).attributes
    second = await opened(world, "job-2")
    assert CALL not in second.attributes


async def test_an_interpreter_that_comes_late_leaves_the_end_alone(world: World) -> None:
    """The call has ended all the same."""
    await (await opened(world)).release()
    role = "interpreter"
    other = await opened(world, "job-2", assignment=Assignment(conversation_id="c", role=role), role=role)
    assert CALL in other.attributes


async def test_an_end_that_cannot_be_noted_keeps_no_lease(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next caller finds a free conversation; that nothing was noted is counted."""
    call = await opened(world)

    async def refused(*_given: Any, **_named: Any) -> None:
        message = "away"
        raise StoreUnavailableError(message)

    with monkeypatch.context() as patch:
        patch.setattr(call._leaving, "_note_end", refused)
        await call.release()
    assert LEASE not in (await world.cluster.handle()).leases
    assert call.failures.counts["call_end"] == 1


@pytest.mark.parametrize(
    "reason", ["", "user requested", NOBODY_HERE, "simulation completed", *(one.value for one in CloseReason)]
)
def test_what_livekit_or_we_say_is_no_word_of_the_application(reason: str) -> None:
    """A record that says so would tell nothing."""
    assert CallEnd.by_application(reason) is None


def test_an_applications_words_are_cut() -> None:
    """They are an attribute, and have to leave room for others."""
    end = CallEnd.by_application("x" * 10_000)
    assert end is not None
    assert 100 <= len(end.reason) <= 1000
