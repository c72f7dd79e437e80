"""A conversation as one job holds it: opened in time or later, leased, alive, deposed, released."""

import asyncio
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from agent_worker.settings import CallSettings, TakeoverSettings
from agent_worker.tenure import recording
from agent_worker.tenure.assignment import Assignment
from agent_worker.tenure.conversation import AGENT, HANDOVER, LEASE, CallConversation
from agent_worker.tenure.sign_of_life import SignOfLife
from conversation_actors import (
    ConversationHandle,
    Heartbeats,
    Item,
    Lease,
    LeaseHeldError,
    LeaseLostError,
    Message,
    OverloadedError,
)
from conversation_actors.calls.names import CALL
from conversation_actors.errors import (
    ClusterUnavailableError,
    InvalidInputError,
    ItemTooLargeError,
    StoreMisconfiguredError,
    StoreUnavailableError,
)
from tests.support.fakes import until
from tests.support.sessions.fakes_call import POST, ROOM, World

HOUR = timedelta(hours=1)


def short() -> CallSettings:
    """A small budget for opening."""
    return CallSettings(open_timeout=timedelta(seconds=0.05))


async def looked(call: CallConversation, times: int = 3) -> None:
    """Return when the agent has looked so often at what is asked of it."""
    looks, look = 0, call._wishes.look

    def counted(handle: ConversationHandle) -> None:
        nonlocal looks
        looks += 1
        look(handle)

    call._wishes.look = counted  # type: ignore[method-assign]
    await until(lambda: looks >= times)
    call._wishes.look = look  # type: ignore[method-assign]


def say(number: int, text: str = "hello") -> Message:
    """A message of the caller's."""
    return Message(id=f"u{number}", role="user", content=text)


def ids(conversation: CallConversation | ConversationHandle) -> list[str]:
    """Ids of the history."""
    return [item.id for item in conversation.items]


async def succeed(world: World, holder: str = "job-2", *, replacing: str | None = "job-1") -> Lease:
    """Another agent takes the lease."""
    handle = await world.cluster.handle()
    return await handle.acquire_lease(LEASE, holder=holder, duration=HOUR, replacing=replacing)


BRISK = timedelta(milliseconds=200)


def brisk(**settings: Any) -> TakeoverSettings:
    """Quick heartbeats that last, and are looked at often."""
    quick = timedelta(milliseconds=5)
    return TakeoverSettings(**{"heartbeat": quick, "valid_for": BRISK, "poll_interval": quick, **settings})


# Opening


async def test_a_job_that_opens_in_time_is_the_agent(world: World) -> None:
    """The lease is the job's, its heartbeat says where it stands, and whoever looks sees who the agent is."""
    call = world.call()
    assert await call.open()
    assert call.is_open
    assert not call.is_restart
    await call.flush()
    handle = await world.cluster.handle()
    assert handle.leases[LEASE].holder == "job-1"
    assert handle.attributes[AGENT]["holder"] == "job-1"
    assert handle.attributes[AGENT]["room"] == ROOM
    record = await world.agents.find("c")
    assert record is not None
    assert (record.holder, record.group, record.is_alive) == ("job-1", "worker-1", True)
    told = {"room": ROOM, "agent_name": "support", "agent_identity": "agent-1", "attempt": 0, "pid": os.getpid()}
    assert {name: record.details[name] for name in told} == told


async def test_a_conversation_is_empty_before_it_is_open(world: World) -> None:
    """Everything can be asked for, nothing waits."""
    call = world.call()
    assert (call.items, call.seq, call.is_open) == ((), 0, False)
    assert dict(call.participants) == dict(call.attributes) == {}
    await call.flush()
    await call.release()
    assert "not open" in repr(call)


async def test_what_is_recorded_is_in_the_conversation(world: World) -> None:
    """Items, attributes and participants, in the lease's name."""
    call = world.call()
    await call.open()
    call.record(say(1))
    call.note("livekit.x", 7)
    await call.flush()
    assert ids(call) == ["u1"]
    assert call.attributes["livekit.x"] == 7
    assert call.seq > 0


async def test_while_ray_is_away_the_call_goes_on(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """After its budget the job starts without; what happens meanwhile is recorded later, in order."""
    world.ray_trouble = ClusterUnavailableError("no cluster")
    call = world.call(settings=short())
    started = asyncio.get_running_loop().time()
    assert not await call.open()
    assert 0.04 < asyncio.get_running_loop().time() - started < 2
    for number in range(50):
        call.record(say(number))
        call.note(f"n{number}", number)
    call.note("last", "old")
    call.note("last", "new")
    world.ray_trouble = None
    async with asyncio.timeout(5):
        await call.wait_open()
    call.record(say(50))
    await call.flush()
    assert ids(call) == [f"u{number}" for number in range(51)]
    assert [name for name in call.attributes if name.startswith("n")] == [f"n{number}" for number in range(50)]
    assert call.attributes["last"] == "new"
    assert call.lost == 0
    assert "cannot be opened yet" in caplog.text


async def test_an_owner_that_hangs_costs_no_more_than_the_budget(world: World) -> None:
    """It may answer whenever it likes."""
    world.may_open.clear()
    call = world.call(settings=short())
    assert not await call.open()
    call.record(say(1))
    world.may_open.set()
    async with asyncio.timeout(5):
        await call.wait_open()
    await call.flush()
    assert ids(call) == ["u1"]


async def test_a_failed_try_leaves_no_connection(world: World) -> None:
    """However often it is tried, one client is left in the end, and none behind it."""
    world.agents.trouble = StoreUnavailableError("away")
    call = world.call(settings=short())
    assert not await call.open()
    await until(lambda: world.agents.asked > 5)
    world.agents.trouble = None
    async with asyncio.timeout(5):
        await call.wait_open()
    assert world.clients == 1
    await call.aclose()
    assert world.clients == 0


async def test_what_waits_is_bounded_and_counted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An item too many is refused as by a full outbox; who has the items is asked for them when it is open."""
    monkeypatch.setattr(recording, "MAX_WAITING", 3)
    world.may_open.clear()
    call = world.call(settings=short())
    await call.open()
    for number in range(3):
        call.record(say(number))
    with pytest.raises(OverloadedError):
        call.record(say(3))
    call.note("x", 1)
    assert call.lost == 1
    call.on_items_missed(lambda is_afresh: call.record(say(3, f"again {is_afresh}")))
    world.may_open.set()
    await call.wait_open()
    await until(lambda: ids(call) == ["u0", "u1", "u2", "u3"])
    assert call.items[-1].to_dict()["content"] == "again False"
    await call.flush()
    assert call.attributes["x"] == 1


async def test_an_item_too_large_is_refused_before_it_is_open_too(world: World) -> None:
    """The recorder shortens what is refused at once; refused later, it would be lost."""
    world.may_open.clear()
    call = world.call(settings=short())
    await call.open()
    with pytest.raises(ItemTooLargeError):
        call.record(say(1, "x" * (1 << 20)))
    with pytest.raises(InvalidInputError):
        call.record(Message(id="u2", role="user", content="half \ud83d"))
    assert call.lost == 0


async def test_what_cannot_be_recorded_late_costs_only_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full outbox at that moment neither ends the call nor holds up what else waits."""
    world.may_open.clear()
    call = world.call(settings=short())
    await call.open()
    for number in range(3):
        call.record(say(number))
    record = ConversationHandle.record

    def picky(self: ConversationHandle, *items: Item, lease: Lease | None = None) -> None:
        if items[0].id == "u1":
            message = "full"
            raise OverloadedError(message)
        record(self, *items, lease=lease)

    monkeypatch.setattr(ConversationHandle, "record", picky)
    world.may_open.set()
    async with asyncio.timeout(5):
        await call.wait_open()
    await call.flush()
    assert ids(call) == ["u0", "u2"]
    assert call.lost == 1
    assert not call.deposed.is_set()


async def test_a_closed_conversation_is_reopened(world: World) -> None:
    """Somebody calls again: whoever ended the conversation did not know that."""
    handle = await world.cluster.handle()
    await handle.close_conversation("done")
    call = world.call()
    assert await call.open()
    call.record(say(0))
    await call.flush()
    await until(lambda: ids(handle) == ["u0"])
    assert handle.closing is None


@pytest.mark.parametrize("had_agent", [False, True])
async def test_a_second_try_is_no_restart_by_itself(
    world: World, monkeypatch: pytest.MonkeyPatch, *, had_agent: bool
) -> None:
    """The lease that it finds is this job's own, of the first try; only an agent before this job makes it one."""
    if had_agent:
        await succeed(world, "dead", replacing=None)
    begin = SignOfLife.begin
    tries: list[str] = []

    async def once_broken(self: SignOfLife, heartbeats: Heartbeats) -> None:
        tries.append("try")
        if len(tries) == 1:
            message = "away"
            raise StoreUnavailableError(message)
        await begin(self, heartbeats)

    monkeypatch.setattr(SignOfLife, "begin", once_broken)
    call = world.call(takeover=brisk())
    assert await call.open()
    assert len(tries) == 2
    assert call.is_restart == had_agent


async def test_the_history_is_full_near_a_bound_of_items_or_bytes(world: World) -> None:
    """By items or by bytes, near the bound: a call leaves with its output, so that it is never quite at it."""
    call = world.call()
    await call.open()
    assert not call.is_full
    bounds = world.cluster.settings.history
    for number in range(bounds.items):
        call.record(say(number))
    await call.flush()
    await until(lambda: call.is_full)


# The lease


async def test_another_agent_that_is_alive_keeps_the_call(world: World) -> None:
    """The second job is told who has it, and has left nothing behind."""
    first, second = world.call("job-1"), world.call("job-2")
    await first.open()
    with pytest.raises(LeaseHeldError) as held:
        await second.open()
    assert held.value.holder == "job-1"
    assert not second.is_open
    assert second.deposed.is_set()
    first.record(say(1))
    await first.flush()
    assert ids(first) == ["u1"]
    record = await world.agents.find("c")
    assert record is not None
    assert record.holder == "job-1"


async def test_a_late_refusal_is_told_to_whoever_waits(world: World) -> None:
    """The job runs already: it is deposed, and `wait_open` raises."""
    world.may_open.clear()
    call = world.call("job-2", settings=short(), takeover=brisk())
    assert not await call.open()
    await succeed(world, "job-1", replacing=None)
    await world.agents.start("c", "job-1", valid_for=HOUR, group="", details=b"{}")
    world.may_open.set()
    async with asyncio.timeout(5):
        await call.deposed.wait()
    with pytest.raises(LeaseHeldError):
        await call.wait_open()


@pytest.mark.parametrize("state", ["no record", "silent", "claimed", "another's"])
async def test_a_holder_that_is_dead_is_replaced(world: World, state: str) -> None:
    """Its lease would hold for a minute yet; its heartbeat tells that nobody is there."""
    await succeed(world, "dead", replacing=None)
    agents = world.agents
    if state != "no record":
        holder = "dead" if state != "another's" else "somebody"
        await agents.start("c", holder, valid_for=BRISK, group="", details=b"{}")
    if state == "claimed":
        await agents.claim("c", "w", hold=HOUR, holder="dead")
    call = world.call("job-2", takeover=brisk())
    started = asyncio.get_running_loop().time()
    assert await call.open()
    if state != "claimed":
        assert asyncio.get_running_loop().time() - started >= BRISK.total_seconds()
    assert call.is_restart
    handle = await world.cluster.handle()
    assert handle.leases[LEASE].holder == "job-2"


async def test_a_second_job_does_not_depose_who_lives(world: World) -> None:
    """Redis has lost all heartbeats a moment ago: the agent's next one tells that it lives, and the second job leaves.

    However long that takes, as long as it is less than a heartbeat lasts.
    """
    takeover = TakeoverSettings(poll_interval=timedelta(milliseconds=5))
    first = world.call("job-1", takeover=takeover)
    await first.open()
    for holder in ("job-2", "job-3"):
        world.agents._kept.clear()
        with pytest.raises(LeaseHeldError):
            await world.call(holder, takeover=takeover).open()
    assert not first.deposed.is_set()
    handle = await world.cluster.handle()
    assert handle.leases[LEASE].holder == "job-1"


async def test_a_second_job_waits_while_redis_cannot_be_asked(world: World) -> None:
    """Nothing that it does not hear tells that the agent is dead."""
    first = world.call("job-1", takeover=brisk(heartbeat=timedelta(milliseconds=20)))
    await first.open()
    second = world.call("job-2", takeover=brisk())
    world.agents.trouble = StoreUnavailableError("away")
    opening = asyncio.create_task(second.open())
    before = world.agents.asked
    await until(lambda: world.agents.asked > before + 20)
    world.agents._kept.clear()
    world.agents.trouble = None
    with pytest.raises(LeaseHeldError):
        await opening
    assert not first.deposed.is_set()


async def test_the_dead_ones_lease_is_fenced(world: World) -> None:
    """What it still sends is refused."""
    old = await succeed(world, "dead", replacing=None)
    call = world.call("job-2", takeover=brisk())
    await call.open()
    handle = await world.cluster.handle()
    with pytest.raises(LeaseLostError):
        await handle.append(say(1), lease=old)


async def test_who_was_sent_to_replace_does_not_ask_whether_it_is_dead(world: World) -> None:
    """Whoever sent it has claimed the heartbeat, and knows."""
    await succeed(world, "job-1", replacing=None)
    await world.agents.start("c", "job-1", valid_for=HOUR, group="", details=b"{}")
    call = world.call("job-2", Assignment(conversation_id="c", replaces="job-1", attempt=2))
    assert await call.open()
    assert call.is_restart
    record = await world.agents.find("c")
    assert record is not None
    assert record.details["attempt"] == 2


async def test_a_successor_that_comes_second_waits_no_longer_than_a_heartbeat(world: World) -> None:
    """Two were sent for one: the first has the lease and is alive, the second leaves."""
    first = world.call("job-2", Assignment(conversation_id="c", replaces="job-1"))
    await first.open()
    second = world.call("job-3", Assignment(conversation_id="c", replaces="job-1"), takeover=brisk())
    started = asyncio.get_running_loop().time()
    with pytest.raises(LeaseHeldError):
        await second.open()
    assert 0.15 < asyncio.get_running_loop().time() - started < 3
    assert not first.deposed.is_set()


async def test_a_successor_that_comes_second_gets_the_call_if_the_first_dies(world: World) -> None:
    """It waits for as long as a heartbeat lasts, and then looks again."""
    first = world.call("job-2", takeover=brisk())
    await first.open()
    second = world.call("job-3", Assignment(conversation_id="c", replaces="job-1"), takeover=brisk())
    opening = asyncio.create_task(second.open())
    before = world.agents.asked
    await until(lambda: world.agents.asked > before + 3)
    await first.aclose()
    async with asyncio.timeout(5):
        assert await opening


# Asked for from another room


ELSEWHERE = replace(POST, room="room-2", agent_identity="agent-2")


async def test_an_agent_in_another_room_is_asked_for_the_call(world: World) -> None:
    """It is told at once, and not as in a handover; when it lets go, the new agent has the conversation."""
    first, second = world.call("job-1"), world.call("job-2", post=ELSEWHERE)
    await first.open()
    opening = asyncio.create_task(second.open())
    async with asyncio.timeout(5):
        await first.redialled.wait()
    assert first.attributes[HANDOVER] == {"to": "job-2", "from": "job-1", "room": "room-2"}
    assert not first.handover_asked.is_set()
    assert not opening.done()
    await first.hand_over()
    async with asyncio.timeout(5):
        assert await opening
    record = await world.agents.find("c")
    assert record is not None
    assert (record.holder, record.details["room"]) == ("job-2", "room-2")
    assert not first.deposed.is_set()


async def test_an_agent_in_another_room_may_refuse(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The new one is told, as where both are in one room, and the operator is told why; it may be asked again."""
    first = world.call("job-1")
    await first.open()
    for holder in ("job-2", "job-3"):
        opening = asyncio.create_task(world.call(holder, post=ELSEWHERE).open())
        async with asyncio.timeout(2):  # far less than a heartbeat lasts: it does not wait for that
            await first.redialled.wait()
            await first.refuse_redial()
            with pytest.raises(LeaseHeldError) as held:
                await opening
        assert held.value.holder == "job-1"
        await looked(first)
        assert not first.redialled.is_set()
    assert not first.deposed.is_set()
    told = [record for record in caplog.records if "another room keeps" in record.getMessage()]
    assert [(line.__dict__["room"], line.__dict__["has_answered"]) for line in told] == [(ROOM, True)] * 2


async def test_an_agent_in_another_room_that_does_not_answer_keeps_the_call(world: World) -> None:
    """For as long as a heartbeat lasts it is waited for; then the wish is taken back, should it answer after all."""
    first = world.call("job-1")
    await first.open()
    with pytest.raises(LeaseHeldError):
        await world.call("job-2", post=ELSEWHERE, takeover=brisk()).open()
    await until(lambda: HANDOVER not in first.attributes)
    await first.refuse_redial()
    assert not first.redialled.is_set()
    first.record(say(1))
    await first.flush()


async def test_an_agent_in_another_room_that_dies_meanwhile_is_replaced(world: World) -> None:
    """It has not answered because it was dying: the new agent does not go for that."""
    first = world.call("job-1", takeover=brisk())
    await first.open()
    opening = asyncio.create_task(world.call("job-2", post=ELSEWHERE, takeover=brisk()).open())
    async with asyncio.timeout(5):
        await first.redialled.wait()
        await first.aclose()
        assert await opening


async def test_an_agent_whose_room_is_not_known_is_not_asked(world: World) -> None:
    """Its record tells of no room: it keeps the call, as one in this room does."""
    await succeed(world, "job-1", replacing=None)
    await world.agents.start("c", "job-1", valid_for=HOUR, group="", details=b"{}")
    second = world.call("job-2", post=ELSEWHERE, takeover=brisk())
    with pytest.raises(LeaseHeldError):
        await second.open()
    handle = await world.cluster.handle()
    assert HANDOVER not in handle.attributes


async def test_nobody_is_asked_to_refuse_who_was_not_asked(world: World) -> None:
    """Without a wish, or before it is open, nothing is written."""
    first = world.call("job-1")
    await first.refuse_redial()
    await first.open()
    await first.refuse_redial()
    await first.flush()
    assert HANDOVER not in first.attributes


# A planned handover


def planned(**settings: Any) -> tuple[Assignment, TakeoverSettings]:
    """What a successor in a planned handover is told."""
    return Assignment(conversation_id="c", replaces="job-1", is_planned=True), brisk(
        **{"handover": timedelta(seconds=20), **settings}
    )


async def test_a_planned_handover_waits_for_the_release(world: World) -> None:
    """Ready, the successor asks by an attribute, and has the lease when the first one gives it; until then it reads."""
    first = world.call("job-1")
    await first.open()
    assignment, takeover = planned()
    second = world.call("job-2", assignment, takeover=takeover)
    assert second.is_planned_handover
    assert not await second.open()
    first.record(say(0, "before"))
    await until(lambda: ids(second) == ["u0"])
    assert [second.is_waiting_for_handover, second.is_open] == [True, False]
    second.record(say(9, "of its own session"))
    await looked(first)
    assert HANDOVER not in first.attributes
    second.ready()
    opening = asyncio.create_task(second.wait_open())
    async with asyncio.timeout(5):
        await first.handover_asked.wait()
    assert first.attributes[HANDOVER] == {"to": "job-2", "from": "job-1"}
    sent = world.cluster.calls["execute"]
    await looked(first, times=20)
    assert not opening.done()
    assert world.cluster.calls["execute"] <= sent + 1, "the local copy tells; the owner is not asked again and again"
    first.record(say(1, "last words"))
    await first.release()
    async with asyncio.timeout(5):
        await opening
    await second.flush()
    assert ids(second) == ["u0", "u1"]
    assert [second.is_waiting_for_handover, second.is_open] == [False, True]
    assert not first.deposed.is_set()
    assert not second.handover_asked.is_set()
    assert second.is_restart


async def test_a_handover_that_takes_too_long_is_forced(world: World) -> None:
    """The time is over: the first one is replaced, and finds itself deposed."""
    first = world.call("job-1")
    await first.open()
    assignment, takeover = planned(handover=timedelta(seconds=0.1))
    second = world.call("job-2", assignment, takeover=takeover)
    second.ready()
    await second.open()
    async with asyncio.timeout(5):
        await second.wait_open()
        await first.deposed.wait()
    handle = await world.cluster.handle()
    assert handle.leases[LEASE].holder == "job-2"


async def test_a_second_successor_does_not_take_the_first_ones_place(world: World) -> None:
    """It was sent to follow somebody who has gone: it leaves, also when it has waited for long."""
    first = world.call("job-2")
    await first.open()
    assignment, takeover = planned(handover=timedelta(seconds=0.1))
    second = world.call("job-3", assignment, takeover=takeover)
    second.ready()
    await second.open()
    async with asyncio.timeout(5):
        with pytest.raises(LeaseHeldError):
            await second.wait_open()
    assert not first.deposed.is_set()
    assert HANDOVER not in first.attributes


async def test_a_handover_from_one_that_dies_meanwhile_is_not_waited_for(world: World) -> None:
    """Nobody will release: its silence is enough."""
    await succeed(world, "job-1", replacing=None)
    assignment, takeover = planned()
    second = world.call("job-2", assignment, takeover=takeover)
    second.ready()
    await second.open()
    async with asyncio.timeout(5):
        await second.wait_open()


async def test_an_old_wish_asks_nobody(world: World) -> None:
    """The attribute stays after a handover; it names whom it was meant for."""
    handle = await world.cluster.handle()
    for wish in ({"to": "job-1", "from": "job-0"}, "job-1", None, ["from", "job-1"]):
        await handle.set_attributes({HANDOVER: wish})
        call = world.call("job-1")
        await call.open()
        await looked(call)
        assert not call.handover_asked.is_set()
        await call.release()
        await call.aclose()


# Being alive


async def test_heartbeats_go_on(world: World) -> None:
    """Every interval, from the job's event loop; what Redis has lost is written anew."""
    call = world.call()
    await call.open()
    for _ in range(3):
        world.agents._kept.clear()
        before = world.agents.asked
        await until(lambda: world.agents.asked > before + 1)  # noqa: B023  # looked at in this turn only
        record = await world.agents.find("c")
        assert record is not None
        assert record.is_alive


async def test_a_claimed_heartbeat_deposes(world: World) -> None:
    """Somebody took it for dead, and a successor is on its way: nothing can stop that any more."""
    call = world.call()
    await call.open()
    assert await world.agents.claim("c", "w", hold=HOUR, holder="job-1") is not None
    async with asyncio.timeout(5):
        await call.deposed.wait()


async def test_a_newer_token_in_the_local_copy_deposes(world: World) -> None:
    """That is how an agent learns of its successor while Redis is away from it alone."""
    call = world.call()
    await call.open()
    world.agents.trouble = StoreUnavailableError("away")
    await succeed(world)
    async with asyncio.timeout(5):
        await call.deposed.wait()


@pytest.mark.parametrize("error", [StoreUnavailableError("away"), StoreMisconfiguredError("NOPERM")])
async def test_redis_away_deposes_nobody(world: World, error: Exception) -> None:
    """Nobody can claim the call either; heartbeats go on when Redis is back."""
    call = world.call()
    await call.open()
    world.agents.trouble = error
    before = world.agents.asked
    await until(lambda: world.agents.asked > before + 3)
    assert not call.deposed.is_set()
    world.agents.trouble = None
    before = world.agents.asked
    await until(lambda: world.agents.asked > before + 3)
    assert not call.deposed.is_set()


async def test_a_record_that_redis_lost_is_written_anew(world: World) -> None:
    """With all that a successor has to know."""
    call = world.call()
    await call.open()
    world.agents._kept.clear()
    await until(lambda: bool(world.agents._kept))
    record = await world.agents.find("c")
    assert record is not None
    assert (record.holder, record.group, record.details["room"]) == ("job-1", "worker-1", ROOM)


async def test_attempts_are_kept_in_the_beats_of_an_agent_that_has_just_begun(world: World) -> None:
    """Else a call that kills each of its agents would be given to new ones for ever."""
    assignment = Assignment(conversation_id="c", replaces="job-1", attempt=4)
    call = world.call("job-2", assignment, takeover=brisk(progress=timedelta(minutes=1)))
    await call.open()
    assert await call.confirm()  # by a beat
    assert world.agents._kept["c"].details["attempt"] == 4


async def test_after_a_while_the_attempts_count_from_one_again(world: World) -> None:
    """A successor that lived so long is no sign that the call kills its agents."""
    assignment = Assignment(conversation_id="c", replaces="job-1", attempt=4)
    call = world.call("job-2", assignment, takeover=brisk(progress=timedelta(seconds=0.05)))
    await call.open()
    record = await world.agents.find("c")
    assert record is not None
    assert record.details["attempt"] == 4
    await until(lambda: world.agents._kept["c"].details["attempt"] == 0)
    assert not call.deposed.is_set()


async def test_the_lease_is_renewed_and_keeps_its_token(world: World) -> None:
    """Long before it expires."""
    world.timing = replace(world.timing, renew=0.02)
    call = world.call()
    await call.open()
    handle = await world.cluster.handle()
    first = handle.leases[LEASE]
    await until(lambda: handle.leases[LEASE].expires_at > first.expires_at)
    assert handle.leases[LEASE].token == first.token
    call.record(say(1))
    await call.flush()


async def test_a_lease_that_cannot_be_renewed_deposes(world: World) -> None:
    """Told by the owner itself, should the local copy stand still."""
    world.timing = replace(world.timing, renew=0.02, guard=60.0)
    call = world.call()
    await call.open()
    await succeed(world)
    async with asyncio.timeout(5):
        await call.deposed.wait()


async def test_the_deposed_writes_nothing_more(world: World) -> None:
    """Before it knows, and behind it: items and changes carry the lease, and are refused."""
    world.timing = replace(world.timing, guard=60.0)
    call = world.call()
    await call.open()
    await call.flush()
    await succeed(world)
    call.record(say(1))
    call.note("x", 1)
    call.later(lambda handle, lease: handle.join("alice", lease=lease))
    with pytest.raises(LeaseLostError):
        await call.flush()
    handle = await world.cluster.handle()
    assert handle.items == ()
    assert "x" not in handle.attributes
    assert dict(handle.participants) == {}


async def test_a_change_that_fails_holds_up_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the ones behind it are made; one that hangs is left after a while."""
    world.timing = replace(world.timing, operation=0.05)
    call = world.call()
    await call.open()

    async def broken(_handle: ConversationHandle, _lease: Lease) -> None:
        message = "broken"
        raise TypeError(message)

    async def hangs(_handle: ConversationHandle, _lease: Lease) -> None:
        await asyncio.Event().wait()

    call.later(broken)
    call.later(hangs)
    call.note("too large", "x" * (1 << 20))
    call.note("x", 1)
    await call.flush()
    assert call.attributes["x"] == 1
    told = [record.getMessage() for record in caplog.records]
    assert told.count("a change of the conversation failed") == 2
    assert told.count("there is no room for an attribute: its last value stays") == 1


# The end


async def test_a_released_call_is_over(world: World) -> None:
    """All is durable, the heartbeat is gone, the lease is free, nobody is named the agent."""
    call = world.call()
    await call.open()
    for number in range(20):
        call.record(say(number))
    await call.release()
    handle = await world.cluster.handle()
    assert len(handle.items) == 20
    assert LEASE not in handle.leases
    assert AGENT not in handle.attributes
    assert await world.agents.find("c") is None
    assert not call.deposed.is_set()
    await call.release()
    await call.aclose()


async def test_what_is_not_released_is_left_for_a_successor(world: World) -> None:
    """Closed without a release, as by a crash: lease and heartbeat stay as they are."""
    call = world.call()
    await call.open()
    call.record(say(1))
    await call.aclose()
    handle = await world.cluster.handle()
    assert ids(handle) == ["u1"]
    assert handle.leases[LEASE].holder == "job-1"
    assert await world.agents.find("c") is not None


async def test_the_deposed_releases_nothing(world: World) -> None:
    """The lease and the heartbeat are its successor's."""
    first = world.call("job-1")
    await first.open()
    second = world.call("job-2", Assignment(conversation_id="c", replaces="job-1"))
    await second.open()
    await second.flush()
    async with asyncio.timeout(5):
        await first.deposed.wait()
    world.agents._kept.clear()
    await first.release()
    assert world.agents._kept == {}, "a record of the deposed one"
    await first.aclose()
    await until(lambda: bool(world.agents._kept))
    handle = await world.cluster.handle()
    assert handle.leases[LEASE].holder == "job-2"
    assert handle.attributes[AGENT]["holder"] == "job-2"
    record = await world.agents.find("c")
    assert record is not None
    assert record.holder == "job-2"


async def test_claimed_a_moment_ago_it_releases_nothing(world: World) -> None:
    """It does not know yet: the claim stays, so that the caller is not left alone with a release."""
    call = world.call(takeover=TakeoverSettings(heartbeat=timedelta(seconds=60), valid_for=timedelta(seconds=180)))
    await call.open()
    assert await world.agents.claim("c", "w", hold=HOUR, holder="job-1") is not None
    await call.release()
    handle = await world.cluster.handle()
    assert handle.leases[LEASE].holder == "job-1"
    record = await world.agents.find("c")
    assert record is not None
    assert record.claimant == "w"


@pytest.mark.parametrize("is_away_for_long", [False, True])
async def test_a_call_that_ends_while_ray_does_not_answer_gets_no_other_agent(
    world: World, monkeypatch: pytest.MonkeyPatch, *, is_away_for_long: bool
) -> None:
    """Nobody notes the end; the heartbeat's record is gone all the same, and the lease, if that can be given back."""
    world.timing = replace(world.timing, flush=2.0)
    call = world.call()
    await call.open()
    await call.flush()
    set_attributes, tried = ConversationHandle.set_attributes, list[str]()

    async def hang(what: str) -> None:
        tried.append(what)
        await asyncio.Event().wait()

    async def set_others(self: ConversationHandle, changes: Mapping[str, Any], **options: Any) -> None:
        await (hang("end") if CALL in changes else set_attributes(self, changes, **options))

    monkeypatch.setattr(ConversationHandle, "set_attributes", set_others)
    if is_away_for_long:
        monkeypatch.setattr(ConversationHandle, "release_lease", lambda *_: hang("lease"))
    await call.release()
    assert await world.agents.find("c") is None
    assert call.failures.counts["call_end"] == 1
    assert tried == (["end", "lease"] if is_away_for_long else ["end"])
    assert (LEASE in (await world.cluster.handle()).leases) is is_away_for_long


async def test_a_release_without_redis_raises_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Within its time; the heartbeat stops with the process, and a worker finds out."""
    world.timing = replace(world.timing, flush=0.05)
    call = world.call()
    await call.open()
    await call.flush()
    world.store.is_down = True
    world.agents.trouble = StoreUnavailableError("away")
    call.record(say(1))
    await call.release()
    assert "was not released" in caplog.text
    world.store.is_down = False


async def test_no_words_of_the_call_are_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong."""
    caplog.set_level(logging.DEBUG)
    world.ray_trouble = ClusterUnavailableError("no cluster")
    call = world.call(settings=short())
    await call.open()
    call.record(say(1, "private words"))
    call.note("x", "private words" + "x" * (1 << 20))
    world.ray_trouble = None
    await call.wait_open()
    await succeed(world)
    call.record(say(2, "private words"))
    await call.deposed.wait()
    await call.aclose()
    assert "private words" not in caplog.text


async def test_a_post_is_told_whole(world: World) -> None:
    """An empty group is none."""
    call = world.call(post=POST.__class__("r", "a", "i"))
    await call.open()
    record = await world.agents.find("c")
    assert record is not None
    assert (record.group, record.details["agent_identity"]) == ("", "i")
