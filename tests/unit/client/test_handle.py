"""The handle, with real activations behind it that are killed, replaced, passivated, and whose answers get lost."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from enum import IntEnum, StrEnum

import pytest

from conversation_actors.activation import activation, committer
from conversation_actors.client import ConversationHandle, copy
from conversation_actors.client.copy import StoredState
from conversation_actors.codec import decode_entry
from conversation_actors.errors import (
    ClusterUnavailableError,
    ConflictError,
    ConversationClosedError,
    ConversationError,
    InvalidInputError,
    LeaseHeldError,
    LeaseLostError,
    OutcomeUnknownError,
    PositionLostError,
    RetryableError,
    StoreMisconfiguredError,
    StoreUnavailableError,
)
from conversation_actors.items import Message
from conversation_actors.protocol import View
from conversation_actors.state import ConversationState, Entry, ItemsAppended, ItemsRemoved, Lease
from tests.support.fakes import FakeCluster, FakePort, Fault, FaultyStore, brief, stored, turns, until
from tests.support.quick import QUICK


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    """A fake cluster."""
    async with FakeCluster(FaultyStore(), brief()) as fake:
        yield fake


def say(identity: str, text: str = "hello") -> Message:
    """A message of this id."""
    return Message(id=identity, role="user", content=text)


def ids(conversation: ConversationHandle) -> list[str]:
    """Ids of the local copy's items."""
    return [item.id for item in conversation.items]


def store_of(cluster: FakeCluster) -> FaultyStore:
    """The store behind it."""
    assert isinstance(cluster.store, FaultyStore)
    return cluster.store


async def parked(cluster: FakeCluster, count: int) -> None:
    """Return when `count` polls are parked at the owner."""

    def polls() -> int:
        actor = cluster.find()
        return actor.activation.info().watchers if actor is not None and actor.activation is not None else 0

    await until(lambda: polls() == count)


async def next_entry(conversation: ConversationHandle, after_seq: int | None = None) -> Entry:
    """The first entry that a watch brings."""
    return await anext(conversation.watch(after_seq=after_seq))


def appended(entries: list[Entry]) -> list[str]:
    """Ids of the items that entries brought."""
    return [item.id for entry in entries if isinstance(entry.event, ItemsAppended) for item in entry.event.items]


# The local copy


async def test_reads_its_own_writes(cluster: FakeCluster) -> None:
    """When an awaited call returns, the local copy shows it."""
    conversation = await cluster.handle()
    assert (conversation.seq, conversation.items) == (0, ())
    for number in range(5):
        receipt = await conversation.append(say(f"u{number}"))
        assert (receipt.seq, receipt.epoch) == (number + 1, 1)
        assert ids(conversation) == [f"u{n}" for n in range(number + 1)]
        assert conversation.seq == receipt.seq


async def test_two_lives_do_not_mix(cluster: FakeCluster) -> None:
    """After a loss of everything, a handle of the old life shows the new one, whatever positions they share."""
    old, store = await cluster.handle(), store_of(cluster)
    for number in range(3):
        await old.append(say(f"old{number}"))
    store.lose_everything()
    await cluster.kill()
    new = await cluster.handle()
    for number in range(5):
        await new.append(say(f"new{number}"))
    await until(lambda: ids(old) == [f"new{number}" for number in range(5)])
    assert (old.seq, new.seq) == (5, 5)


async def _lose_the_end(
    cluster: FakeCluster, conversation: ConversationHandle, *, until: Awaitable[object] | None = None
) -> None:
    """Three entries are kept; three more, acknowledged, are lost by the store together with their owner."""
    for number in range(3):
        await conversation.append(say(f"kept{number}"))
    fail_over = store_of(cluster).remember()
    for number in range(3):
        await conversation.append(say(f"lost{number}"))
    assert conversation.seq == 6
    if until is not None:
        await until
    await cluster.kill()
    fail_over()


async def test_a_copy_does_not_mix_two_histories(cluster: FakeCluster) -> None:
    """What is written in the place of what was lost is what copies show: the writer's, and one that only follows."""
    conversation, follower = await cluster.handle(), await cluster.handle()
    await _lose_the_end(cluster, conversation)
    await until(lambda: follower.seq == 6)
    for number in range(5):
        conversation.record(say(f"new{number}"))
    await conversation.flush()
    expected = [f"kept{number}" for number in range(3)] + [f"new{number}" for number in range(5)]
    await until(lambda: ids(conversation) == ids(follower) == expected)
    await conversation.append(say("last"))
    await until(lambda: ids(conversation) == ids(follower) == [*expected, "last"])


async def test_a_watch_does_not_mix_two_histories(cluster: FakeCluster) -> None:
    """It would leave out what was written in the place of what it has brought, and says so instead."""
    conversation, other = await cluster.handle(), await cluster.handle()
    watching = other.watch(after_seq=0)

    async def six() -> list[Entry]:
        return [await anext(watching) for _ in range(6)]

    brought = asyncio.create_task(six())
    await _lose_the_end(cluster, conversation, until=brought)
    entries = await brought
    assert appended(entries) == ["kept0", "kept1", "kept2", "lost0", "lost1", "lost2"]
    await conversation.append(*(say(f"new{number}") for number in range(5)))
    for number in range(5):
        await conversation.append(say(f"newer{number}"))
    with pytest.raises(PositionLostError, match="entry 6"):
        await anext(watching)


async def test_a_watch_does_not_slip_into_another_life(cluster: FakeCluster) -> None:
    """Its position means nothing there, and it says so."""
    old, store = await cluster.handle(), store_of(cluster)
    await old.append(say("old"))
    watching = asyncio.create_task(next_entry(old, after_seq=1))
    await parked(cluster, 2)
    store.lose_everything()
    await cluster.kill()
    new = await cluster.handle()
    await new.append(say("new0"), say("new1"))
    with pytest.raises(PositionLostError):
        await watching


async def test_a_closed_handle_is_told_from_an_open_one(cluster: FakeCluster) -> None:
    """By a flag, which the client reads; closing twice, and closing after a cancelled closing, ends everything."""
    conversation = await cluster.handle()
    was_closed = conversation.is_closed
    store_of(cluster).hold()
    conversation.record(say("u0"))
    with suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            await conversation.aclose()
    await conversation.aclose()
    assert (was_closed, conversation.is_closed) == (False, True)
    assert all(task.done() for task in conversation._link._tasks)


async def test_reads_its_own_writes_behind_those_of_others(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same where the answer had no room for all that others wrote meanwhile: the call waits for the copy."""
    monkeypatch.setattr(activation, "REPLY_BYTES", 1)
    one, two, store = await cluster.handle(), await cluster.handle(), store_of(cluster)
    store.hold()
    others = [asyncio.create_task(two.append(say(f"u{number}"))) for number in range(5)]
    await until(lambda: len(store.appends) >= 1)
    mine = asyncio.create_task(one.append(say("mine")))
    await turns()
    cluster.replies_to_lose["poll"] = 4
    store.release()
    receipt = await mine
    assert one.seq >= receipt.seq
    assert "mine" in ids(one)
    await asyncio.gather(*others)


async def test_reads_its_own_writes_though_the_owner_dies(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the call wait for a poll that nobody answers any more: to be followed only, no owner is started."""
    monkeypatch.setattr(activation, "REPLY_BYTES", 1)
    monkeypatch.setattr(committer, "KEPT_ENTRIES", 0)
    cluster.settings = brief(attempt=60.0, poll=60.0)
    one, two, store = await cluster.handle(), await cluster.handle(), store_of(cluster)
    cluster.replies_to_lose["poll"] = 1000
    store.hold()
    others = [asyncio.create_task(two.append(say(f"u{number}"))) for number in range(5)]
    await until(lambda: len(store.appends) >= 1)
    mine = asyncio.create_task(one.append(say("mine")))
    await turns()
    store.release()
    await until(lambda: one.seq > 0)
    await cluster.kill()
    await until(mine.done)
    assert ids(one)[-1] == "mine"
    await asyncio.gather(*others)


async def test_many_that_lack_their_entries_read_once(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty calls whose answers had no room for their entries, and a poll that is lost: one read serves them all."""
    monkeypatch.setattr(activation.Activation, "_entries_for", lambda *_: ())
    cluster.settings = brief(attempt=60.0, poll=60.0)
    conversation = await cluster.handle()
    cluster.replies_to_lose["poll"] = 1000
    await asyncio.gather(*(conversation.append(say(f"u{number}")) for number in range(20)))
    assert conversation.seq == 20
    assert cluster.calls["read"] <= 2


async def test_own_types_of_text_arrive_plain(cluster: FakeCluster) -> None:
    """A member of an enumeration that no other process knows of is sent as the text it is."""

    class Name(StrEnum):
        AGENT = "agent"

    class Position(IntEnum):
        START = 0

    conversation = await cluster.handle()
    lease = await conversation.acquire_lease(Name.AGENT, holder=Name.AGENT, duration=timedelta(seconds=9))
    await conversation.join(Name.AGENT, name=Name.AGENT, device_id=Name.AGENT, language=Name.AGENT)
    await conversation.set_summary(Name.AGENT, through_seq=Position.START)
    await conversation.set_attributes({Name.AGENT: Name.AGENT}, expected_seq=Position.START)
    await conversation.append(say("u0"), request_id=Name.AGENT)
    await conversation.release_lease(lease)
    await conversation.close_conversation(Name.AGENT)
    for found in (lease.name, lease.holder, conversation.participants["agent"].name, *conversation.attributes):
        assert type(found) is str


async def test_every_command(cluster: FakeCluster) -> None:
    """Each call does what its name says, and the copy shows it."""
    conversation = await cluster.handle()
    assert (await conversation.join("al", name="Al", language="de")).devices == ("default",)
    assert (await conversation.update_participant("al", context={"a": 1})).context == {"a": 1}
    left = await conversation.leave("al")
    assert left is not None
    assert not left.connected
    assert await conversation.leave("nobody") is None
    await conversation.set_attributes({"language": "de"})
    with pytest.raises(ConflictError):
        await conversation.set_attributes({"language": "en"}, expected_seq=0)
    lease = await conversation.acquire_lease("agent", holder="me", duration=timedelta(seconds=60))
    with pytest.raises(LeaseHeldError):
        await conversation.acquire_lease("agent", holder="you", duration=timedelta(seconds=60))
    assert conversation.leases == {"agent": lease}
    await conversation.release_lease(lease)
    await conversation.append(say("u0"))
    await conversation.set_summary("short", through_seq=conversation.seq)
    assert conversation.summary
    assert conversation.retention is None
    await conversation.set_retention(timedelta(hours=1))
    await conversation.close_conversation("done")
    assert conversation.closing is not None
    with pytest.raises(ConversationClosedError):
        await conversation.append(say("u1"))
    await conversation.reopen_conversation()
    snapshot = await conversation.snapshot(fresh=True)
    assert (snapshot.seq, snapshot.items, dict(snapshot.attributes)) == (
        conversation.seq,
        conversation.items,
        {"language": "de"},
    )
    assert (snapshot.summary, snapshot.closing, snapshot.leases) == (conversation.summary, None, conversation.leases)
    assert snapshot.retention == conversation.retention == timedelta(hours=1)
    await conversation.clear_history()
    cleared = await conversation.snapshot()
    assert (len(conversation.items), len(conversation.leases), cleared.summary) == (0, 0, None)
    assert list(conversation.participants) == ["al"]
    assert (await conversation.info()).seq == conversation.seq
    assert "seq=" in repr(conversation)


async def test_a_deposed_holder_cannot_write(cluster: FakeCluster) -> None:
    """By no call of its handle; the new holder can, and nothing of the old one's has happened."""
    conversation = await cluster.handle()
    await conversation.append(say("u0"))
    await conversation.join("al")
    minute = timedelta(seconds=60)
    old = await conversation.acquire_lease("agent", holder="one", duration=minute)
    await conversation.append(say("u1"), lease=old)
    new = await conversation.acquire_lease("agent", holder="two", duration=minute, replacing="one")
    before = conversation.seq
    for call in (
        conversation.append(say("u2"), lease=old),
        conversation.join("bo", lease=old),
        conversation.leave("al", lease=old),
        conversation.update_participant("al", name="Al", lease=old),
        conversation.set_attributes({"a": 1}, lease=old),
        conversation.set_summary("short", through_seq=1, lease=old),
        conversation.remove("u0", lease=old),
        conversation.clear_history(lease=old),
        conversation.set_retention(minute, lease=old),
        conversation.close_conversation(lease=old),
        conversation.reopen_conversation(lease=old),
    ):
        with pytest.raises(LeaseLostError) as lost:
            await call
        assert (lost.value.name, lost.value.token) == ("agent", old.token)
    conversation.record(say("u3"), lease=old)
    with pytest.raises(LeaseLostError):
        await conversation.flush()
    assert conversation.seq == before
    conversation.record(say("u4"), lease=new)
    await conversation.flush()
    await conversation.append(say("u5"), lease=new)
    assert ids(conversation) == ["u0", "u1", "u4", "u5"]


async def test_items_are_taken_out(cluster: FakeCluster) -> None:
    """Of every handle's copy, once it is acknowledged; a watch tells which, and a repeat changes nothing."""
    one, two = await cluster.handle(), await cluster.handle()
    for identity in ("u0", "u1", "u2"):
        await one.append(say(identity))
    receipt = await one.remove("u1", "unknown", "u1", request_id="r")
    assert ids(one) == ["u0", "u2"]
    await until(lambda: ids(two) == ["u0", "u2"])
    assert (await next_entry(two, receipt.seq - 1)).event == ItemsRemoved(("u1", "unknown"))
    assert await one.remove("u1", "unknown", request_id="r") == receipt
    with pytest.raises(ConflictError):
        await one.remove("u2", request_id="r")
    assert ids(one) == ["u0", "u2"]


async def test_a_handle_knows_what_was_removed(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whomever, also by a cleared history; what was put in again is there again. The latest are known."""
    monkeypatch.setattr(copy, "MAX_REMOVED", 3)
    one, two = await cluster.handle(), await cluster.handle()
    for identity in ("u0", "u1", "u2", "u3"):
        await one.append(say(identity))
    await one.remove("u1", "unknown")
    assert list(one.removed) == ["u1", "unknown"]  # which may have left the window before
    await one.append(say("u1"))
    await one.append(say("unknown"))
    assert list(one.removed) == []
    await one.remove("unknown")
    await two.remove("u0")
    await two.clear_history()
    await until(lambda: one.removed == two.removed == ("u2", "u3", "u1"))


@pytest.mark.parametrize("item_ids", [("",), ("a\n",), (7,), tuple(map(str, range(1001)))])
async def test_ids_to_be_taken_out_are_checked(cluster: FakeCluster, item_ids: tuple[str, ...]) -> None:
    """Before anything is sent."""
    conversation = await cluster.handle()
    with pytest.raises(InvalidInputError) as error:
        await conversation.remove(*item_ids)
    assert error.value.field == "item_ids"


async def test_copy_that_was_away_takes_the_state_anew(cluster: FakeCluster) -> None:
    """Entries of a forgotten past are told to nobody: who has missed them gets the whole state, without what left."""
    cluster.timing = replace(QUICK, forget=0.0)
    one = await cluster.handle()
    await one.append(say("u0"))
    two = await cluster.handle()
    before = two.seq
    await one.append(say("u1"))
    await one.remove("u0")
    await until(lambda: ids(two) == ["u1"])
    await turns()
    with pytest.raises(PositionLostError):
        await next_entry(two, before - 1)


async def test_others_writes_arrive(cluster: FakeCluster) -> None:
    """What another handle writes reaches the copy without being asked for."""
    one, two = await cluster.handle(), await cluster.handle()
    await one.append(say("u0"))
    await until(lambda: ids(two) == ["u0"])
    await two.append(say("u1"))
    await until(lambda: ids(one) == ["u0", "u1"])


async def test_recording(cluster: FakeCluster) -> None:
    """Recorded items are sent in order with all else, and are there after a flush."""
    conversation = await cluster.handle()
    conversation.record(say("u0"), say("u1"))
    conversation.record(say("u2"))
    assert conversation.unacknowledged == 2
    await conversation.append(say("u3"))
    conversation.record(say("u4"))
    await conversation.flush()
    await until(lambda: conversation.seq == 4)
    assert ids(conversation) == [f"u{number}" for number in range(5)]
    assert conversation.unacknowledged == 0


async def test_recording_many(cluster: FakeCluster) -> None:
    """What waits together is stored as few entries; what is refused is told, and nothing else is lost or moved."""
    conversation = await cluster.handle()
    await conversation.append(say("u0"))
    for number in range(1, 300):
        conversation.record(say(f"u{number}"))
        if number == 150:
            conversation.record(Message(id="u0", role="assistant", content="not what it was"))
    last = asyncio.create_task(conversation.append(say("u300")))
    with pytest.raises(ConflictError, match="u0"):
        await conversation.flush()
    await last
    assert ids(conversation) == [f"u{number}" for number in range(101, 301)]
    for number in range(301, 1000):
        conversation.record(say(f"u{number}"))
    before = conversation.seq
    await conversation.flush()
    assert conversation.seq - before <= 2 * 5, "by the window's 200 items, one entry that brings and one that evicts"
    assert ids(conversation) == [f"u{number}" for number in range(800, 1000)]


async def test_a_copy_far_behind_starts_afresh(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy whose position the next owner does not keep takes its state instead."""
    monkeypatch.setattr(committer, "KEPT_ENTRIES", 0)
    one, two = await cluster.handle(), await cluster.handle()
    await parked(cluster, 2)
    cluster.replies_to_lose["poll"] = 1_000_000
    for number in range(5):
        await two.append(say(f"u{number}"))
    await two.passivate()
    await two.append(say("u5"))
    assert ids(one) == []
    cluster.replies_to_lose.clear()
    await until(lambda: one.seq == 6)
    assert ids(one) == ids(two)


async def test_catch_up(cluster: FakeCluster) -> None:
    """Opening a conversation that is open already waits for its copy to be as new as the owner."""
    one, two = await cluster.handle(), await cluster.handle()
    await one.append(say("u0"))
    await two.catch_up(await one._owner.read(fresh=False))
    assert ids(two) == ["u0"]


# Owners that come and go


@pytest.mark.parametrize("end", ["killed", "passivated", "fenced"])
async def test_survives_its_owner(cluster: FakeCluster, end: str) -> None:
    """Calls, copy and watch go on over the end of an activation; epochs tell that there was one."""
    conversation = await cluster.handle()
    watcher = await cluster.handle()
    epochs = []
    for number in range(4):
        epochs.append((await conversation.append(say(f"u{number}"))).epoch)
        if end == "killed":
            await cluster.kill()
        elif end == "passivated":
            await conversation.passivate()
        else:
            await stored(cluster.store)
    assert epochs == sorted(set(epochs))
    await conversation.info()  # a handle that only watches waits for somebody else to bring an owner back
    await until(lambda: watcher.seq == 4)
    assert ids(watcher) == ids(conversation) == ["u0", "u1", "u2", "u3"]


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
async def test_killed_in_the_middle_of_a_write(cluster: FakeCluster, fault: Fault) -> None:
    """An owner that dies before or after its write landed, unanswered: the item is there once, and acknowledged."""
    conversation, store = await cluster.handle(), store_of(cluster)
    await conversation.append(say("u0"))
    if fault is Fault.AFTER:
        landed = len(store.landed)
        store.append_faults.append(Fault.AFTER)
        cluster.replies_to_lose["execute"] = 1
        task = asyncio.create_task(conversation.append(say("u1")))
        await until(lambda: len(store.landed) > landed)
    else:
        store.hold()
        task = asyncio.create_task(conversation.append(say("u1")))
        await until(lambda: len(store.appends) >= 2)
    await cluster.kill()
    store.release()
    assert (await task).seq == 2
    assert appended([decode_entry(data) for _, data in sorted(store.landed.items())]) == ["u0", "u1"]
    assert ids(conversation) == ["u0", "u1"]


async def test_a_lost_answer(cluster: FakeCluster) -> None:
    """Answers lost after execution double nothing, lose nothing, and do not leave the copy behind."""
    conversation = await cluster.handle()
    for number in range(6):
        cluster.replies_to_lose["execute"] = number % 4
        assert (await conversation.append(say(f"u{number}"))).seq == number + 1
        assert ids(conversation) == [f"u{n}" for n in range(number + 1)]
    assert len(store_of(cluster).landed) == 6


async def test_a_lost_answer_to_very_many(cluster: FakeCluster) -> None:
    """Far more calls at once than the owner remembers requests, and answers that are lost: nothing is doubled."""
    cluster.settings = brief(requests=500, command=60.0)
    conversation = await cluster.handle()
    cluster.replies_to_lose["execute"] = 2
    await asyncio.gather(*(conversation.append(say(f"u{number}")) for number in range(1600)))
    entries = [decode_entry(data) for _, data in sorted(store_of(cluster).landed.items())]
    assert appended(entries) == [f"u{number}" for number in range(1600)]


async def test_a_lost_answer_to_what_nobody_repeats(cluster: FakeCluster) -> None:
    """Where the caller's time is up with the answer, the copy gets the entry nevertheless."""
    cluster.settings = brief(command=0.5, poll=600.0)
    conversation = await cluster.handle()
    await parked(cluster, 1)
    cluster.replies_to_lose["execute"] = 10_000
    with pytest.raises(RetryableError):
        await conversation.append(say("u0"), request_id="r")
    await until(lambda: ids(conversation) == ["u0"])
    cluster.replies_to_lose.clear()
    cluster.settings = brief()  # the repeat is to be answered, however busy the machine is
    patient = await cluster.handle()
    assert (await patient.append(say("u0"), request_id="r")).seq == 1


async def test_lost_answers_to_polls(cluster: FakeCluster) -> None:
    """A poll whose answer was lost is repeated from the same place."""
    one, two = await cluster.handle(), await cluster.handle()
    for number in range(5):
        cluster.replies_to_lose["poll"] = 2
        await one.append(say(f"u{number}"))
        await until(lambda: two.seq == one.seq)
    assert ids(two) == ids(one)


async def test_nobody_home(cluster: FakeCluster) -> None:
    """When no owner can recover, a call raises a retryable error in its time; reading the copy goes on."""
    cluster.settings = brief(command=1.0, close=1.0)
    conversation = await cluster.handle()
    await conversation.append(say("u0"))
    store_of(cluster).is_down = True
    await cluster.kill()
    with pytest.raises(OutcomeUnknownError):
        await conversation.append(say("u1"))
    assert ids(conversation) == ["u0"]
    store_of(cluster).is_down = False
    assert (await conversation.append(say("u2"))).seq in {2, 3}  # what is unknown may happen still


async def test_watching_wakes_nobody(cluster: FakeCluster) -> None:
    """A handle that only watches does not bring a passivated conversation back; a call does, and is seen."""
    conversation, watcher = await cluster.handle(), await cluster.handle()
    await conversation.append(say("u0"))
    watching = asyncio.create_task(next_entry(watcher, 1))
    await parked(cluster, 3)
    await conversation.passivate()
    await until(lambda: cluster.find() is None)
    polls, looks = cluster.calls["poll"], cluster.looks
    await until(lambda: cluster.looks > looks + 20)
    assert len(cluster.actors) == 1
    assert cluster.calls["poll"] == polls
    await conversation.append(say("u1"))
    assert len(cluster.actors) == 2
    assert (await watching).seq == 2
    await until(lambda: ids(watcher) == ["u0", "u1"])


# Watching


async def test_watch_resumes_across_activations(cluster: FakeCluster) -> None:
    """A watch brings every entry once, in order, whatever happens to the owners meanwhile."""
    conversation, watcher = await cluster.handle(), await cluster.handle()
    seen: list[Entry] = []

    async def watch() -> None:
        async for entry in watcher.watch(after_seq=0):
            seen.append(entry)
            if len(seen) == 20:
                return

    watching = asyncio.create_task(watch())
    for number in range(20):
        cluster.replies_to_lose["poll"] = number % 2
        await conversation.append(say(f"u{number}"))
        if number % 5 == 4:
            await (cluster.kill() if number % 2 else conversation.passivate())
    await conversation.info()
    await watching
    assert [entry.seq for entry in seen] == list(range(1, 21))
    assert appended(seen) == [f"u{number}" for number in range(20)]
    assert len({entry.epoch for entry in seen}) == 4


async def test_watch_from_now(cluster: FakeCluster) -> None:
    """Without a position, a watch begins where the copy stands when it is called, whenever it is first asked."""
    conversation = await cluster.handle()
    await conversation.append(say("u0"))
    watching = conversation.watch()
    await conversation.append(say("u1"))
    await conversation.append(say("u2"))
    assert [(await anext(watching)).seq for _ in range(2)] == [2, 3]
    await watching.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(watching)


async def test_watch_from_now_of_this_life(cluster: FakeCluster) -> None:
    """A watch belongs to the life in which it was called: that everything was lost before it was asked is told."""
    old, store = await cluster.handle(), store_of(cluster)
    await old.append(say("old"))
    watching = old.watch()
    store.lose_everything()
    await cluster.kill()
    new = await cluster.handle()
    await new.append(say("new0"))
    await until(lambda: ids(old) == ["new0"])
    with pytest.raises(PositionLostError):
        await anext(watching)


async def test_a_watch_of_nonsense_is_refused_at_once(cluster: FakeCluster) -> None:
    """A position that cannot be is told where the watch is called, not where it is first asked."""
    conversation = await cluster.handle()
    with pytest.raises(InvalidInputError):
        conversation.watch(after_seq=-1)


async def test_watch_from_a_lost_position(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A position that is not kept, or was never reached, raises and tells from where on it goes."""
    monkeypatch.setattr(committer, "KEPT_ENTRIES", 0)
    conversation = await cluster.handle()
    await conversation.append(say("u0"))
    await conversation.append(say("u1"))
    await conversation.passivate()
    await conversation.append(say("u2"))
    for position in (0, 99):
        with pytest.raises(PositionLostError) as lost:
            await anext(conversation.watch(after_seq=position))
        assert lost.value.first_available == 2


async def test_watch_survives_an_outage(cluster: FakeCluster) -> None:
    """While an owner is there and cannot recover, because the store is away, a watch waits."""
    conversation = await cluster.handle()
    await conversation.append(say("u0"))
    watching = asyncio.create_task(next_entry(conversation, 1))
    await parked(cluster, 2)
    store_of(cluster).is_down = True
    await cluster.kill()
    cluster.get_or_create()
    polls = cluster.calls["poll"]
    await until(lambda: cluster.calls["poll"] > polls + 10)
    assert not watching.done()
    store_of(cluster).is_down = False
    await conversation.append(say("u1"))
    assert (await watching).seq == 2


# Closing


async def test_close_sends_what_is_left(cluster: FakeCluster) -> None:
    """Closing sends the outbox first."""
    conversation = await cluster.handle()
    for number in range(5):
        conversation.record(say(f"u{number}"))
    await conversation.aclose()
    await conversation.aclose()
    state, _ = await stored(cluster.store)
    assert [item.id for item in state.window] == [f"u{number}" for number in range(5)]


async def test_a_close_that_is_cancelled_lets_go_of_the_owner(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that nobody closes would be sought anew for as long as the owner lives."""
    conversation, store = await cluster.handle(), store_of(cluster)
    closed = 0

    async def close(_port: FakePort) -> None:
        nonlocal closed
        closed += 1

    monkeypatch.setattr(FakePort, "aclose", close)
    store.hold()
    conversation.record(say("u0"))
    closing = asyncio.create_task(conversation.aclose())
    await until(lambda: len(store.appends) >= 1)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    assert closing.cancelled()
    assert closed == 1


async def test_close_leaves_nobody_waiting(cluster: FakeCluster, caplog: pytest.LogCaptureFixture) -> None:
    """What could not be sent in time is answered, by whether it was on its way, and told in the log."""
    cluster.settings = brief(close=0.03)
    conversation, store = await cluster.handle(), store_of(cluster)
    store.hold()
    sent = asyncio.create_task(conversation.append(say("u0")))
    await until(lambda: len(store.appends) >= 1)
    sent_too = asyncio.create_task(conversation.append(say("u1")))
    await until(lambda: cluster.calls["execute"] >= 2)
    queued = asyncio.create_task(conversation.append(say("u2")))
    conversation.record(say("u3"))
    await turns()
    await conversation.aclose()
    results = await asyncio.gather(sent, sent_too, queued, return_exceptions=True)
    assert [type(result) for result in results] == [OutcomeUnknownError] * 2 + [ClusterUnavailableError]
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "closed with unacknowledged commands"
    ]
    store.release()


async def aio(call: Callable[[], object]) -> None:
    """A call that answers at once, as one to await."""
    call()


AHEAD = View(seq=99, epoch=1, snapshot=b"", life="another")
CALLS: dict[str, Callable[[ConversationHandle], Awaitable[object]]] = {
    "append": lambda c: c.append(say("u1")),
    "record": lambda c: aio(lambda: c.record(say("u1"))),
    "flush": lambda c: c.flush(),
    "snapshot": lambda c: c.snapshot(),
    "a fresh snapshot": lambda c: c.snapshot(fresh=True),
    "history": lambda c: c.history(),
    "join": lambda c: c.join("al"),
    "leave": lambda c: c.leave("al"),
    "update_participant": lambda c: c.update_participant("al", name="Al"),
    "set_attributes": lambda c: c.set_attributes({"a": 1}),
    "acquire_lease": lambda c: c.acquire_lease("agent", holder="me", duration=timedelta(seconds=9)),
    "release_lease": lambda c: c.release_lease(Lease("agent", "me", 1, 0.0)),
    "set_outcome": lambda c: c.set_outcome({"resolved": True}),
    "set_summary": lambda c: c.set_summary("short", through_seq=0),
    "remove": lambda c: c.remove("u0"),
    "clear_history": lambda c: c.clear_history(),
    "set_retention": lambda c: c.set_retention(None),
    "close_conversation": lambda c: c.close_conversation(),
    "reopen_conversation": lambda c: c.reopen_conversation(),
    "watch": lambda c: anext(c.watch()),
    "catch_up": lambda c: c.catch_up(AHEAD),
    "show": lambda c: aio(lambda: c.show(StoredState(ConversationState(), AHEAD.seen))),
    "passivate": lambda c: c.passivate(),
    "info": lambda c: c.info(),
    "with_pictures": lambda c: c.with_pictures(),
    "picture": lambda c: c.picture("data:image/gif;base64,R0lGODlh"),
    "keep_picture": lambda c: c.keep_picture("data:image/gif;base64,R0lGODlh"),
    "find_pictures": lambda c: c.find_pictures([]),
}
ASK_NOBODY = {"aclose", "takes_picture"}


@pytest.mark.parametrize("name", CALLS)
async def test_a_closed_handle_refuses_every_call(cluster: FakeCluster, name: str) -> None:
    """No repeat helps, and the error says what does: opening it again. Nothing is sent; the copy can be read still."""
    conversation = await cluster.handle()
    await conversation.append(say("u0"))
    await conversation.aclose()
    sent = cluster.calls.total() - cluster.calls["poll"]
    with pytest.raises(InvalidInputError, match="open it again") as error:
        await CALLS[name](conversation)
    assert error.value.field == "conversation"
    assert not isinstance(error.value, RetryableError)
    assert cluster.calls.total() - cluster.calls["poll"] == sent
    assert ids(conversation) == ["u0"]


def test_every_call_of_a_handle_is_in_the_table() -> None:
    """A call that is added to the handle is added to the test of closed ones too."""
    named = {name.rpartition(" ")[2] for name in CALLS} | ASK_NOBODY
    public = {name for name, what in vars(ConversationHandle).items() if not name.startswith("_") and callable(what)}
    assert named == public


async def test_a_handle_that_is_being_closed_takes_nothing_more(cluster: FakeCluster) -> None:
    """While closing still sends what was put before, a new call is refused as later ones are."""
    conversation, store = await cluster.handle(), store_of(cluster)
    store.hold()
    before = asyncio.create_task(conversation.append(say("u0")))
    await until(lambda: len(store.appends) >= 1)
    closing = asyncio.create_task(conversation.aclose())
    await turns()
    with pytest.raises(InvalidInputError, match="open it again"):
        await conversation.append(say("u1"))
    with pytest.raises(InvalidInputError, match="open it again"):
        conversation.record(say("u1"))
    store.release()
    await closing
    assert (await before).seq == 1


async def test_a_watch_ends_with_its_handle(cluster: FakeCluster) -> None:
    """A watch that waits when the handle is closed ends with the error of a closed handle; it brings nothing more."""
    conversation, other = await cluster.handle(), await cluster.handle()
    await conversation.append(say("u0"))
    watch = conversation.watch()
    watching = asyncio.create_task(anext(watch))
    await parked(cluster, 3)
    await conversation.aclose()
    with pytest.raises(InvalidInputError, match="open it again"):
        await watching
    await other.append(say("u1"))
    with pytest.raises(StopAsyncIteration):
        await anext(watch)


async def test_a_watch_of_a_passivated_conversation_ends_with_its_handle(cluster: FakeCluster) -> None:
    """The same where nobody answers polls, and the watch only looks for an owner from time to time."""
    conversation = await cluster.handle()
    await conversation.append(say("u0"))
    watching = asyncio.create_task(next_entry(conversation))
    await parked(cluster, 2)
    await conversation.passivate()
    looks = cluster.looks
    await until(lambda: cluster.looks > looks + 5)
    await conversation.aclose()
    with pytest.raises(InvalidInputError, match="open it again"):
        await watching


async def test_catching_up_ends_with_the_handle(cluster: FakeCluster) -> None:
    """Who waits for a copy that nobody keeps current any more is told so, not left to the time-out."""
    conversation = await cluster.handle()
    waiting = asyncio.create_task(conversation.catch_up(replace(await conversation._owner.read(fresh=False), seq=99)))
    await turns()
    await conversation.aclose()
    with pytest.raises(InvalidInputError, match="open it again"):
        await waiting


# A store that refuses, and says why


async def test_a_caller_is_told_why_redis_refuses(cluster: FakeCluster) -> None:
    """While Redis takes no writes for now, every error names its reason; then all that was recorded is there."""
    cluster.settings = brief(write=0.05, command=4.0)
    conversation, store = await cluster.handle(), store_of(cluster)
    await conversation.append(say("u0"))
    store.append_faults.extend([StoreUnavailableError("Redis cannot do append now: MISCONF no disk")] * 100_000)
    conversation.record(say("u1"))
    for call in (conversation.append(say("u2"), request_id="r"), conversation.flush(), conversation.passivate()):
        with pytest.raises(RetryableError, match="MISCONF no disk"):
            await call
    with pytest.raises(StoreUnavailableError, match="MISCONF no disk"):
        await conversation.snapshot(fresh=True)
    store.append_faults.clear()
    await until(lambda: conversation.unacknowledged == 0)
    await conversation.flush()
    await conversation.append(say("u2"), request_id="r")
    assert ids(conversation) == ["u0", "u1", "u2"]


async def test_a_caller_is_told_what_redis_does_not_allow(cluster: FakeCluster) -> None:
    """A right that is taken away in mid-life is told to callers and flushes, by its name; given back, all goes on."""
    conversation, store = await cluster.handle(), store_of(cluster)
    await conversation.append(say("u0"))
    store.append_faults.append(StoreMisconfiguredError("Redis does not allow append: NOPERM"))
    with pytest.raises(StoreMisconfiguredError, match="NOPERM"):
        await conversation.append(say("u1"), request_id="r")
    assert (await conversation.append(say("u1"), request_id="r")).epoch == 2
    store.append_faults.append(StoreMisconfiguredError("Redis does not allow append: NOPERM"))
    conversation.record(say("u2"))
    with pytest.raises(StoreMisconfiguredError, match="NOPERM"):
        await conversation.flush()
    conversation.record(say("u2"))
    await conversation.flush()
    await until(lambda: ids(conversation) == ["u0", "u1", "u2"])
    assert appended([decode_entry(data) for _, data in sorted(store.landed.items())]) == ["u0", "u1", "u2"]


# What is handed out


async def test_what_was_handed_out_does_not_change(cluster: FakeCluster) -> None:
    """Participants, attributes and leases are those of the moment they were asked for, however long one looks."""
    conversation = await cluster.handle()
    for number in range(3):
        await conversation.join(f"p{number}")
        await conversation.set_attributes({f"a{number}": number})
    lease = await conversation.acquire_lease("agent", holder="me", duration=timedelta(seconds=9))
    handed = (conversation.participants, conversation.attributes, conversation.leases)
    snapshot = await conversation.snapshot()
    before = [dict(one) for one in handed]
    seen = []
    for identity in conversation.participants:
        await conversation.join(f"{identity}-friend")
        await conversation.leave(identity)
        await conversation.set_attributes({identity: True, "a0": None})
        seen.append(identity)
    await conversation.release_lease(lease)
    assert seen == ["p0", "p1", "p2"]
    assert [dict(one) for one in handed] == before
    assert [dict(one) for one in (snapshot.participants, snapshot.attributes, snapshot.leases)] == before
    assert (len(conversation.participants), conversation.leases) == (6, {})


# Everything at once


class Storm:
    """Three handles that talk, while everything that may happen to them does."""

    def __init__(self, cluster: FakeCluster, handles: list[ConversationHandle], chance: random.Random) -> None:
        """Nothing has happened yet."""
        self.cluster, self.handles, self.chance = cluster, handles, chance
        self.sent: list[list[str]] = [[] for _ in handles]
        self.acknowledged: list[list[str]] = [[] for _ in handles]
        self.refused = [0] * len(handles)
        self.seen: list[Entry] = []
        self.is_over = False

    async def talk(self, number: int) -> None:
        """Append and record, cancelling some of it, and flush at the end; some of what is recorded is refused."""
        conversation, sent, acknowledged = self.handles[number], self.sent[number], self.acknowledged[number]
        recorded = []
        await conversation.append(Message(id=f"anchor{number}", role="assistant", content="hello"))
        for step in range(25):
            identity = f"h{number}.{step:02}"
            if step == 12 or self.chance.random() < 0.3:
                burst = [f"{identity}.{one:02}" for one in range(40 if step == 12 else self.chance.choice([1, 12]))]
                refused_at = self.chance.randrange(3 * len(burst))
                for place, one in enumerate(burst):
                    if place == refused_at:
                        conversation.record(say(f"anchor{number}"))  # another role than it has: a conflict
                    conversation.record(say(one))
                self.refused[number] += refused_at < len(burst)
                sent.extend(burst)
                recorded.extend(burst)
                continue
            sent.append(identity)
            with suppress(asyncio.CancelledError):
                await self._append(conversation, identity)
                assert identity in ids(conversation)
                acknowledged.append(identity)
        if self.refused[number]:
            with pytest.raises(ConflictError) as error:
                await conversation.flush()
            notes = getattr(error.value, "__notes__", [])
            more = self.refused[number] - 1
            assert notes == ([f"and {more} more refusals since the last flush"] if more else [])
        await conversation.flush()
        acknowledged.extend(recorded)

    async def _append(self, conversation: ConversationHandle, identity: str) -> None:
        call = asyncio.create_task(conversation.append(say(identity)))
        if self.chance.random() < 0.3:
            for _ in range(self.chance.randrange(30)):
                await asyncio.sleep(0)
            call.cancel()
        await call

    async def disturb(self) -> None:
        """Kill, passivate, fence, lose answers, fail writes."""
        store = store_of(self.cluster)
        while not self.is_over:
            self.cluster.loss = self.chance.choice([0.0, 0.0, 0.1, 0.3])
            store.append_faults.extend(self.chance.choices([Fault.BEFORE, Fault.AFTER], k=self.chance.randrange(3)))
            with suppress(ConversationError):
                match self.chance.randrange(6):
                    case 0 | 1:
                        await self.cluster.kill()
                    case 2:
                        await self.handles[0].passivate()
                    case 3:
                        await stored(store)
            await asyncio.sleep(self.chance.uniform(0, 0.01))  # no wait: the rhythm of the disturbance
        self.cluster.loss = 0.0

    async def watch(self) -> None:
        """See everything."""
        async for entry in self.handles[0].watch(after_seq=0):
            self.seen.append(entry)

    async def run(self) -> int:
        """Run until all is said, and every copy and the watch are at the last position, which is returned."""
        watching = asyncio.create_task(self.watch())
        disturbing = asyncio.create_task(self.disturb())
        async with asyncio.TaskGroup() as group:
            for number in range(len(self.handles)):
                group.create_task(self.talk(number))
        self.is_over = True
        await disturbing
        end = (await self.handles[0].append(say("the end"))).seq
        await until(lambda: watching.done() or len(self.seen) >= end)
        if watching.done():
            watching.result()
        watching.cancel()
        await until(lambda: all(one.seq == end for one in self.handles))
        return end


@pytest.mark.parametrize("seed", range(12))
async def test_storm(cluster: FakeCluster, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each acknowledged item is there exactly once, in its handle's order; copies end up equal; a watch saw it all."""
    monkeypatch.setattr(committer, "KEPT_ENTRIES", 10_000)  # however far the watch falls behind
    chance = cluster.random = random.Random(seed)
    cluster.settings = brief(items=1500)
    storm = Storm(cluster, [await cluster.handle() for _ in range(3)], chance)
    end = await storm.run()
    entries = [decode_entry(data) for _, data in sorted(store_of(cluster).landed.items())]
    assert [entry.seq for entry in entries] == [entry.seq for entry in storm.seen] == list(range(1, end + 1))
    history = appended(entries)
    assert len(history) == len(set(history))
    for number, (sent, acknowledged) in enumerate(zip(storm.sent, storm.acknowledged, strict=True)):
        kept = [identity for identity in history if identity.startswith(f"h{number}.")]
        assert kept == sorted(kept)
        assert set(acknowledged) <= set(kept) <= set(sent)
    assert [ids(one) for one in storm.handles] == [history] * 3
    if not any(storm.refused):
        assert any(isinstance(entry.event, ItemsAppended) and len(entry.event.items) > 1 for entry in entries)
