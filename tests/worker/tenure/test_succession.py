"""What a job is there for, as Redis tells; roles side by side; and when a call is over, or goes on elsewhere."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from livekit import rtc

from agent_worker.call.opening import JOB_CRASHED, NOT_FINISHED, ROOM_LOST, WORKER_GONE, open_conversation
from agent_worker.settings import CallSettings, TakeoverSettings
from agent_worker.tenure import expected
from agent_worker.tenure.assignment import Assignment, CallDeclinedError, RestartReason
from agent_worker.tenure.conversation import AGENT, HANDOVER, LEASE, CallConversation, Post
from agent_worker.tenure.heartbeat_details import MAX_COPIED_CHARACTERS, copied_metadata
from agent_worker.tenure.role import AGENT_ROLE
from agent_worker.worker.rooms import Original, RoomServiceError, UnansweredError
from agent_worker.worker.summons import Vacancy, summon
from conversation_actors import Heartbeats, LeaseHeldError, Message
from conversation_actors.client.expectations import Expectation
from conversation_actors.errors import ClusterUnavailableError, InvalidInputError, StoreUnavailableError
from tests.support.fakes import until
from tests.support.sessions.fakes_call import POST, ROOM, Clock, FakeRoom, FakeRooms, World, Worlds, fake_job

KEEP = timedelta(minutes=1)
FOLLOWS = Assignment(conversation_id="c", replaces="job-1", attempt=2, reason=RestartReason.CRASH)
PLANNED = Assignment(conversation_id="c", replaces="job-1", is_planned=True, reason=RestartReason.DEPLOY)


@pytest.fixture
def clock() -> Clock:
    """The clock by which Redis forgets."""
    return Clock()


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> AsyncIterator[World]:
    """A conversation that can be opened."""
    async with Worlds(monkeypatch, clock, close=0.5) as made:
        yield made


@pytest.fixture
async def heartbeats(world: World) -> AsyncIterator[Heartbeats]:
    """What a caller of successors writes to."""
    async with Heartbeats(world.cluster.settings, lease=LEASE) as entered:
        yield entered


def posted(dispatch_id: str = "AD_1", **changes: Any) -> Post:
    """Where a job stands that came by this dispatch."""
    return replace(POST, dispatch_id=dispatch_id, worker_id="AW_1", **changes)


async def expect(heartbeats: Heartbeats, assignment: Assignment, call: str = "AD_1") -> Expectation:
    """Somebody is called, and LiveKit has answered that, or not yet (an empty `call`)."""
    made = await heartbeats.expect(ROOM, "support", assignment.told(), keep=KEEP)
    if call:
        await heartbeats.amend(replace(made, call=call), keep=KEEP)
    return made


def short() -> CallSettings:
    """A small budget for opening."""
    return CallSettings(open_timeout=timedelta(seconds=0.05))


# What a job is there for


async def test_a_job_finds_what_it_was_called_for(world: World, heartbeats: Heartbeats) -> None:
    """By its dispatch: whom it follows, why, and the how manieth it is. When it is there it is expected no more."""
    await expect(heartbeats, Assignment(conversation_id="c", replaces="somebody", attempt=5), "AD_9")
    await expect(heartbeats, FOLLOWS)
    call = world.call("job-2", post=posted())
    assert await call.open()
    assert (call.is_restart, call.restart_reason) == (True, RestartReason.CRASH)
    record = await heartbeats.find("c")
    assert record is not None
    assert record.details["attempt"] == 2
    await until(lambda: len(world.store.called._kept) == 1)

    async def left() -> list[str]:
        return [one.call for one in await heartbeats.expected(ROOM, "support")]

    async with asyncio.timeout(5):
        while await left() != ["AD_9"]:  # noqa: ASYNC110  # the fake has no event for this
            await asyncio.sleep(0.002)


async def test_the_conversation_is_the_one_that_is_followed(world: World, heartbeats: Heartbeats) -> None:
    """Though the room, or the participants who named it, would name another one now."""
    await expect(heartbeats, FOLLOWS)
    call = CallConversation(
        ROOM, holder="job-2", post=posted(), assignment=Assignment(), store=world.cluster.settings, timing=world.timing
    )
    assert await call.open()
    assert call.id == "c"
    await call.aclose()


async def test_two_successors_in_one_room_find_each_its_own(world: World, heartbeats: Heartbeats) -> None:
    """Two conversations, one room, one agent name."""
    other = Assignment(conversation_id="d", replaces="job-9", attempt=1, reason=RestartReason.WORKER)
    await expect(heartbeats, other, "AD_2")
    await expect(heartbeats, FOLLOWS, "AD_1")
    call = world.call("job-2", post=posted("AD_1"))
    await call.open()
    assert (call.id, call.restart_reason) == ("c", RestartReason.CRASH)
    found = await expected.find_expectation(
        heartbeats, ROOM, "support", dispatch_id="AD_2", role=AGENT_ROLE, named=None
    )
    assert found is not None
    assert Assignment.of(found.told) == other


async def test_a_call_that_livekit_has_not_answered_is_found_by_being_the_only_one(
    world: World, heartbeats: Heartbeats
) -> None:
    """The job may be there before its dispatch is noted. Those of others, or of another conversation, are not it."""
    await expect(heartbeats, replace(FOLLOWS, conversation_id="d"), "")
    await expect(heartbeats, FOLLOWS, "")
    await expect(heartbeats, FOLLOWS, "AD_7")
    call = world.call("job-2", post=posted())
    await call.open()
    assert call.restart_reason is RestartReason.CRASH


async def test_among_several_the_answers_are_waited_for(world: World, heartbeats: Heartbeats) -> None:
    """Which one is whose is known as soon as LiveKit has answered."""
    first = await expect(heartbeats, replace(FOLLOWS, conversation_id="d"), "")
    second = await expect(heartbeats, FOLLOWS, "")
    finding = asyncio.create_task(
        expected.find_expectation(heartbeats, ROOM, "support", dispatch_id="AD_1", role=AGENT_ROLE, named=None)
    )
    asked = world.agents.asked
    await until(lambda: world.agents.asked > asked + 3)
    assert not finding.done()
    await heartbeats.amend(replace(second, call="AD_1"), keep=KEEP)
    found = await finding
    assert found is not None
    assert found.token == second.token != first.token


async def test_where_nobody_can_tell_them_apart_it_is_nobodys(world: World, heartbeats: Heartbeats) -> None:
    """A job that does without finds a dead agent by itself."""
    world.timing = replace(world.timing, expected_patience=0.02)
    await expect(heartbeats, FOLLOWS, "")
    await expect(heartbeats, replace(FOLLOWS, attempt=1), "")
    call = world.call("job-2", post=posted())
    assert await call.open()
    assert not call.is_restart


async def test_who_was_never_met_harms_nobody(world: World, heartbeats: Heartbeats) -> None:
    """The room is used again, and an agent is dispatched to it by hand: it is nobody's successor."""
    await expect(heartbeats, FOLLOWS, "AD_that_nobody_took")
    await expect(heartbeats, replace(FOLLOWS, role="translator"), "AD_1")
    await expect(heartbeats, replace(FOLLOWS, conversation_id="d"), "")
    call = world.call("job-2", post=posted())
    assert await call.open()
    assert (call.id, call.is_restart, call.restart_reason) == ("c", False, None)


async def test_while_redis_is_away_a_job_starts_all_the_same(world: World, heartbeats: Heartbeats) -> None:
    """What it is there for is looked up when Redis answers, before it asks for the lease."""
    await (await world.cluster.handle()).acquire_lease(LEASE, holder="job-1", duration=timedelta(hours=1))
    await expect(heartbeats, FOLLOWS)
    world.agents.trouble = StoreUnavailableError("away")
    call = world.call("job-2", post=posted(), settings=short())
    assert not await call.open()
    call.record(Message(id="u1", role="user", content="hello"))
    world.agents.trouble = None
    await asyncio.wait_for(call.wait_open(), 5)
    assert (call.is_restart, call.restart_reason) == (True, RestartReason.CRASH)
    await call.flush()
    assert [item.id for item in call.items] == ["u1"]


async def test_a_slow_cluster_hides_nothing_of_it(world: World, heartbeats: Heartbeats) -> None:
    """Redis answers, Ray does not: a job that shall stand by knows it."""
    await expect(heartbeats, PLANNED)
    world.ray_trouble = ClusterUnavailableError("no cluster")
    call = world.call("job-2", post=posted(), settings=short())
    assert not await call.open()
    assert call.is_waiting_for_handover
    assert not call.deposed.is_set()


@pytest.mark.parametrize("changes", [{"room": ""}, {"room": "two\nlines"}, {"agent_name": "x" * 300}])
async def test_a_room_to_which_nobody_can_be_called_has_its_agent(world: World, changes: dict[str, str]) -> None:
    """Of a job that is simulated, say, whose conversation has a name of its own."""
    call = world.call(post=posted(**changes))
    assert await call.open()
    assert not call.is_restart


@pytest.mark.parametrize("avoid", ["AW_1", "AW_2"])
async def test_a_handover_that_is_over_keeps_nobody_away(world: World, heartbeats: Heartbeats, avoid: str) -> None:
    """LiveKit did not answer who was called; that call has ended, and the caller rings again in the same room."""
    first = world.call("job-1", post=posted("AD_0"))
    await first.open()
    await expect(heartbeats, replace(PLANNED, avoid=avoid), "")
    await first.release()
    await first.aclose()
    second = world.call("job-2", post=posted("AD_automatic"))
    assert await second.open()
    assert (second.is_planned_handover, second.is_restart, second.restart_reason) == (False, False, None)


@pytest.mark.parametrize("avoid", ["AW_1", "AW_2"])
async def test_nobody_is_kept_away_but_by_its_own_dispatch(world: World, heartbeats: Heartbeats, avoid: str) -> None:
    """The agent is dead since, and what it was to do is not known to be of the past: who comes is the agent."""
    world.timing = replace(world.timing, expected_patience=0.02)
    await (await world.cluster.handle()).acquire_lease(LEASE, holder="job-1", duration=timedelta(hours=1))
    await heartbeats.start("c", "job-1", valid_for=timedelta(milliseconds=200))
    await expect(heartbeats, replace(PLANNED, avoid=avoid), "")
    call = world.call("job-2", post=posted("AD_automatic"), takeover=brisk())
    assert await call.open()
    assert (call.is_planned_handover, call.restart_reason) == (False, RestartReason.SILENCE)


async def test_who_is_to_stand_by_waits_for_livekits_answer(world: World, heartbeats: Heartbeats) -> None:
    """It may be there before its dispatch is noted, also as the only one that is expected."""
    first = world.call("job-1", post=posted("AD_0"))
    await first.open()
    made = await expect(heartbeats, PLANNED, "")
    second = world.call("job-2", post=posted())
    opening = asyncio.create_task(second.open())
    asked = world.agents.asked
    await until(lambda: world.agents.asked > asked + 10)
    assert not opening.done()
    await heartbeats.amend(replace(made, call="AD_1"), keep=KEEP)
    await asyncio.wait_for(opening, 5)
    assert second.is_waiting_for_handover


async def test_a_job_without_a_dispatch_may_stand_by(world: World, heartbeats: Heartbeats) -> None:
    """For the agent that has the call now, and no other one."""
    first = world.call("job-1", post=posted("AD_0"))
    await first.open()
    await expect(heartbeats, replace(PLANNED, replaces="job-0"), "")
    await expect(heartbeats, PLANNED, "")
    second = world.call("job-2", post=posted(""))
    await second.open()
    assert second.is_waiting_for_handover


async def test_who_was_followed_since_is_followed_no_more(world: World, heartbeats: Heartbeats) -> None:
    """The record is another one's: what was expected when the one before it died is of the past."""
    await heartbeats.start("c", "job-2", valid_for=timedelta(seconds=3))
    await expect(heartbeats, FOLLOWS, "")
    call = world.call("job-3", post=posted("AD_automatic"))
    assert await call.open()
    assert not call.is_restart


# Calling somebody


class SlowRooms(FakeRooms):
    """LiveKit's server, which takes its time."""

    async def dispatch(self, room: str, agent_name: str, original: Original | None = None) -> str:
        """See `Rooms.dispatch`."""
        await super().dispatch(room, agent_name, original)
        await asyncio.Event().wait()
        return ""


async def test_who_is_called_is_expected_by_its_dispatch(world: World, heartbeats: Heartbeats) -> None:
    """As soon as LiveKit has answered."""
    rooms = FakeRooms(store=world.store)
    made = await summon(heartbeats, rooms.as_rooms, Vacancy(ROOM, "support"), FOLLOWS)
    assert [one.call for one in await heartbeats.expected(ROOM, "support")] == [made.call] == ["AD_1"]


async def test_where_a_call_is_cancelled_nobody_is_expected(world: World, heartbeats: Heartbeats) -> None:
    """In LiveKit's pause: the next job of that room would take what it was not called for."""
    rooms = SlowRooms(store=world.store)
    calling = asyncio.create_task(summon(heartbeats, rooms.as_rooms, Vacancy(ROOM, "support"), PLANNED))
    await until(lambda: bool(rooms.dispatched))
    assert await heartbeats.expected(ROOM, "support")
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert await heartbeats.expected(ROOM, "support") == []


async def test_where_its_answer_is_not_noted_in_time_neither(
    world: World, heartbeats: Heartbeats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cancelled when LiveKit has answered, and Redis not yet."""
    noting = asyncio.Event()

    async def amend(_expectation: Expectation, *, keep: timedelta) -> bool:
        assert keep
        noting.set()
        await asyncio.Event().wait()
        return True

    monkeypatch.setattr(heartbeats, "amend", amend)
    rooms = FakeRooms(store=world.store)
    calling = asyncio.create_task(summon(heartbeats, rooms.as_rooms, Vacancy(ROOM, "support"), PLANNED))
    await asyncio.wait_for(noting.wait(), 5)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert await heartbeats.expected(ROOM, "support") == []


@pytest.mark.parametrize(
    ("trouble", "expects"),
    [(RoomServiceError("no"), False), (RuntimeError("a defect"), False), (UnansweredError("perhaps"), True)],
)
async def test_where_livekit_was_not_asked_nobody_is_expected(
    world: World, heartbeats: Heartbeats, trouble: Any, *, expects: bool
) -> None:
    """Where it may have been, somebody may come."""
    rooms = FakeRooms(store=world.store, dispatch_trouble=trouble)
    with pytest.raises(type(trouble)):
        await summon(heartbeats, rooms.as_rooms, Vacancy(ROOM, "support"), FOLLOWS)
    assert bool(await heartbeats.expected(ROOM, "support")) == expects


async def test_that_nobody_is_expected_need_not_be_noted(world: World, heartbeats: Heartbeats) -> None:
    """Redis is away: what LiveKit's server has said is raised all the same."""

    class Rooms(FakeRooms):
        async def dispatch(self, *_asked: Any) -> str:
            world.agents.trouble = StoreUnavailableError("away")
            message = "no"
            raise RoomServiceError(message)

    with pytest.raises(RoomServiceError):
        await summon(heartbeats, Rooms().as_rooms, Vacancy(ROOM, "support"), FOLLOWS)
    world.agents.trouble = None


# Whoever does not take the call


async def test_a_job_on_the_worker_to_be_left_declines(world: World, heartbeats: Heartbeats) -> None:
    """Before anything is opened; whoever called it is told, and it is still expected that somebody else comes."""
    await expect(heartbeats, replace(PLANNED, avoid="AW_1"))
    call = world.call("job-2", post=posted())
    with pytest.raises(CallDeclinedError):
        await call.open()
    assert world.clients == 0
    (told,) = await heartbeats.expected(ROOM, "support")
    assert told.is_declined
    assert (call.goes_on_elsewhere, call.is_over) == (True, False)
    await call.release()
    assert not call.is_over


async def test_a_job_on_another_worker_does_not(world: World, heartbeats: Heartbeats) -> None:
    """It stands by."""
    await expect(heartbeats, replace(PLANNED, avoid="AW_2"))
    call = world.call("job-2", post=posted())
    assert not call.is_planned_handover
    await call.open()
    assert call.is_planned_handover


async def test_who_learns_too_late_that_it_was_to_stand_by_leaves(world: World, heartbeats: Heartbeats) -> None:
    """It has spoken to the caller, and so does the agent that has the call."""
    await expect(heartbeats, PLANNED)
    world.agents.trouble = StoreUnavailableError("away")
    call = world.call("job-2", post=posted(), settings=short())
    assert not await call.open()
    world.agents.trouble = None
    await asyncio.wait_for(call.deposed.wait(), 5)
    with pytest.raises(CallDeclinedError):
        await call.wait_open()


@pytest.mark.usefixtures("heartbeats")
async def test_a_declined_job_ends_and_the_call_goes_on(world: World, heartbeats: Heartbeats) -> None:
    """For LiveKit too: its end is none of the call's."""
    with fake_job(FakeRoom(), metadata='{"conversation_id": "c"}', job_id="job-2") as job:
        job.context.job.dispatch_id = "AD_1"
        await expect(heartbeats, replace(FOLLOWS, avoid=job.context.worker_id))
        with pytest.raises(CallDeclinedError):
            await open_conversation(job.context)
        assert job.ended == [NOT_FINISHED]
        await job.shut_down(NOT_FINISHED)
    assert world.clients == 0


# Why there is somebody to be followed


def brisk() -> TakeoverSettings:
    """Quick heartbeats, looked at often."""
    quick = timedelta(milliseconds=5)
    return TakeoverSettings(heartbeat=quick, valid_for=timedelta(milliseconds=200), poll_interval=quick)


@pytest.mark.parametrize("is_claimed", [True, False])
async def test_a_dead_holder_is_followed_without_having_been_called_for_it(
    world: World, heartbeats: Heartbeats, *, is_claimed: bool
) -> None:
    """A room that is made anew, say: what is known of the death is what the record tells."""
    await (await world.cluster.handle()).acquire_lease(LEASE, holder="job-1", duration=timedelta(hours=1))
    await heartbeats.start("c", "job-1", valid_for=timedelta(milliseconds=200))
    if is_claimed:
        await heartbeats.claim("c", "w", hold=KEEP, holder="job-1")
    call = world.call("job-2", post=posted(), takeover=brisk())
    assert await call.open()
    assert call.is_restart
    assert call.restart_reason is (RestartReason.UNKNOWN if is_claimed else RestartReason.SILENCE)


# What was asked for is not asked for for ever


async def test_a_handover_that_is_done_is_asked_for_no_more(world: World, heartbeats: Heartbeats) -> None:
    """Neither by the one that has gone, nor by the one that has come."""
    first = world.call("job-1")
    await first.open()
    await expect(heartbeats, PLANNED)
    second = world.call("job-2", post=posted())
    await second.open()
    assert second.restart_reason is RestartReason.DEPLOY
    second.ready()
    await asyncio.wait_for(first.handover_asked.wait(), 5)
    await first.hand_over()
    await asyncio.wait_for(second.wait_open(), 5)
    await until(lambda: HANDOVER not in second.attributes)
    assert (first.goes_on_elsewhere, first.is_over) == (True, False)


async def test_what_was_asked_of_a_dead_agent_is_gone_with_it(world: World) -> None:
    """A successor that asked, and died, has left its wish: the next one removes it, but not what is asked of itself."""
    handle = await world.cluster.handle()
    await handle.set_attributes({HANDOVER: {"to": "job-9", "from": "job-1"}})
    call = world.call("job-2", Assignment(conversation_id="c", replaces="job-1"))
    await call.open()
    await until(lambda: HANDOVER not in call.attributes)
    await handle.set_attributes({HANDOVER: {"to": "job-3", "from": "job-2"}})
    await asyncio.wait_for(call.handover_asked.wait(), 5)


# Roles


def say(number: int) -> Message:
    """A message of the caller's."""
    return Message(id=f"u{number}", role="user", content="hello")


def of_role(world: World, role: str, holder: str, **told: Any) -> CallConversation:
    """An agent of this role; closed by the test."""
    return CallConversation(
        "c",
        holder=holder,
        post=posted(**told),
        assignment=Assignment(conversation_id="c"),
        role=role,
        store=world.cluster.settings,
        timing=world.timing,
        takeover=TakeoverSettings(heartbeat=timedelta(milliseconds=5), valid_for=timedelta(seconds=3)),
    )


async def test_two_roles_share_a_conversation_and_nothing_else(world: World, heartbeats: Heartbeats) -> None:
    """One lease, one heartbeat and one set of notes each; what one records is not what the other one restores."""
    agent, translator = world.call("job-1"), of_role(world, "translator", "job-t")
    assert await agent.open()
    assert await translator.open()
    agent.record(say(1))
    translator.record(say(2))
    agent.note("livekit.transcript", "mine")
    translator.note("livekit.transcript", "its")
    translator.note("theirs", 1)
    await agent.flush()
    await translator.flush()
    await until(lambda: len(agent._standing.view.items if agent._standing.view else ()) == 2)
    await until(lambda: agent.attributes.get("theirs") == 1)
    assert [item.id for item in agent.items] == ["u1"]
    assert [item.id for item in translator.items] == ["u2"]
    of_translator = translator.items[0]
    expected = say(2).model_copy(update={"created_at": of_translator.created_at})
    assert of_translator.to_dict() == expected.to_dict()
    assert (agent.noted("livekit.transcript"), translator.noted("livekit.transcript")) == ("mine", "its")
    assert agent.noted(AGENT)["holder"] == "job-1"
    assert translator.noted(AGENT)["holder"] == "job-t"
    handle = await world.cluster.handle()
    assert {name: lease.holder for name, lease in handle.leases.items()} == {"agent": "job-1", "translator": "job-t"}
    stored = {item.id: item.to_dict().get("agent_role") for item in handle.items}
    assert stored == {"u1": None, "u2": "translator"}
    for role, holder in (("", "job-1"), ("translator", "job-t")):
        record = await heartbeats.find("c", role=role)
        assert record is not None
        assert record.holder == holder
    await translator.release()
    assert await heartbeats.find("c", role="translator") is None
    assert await heartbeats.find("c") is not None
    assert not agent.deposed.is_set()
    await translator.aclose()


async def test_a_role_is_followed_by_itself(world: World, heartbeats: Heartbeats) -> None:
    """Its successor restores what it recorded, and the agent beside it stays."""
    agent, first = world.call("job-1"), of_role(world, "translator", "job-t")
    await agent.open()
    await first.open()
    first.record(say(1))
    await first.flush()
    await expect(heartbeats, Assignment(conversation_id="c", role="translator", replaces="job-t", attempt=1))
    second = of_role(world, "translator", "job-u")
    assert await second.open()
    assert second.is_restart
    assert [item.id for item in second.items] == ["u1"]
    await asyncio.wait_for(first.deposed.wait(), 5)
    assert not agent.deposed.is_set()
    await first.aclose()
    await second.aclose()


async def test_one_role_has_one_agent(world: World) -> None:
    """A second one is refused, as for the agent itself."""
    first, second = of_role(world, "translator", "job-t"), of_role(world, "translator", "job-u")
    await first.open()
    with pytest.raises(LeaseHeldError):
        await second.open()
    await first.aclose()
    await second.aclose()


@pytest.mark.parametrize("role", ["", "x" * 65, "two\nlines", 7])
def test_what_is_no_role_is_refused(world: World, role: Any) -> None:
    """By one sentence, before anything is opened."""
    with pytest.raises(InvalidInputError, match="role"):
        of_role(world, role, "job-t")


# Whether a call is over


async def test_a_call_that_ends_in_order_is_over(world: World) -> None:
    """And whoever wants to end its room may."""
    call = world.call()
    await call.open()
    assert (call.is_over, call.goes_on_elsewhere) == (False, False)
    assert await call.confirm()
    await call.release()
    assert (call.is_over, call.goes_on_elsewhere) == (True, False)
    assert await call.confirm()
    await call.aclose()
    assert await call.confirm()


async def test_who_asks_before_our_own_callback_is_told_the_same(world: World) -> None:
    """LiveKit begins an application's callbacks in the order in which they were added, perhaps before ours."""
    answers: list[bool] = []
    with fake_job(FakeRoom(), metadata='{"conversation_id": "c"}') as job:
        conversations: list[CallConversation] = []

        async def hang_up(_reason: str) -> None:
            answers.append(await conversations[0].confirm())

        job.context.add_shutdown_callback(hang_up)
        conversations.append(await open_conversation(job.context))
        await job.shut_down(WORKER_GONE)
    assert answers == [False]
    assert world.agents.trouble is None


async def test_a_call_that_somebody_else_has_is_not(world: World, heartbeats: Heartbeats) -> None:
    """A hung agent that wakes up learns it when it asks; that it thinks that the call is over changes nothing."""
    call = world.call(takeover=TakeoverSettings(heartbeat=timedelta(hours=1), valid_for=timedelta(hours=4)))
    await call.open()
    await heartbeats.claim("c", "w", hold=KEEP, holder="job-1")
    call.ended()
    assert not await call.confirm()
    assert (call.is_over, call.goes_on_elsewhere) == (False, True)


async def test_who_lets_go_too_late_has_not_ended_the_call(world: World, heartbeats: Heartbeats) -> None:
    """Its record is claimed already: it stays, for the successor that is called."""
    call = world.call(takeover=TakeoverSettings(heartbeat=timedelta(hours=1), valid_for=timedelta(hours=4)))
    await call.open()
    await heartbeats.claim("c", "w", hold=KEEP, holder="job-1")
    await call.release()
    assert (call.is_over, call.goes_on_elsewhere) == (False, True)
    assert await heartbeats.find("c") is not None


async def test_while_redis_is_away_nobody_can_say_so(world: World) -> None:
    """Neither can a job that has never had the conversation."""
    call = world.call()
    assert not await call.confirm()
    await call.open()
    world.agents.trouble = StoreUnavailableError("away")
    assert not await call.confirm()
    assert call.failures.counts["confirm"] == 1
    assert not call.goes_on_elsewhere
    world.agents.trouble = None
    assert await call.confirm()


LEFT, REMOVED, DELETED = (
    rtc.DisconnectReason.CLIENT_INITIATED,
    rtc.DisconnectReason.PARTICIPANT_REMOVED,
    rtc.DisconnectReason.ROOM_DELETED,
)
LOST = rtc.DisconnectReason.UNKNOWN_REASON


@pytest.mark.parametrize(
    ("disconnected", "reason", "is_over"),
    [
        ([LEFT], ROOM_LOST, True),
        ([REMOVED], ROOM_LOST, True),
        ([DELETED], ROOM_LOST, True),
        ([LOST], ROOM_LOST, False),
        ([rtc.DisconnectReason.SERVER_SHUTDOWN], ROOM_LOST, False),
        # LiveKit leaves the room itself before the end of any job
        ([LOST, LEFT], ROOM_LOST, False),
        ([LEFT], JOB_CRASHED, False),
        ([LEFT], WORKER_GONE, False),
        # the server ends the job with the room, or with its participant, and tells the worker first
        ([DELETED], WORKER_GONE, True),
        ([REMOVED], WORKER_GONE, True),
        ([LOST], WORKER_GONE, False),
        ([LEFT], NOT_FINISHED, False),
        ([LEFT], "the application's reason", True),
        ([], "the application's reason", True),
    ],
)
async def test_who_leaves_on_purpose_is_not_followed(
    world: World, heartbeats: Heartbeats, disconnected: list[Any], reason: str, *, is_over: bool
) -> None:
    """Having left the room, been put out, or lost it with everybody else; a lost connection is followed."""
    room = FakeRoom()
    with fake_job(room, metadata='{"conversation_id": "c"}') as job:
        conversation = await open_conversation(job.context)
        for why in disconnected:
            room.emit("disconnected", why)
        await job.shut_down(reason)
    assert (conversation.is_over, conversation.goes_on_elsewhere) == (is_over, not is_over)
    assert (await heartbeats.find("c") is None) == is_over
    assert (LEASE in (await world.cluster.handle()).leases) != is_over


async def test_who_was_put_out_by_a_takeover_is_followed(world: World, heartbeats: Heartbeats) -> None:
    """Its record is claimed."""
    room = FakeRoom()
    with fake_job(room, metadata='{"conversation_id": "c"}') as job:
        conversation = await open_conversation(job.context)
        await heartbeats.claim("c", "w", hold=KEEP, holder="job-1")
        room.emit("disconnected", REMOVED)
        await job.shut_down(ROOM_LOST)
    assert (conversation.is_over, conversation.goes_on_elsewhere) == (False, True)
    assert await heartbeats.find("c") is not None
    assert world.agents.trouble is None


async def test_an_entrypoint_that_raises_has_not_ended_the_call(world: World) -> None:
    """It is known before LiveKit closes the session, which comes before its callbacks."""
    conversations: list[CallConversation] = []
    with fake_job(FakeRoom(), metadata='{"conversation_id": "c"}') as job:

        async def entrypoint() -> None:
            conversations.append(await open_conversation(job.context))
            message = "a defect"
            raise RuntimeError(message)

        with pytest.raises(RuntimeError):
            await asyncio.create_task(entrypoint())
        await until(lambda: conversations[0].goes_on_elsewhere)
        await job.shut_down(JOB_CRASHED)
    assert not conversations[0].is_over
    assert world.agents.trouble is None


# What a record tells of a job


async def test_a_record_tells_how_a_job_came(world: World, heartbeats: Heartbeats) -> None:
    """By which dispatch, on which worker; and what it was told, where that is small."""
    call = world.call(post=posted(metadata='{"tier": "gold"}'))
    await call.open()
    record = await heartbeats.find("c")
    assert record is not None
    told = ("dispatch_id", "worker_id", "metadata")
    assert [record.details[name] for name in told] == ["AD_1", "AW_1", '{"tier": "gold"}']


def test_only_what_is_small_is_copied() -> None:
    """As it is written to Redis, where a character may take six."""
    assert copied_metadata("") is None
    assert copied_metadata("x" * 1000) == "x" * 1000
    assert copied_metadata("x" * 1025) is None
    assert copied_metadata("\0" * 1000) is None
    assert MAX_COPIED_CHARACTERS == 1024
