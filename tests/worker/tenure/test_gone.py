"""A job whose conversation, lease or Redis is gone for a while, or for good: what it does about it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from agent_worker.settings import TakeoverSettings
from agent_worker.tenure.conversation import AGENT, LEASE, CallConversation
from agent_worker.tenure.trouble import MAX_OWNER_FAILURES
from conversation_actors import ConversationHandle, Item, Lease, Message
from conversation_actors.activation import Activation
from conversation_actors.errors import (
    ConflictError,
    ConversationClosedError,
    ConversationError,
    ConversationNotFoundError,
    CorruptStateError,
    IncompatibleVersionError,
    LeaseLostError,
    OutcomeUnknownError,
    OverloadedError,
    OwnerFailedError,
    StoreMisconfiguredError,
    StoreUnavailableError,
)
from conversation_actors.protocol import Executed, Request
from conversation_actors.state import AppendItems
from tests.support.fakes import until
from tests.support.sessions.fakes_call import World
from tests.support.tasks import running

HOUR = timedelta(hours=1)
LATE = 10.0
"""Seconds until something that does not happen fails its test."""


def say(number: int, text: str = "hello") -> Message:
    """A message of the caller's."""
    return Message(id=f"u{number}", role="user", content=text)


def ids(conversation: CallConversation | ConversationHandle) -> list[str]:
    """Ids of the history."""
    return [item.id for item in conversation.items]


class Session:
    """Whoever has the items of a call, and gives them again when they are missed."""

    def __init__(self, call: CallConversation) -> None:
        """Begin without any."""
        self.items: list[Message] = []
        self.asked: list[bool] = []
        self._call = call
        call.on_items_missed(self._again)

    def say(self, number: int, text: str = "hello") -> None:
        """Something is said."""
        self.items.append(say(number, text))
        self._call.record(self.items[-1])

    def _again(self, is_afresh: bool) -> None:  # noqa: FBT001  # a callback of one value
        self.asked.append(is_afresh)
        for item in self.items:
            self._call.record(item)


async def begun(world: World) -> tuple[CallConversation, Session]:
    """Begin a call, and whoever has its items."""
    call = world.call()
    assert await call.open()
    return call, Session(call)


async def vanish(world: World) -> None:
    """The keys of the conversation are gone, and so is its owner."""
    await world.lose_everything()


async def held_by(world: World) -> str | None:
    """Who holds the lease, as the owner says."""
    leases = (await (await world.cluster.handle()).snapshot(fresh=True)).leases
    return leases[LEASE].holder if LEASE in leases else None


# Kept


async def test_a_living_jobs_conversation_is_kept(world: World) -> None:
    """From the moment it is open, though no owner runs: its keys do not expire before the job ends."""
    call = world.call()
    await call.open()
    await until(lambda: world.store.kept == [world.cluster.settings.ttl])
    assert not call.failures.counts


async def test_a_conversation_is_kept_before_its_retention_ends(world: World) -> None:
    """A few times in each retention, however short that is, also where it became so during the call."""
    call = world.call()
    await call.open()
    await until(lambda: len(world.store.kept) == 1)
    handle = await world.cluster.handle()
    await handle.set_retention(timedelta(seconds=1))
    await until(lambda: call._standing.handle is not None and call._standing.handle.retention is not None)
    await world.cluster.kill()
    before = asyncio.get_running_loop().time()
    await until(lambda: world.store.kept[1:] == [timedelta(seconds=1)] * 4)
    assert 0.6 < asyncio.get_running_loop().time() - before < LATE


async def test_a_conversation_that_could_not_be_kept_is_kept_at_the_next_beat(world: World) -> None:
    """Redis was away for a moment: that is counted, and no reason to wait for the next time."""
    world.agents.trouble = None
    call = world.call()
    original = world.store.keep

    async def away(conversation_id: str, *, ttl: timedelta) -> timedelta | None:
        message = "away"
        raise StoreUnavailableError(message)

    world.store.keep = away  # type: ignore[method-assign]
    await call.open()
    await until(lambda: call.failures.counts.get("keep", 0) > 1)
    world.store.keep = original  # type: ignore[method-assign]
    await until(lambda: len(world.store.kept) == 1)


async def test_a_call_that_is_over_is_kept_no_longer(world: World) -> None:
    """It goes after its own retention."""
    call = world.call()
    await call.open()
    handle = await world.cluster.handle()
    await handle.set_retention(timedelta(seconds=1))
    await until(lambda: len(world.store.kept) > 1)
    assert running("Tenure.keep_conversation")
    await call.release()
    await until(lambda: not running("Tenure.keep_conversation"))


# Gone


async def test_a_conversation_that_is_gone_is_opened_again(world: World) -> None:
    """With this job as its agent, what its session has, and what it noted; what follows is taken as before."""
    world.timing = replace(world.timing, keep=60.0)
    call, session = await begun(world)
    for number in range(3):
        session.say(number)
    call.note("livekit.transcript", {"text": "and then"})
    await call.flush()
    await vanish(world)
    session.say(3)
    await until(lambda: ids(call) == ["u0", "u1", "u2", "u3"])
    session.say(4)
    await call.flush()
    assert ids(await world.cluster.handle()) == ["u0", "u1", "u2", "u3", "u4"]
    assert call.attributes["livekit.transcript"] == {"text": "and then"}
    assert call.attributes[AGENT]["holder"] == "job-1"
    assert await held_by(world) == "job-1"
    # whoever flushes may be told later of what was refused before: then it is asked once more, in vain
    assert [session.asked[0], *set(session.asked[1:])] in [[True], [True, False]]
    assert not call.deposed.is_set()


@pytest.mark.parametrize("trace", ["a change", "a note", "nothing"])
async def test_whatever_is_refused_tells_that_it_is_gone(world: World, trace: str) -> None:
    """Also that nothing is: the job is told that there was nothing to keep."""
    call, session = await begun(world)
    session.say(1)
    await call.flush()
    handle = await world.cluster.handle()
    await handle.set_retention(timedelta(seconds=1))
    await until(lambda: len(world.store.kept) > 1)
    await vanish(world)
    if trace == "a change":
        call.later(lambda handle, lease: handle.join("alice", lease=lease))
    elif trace == "a note":
        call.note("x", 1)
    await until(lambda: session.asked == [True])
    await call.flush()
    assert ids(call) == ["u1"]


async def test_one_that_was_made_again_by_somebody_else_is_told_all(world: World) -> None:
    """A lease of the new life may have the number of the old one: the life tells."""
    call, session = await begun(world)
    session.say(1)
    await call.flush()
    await vanish(world)
    await world.cluster.handle()
    session.say(2)
    await until(lambda: ids(call) == ["u1", "u2"])
    assert await held_by(world) == "job-1"


async def test_one_that_another_agent_has_by_now_is_left_to_it(world: World) -> None:
    """Its keys were gone, and another job was quicker: whatever the number of its lease is."""
    call = world.call()
    await call.open()
    for number in range(9):
        await (await world.cluster.handle()).append(say(number))
    await call.flush()
    await vanish(world)
    handle = await world.cluster.handle()
    taken = await handle.acquire_lease(LEASE, holder="job-2", duration=HOUR)
    assert taken.token == 1
    async with asyncio.timeout(LATE):
        await call.deposed.wait()
    await call.aclose()
    assert await held_by(world) == "job-2"


async def test_a_gone_conversation_is_opened_however_long_that_takes(world: World) -> None:
    """Ray and Redis come back one after the other; the call goes on meanwhile."""
    call, session = await begun(world)
    session.say(1)
    await call.flush()
    world.may_open.clear()
    await vanish(world)
    session.say(2)
    await until(lambda: call._standing.held._is_gone)
    session.say(3)
    world.store.is_down = True
    asked = world.cluster.calls["open"]
    world.may_open.set()
    await until(lambda: world.cluster.calls["open"] > asked + 2)
    world.store.is_down = False
    await until(lambda: ids(call) == ["u1", "u2", "u3"])


async def test_a_call_that_ends_when_it_is_gone_opens_nothing(world: World) -> None:
    """Nobody would come to look at it, and the end of a job is not the time to wait."""
    call = world.call(takeover=TakeoverSettings(heartbeat=timedelta(seconds=60), valid_for=timedelta(seconds=180)))
    await call.open()
    await call.flush()
    await vanish(world)
    started = asyncio.get_running_loop().time()
    await call.release()
    assert asyncio.get_running_loop().time() - started < 2
    assert await world.store.head("c") is None


async def test_gone_while_it_is_opened_it_is_opened_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the first answer and the lease: no refusal, but a reason to begin anew."""
    acquire = ConversationHandle.acquire_lease
    tries: list[str] = []

    async def once_gone(self: ConversationHandle, name: str, **named: Any) -> Lease:
        tries.append(name)
        if len(tries) == 1:
            message = "gone"
            raise ConversationNotFoundError(message)
        return await acquire(self, name, **named)

    monkeypatch.setattr(ConversationHandle, "acquire_lease", once_gone)
    call = world.call()
    assert await call.open()
    assert len(tries) == 2
    assert not call.deposed.is_set()


# The lease


async def test_a_lease_that_is_gone_is_taken_again_at_once(world: World) -> None:
    """Long before it would be renewed; what was refused meanwhile is recorded again."""
    call, session = await begun(world)
    session.say(1)
    await call.flush()
    handle = await world.cluster.handle()
    lease = handle.leases[LEASE]
    await handle.release_lease(lease)
    session.say(2)
    await until(lambda: ids(call) == ["u1", "u2"])
    call.note("x", 1)
    await call.flush()
    assert handle.leases[LEASE].token > lease.token
    assert call.attributes["x"] == 1
    assert not call.deposed.is_set()


async def test_an_older_copy_deposes_nobody(world: World) -> None:
    """That still shows the one before: the owner is asked."""
    call = world.call()
    await call.open()
    await call.flush()
    mine = (await world.cluster.handle()).leases[LEASE]
    held = call._standing.held
    held._is_shown = False
    held.compare(Lease(LEASE, "job-0", mine.token - 1, mine.expires_at))
    assert not call.deposed.is_set()
    held._is_shown = True
    held.compare(Lease(LEASE, "job-2", mine.token - 1, mine.expires_at, "another life"))
    assert call.deposed.is_set()


# An outbox that is full


async def test_what_did_not_fit_is_recorded_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, and asked for when the conversation answers again; what follows waits for that, in order."""
    call, session = await begun(world)
    record = ConversationHandle.record
    is_full = True

    def picky(self: ConversationHandle, *items: Item, lease: Lease | None = None) -> None:
        if is_full:
            message = "full"
            raise OverloadedError(message)
        record(self, *items, lease=lease)

    monkeypatch.setattr(ConversationHandle, "record", picky)
    with pytest.raises(OverloadedError):
        session.say(0)
    assert call.lost == call.failures.counts["items"] == 1
    is_full = False
    for number in range(1, 3):
        session.say(number)
    await call.flush()
    assert ids(call) == ["u0", "u1", "u2"]


# Refused for the sake of the store, the owner or a closing


def refuse(
    monkeypatch: pytest.MonkeyPatch, error: ConversationError, *, times: int, item: str = ""
) -> Callable[[], int]:
    """Have the owner refuse the first appends (that hold `item`), as it refuses what it cannot store; tell how many."""
    execute = Activation.execute
    left = times

    async def picky(self: Activation, requests: Sequence[Request], **named: Any) -> Executed:
        nonlocal left
        if left and any(isinstance(r.command, AppendItems) and _has(r.command, item) for r in requests):
            left -= 1
            raise error
        return await execute(self, requests, **named)

    monkeypatch.setattr(Activation, "execute", picky)
    return lambda: times - left


def _has(command: AppendItems, item: str) -> bool:
    return not item or any(one.id == item for one in command.items)


@pytest.mark.parametrize(
    "error",
    [
        StoreMisconfiguredError("NOPERM"),
        OwnerFailedError("a defect"),
        IncompatibleVersionError("of another version"),
        CorruptStateError("unreadable", key="k", position=0),
        ConversationClosedError("closed"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_was_refused_for_another_sake_than_its_own_is_recorded_again(
    world: World, monkeypatch: pytest.MonkeyPatch, error: ConversationError
) -> None:
    """As soon as the owner takes items, and what follows behind it; a flush tells of nothing that was mended."""
    call, session = await begun(world)
    session.say(0)
    await call.flush()
    refused = refuse(monkeypatch, error, times=2)
    session.say(1)
    await until(lambda: refused() > 0)
    session.say(2)
    await call.flush()
    handle = await world.cluster.handle()
    # what was taken before anybody knew of the refusal is stored before what was refused
    assert sorted(ids(handle)) == ["u0", "u1", "u2"]
    assert not call.deposed.is_set()


async def test_an_item_that_the_owner_always_fails_at_costs_only_itself(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a few tries it is taken for the item's fault, as the flush tells; what follows is stored."""
    call, session = await begun(world)
    refused = refuse(monkeypatch, OwnerFailedError("a defect"), times=1000, item="u1")
    session.say(1)
    with pytest.raises(OwnerFailedError):
        await call.flush()
    assert refused() <= MAX_OWNER_FAILURES + 1
    session.items.clear()
    session.say(2)
    await call.flush()
    assert ids(await world.cluster.handle()) == ["u2"]


async def test_a_conversation_that_was_closed_in_mid_call_is_reopened(world: World) -> None:
    """As one that was closed before the call: what is said and done after that is in it, by the same agent."""
    call, session = await begun(world)
    session.say(0)
    await call.flush()
    handle = await world.cluster.handle()
    await handle.close_conversation("by somebody who did not know of the call")
    session.say(1)
    call.note("x", 1)
    await call.flush()
    assert call._standing.handle is not None
    snapshot = await call._standing.handle.snapshot()
    assert [item.id for item in snapshot.items] == ["u0", "u1"]
    assert snapshot.closing is None
    assert snapshot.attributes["x"] == 1
    assert snapshot.leases[LEASE].holder == "job-1"
    assert not call.deposed.is_set()


async def test_a_conversation_that_was_closed_stays_so_at_the_end_of_its_call(world: World) -> None:
    """Whoever closed it then meant it; the end waits for nothing, and the lease is given back."""
    call = world.call(takeover=TakeoverSettings(heartbeat=timedelta(seconds=60), valid_for=timedelta(seconds=180)))
    await call.open()
    await call.flush()
    handle = await world.cluster.handle()
    await handle.close_conversation("done")
    started = asyncio.get_running_loop().time()
    await call.release()
    assert asyncio.get_running_loop().time() - started < 2
    snapshot = await handle.snapshot()
    assert snapshot.closing is not None
    assert LEASE not in snapshot.leases


# Told of a refusal once


async def test_a_refusal_that_was_mended_is_heard_by_nobody_again(world: World) -> None:
    """Whoever recorded and flushes later, in whatever task, is not told of it, and nothing is asked for anew."""
    call, session = await begun(world)
    handle = await world.cluster.handle()
    await call.flush()
    await handle.release_lease(handle.leases[LEASE])
    session.say(1)
    session.say(2)
    await until(lambda: ids(call) == ["u1", "u2"])
    await call.flush()
    asked = len(session.asked)
    session.say(3)
    await asyncio.gather(*(call.flush() for _ in range(3)))
    await asyncio.create_task(call.flush())
    assert ids(call) == ["u1", "u2", "u3"]
    assert len(session.asked) == asked
    assert call.failures.counts.get("items", 0) <= 1


async def test_at_the_end_of_a_call_a_mended_refusal_loses_nothing(world: World) -> None:
    """The lease is held again under another number: what was noted meanwhile is still written."""
    call = world.call()
    await call.open()
    await call.flush()
    earlier = call._standing.held.lease
    handle = await world.cluster.handle()
    await handle.release_lease(earlier)
    await until(lambda: call._standing.held.lease.token > earlier.token)
    call.note("x", 1)
    call._standing.is_closing = True
    call._upkeep.doubt(LeaseLostError("late", name=LEASE, token=earlier.token))
    call._standing.is_closing = False
    await call.release()
    snapshot = await handle.snapshot()
    assert snapshot.attributes["x"] == 1
    assert LEASE not in snapshot.leases


async def test_what_is_missed_at_the_end_of_a_call_is_recorded_before_the_lease_goes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store refused for a moment; the call ends just then."""
    call, session = await begun(world)
    await call.flush()
    refuse(monkeypatch, StoreMisconfiguredError("NOPERM"), times=1)
    session.say(1)
    await call.release()
    assert ids(await world.cluster.handle()) == ["u1"]


# In order


async def test_while_items_are_missed_nothing_overtakes_them(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an application records itself waits too, and comes behind them."""
    call, session = await begun(world)
    await call.flush()
    record = ConversationHandle.record
    full = ["u0"]

    def picky(self: ConversationHandle, *items: Item, lease: Lease | None = None) -> None:
        if items[0].id in full:
            full.clear()
            message = "full"
            raise OverloadedError(message)
        record(self, *items, lease=lease)

    monkeypatch.setattr(ConversationHandle, "record", picky)
    with pytest.raises(OverloadedError):
        session.say(0)
    call.record(Message(id="own", role="user", content="of the application"))
    session.say(1)
    await call.flush()
    assert ids(await world.cluster.handle()) == ["u0", "u1", "own"]


async def test_what_waits_is_sent_when_the_job_ends_without_order(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody will record again what was missed: what waits behind it is better stored than lost."""
    call = world.call(takeover=TakeoverSettings(heartbeat=timedelta(seconds=60), valid_for=timedelta(seconds=180)))
    await call.open()
    await call.flush()
    monkeypatch.setattr(call._standing.held, "doubt", lambda: None)
    call._telling.recording.has_missed = True
    call.record(say(1))
    await call.aclose()
    assert ids(await world.cluster.handle()) == ["u1"]


async def test_a_refusal_that_is_told_for_several_is_followed_by_one_look(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one was for its own sake, and the others may not have been; where they were, it ends there."""
    call, session = await begun(world)
    await call.flush()
    flush = ConversationHandle.flush
    refusals = 2

    async def refused(self: ConversationHandle) -> None:
        nonlocal refusals
        await flush(self)
        if refusals:
            refusals -= 1
            error = ConflictError("of another type")
            error.add_note("and 1 more refusals since the last flush")
            raise error

    monkeypatch.setattr(ConversationHandle, "flush", refused)
    session.say(1)
    with pytest.raises(ConflictError):
        await call.flush()
    assert session.asked == [False]
    assert refusals == 0


async def test_after_its_end_nobody_waits_for_items(world: World) -> None:
    """What was not acknowledged by then may be stored or not."""
    call, session = await begun(world)
    session.say(1)
    await call.aclose()
    started = asyncio.get_running_loop().time()
    with pytest.raises(OutcomeUnknownError):
        await call.flush()
    await call.settled()
    assert asyncio.get_running_loop().time() - started < 0.5


async def test_the_deposed_is_told_that_nothing_of_it_is_taken(world: World) -> None:
    """However often it records: nothing waits for a lease that it does not get again."""
    call, session = await begun(world)
    await call.flush()
    handle = await world.cluster.handle()
    await handle.acquire_lease(LEASE, holder="job-2", duration=HOUR, replacing="job-1")
    await asyncio.wait_for(call.deposed.wait(), LATE)
    for number in range(2):
        session.say(number)
        with pytest.raises(LeaseLostError):
            await call.flush()
    assert session.asked == []
    assert ids(handle) == []
