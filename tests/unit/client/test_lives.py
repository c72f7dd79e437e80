"""Histories with the same numbers: a copy, a watch and a compare-and-set tell them apart."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

import pytest

from conversation_actors import ConversationHandle, Message
from conversation_actors.errors import ConflictError, PositionLostError
from conversation_actors.state import Entry, ItemsAppended
from tests.support.fakes import FakeCluster, FaultyStore, brief, until


def say(text: str) -> Message:
    """A message whose id is its text."""
    return Message(id=text, role="user", content=text)


def ids(handle: ConversationHandle) -> list[str]:
    """Ids of the copy's items."""
    return [item.id for item in handle.items]


def told(entries: list[Entry]) -> list[str]:
    """Ids of the items that entries brought."""
    return [item.id for entry in entries if isinstance(entry.event, ItemsAppended) for item in entry.event.items]


@pytest.fixture
def store() -> FaultyStore:
    """The cluster's store."""
    return FaultyStore()


@pytest.fixture
async def cluster(store: FaultyStore) -> AsyncIterator[FakeCluster]:
    """A cluster without an owner."""
    async with FakeCluster(store, brief()) as made:
        yield made


async def _branch(
    cluster: FakeCluster, store: FaultyStore, handle: ConversationHandle, *, until: Awaitable[object] | None = None
) -> None:
    """Lose the second activation and what it wrote: the next one has its epoch, and positions, again."""
    await handle.append(say("kept"))
    fail_over = store.remember()
    await cluster.kill()
    receipt = await handle.append(say("lost"))
    assert (receipt.seq, receipt.epoch) == (2, 2)
    if until is not None:
        await until
    await cluster.kill()
    fail_over()


async def test_a_copy_tells_two_owners_of_one_epoch_apart(cluster: FakeCluster, store: FaultyStore) -> None:
    """What was written in the place of what was lost is what every copy shows."""
    writer, follower = await cluster.handle(), await cluster.handle()
    await writer.append(say("kept"))
    fail_over = store.remember()
    await cluster.kill()
    await writer.append(say("lost"))
    await until(lambda: ids(follower) == ["kept", "lost"])
    await cluster.kill()
    fail_over()
    third = await cluster.handle()
    receipts = [await third.append(say(f"new{number}")) for number in range(3)]
    assert [(receipt.seq, receipt.epoch) for receipt in receipts] == [(2, 2), (3, 2), (4, 2)]
    expected = ["kept", "new0", "new1", "new2"]
    await until(lambda: ids(writer) == ids(follower) == expected)
    await writer.append(say("last"))
    await until(lambda: ids(writer) == ids(follower) == ids(third) == [*expected, "last"])


async def test_a_watch_tells_two_owners_of_one_epoch_apart(cluster: FakeCluster, store: FaultyStore) -> None:
    """It has brought what was lost, and says so instead of leaving out what came in its place."""
    writer, other = await cluster.handle(), await cluster.handle()
    async with aclosing(other.watch(after_seq=0)) as watching:

        async def two() -> list[Entry]:
            return [await anext(watching) for _ in range(2)]

        brought = asyncio.create_task(two())
        await _branch(cluster, store, writer, until=brought)
        assert told(await brought) == ["kept", "lost"]
        third = await cluster.handle()
        for number in range(3):
            await third.append(say(f"new{number}"))
        with pytest.raises(PositionLostError):
            await anext(watching)


async def test_a_watch_goes_on_over_many_owners(cluster: FakeCluster) -> None:
    """As long as nothing was lost, every entry comes once, however many owners there were."""
    writer, other = await cluster.handle(), await cluster.handle()
    async with aclosing(other.watch(after_seq=0)) as watching:
        entries = []
        for number in range(25):
            await writer.append(say(f"u{number}"))
            entries.append(await anext(watching))
            await (cluster.kill() if number % 2 else writer.passivate())
    assert told(entries) == [f"u{number}" for number in range(25)]


Decision = Callable[[ConversationHandle, int], Awaitable[object]]
DECISIONS: dict[str, Decision] = {
    "attributes": lambda handle, seq: handle.set_attributes({"a": 2}, expected_seq=seq),
    "summary": lambda handle, seq: handle.set_summary("so far", through_seq=seq),
}


@pytest.mark.parametrize("decision", DECISIONS)
@pytest.mark.parametrize("loss", ["another life", "another branch"])
async def test_a_position_of_another_history_decides_nothing(
    cluster: FakeCluster, store: FaultyStore, loss: str, decision: str
) -> None:
    """A decision made on a state that is gone is refused, although its number is one of the new history too."""
    handle = await cluster.handle()
    if loss == "another life":
        for number in range(2):
            await handle.append(say(f"old{number}"))
        store.lose_everything()
        await cluster.kill()
    else:
        await _branch(cluster, store, handle)
    seq = handle.seq
    handle._link._tasks[1].cancel()  # its copy follows no more: what it decides is decided on what it saw then
    third = await cluster.handle()
    for number in range(4):
        await third.append(say(f"new{number}"))
    assert seq == 2
    with pytest.raises(ConflictError):
        await DECISIONS[decision](handle, seq)
    assert (third.attributes, third.summary) == ({}, None)


async def test_a_decision_on_a_snapshot_of_the_next_owner_is_taken(cluster: FakeCluster) -> None:
    """The copy may be behind a snapshot that was read since: its position is not held against the caller."""
    handle, other = await cluster.handle(), await cluster.handle()
    for number in range(3):
        await other.set_attributes({"a": number})
        await cluster.kill()
        snapshot = await handle.snapshot(fresh=True)
        await handle.set_attributes({"b": number}, expected_seq=snapshot.seq)
    await until(lambda: other.attributes == {"a": 2, "b": 2})


async def _rolled_back(cluster: FakeCluster, store: FaultyStore, handle: ConversationHandle) -> None:
    """Twelve entries, of which the store and the owner lose the last four."""
    for number in range(1, 9):
        await handle.append(say(f"a{number}"))
    fail_over = store.remember()
    for number in range(9, 13):
        await handle.append(say(f"a{number}"))
    await cluster.kill()
    fail_over()


async def test_a_write_shows_in_the_copy_after_a_rollback(cluster: FakeCluster, store: FaultyStore) -> None:
    """Also where the copy is further on, with what was lost: what an awaited call did is there when it returns."""
    handle = await cluster.handle()
    await _rolled_back(cluster, store, handle)
    receipt = await handle.append(say("b9"))
    assert receipt.seq == 9
    assert ids(handle)[-2:] == ["a8", "b9"]
    await handle.set_attributes({"a": 1}, expected_seq=receipt.seq)


async def test_opening_again_shows_what_is_left(cluster: FakeCluster, store: FaultyStore) -> None:
    """After a rollback a handle that is open shows nothing of what was lost, once it was opened again."""
    handle = await cluster.handle()
    await _rolled_back(cluster, store, handle)
    third = await cluster.handle()
    await handle.catch_up(await third._owner.read(fresh=False))
    assert ids(handle)[-1] == "a8"


async def test_a_watch_that_is_resumed_does_not_slip_into_another_branch(
    cluster: FakeCluster, store: FaultyStore
) -> None:
    """From a position that the copy has had, of which the new history has another entry: it says so."""
    handle = await cluster.handle()
    await _rolled_back(cluster, store, handle)
    handle._link._tasks[1].cancel()  # its copy follows no more
    third = await cluster.handle()
    for number in range(9, 15):
        await third.append(say(f"b{number}"))
    with pytest.raises(PositionLostError):
        await anext(handle.watch(after_seq=12))


async def test_opening_again_shows_the_new_life(cluster: FakeCluster, store: FaultyStore) -> None:
    """A handle that is open already, of a conversation that was lost, follows the one that is there now."""
    handle = await cluster.handle()
    for number in range(5):
        await handle.append(say(f"old{number}"))
    store.lose_everything()
    await cluster.kill()
    third = await cluster.handle()
    await third.append(say("new"))
    await handle.catch_up(await third._owner.read(fresh=False))
    assert ids(handle) == ["new"]


async def test_a_snapshot_of_a_new_life_can_be_watched_from(cluster: FakeCluster, store: FaultyStore) -> None:
    """As `PositionLostError` advises: also at once, before the copy has found out by itself."""
    handle = await cluster.handle()
    for number in range(5):
        await handle.append(say(f"old{number}"))
    store.lose_everything()
    await cluster.kill()
    third = await cluster.handle()
    await third.append(say("new0"))
    snapshot = await handle.snapshot()
    async with aclosing(handle.watch(after_seq=snapshot.seq)) as watching:
        await third.append(say("new1"))
        assert told([await anext(watching)]) == ["new1"]


async def test_whoever_closes_lets_go(cluster: FakeCluster) -> None:
    """The owner is told: a closed handle, and a watch that was left, are no use from then on."""
    handle, other = await cluster.handle(), await cluster.handle()
    watching = other.watch(after_seq=0)
    await handle.append(say("u0"))
    await anext(watching)
    follow = asyncio.ensure_future(anext(watching))
    await until(lambda: _watchers(cluster) == 3)
    follow.cancel()
    await asyncio.wait({follow})
    await until(lambda: _watchers(cluster) == 2)
    await other.aclose()
    await handle.aclose()
    assert _watchers(cluster) == 0


def _watchers(cluster: FakeCluster) -> int:
    actor = cluster.find()
    assert actor is not None
    assert actor.activation is not None
    return actor.activation.info().watchers
