"""Opening without waiting: what is stored is shown at once, and its owner is found out about in the background."""

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta

import pytest

from conversation_actors import ConversationClient, ConversationHandle, Message
from conversation_actors.client import owner
from conversation_actors.client.copy import StoredState
from conversation_actors.client.late_port import LatePort
from conversation_actors.client.reading import Reader
from conversation_actors.errors import (
    ClusterMisconfiguredError,
    ClusterUnavailableError,
    ConflictError,
    ConversationNotFoundError,
    CorruptStateError,
    InvalidInputError,
    PositionLostError,
    RetryableError,
    StoreUnavailableError,
)
from conversation_actors.port import Peer
from conversation_actors.state import Entry, ItemsAppended
from conversation_actors.store import Recovered
from tests.support.fakes import (
    CONVERSATION,
    PATIENCE,
    FakeCluster,
    FakePort,
    Fault,
    FaultyStore,
    brief,
    stored,
    turns,
    until,
)
from tests.support.late_client import LateClient
from tests.support.quick import QUICK

TTL = timedelta(minutes=10)
BRIEF = brief(command=0.05)


def say(identity: str) -> Message:
    """A message whose text does not matter."""
    return Message(id=identity, role="user", content="hello")


def ids(handle: ConversationHandle) -> list[str]:
    """Ids of the copy's items."""
    return [item.id for item in handle.items]


def told(entries: list[Entry]) -> list[str]:
    """Ids of the items that entries brought."""
    return [item.id for entry in entries if isinstance(entry.event, ItemsAppended) for item in entry.event.items]


def failed(handle: ConversationHandle) -> int:
    """How often its opening has failed."""
    return handle.failures.get("opening", 0)


class Store(FaultyStore):
    """A store of which owners may be told something else than readers are."""

    fault: Exception | None = None
    """What it answers whoever would be an owner."""

    async def activate(self, conversation_id: str, *, owner: str, create: bool, ttl: timedelta) -> Recovered:
        """See `Store.activate`."""
        if self.fault is not None:
            raise self.fault
        return await super().activate(conversation_id, owner=owner, create=create, ttl=ttl)


@pytest.fixture
def store() -> Store:
    """The cluster's store."""
    return Store()


@pytest.fixture
async def cluster(store: Store) -> AsyncIterator[FakeCluster]:
    """A cluster in which one conversation sleeps that has one message."""
    async with FakeCluster(store, brief()) as made:
        handle = await made.handle()
        await handle.append(say("u0"))
        await handle.passivate()
        await handle.aclose()
        await until(lambda: made.find() is None)
        made.calls.clear()
        yield made


@pytest.fixture
async def client(cluster: FakeCluster) -> AsyncIterator[LateClient]:
    """A client of that cluster, which it has not joined."""
    made = LateClient(cluster)
    yield made
    made.may_join.set()
    await made.aclose()


async def test_what_is_stored_is_shown_at_once(cluster: FakeCluster, client: LateClient, store: Store) -> None:
    """By one call of the store, which changes nothing there, while no owner can be asked."""
    before, reads = copy.deepcopy(store.inner._conversations), store.reads
    handle = await client.open(CONVERSATION, wait=False)
    assert (ids(handle), handle.seq) == (["u0"], 1)
    await turns()
    assert (store.reads, store.inner._conversations) == (reads + 1, before)
    assert (cluster.find(), cluster.calls.total()) == (None, 0)


async def test_an_owner_is_started_in_the_background(cluster: FakeCluster, client: LateClient) -> None:
    """Nobody has to ask for anything; and it is opened once, so that the pool counts it."""
    client.may_join.set()
    handle = await client.open(CONVERSATION, wait=False)
    await until(lambda: _watchers(cluster) == 1)
    assert cluster.calls["open"] == 1
    assert (ids(handle), dict(handle.failures)) == (["u0"], {})


async def test_an_owner_that_was_woken_is_followed_at_once(cluster: FakeCluster) -> None:
    """However long the next look for one would still be away."""
    may_start = asyncio.Event()

    class SlowPort(FakePort):
        async def find_or_start(self) -> Peer:
            await may_start.wait()
            return await super().find_or_start()

    client = LateClient(cluster, timing=replace(QUICK, dormant=(3 * PATIENCE, 3 * PATIENCE)), port=SlowPort)
    client.may_join.set()
    looks = cluster.looks
    handle = await client.open(CONVERSATION, wait=False)
    await until(lambda: cluster.looks > looks)
    await turns()
    may_start.set()
    await until(lambda: _watchers(cluster) == 1)
    assert not handle.failures
    await client.aclose()


async def test_a_write_waits_for_the_owner(cluster: FakeCluster, client: LateClient) -> None:
    """As any write does, in its order."""
    handle = await client.open(CONVERSATION, wait=False)
    handle.record(say("u1"))
    writing = asyncio.create_task(handle.append(say("u2")))
    await turns()
    assert not writing.done()
    client.may_join.set()
    assert (await writing).seq == 3
    assert ids(handle) == ["u0", "u1", "u2"]
    assert cluster.calls["open"] == 1


@pytest.mark.parametrize("gone", ["never", "deleted", "expired"])
async def test_what_is_not_stored_is_not_found_at_once(gone: str) -> None:
    """If it is not to be created; no owner is waited for, or started."""
    now = 1000.0
    store = FaultyStore(clock=lambda: now)
    async with FakeCluster(store, brief()) as cluster:
        client = LateClient(cluster)
        if gone != "never":
            await store.activate(CONVERSATION, owner="o", create=True, ttl=TTL)
        if gone == "deleted":
            await store.delete(CONVERSATION, ttl=TTL)
        now += TTL.total_seconds()
        with pytest.raises(ConversationNotFoundError):
            await client.open(CONVERSATION, create=False, wait=False)
        assert (client.asked, cluster.actors) == (0, [])
        await client.aclose()


async def test_what_is_not_stored_is_waited_for() -> None:
    """If it is to be created: there is nothing to show before that."""
    async with FakeCluster(FaultyStore(), brief()) as cluster:
        client = LateClient(cluster)
        opening = asyncio.create_task(client.open(CONVERSATION, wait=False))
        await until(lambda: client.asked == 1)
        await turns()
        assert not opening.done()
        client.may_join.set()
        assert (await opening).seq == 0
        assert cluster.find() is not None
        await client.aclose()


async def test_a_store_that_does_not_answer(client: LateClient, store: Store) -> None:
    """The owner is waited for, as if nothing else had been asked."""
    store.is_down = True
    client.may_join.set()
    opening = asyncio.create_task(client.open(CONVERSATION, wait=False))
    await until(lambda: client.asked == 1)
    await turns()
    assert not opening.done()
    store.is_down = False
    assert ids(await opening) == ["u0"]


async def test_damage_is_told_by_the_owner(client: LateClient, store: Store) -> None:
    """It may be the reader's alone; if it is not, opening raises it as it always does."""
    client.may_join.set()
    store.inner._conversations[CONVERSATION].snapshot = b"no snapshot"
    with pytest.raises(CorruptStateError):
        await client.open(CONVERSATION, wait=False)


async def test_a_cluster_that_is_away(cluster: FakeCluster) -> None:
    """What is stored is shown all the same; writes say why they cannot be; and the owner comes as soon as it can."""
    client = LateClient(cluster, BRIEF)
    client.may_join.set()
    client.reason = ClusterUnavailableError("no Ray cluster")
    handle = await client.open(CONVERSATION, wait=False)
    await until(lambda: failed(handle) > 2)
    assert ids(handle) == ["u0"]
    with pytest.raises(RetryableError, match="no Ray cluster"):
        await handle.append(say("u1"))
    with pytest.raises(ClusterUnavailableError, match="no Ray cluster"):
        await handle.passivate()
    client.reason = None
    await until(lambda: _watchers(cluster) == 1)  # nobody has asked for it again
    await client.aclose()


@pytest.mark.parametrize(
    "fault",
    [
        CorruptStateError("damaged", key="k", position=0),
        StoreUnavailableError("away"),
        RuntimeError("nobody foresaw this"),
    ],
)
async def test_what_the_owner_fails_with_is_counted_told_and_tried_again(
    cluster: FakeCluster, store: Store, fault: Exception
) -> None:
    """The next call that needs the owner raises it, and a later one does not, once it is mended."""
    is_patient = isinstance(fault, RetryableError)  # then it is told when time is up, and else at once
    settings = BRIEF if is_patient else brief()
    short = settings.timeouts.model_copy(update={"open": settings.timeouts.command})
    settings = settings.model_copy(update={"timeouts": short})
    client = LateClient(cluster, settings)
    client.may_join.set()
    store.fault = fault
    handle = await client.open(CONVERSATION, wait=False)
    await until(lambda: failed(handle) > 1)
    for call in (handle.snapshot, lambda: handle.append(say("u1"))):
        with pytest.raises(Exception, match=f"{fault}|no reply|no answer" if is_patient else str(fault)):
            await call()
    assert ids(handle) == ["u0"]
    store.fault = None
    waking = handle._link._waking
    assert waking is not None
    await until(waking.done)
    await handle.append(say("u2"))
    await until(lambda: _watchers(cluster) == 1)
    await client.aclose()


async def test_following_joins_nothing_anew(cluster: FakeCluster) -> None:
    """A joining that failed is tried again by whoever wants an owner, and not once for each look of each handle."""
    client = LateClient(cluster)
    client.may_join.set()
    client.reason = ClusterMisconfiguredError("another Ray")
    port = LatePort(client._join_at_last, lambda: FakePort(cluster))
    for _ in range(3):
        with pytest.raises(ClusterMisconfiguredError, match="another Ray"):
            await port.find()
    assert client.asked == 1
    with pytest.raises(ClusterMisconfiguredError, match="another Ray"):
        await port.find_or_start()
    assert client.asked == 2
    client.reason = None
    await port.find_or_start()
    assert await port.find() is not None
    await client.aclose()


async def test_whoever_waits_when_a_port_is_closed_opens_none(cluster: FakeCluster, client: LateClient) -> None:
    """Nobody would close it again."""
    made: list[FakePort] = []

    def make() -> FakePort:
        made.append(FakePort(cluster))
        return made[-1]

    port = LatePort(client._join_at_last, make)
    finding = asyncio.create_task(port.find_or_start())
    await until(lambda: client.asked == 1)
    await port.aclose()
    client.may_join.set()
    with pytest.raises(ClusterUnavailableError, match="closed"):
        await finding
    assert (made, cluster.find()) == ([], None)


async def test_deleted_while_it_is_opened(cluster: FakeCluster, client: LateClient, store: Store) -> None:
    """It is not made again by the opening. Calls say that it is gone, and who opens it anew is followed."""
    handle = await client.open(CONVERSATION, wait=False)
    await store.delete(CONVERSATION, ttl=TTL)
    client.may_join.set()
    await until(lambda: failed(handle) == 1)
    with pytest.raises(ConversationNotFoundError):
        await handle.append(say("u1"))
    assert await store.head(CONVERSATION) is None
    assert failed(handle) == 1  # it does not start an owner again and again to be told the same
    other = await cluster.handle()
    await other.append(say("new"))
    await until(lambda: ids(handle) == ["new"])


async def test_another_life_took_its_place_while_it_was_opened(
    cluster: FakeCluster, client: LateClient, store: Store
) -> None:
    """The copy shows the new one alone, although its positions go on from those of the old one."""
    handle = await client.open(CONVERSATION, wait=False)
    await store.delete(CONVERSATION, ttl=TTL)
    other = await cluster.handle()
    await other.append(say("new0"))
    await other.append(say("new1"))
    with pytest.raises(ConflictError):
        await _joined(client, handle.set_attributes({"a": 1}, expected_seq=1))
    await until(lambda: ids(handle) == ["new0", "new1"])


@pytest.mark.parametrize("before", ["asleep", "crashed", "running"])
async def test_the_owner_leads_on_without_a_gap(cluster: FakeCluster, client: LateClient, before: str) -> None:
    """From what was shown: each entry comes once, to the copy and to a watch, and nothing is asked for twice."""
    writer = await cluster.handle()
    for number in range(1, 4):
        await writer.append(say(f"u{number}"))
    if before == "asleep":
        await writer.passivate()
        await until(lambda: cluster.find() is None)
    elif before == "crashed":
        await cluster.kill()
    reads = cluster.calls["read"]
    handle = await client.open(CONVERSATION, wait=False)
    async with aclosing(handle.watch()) as watching:
        expected = [f"u{number}" for number in range(4, 10)]
        following = asyncio.create_task(_take(watching, len(expected)))
        for name in expected[:3]:
            await writer.append(say(name))
        assert ids(handle) == ["u0", "u1", "u2", "u3"]
        client.may_join.set()
        for name in expected[3:]:
            await writer.append(say(name))
        assert told(await following) == expected
    await until(lambda: handle.seq == 10)
    assert ids(handle) == [f"u{number}" for number in range(10)]
    assert cluster.calls["read"] == reads


async def test_what_was_shown_and_lost_is_shown_no_longer(
    cluster: FakeCluster, client: LateClient, store: Store
) -> None:
    """The store forgot it before an owner began: what came in its place is shown, and nothing is decided on it."""
    writer = await cluster.handle()
    fail_over = store.remember()
    for number in range(1, 4):
        await writer.append(say(f"lost{number}"))
    await cluster.kill()
    handle = await client.open(CONVERSATION, wait=False)
    assert ids(handle) == ["u0", "lost1", "lost2", "lost3"]
    watching = handle.watch()
    fail_over()
    third = await cluster.handle()
    new = [f"new{number}" for number in range(5)]
    for name in new:
        await third.append(say(name))
    with pytest.raises(ConflictError):
        await _joined(client, handle.set_attributes({"a": 1}, expected_seq=4))
    with pytest.raises(PositionLostError):
        await anext(watching)
    await until(lambda: ids(handle) == ["u0", *new])


async def test_stored_and_not_known_to_be(cluster: FakeCluster, client: LateClient, store: Store) -> None:
    """The owner's write has landed and its answer has not come: what was shown of it is waited for by the owner."""
    writer = await cluster.handle()
    await writer.append(say("u1"))
    store.append_faults.extend([Fault.AFTER, *[Fault.BEFORE] * 100_000])
    writer.record(say("u2"))
    client.may_join.set()
    await until(lambda: 3 in store.landed or len(store.appends) > 3)
    handle = await client.open(CONVERSATION, wait=False)
    assert ids(handle) == ["u0", "u1", "u2"]
    async with aclosing(handle.watch()) as watching:
        following = asyncio.create_task(_take(watching, 1))
        await until(lambda: _watchers(cluster) == 3)
        store.append_faults.clear()
        await handle.append(say("u3"))
        assert told(await following) == ["u3"]
    assert ids(handle) == ["u0", "u1", "u2", "u3"]


async def test_opening_twice_gives_one_handle(client: LateClient) -> None:
    """Also at once, and of both ways; whoever waits is told by the owner."""
    first, second = await asyncio.gather(*[client.open(CONVERSATION, wait=False) for _ in range(2)])
    assert first is second is await client.open(CONVERSATION, wait=False)
    waiting = asyncio.create_task(client.open(CONVERSATION))
    await turns()
    assert not waiting.done()
    client.may_join.set()
    assert await waiting is first


async def test_opening_again_shows_what_was_stored_since(cluster: FakeCluster, client: LateClient) -> None:
    """At once too, although the copy could not follow."""
    handle = await client.open(CONVERSATION, wait=False)
    writer = await cluster.handle()
    await writer.append(say("u1"))
    assert ids(handle) == ["u0"]
    assert await client.open(CONVERSATION, wait=False) is handle
    assert ids(handle) == ["u0", "u1"]
    client.may_join.set()
    await writer.append(say("u2"))
    await until(lambda: ids(handle) == ["u0", "u1", "u2"])


async def test_waiting_for_the_owner_shows_all_that_was_there(cluster: FakeCluster, client: LateClient) -> None:
    """Also of a handle that was made meanwhile, by somebody who does not wait."""
    waiting = asyncio.create_task(client.open(CONVERSATION))
    await until(lambda: client.asked == 1)
    early = await client.open(CONVERSATION, wait=False)
    early._link._tasks[1].cancel()  # its copy would follow by itself, a moment later
    writer = await cluster.handle()
    await writer.append(say("u1"))
    client.may_join.set()
    assert ids(await waiting) == ["u0", "u1"]


async def test_opening_again_takes_nothing_back(client: LateClient, store: Store) -> None:
    """A read may be answered late, when the copy is further on."""
    client.may_join.set()
    handle = await client.open(CONVERSATION, wait=False)
    old = await Reader(store, None, brief()).state(CONVERSATION)
    await handle.append(say("u1"))
    handle.show(old)
    assert ids(handle) == ["u0", "u1"]


async def test_opening_again_wakes_the_owner_again(cluster: FakeCluster, client: LateClient) -> None:
    """It may have gone to sleep since: to follow it starts none."""
    client.may_join.set()
    handle = await client.open(CONVERSATION)
    await handle.passivate()
    await until(lambda: cluster.find() is None)
    assert await client.open(CONVERSATION, wait=False) is handle
    await until(lambda: _watchers(cluster) == 1)


async def test_closing_while_it_is_opened(
    cluster: FakeCluster, client: LateClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing goes on, and no owner is looked for that nobody has asked; the next opening makes a new handle."""
    monkeypatch.setattr(owner, "_LET_GO_SECONDS", 3 * PATIENCE)
    tasks = asyncio.all_tasks()
    handle = await client.open(CONVERSATION, wait=False)
    await until(lambda: client.asked == 1)
    async with asyncio.timeout(PATIENCE):
        await handle.aclose()
    assert {task for task in asyncio.all_tasks() - tasks if task is not client._joining} == set()
    new = await client.open(CONVERSATION, wait=False)
    assert new is not handle
    client.may_join.set()
    await new.append(say("u1"))
    assert ids(new) == ["u0", "u1"]
    assert ids(handle) == ["u0"]


async def test_a_write_that_waits_when_it_is_closed(cluster: FakeCluster) -> None:
    """It was never sent to anybody."""
    client = LateClient(cluster, brief(close=0.01))
    handle = await client.open(CONVERSATION, wait=False)
    writing = asyncio.create_task(handle.append(say("u1")))
    await turns()
    await client.aclose()
    with pytest.raises(RetryableError):
        await writing
    assert cluster.actors[1:] == []


@pytest.mark.parametrize("is_begun", [False, True], ids=["at once", "while it joins"])
async def test_what_was_recorded_is_sent_if_the_cluster_is_joined_while_it_closes(
    cluster: FakeCluster, *, is_begun: bool
) -> None:
    """As of any handle: `timeouts.close` is for that."""
    client = LateClient(cluster)
    handle = await client.open(CONVERSATION, wait=False)
    handle.record(say("u1"))
    if is_begun:
        await until(lambda: client.asked == 1)
    closing = asyncio.create_task(client.aclose())
    await until(lambda: client.asked == 1)
    await turns()
    client.may_join.set()
    await closing
    state, _ = await stored(cluster.store)
    assert [item.id for item in state.window] == ["u0", "u1"]


async def test_a_client_that_was_closed_meanwhile(client: LateClient, store: Store) -> None:
    """Nobody would close the handle: there is none."""
    started, answers = asyncio.Event(), asyncio.Event()

    class Slow(Reader):
        async def state(self, conversation_id: str) -> StoredState:
            started.set()
            await answers.wait()
            return await super().state(conversation_id)

    client._reader = Slow(store, None, brief())
    opening = asyncio.create_task(client.open(CONVERSATION, wait=False))
    await started.wait()
    await client.aclose()
    answers.set()
    with pytest.raises(InvalidInputError, match="not connected"):
        await opening
    assert not client._handles


async def test_in_memory() -> None:
    """The same where nothing is to be joined."""
    async with ConversationClient.local(name="at-once") as first, ConversationClient.local(name="at-once") as second:
        writer = await first.open(CONVERSATION)
        await writer.append(say("u0"))
        await writer.passivate()
        handle = await second.open(CONVERSATION, wait=False)
        assert ids(handle) == ["u0"]
        async with aclosing(handle.watch()) as watching:
            assert (await handle.append(say("u1"))).seq == 2
            assert told(await _take(watching, 1)) == ["u1"]
        with pytest.raises(ConversationNotFoundError):
            await second.open("never", create=False, wait=False)


async def _take(watching: AsyncIterator[Entry], count: int) -> list[Entry]:
    async with asyncio.timeout(PATIENCE):
        return [await anext(watching) for _ in range(count)]


async def _joined(client: LateClient, call: object) -> object:
    """Await a call that was made before the cluster was joined."""
    calling = asyncio.ensure_future(call)  # type: ignore[call-overload]
    await turns()
    client.may_join.set()
    return await calling


def _watchers(cluster: FakeCluster) -> int:
    actor = cluster.find()
    if actor is None or actor.activation is None or actor.activation.stopped.done():
        return 0
    return actor.activation.info().watchers
