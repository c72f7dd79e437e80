"""Calling the next agent: into a room where somebody waits, once, again and again, and not for ever."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from agent_worker.settings import TakeoverSettings
from agent_worker.tenure.assignment import Assignment, RestartReason
from agent_worker.timing import Timing
from agent_worker.worker.rooms import AgentInRoom, RoomServiceError, UnansweredError
from agent_worker.worker.takeover import HOLD, Deceased, Leave, Takeover, TakeoverOutcome
from conversation_actors import HeartbeatRecord, Heartbeats, Settings
from conversation_actors.client.heartbeats import FORGET
from conversation_actors.errors import ClusterUnavailableError, StoreUnavailableError
from tests.support.fakes import until
from tests.support.sessions.fake_livekit import FakeRooms, ghost
from tests.support.sessions.fakes_call import ROOM, Clock, ShakyStore, on_store

DETAILS = {"room": ROOM, "agent_name": "support", "agent_identity": "agent-1", "attempt": 0}
VALID_FOR = timedelta(seconds=3)
WORKER = "worker-1"
OFTEN = Timing(empty_room=0.002)
QUICK = Timing(empty_room=0.002, takeover_longest_retry=0.004, takeover_redis=0.002)


@pytest.fixture
def rooms(store: ShakyStore) -> FakeRooms:
    """A room with a caller, and what the dead agent left there."""
    return FakeRooms(people=["alice"], agents=[ghost()], store=store)


class GivenUp:
    """Notes what was given up; may be unable to."""

    def __init__(self) -> None:
        """Nothing so far."""
        self.told: list[tuple[str, int]] = []
        self.trouble: Exception | None = None

    async def __call__(self, record: HeartbeatRecord, attempts: int) -> None:
        """Give up."""
        if self.trouble is not None:
            raise self.trouble
        self.told.append((record.conversation_id, attempts))


def make(
    heartbeats: Heartbeats,
    rooms: FakeRooms,
    *,
    linger: float = 0.02,
    give_up: GivenUp | None = None,
    leave: Leave | None = None,
    forget: timedelta = FORGET,
    timing: Timing = OFTEN,
    **settings: Any,
) -> Takeover:
    """A takeover with the product's settings, but for what a test is about."""
    return Takeover(
        heartbeats,
        rooms.as_rooms,
        TakeoverSettings(**settings),
        linger=timedelta(seconds=linger),
        give_up=give_up,
        leave=leave,
        forget=forget,
        timing=timing,
    )


async def looked(rooms: FakeRooms, times: int) -> None:
    """Return when LiveKit was asked who is in the room so many times."""
    async with asyncio.timeout(5):
        while rooms.looks < times:  # noqa: ASYNC110  # the fake has no event for this
            await asyncio.sleep(0.001)


async def die(heartbeats: Heartbeats, details: Any = None, *, holder: str = "job-1") -> HeartbeatRecord:
    """An agent dies, and this worker claims its call."""
    await heartbeats.start("c", holder, valid_for=VALID_FOR, group="g", details=DETAILS if details is None else details)
    claimed = await heartbeats.claim("c", WORKER, hold=HOLD, holder=holder)
    assert claimed is not None
    return claimed


async def again(heartbeats: Heartbeats, clock: Clock, *, after: float) -> HeartbeatRecord | None:
    """What another worker finds that looks for so many seconds."""
    until = clock.now + after
    while not (found := await heartbeats.claim_expired("worker-2", hold=HOLD)) and clock.now < until:
        clock.now = min(until, clock.now + 0.2)
    return found[0] if found else None


async def test_a_successor_is_called_to_the_one_who_waits(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """First the ghost goes, then one agent is asked for, which knows what it is there for."""
    assert await make(heartbeats, rooms).run(await die(heartbeats)) is TakeoverOutcome.DISPATCHED
    wanted = Assignment(conversation_id="c", replaces="job-1", attempt=1, reason=RestartReason.SILENCE)
    assert rooms.asked == [("remove", ROOM, "agent-1"), ("dispatch", ROOM, "support", wanted)]


async def test_only_the_dead_agent_is_put_out(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """Another agent in the room is none of ours to remove; nor is somebody who is gone already."""
    rooms.agents = [ghost("agent-2")]
    assert await make(heartbeats, rooms).run(await die(heartbeats)) is TakeoverOutcome.DISPATCHED
    assert [what for what, *_ in rooms.asked] == ["dispatch"]


async def test_what_it_is_for_is_found_by_its_dispatch(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """It was told before LiveKit was asked, and afterwards by which dispatch it comes."""
    await make(heartbeats, rooms).run(await die(heartbeats), reason=RestartReason.CRASH)
    (expected,) = await heartbeats.expected(ROOM, "support")
    assert expected.call == "AD_2"
    assert Assignment.of(expected.told) == rooms.dispatched[0][2]
    assert rooms.dispatched[0][2].reason is RestartReason.CRASH


async def test_who_is_not_called_is_not_expected(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """LiveKit has refused: nobody else shall find what was meant for its successor. One that may come is expected."""
    record = await die(heartbeats)
    rooms.dispatch_trouble = RoomServiceError("refused")
    running = asyncio.create_task(make(heartbeats, rooms, retry=0.001).run(record))
    await looked(rooms, 3)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert await heartbeats.expected(ROOM, "support") == []
    rooms.dispatch_trouble = UnansweredError("perhaps")
    assert await make(heartbeats, rooms).run(record) is TakeoverOutcome.POSTPONED
    (expected,) = await heartbeats.expected(ROOM, "support")
    assert expected.call == ""


async def test_a_second_try_is_of_the_same_death(heartbeats: Heartbeats, rooms: FakeRooms, clock: Clock) -> None:
    """Whoever asks again, when nobody has come, knows of silence only; the first one knew more."""
    await make(heartbeats, rooms, retry=1).run(await die(heartbeats), reason=RestartReason.CRASH)
    record = await again(heartbeats, clock, after=1.2)
    assert record is not None
    await make(heartbeats, rooms).run(record)
    assert [told.reason for *_, told in rooms.dispatched] == [RestartReason.CRASH] * 2


async def test_a_role_is_followed_in_its_role(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """The successor is told which one it is to be."""
    await heartbeats.start("c", "job-1", role="translator", valid_for=VALID_FOR, details=DETAILS)
    claimed = await heartbeats.claim("c", WORKER, hold=HOLD, holder="job-1", role="translator")
    assert claimed is not None
    assert await make(heartbeats, rooms).run(claimed) is TakeoverOutcome.DISPATCHED
    assert rooms.dispatched[0][2].role == "translator"


async def test_the_claim_is_held_until_the_successor_had_its_time(
    heartbeats: Heartbeats, rooms: FakeRooms, clock: Clock
) -> None:
    """Not asked for again before, but then, by whichever worker looks first."""
    await make(heartbeats, rooms, retry=4).run(await die(heartbeats))
    assert await again(heartbeats, clock, after=3.9) is None
    found = await again(heartbeats, clock, after=0.2)
    assert found is not None
    assert (found.attempt, found.claimant) == (2, "worker-2")


async def test_a_successor_that_begins_ends_the_claim(heartbeats: Heartbeats, rooms: FakeRooms, clock: Clock) -> None:
    """Its own heartbeat takes the place of the dead one's."""
    await make(heartbeats, rooms).run(await die(heartbeats))
    await heartbeats.start("c", "job-2", valid_for=VALID_FOR, details=DETAILS)
    assert await again(heartbeats, clock, after=2.9) is None


async def test_who_is_late_finds_the_record_gone_only_after_linger(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """Nobody is in the room: somebody may come back (a page that is reloaded), then there is no call any more."""
    rooms.people = []
    started = asyncio.get_running_loop().time()
    assert await make(heartbeats, rooms, linger=0.1).run(await die(heartbeats)) is TakeoverOutcome.NOBODY_THERE
    assert asyncio.get_running_loop().time() - started >= 0.1
    assert rooms.looks > 3
    assert rooms.asked == []
    assert await heartbeats.find("c") is None


async def test_somebody_who_comes_back_in_time_gets_an_agent(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """The wait ends with the first person in the room."""
    rooms.people = []
    running = asyncio.create_task(make(heartbeats, rooms, linger=60.0).run(await die(heartbeats)))
    await rooms.looked_at.wait()
    rooms.people = ["alice"]
    assert await asyncio.wait_for(running, 5) is TakeoverOutcome.DISPATCHED
    assert len(rooms.dispatched) == 1


async def test_the_claim_is_kept_while_somebody_is_waited_for(
    heartbeats: Heartbeats, rooms: FakeRooms, clock: Clock
) -> None:
    """However long that is, no second worker begins; should this one die, the next begins soon."""
    rooms.people = []
    running = asyncio.create_task(make(heartbeats, rooms, linger=60.0).run(await die(heartbeats)))
    for _ in range(5):
        await looked(rooms, rooms.looks + 2)
        assert await again(heartbeats, clock, after=HOLD.total_seconds() * 0.7) is None
    running.cancel()
    assert await again(heartbeats, clock, after=HOLD.total_seconds() + 0.1) is not None


async def test_a_room_that_is_gone_has_nobody_to_wait_for(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """It is settled at the first look."""
    rooms.exists = False
    assert await make(heartbeats, rooms, linger=60.0).run(await die(heartbeats)) is TakeoverOutcome.NOBODY_THERE
    assert rooms.looks == 1
    assert await heartbeats.find("c") is None


@pytest.mark.parametrize("fault", [None, ClusterUnavailableError("no Ray"), ValueError("a bug"), "hangs"])
async def test_it_is_said_once_that_nobody_is_in_the_room(
    heartbeats: Heartbeats, rooms: FakeRooms, fault: Exception | str | None
) -> None:
    """If it can be said; nobody is kept by that, and no other worker follows the call."""
    rooms.exists, said = False, list[str]()

    async def leave(record: HeartbeatRecord) -> None:
        said.append(record.holder)
        if isinstance(fault, Exception):
            raise fault
        if fault is not None:
            await asyncio.Event().wait()

    takeover = make(heartbeats, rooms, leave=leave, timing=replace(QUICK, last_note=0.02 if fault else 60.0))
    assert await takeover.run(await die(heartbeats)) is TakeoverOutcome.NOBODY_THERE
    assert said == ["job-1"]
    assert await heartbeats.find("c") is None


async def test_of_an_agent_that_never_had_the_call_nothing_is_said(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """There may be no conversation."""
    rooms.exists, said = False, list[HeartbeatRecord]()

    async def leave(record: HeartbeatRecord) -> None:
        said.append(record)

    record = await die(heartbeats, {**DETAILS, "was_open": False})
    assert await make(heartbeats, rooms, leave=leave).run(record) is TakeoverOutcome.NOBODY_THERE
    assert said == []


async def second_attempt(heartbeats: Heartbeats, clock: Clock) -> HeartbeatRecord:
    """The record, claimed for the second time."""
    await die(heartbeats)
    found = await again(heartbeats, clock, after=HOLD.total_seconds() + 0.1)
    assert found is not None
    return found


async def test_an_agent_that_has_just_joined_is_given_time(
    heartbeats: Heartbeats, rooms: FakeRooms, clock: Clock
) -> None:
    """It is in the room, and waits for Ray, say: nobody else is called, and no attempt is counted, until it begins."""
    record = await second_attempt(heartbeats, clock)
    rooms.agents = [ghost("agent-2", age=1.0)]
    running = asyncio.create_task(make(heartbeats, rooms, retry=0.001).run(record))
    await looked(rooms, 4)
    assert await again(heartbeats, clock, after=0.0) is None
    await heartbeats.start("c", "job-2", valid_for=VALID_FOR, details=DETAILS)
    assert await asyncio.wait_for(running, 5) is TakeoverOutcome.SUCCEEDED
    assert rooms.asked == []


async def test_an_agent_of_another_role_is_nobody_who_is_coming(
    heartbeats: Heartbeats, rooms: FakeRooms, clock: Clock
) -> None:
    """It is in the room for what it is there for, and stays: it would be waited for, for ever."""
    record = await second_attempt(heartbeats, clock)
    await heartbeats.start("c", "job-t", role="translator", valid_for=VALID_FOR, details=DETAILS)
    rooms.agents = [ghost("agent-job-t", age=1.0)]
    assert await make(heartbeats, rooms).run(record) is TakeoverOutcome.DISPATCHED


@pytest.mark.parametrize("identity", ["agent-", "agent-\0", "my agent", "x" * 300])
async def test_an_agent_that_nobody_knows_may_be_the_one_that_is_coming(
    heartbeats: Heartbeats, rooms: FakeRooms, clock: Clock, identity: str
) -> None:
    """Whatever its identity is, it is given time."""
    record = await second_attempt(heartbeats, clock)
    rooms.agents = [ghost(identity, age=1.0)]
    running = asyncio.create_task(make(heartbeats, rooms, retry=0.001).run(record))
    await looked(rooms, 3)
    assert rooms.asked == []
    rooms.agents = []
    assert await asyncio.wait_for(running, 5) is TakeoverOutcome.DISPATCHED


async def test_an_agent_that_joined_and_left_is_followed(
    heartbeats: Heartbeats, rooms: FakeRooms, clock: Clock
) -> None:
    """It never had the lease; the claim that waited for it goes on."""
    record = await second_attempt(heartbeats, clock)
    rooms.agents = [ghost("agent-2", age=1.0)]
    running = asyncio.create_task(make(heartbeats, rooms, retry=0.001).run(record))
    await looked(rooms, 2)
    rooms.agents = []
    assert await asyncio.wait_for(running, 5) is TakeoverOutcome.DISPATCHED
    assert rooms.dispatched[0][2].attempt == 2


async def test_who_never_had_the_call_may_have_a_colleague(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """A job died before it began: another agent in its room may be the one that has the call."""
    rooms.agents = [ghost("agent-2", age=1.0)]
    record = await die(heartbeats, {**DETAILS, "was_open": False})
    running = asyncio.create_task(make(heartbeats, rooms, retry=0.001).run(record))
    await looked(rooms, 3)
    assert rooms.asked == []
    rooms.agents = [ghost("agent-1")]
    assert await asyncio.wait_for(running, 5) is TakeoverOutcome.DISPATCHED


@pytest.mark.parametrize(
    "agents",
    [
        pytest.param([ghost("agent-1", age=1.0)], id="the dead one itself"),
        pytest.param([ghost("agent-2", name="billing", age=1.0)], id="one of another name"),
    ],
)
async def test_other_agents_are_no_reason_to_wait(
    heartbeats: Heartbeats, rooms: FakeRooms, clock: Clock, agents: list[AgentInRoom]
) -> None:
    """At a second attempt the successor must be another one, and of this name."""
    rooms.agents = agents
    assert await make(heartbeats, rooms).run(await second_attempt(heartbeats, clock)) is TakeoverOutcome.DISPATCHED


async def test_the_first_attempt_waits_for_nobody(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """Nobody was called before it: an agent that has just joined is not its successor."""
    rooms.agents = [ghost("agent-2", age=0.5)]
    assert await make(heartbeats, rooms).run(await die(heartbeats)) is TakeoverOutcome.DISPATCHED


async def test_while_livekit_is_down_nothing_is_counted(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """However often it is asked in vain, the call is mended when it answers, and that is the first attempt."""
    given_up = GivenUp()
    rooms.is_down = True
    takeover = make(heartbeats, rooms, give_up=given_up, timing=QUICK, attempts=2, retry=0.001)
    running = asyncio.create_task(takeover.run(await die(heartbeats)))
    await looked(rooms, 12)
    assert not running.done()
    rooms.is_down = False
    assert await asyncio.wait_for(running, 5) is TakeoverOutcome.DISPATCHED
    assert rooms.dispatched[0][2].attempt == 1
    assert given_up.told == []


async def test_while_livekit_is_down_the_claim_is_kept(heartbeats: Heartbeats, rooms: FakeRooms, clock: Clock) -> None:
    """No second worker begins; should this one die, the next begins after the pause."""
    rooms.is_down = True
    running = asyncio.create_task(make(heartbeats, rooms, retry=0.01).run(await die(heartbeats)))
    for _ in range(3):
        await looked(rooms, rooms.looks + 2)
        assert await again(heartbeats, clock, after=HOLD.total_seconds() * 0.7) is None
    running.cancel()
    assert await again(heartbeats, clock, after=HOLD.total_seconds() + 1) is not None


async def test_a_claim_lost_while_livekit_is_down_ends_it(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """An agent came by another way."""
    rooms.is_down = True
    running = asyncio.create_task(make(heartbeats, rooms, retry=0.001).run(await die(heartbeats)))
    await looked(rooms, 2)
    await heartbeats.start("c", "job-2", valid_for=VALID_FOR, details=DETAILS)
    assert await asyncio.wait_for(running, 5) is TakeoverOutcome.SUCCEEDED


async def test_livekit_down_for_an_hour_ends_the_call(heartbeats: Heartbeats, rooms: FakeRooms, clock: Clock) -> None:
    """Nobody waits any more; that is said, by somebody who can say it."""
    rooms.is_down = True
    forget, given_up = timedelta(seconds=0.02), GivenUp()
    record = await die(heartbeats)
    assert await make(heartbeats, rooms, forget=forget, retry=0.001).run(record) is TakeoverOutcome.POSTPONED
    found = await again(heartbeats, clock, after=HOLD.total_seconds() + 1)
    assert found is not None
    takeover = make(heartbeats, rooms, forget=forget, retry=0.001, give_up=given_up)
    assert await takeover.run(found) is TakeoverOutcome.GIVEN_UP
    assert given_up.told == [("c", 1)]
    assert await heartbeats.find("c") is None


async def test_livekit_may_fail_in_the_middle(heartbeats: Heartbeats, store: ShakyStore) -> None:
    """After the look, before the dispatch: as good as down all the time."""

    class Failing(FakeRooms):
        async def remove(self, room: str, identity: str) -> bool:
            self.is_down = True
            return await super().remove(room, identity)

    failing = Failing(people=["alice"], agents=[ghost()], store=store)
    running = asyncio.create_task(make(heartbeats, failing, retry=0.001).run(await die(heartbeats)))
    await looked(failing, 3)
    failing.agents, failing.is_down = [], False
    assert await asyncio.wait_for(running, 5) is TakeoverOutcome.DISPATCHED
    assert failing.dispatched[0][2].attempt == 1


async def test_a_dispatch_that_was_refused_is_no_attempt(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """Nobody can come of it: it is asked for again, as the same attempt."""
    rooms.dispatch_trouble = RoomServiceError("refused")
    running = asyncio.create_task(make(heartbeats, rooms, retry=0.001).run(await die(heartbeats)))
    await looked(rooms, 4)
    rooms.dispatch_trouble = None
    assert await asyncio.wait_for(running, 5) is TakeoverOutcome.DISPATCHED
    assert rooms.dispatched[0][2].attempt == 1


async def test_a_dispatch_without_an_answer_is_an_attempt(
    heartbeats: Heartbeats, rooms: FakeRooms, clock: Clock
) -> None:
    """A successor may be on its way: it gets its time, and then the next one is the second."""
    rooms.dispatch_trouble = UnansweredError("no answer")
    assert await make(heartbeats, rooms).run(await die(heartbeats)) is TakeoverOutcome.POSTPONED
    assert rooms.looks == 1
    assert await again(heartbeats, clock, after=2.9) is None
    found = await again(heartbeats, clock, after=0.2)
    assert found is not None
    assert found.attempt == 2


class Away(Heartbeats):
    """Redis answers nothing about claims while it is away, however often it is asked."""

    is_away, asked = True, 0

    def _answer(self) -> None:
        self.asked += 1
        if self.is_away:
            message = "away"
            raise StoreUnavailableError(message)

    async def postpone(self, record: HeartbeatRecord, *, delay: timedelta) -> bool:
        """Not while it is away."""
        self._answer()
        return await super().postpone(record, delay=delay)

    async def settle(self, record: HeartbeatRecord) -> bool:
        """Nor this."""
        self._answer()
        return await super().settle(record)


@pytest.fixture
async def away(monkeypatch: pytest.MonkeyPatch, store: ShakyStore) -> AsyncIterator[Away]:
    """Redis is away for this worker; `heartbeats` are others'."""
    with on_store(monkeypatch, store):
        async with Away(Settings()) as entered:
            yield entered


async def test_while_redis_is_down_nothing_is_counted(
    heartbeats: Heartbeats, away: Away, rooms: FakeRooms, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is called without a claim that holds; when Redis answers, the call is mended as the first attempt."""
    running = asyncio.create_task(make(away, rooms).run(await die(heartbeats)))
    await until(lambda: away.asked >= 20 or running.done())
    assert not running.done()
    assert (rooms.looks, rooms.asked) == (1, [])
    away.is_away = False
    assert await asyncio.wait_for(running, 5) is TakeoverOutcome.DISPATCHED
    assert rooms.dispatched[0][2].attempt == 1
    assert rooms.looks == 2
    assert 1 <= len([line for line in caplog.records if "Redis" in line.getMessage()]) <= 2


async def test_a_claim_lost_while_redis_is_down_ends_it(heartbeats: Heartbeats, away: Away, rooms: FakeRooms) -> None:
    """An agent came by another way; only Redis can say so."""
    running = asyncio.create_task(make(away, rooms).run(await die(heartbeats)))
    await looked(rooms, 1)
    await heartbeats.start("c", "job-2", valid_for=VALID_FOR, details=DETAILS)
    away.is_away = False
    assert await asyncio.wait_for(running, 5) is TakeoverOutcome.SUCCEEDED
    assert rooms.asked == []


async def test_an_empty_room_is_put_away_when_redis_answers(
    heartbeats: Heartbeats, away: Away, rooms: FakeRooms
) -> None:
    """The end of a call that nobody is in waits for Redis as well."""
    rooms.people, rooms.exists = [], False
    running = asyncio.create_task(make(away, rooms).run(await die(heartbeats)))
    await until(lambda: away.asked >= 3 or running.done())
    away.is_away = False
    assert await asyncio.wait_for(running, 5) is TakeoverOutcome.NOBODY_THERE
    assert await heartbeats.find("c") is None


async def test_redis_down_for_an_hour_ends_the_wait(heartbeats: Heartbeats, away: Away, rooms: FakeRooms) -> None:
    """A worker's supervisor leaves the call to whoever finds it then."""
    record = await die(heartbeats)
    assert await make(away, rooms, forget=timedelta(seconds=0.02)).run(record) is TakeoverOutcome.POSTPONED
    assert rooms.asked == []


async def test_a_call_whose_agents_all_die_is_given_up(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """Once: it is told how often it was tried, nobody is called, and the record is gone."""
    given_up = GivenUp()
    takeover = make(heartbeats, rooms, give_up=given_up, attempts=3)
    record = await die(heartbeats, {**DETAILS, "attempt": 3})
    assert await takeover.run(record) is TakeoverOutcome.GIVEN_UP
    assert given_up.told == [("c", 3)]
    assert rooms.asked == []
    assert await heartbeats.find("c") is None


async def test_the_last_attempt_is_still_made(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """As many successors as the settings say, the ones of the agents before this one included."""
    takeover = make(heartbeats, rooms, give_up=GivenUp(), attempts=3)
    assert await takeover.run(await die(heartbeats, {**DETAILS, "attempt": 2})) is TakeoverOutcome.DISPATCHED
    assert rooms.dispatched[0][2].attempt == 3


async def test_who_cannot_say_it_leaves_it_to_the_next(heartbeats: Heartbeats, rooms: FakeRooms, clock: Clock) -> None:
    """A worker's supervisor has no connection to Ray: the claim expires, and a worker gives the call up."""
    record = await die(heartbeats, {**DETAILS, "attempt": 9})
    assert await make(heartbeats, rooms).run(record) is TakeoverOutcome.POSTPONED
    assert await again(heartbeats, clock, after=HOLD.total_seconds() + 0.1) is not None


async def test_what_could_not_be_said_is_tried_again(heartbeats: Heartbeats, rooms: FakeRooms, clock: Clock) -> None:
    """Ray is away at that moment: the record stays, for the next worker."""
    given_up = GivenUp()
    given_up.trouble = StoreUnavailableError("away")
    takeover = make(heartbeats, rooms, give_up=given_up)
    with pytest.raises(StoreUnavailableError):
        await takeover.run(await die(heartbeats, {**DETAILS, "attempt": 9}))
    found = await again(heartbeats, clock, after=HOLD.total_seconds() + 0.1)
    assert found is not None
    given_up.trouble = None
    assert await takeover.run(found) is TakeoverOutcome.GIVEN_UP
    assert len(given_up.told) == 1


FOREIGN: dict[str, dict[str, Any]] = {
    "nothing": {},
    "no room": {"agent_name": "a", "agent_identity": "b"},
    "an empty room": {**DETAILS, "room": ""},
    "a room that is a number": {**DETAILS, "room": 7},
    "a name that is a list": {**DETAILS, "agent_name": ["support"]},
    "no identity": {"room": "r", "agent_name": "a", "agent_identity": None},
    "attempts in words": {**DETAILS, "attempt": "two"},
    "half an attempt": {**DETAILS, "attempt": 1.5},
    "attempts below zero": {**DETAILS, "attempt": -3},
    "attempts far below zero": {**DETAILS, "attempt": -(2**63)},
}


@pytest.mark.parametrize("case", FOREIGN)
async def test_the_record_of_another_program_is_put_away(heartbeats: Heartbeats, rooms: FakeRooms, case: str) -> None:
    """It does not say where to go; LiveKit is not asked, nothing is raised, and nobody looks at it again."""
    assert await make(heartbeats, rooms, give_up=GivenUp()).run(await die(heartbeats, FOREIGN[case])) is (
        TakeoverOutcome.GIVEN_UP
    )
    assert (rooms.looks, rooms.asked) == (0, [])
    assert await heartbeats.find("c") is None


async def test_a_huge_count_is_no_crash(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """Whatever wrote it, the call is given up as after too many."""
    given_up = GivenUp()
    record = await die(heartbeats, {**DETAILS, "attempt": 2**63})
    assert await make(heartbeats, rooms, give_up=given_up).run(record) is TakeoverOutcome.GIVEN_UP
    assert given_up.told == [("c", 2**63)]


async def test_a_claim_that_was_lost_calls_nobody(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """A successor began while LiveKit was asked: no ghost is removed, no agent is dispatched."""
    record = await die(heartbeats)
    await heartbeats.start("c", "job-2", valid_for=VALID_FOR, details=DETAILS)
    assert await make(heartbeats, rooms).run(record) is TakeoverOutcome.SUCCEEDED
    assert rooms.asked == []
    kept = await heartbeats.find("c")
    assert kept is not None
    assert kept.holder == "job-2"


async def test_a_claim_that_another_worker_took_calls_nobody(
    heartbeats: Heartbeats, rooms: FakeRooms, clock: Clock
) -> None:
    """This worker was too slow: its claim expired, and the other one's counts."""
    record = await die(heartbeats)
    assert await again(heartbeats, clock, after=HOLD.total_seconds() + 0.1) is not None
    assert await make(heartbeats, rooms).run(record) is TakeoverOutcome.SUCCEEDED
    assert rooms.asked == []


async def test_a_claim_lost_while_waiting_ends_the_wait(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """Somebody comes back and brings an agent along (a dispatch in its token)."""
    rooms.people = []
    running = asyncio.create_task(make(heartbeats, rooms, linger=60.0).run(await die(heartbeats)))
    await rooms.looked_at.wait()
    await heartbeats.start("c", "job-2", valid_for=VALID_FOR, details=DETAILS)
    assert await asyncio.wait_for(running, 5) is TakeoverOutcome.SUCCEEDED
    assert rooms.asked == []


@pytest.mark.parametrize(("attempts", "seconds"), [(6, [3, 6, 12, 24, 30, 30])])
async def test_the_time_between_attempts_doubles(
    heartbeats: Heartbeats, rooms: FakeRooms, clock: Clock, attempts: int, seconds: list[float]
) -> None:
    """Up to half a minute."""
    rooms.agents = []
    takeover = make(heartbeats, rooms, attempts=attempts)
    record: HeartbeatRecord | None = await die(heartbeats)
    for wait in seconds:
        assert record is not None
        assert await takeover.run(record) is TakeoverOutcome.DISPATCHED
        assert await again(heartbeats, clock, after=wait - 0.1) is None
        record = await again(heartbeats, clock, after=0.2)


async def test_the_most_attempts_that_settings_allow(heartbeats: Heartbeats, rooms: FakeRooms, clock: Clock) -> None:
    """The hundredth doubling is no number of days any more, and no failure either."""
    record = await die(heartbeats, {**DETAILS, "attempt": 99})
    assert await make(heartbeats, rooms, attempts=100).run(record) is TakeoverOutcome.DISPATCHED
    assert await again(heartbeats, clock, after=30.1) is not None


async def test_what_became_of_it_is_told_in_one_line(
    heartbeats: Heartbeats, rooms: FakeRooms, caplog: pytest.LogCaptureFixture
) -> None:
    """With the conversation, the holder, the outcome and the attempt."""
    caplog.set_level(logging.WARNING)
    await make(heartbeats, rooms).run(await die(heartbeats))
    (line,) = (record for record in caplog.records if record.name == "agent_worker.worker.takeover")
    told = {name: line.__dict__[name] for name in ("conversation_id", "holder", "outcome", "attempt")}
    assert told == {"conversation_id": "c", "holder": "job-1", "outcome": "dispatched", "attempt": 1}


def test_what_a_heartbeat_tells_of_the_dead() -> None:
    """Attempts of agents before it, and claims of its own, add up."""
    record = HeartbeatRecord("c", "job-1", "g", {**DETAILS, "attempt": 2}, 3, WORKER, HOLD)
    assert Deceased.of(record) == Deceased(ROOM, "support", "agent-1", 5)
    assert Deceased.of(replace(record, details={**DETAILS, "agent_name": ""})) is not None
    unopened = Deceased.of(replace(record, details={**DETAILS, "was_open": False}))
    assert unopened is not None
    assert not unopened.was_open
