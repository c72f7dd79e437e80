"""Reading a conversation where it is stored: as fresh as its owner, and without a trace."""

import asyncio
import copy
import logging
import os
import random
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import SecretStr

from conversation_actors import ConversationClient, ConversationHandle, Message, RefusedError, Settings
from conversation_actors.client import client as client_module
from conversation_actors.client import opening
from conversation_actors.client.reading import Reader
from conversation_actors.errors import (
    ClusterMisconfiguredError,
    ClusterUnavailableError,
    ConversationNotFoundError,
    CorruptStateError,
    IncompatibleVersionError,
    InvalidInputError,
    StoreMisconfiguredError,
    StoreUnavailableError,
)
from conversation_actors.runtime import cluster as runtime
from conversation_actors.store import MemoryStore, Stored
from conversation_actors.timing import Timing
from tests.support.fakes import CONVERSATION, FakeCluster, FaultyStore, brief, turns, until

TTL = timedelta(minutes=10)


def said(identity: str, text: str = "hello") -> Message:
    """Make a message of a user."""
    return Message(id=identity, role="user", content=text)


class Life:
    """A random history of one conversation, told by one handle."""

    def __init__(self, cluster: FakeCluster, handle: ConversationHandle, seed: int) -> None:
        """Nothing has happened."""
        self._cluster, self._handle, self._random = cluster, handle, random.Random(seed)
        self._said = 0

    async def go_on(self) -> None:
        """One thing happens; that it is refused is no harm."""
        changes = (self.join, self.leave, self.set, self.lease, self.summarize, self.remove, self.clear, self.retain)
        happening = self._random.choice((*[self.say] * 5, *changes, self.close, self.sleep, self.crash))
        try:
            await happening()
        except RefusedError:
            await self._handle.reopen_conversation()

    async def say(self) -> None:
        """Append some messages."""
        count = self._random.randint(1, 6)
        self._said += count
        text = "x" * self._random.randint(0, 400)
        await self._handle.append(*(said(f"m{self._said - number}", text) for number in range(count)))

    async def join(self) -> None:
        """Somebody comes, perhaps again."""
        await self._handle.join(self._random.choice("abc"), metadata={"n": self._said}, device_id="d")

    async def leave(self) -> None:
        """Somebody goes."""
        await self._handle.leave(self._random.choice("abc"), device_id="d")

    async def set(self) -> None:
        """An attribute changes."""
        await self._handle.set_attributes({self._random.choice("xyz"): self._said})

    async def lease(self) -> None:
        """Somebody takes a lease."""
        await self._handle.acquire_lease("agent", holder="w1", duration=timedelta(seconds=30))

    async def summarize(self) -> None:
        """What was said is put together."""
        await self._handle.set_summary(f"{self._said} said", through_seq=self._handle.seq)

    async def remove(self) -> None:
        """A message is taken out."""
        await self._handle.remove(f"m{self._random.randint(1, self._said + 1)}")

    async def clear(self) -> None:
        """All of them are."""
        await self._handle.clear_history()

    async def retain(self) -> None:
        """It is to be kept for another time."""
        await self._handle.set_retention(timedelta(days=self._random.randint(1, 9)))

    async def close(self) -> None:
        """It ends."""
        await self._handle.close_conversation("done")

    async def sleep(self) -> None:
        """Its owner leaves; the next call starts another one."""
        await self._handle.passivate()

    async def crash(self) -> None:
        """Its owner dies."""
        await self._cluster.kill()


@pytest.mark.parametrize("seed", range(8))
async def test_a_read_is_what_a_fresh_snapshot_is(seed: int) -> None:
    """After whatever has happened, both show the same, and the read leaves the store as it was."""
    store = FaultyStore()
    async with FakeCluster(store, brief(items=12)) as cluster:
        handle = await cluster.handle()
        life = Life(cluster, handle, seed)
        for _ in range(40):
            await life.go_on()
            before = copy.deepcopy(store.inner._conversations)
            read = await Reader(store, None, cluster.settings).read(CONVERSATION)
            assert store.inner._conversations == before
            owners = len(cluster.actors)
            shown = await handle.snapshot(fresh=True)
            # where no owner ran, the handle has one started to answer, which takes an epoch
            assert replace(read, epoch=read.epoch + len(cluster.actors) - owners) == shown


async def test_nothing_is_shown_that_is_not_stored() -> None:
    """What the owner has decided, and the store has not taken, is not there to be read."""
    store = FaultyStore()
    async with FakeCluster(store, brief()) as cluster:
        handle = await cluster.handle()
        await handle.append(said("u0"))
        store.hold()
        handle.record(said("u1"))
        await until(lambda: bool(store.appends) and store.appends[-1][0] == 1)
        read = await Reader(store, None, cluster.settings).read(CONVERSATION)
        assert [item.id for item in read.items] == ["u0"]
        store.release()
        await handle.flush()
        read = await Reader(store, None, cluster.settings).read(CONVERSATION)
        assert [item.id for item in read.items] == ["u0", "u1"]


async def test_a_sleeping_conversation_sleeps_on() -> None:
    """Nobody starts an owner for it, and its epoch and its time to live are what they were."""
    now = 1000.0
    store = MemoryStore(clock=lambda: now)
    async with FakeCluster(store, brief()) as cluster:
        handle = await cluster.handle()
        await handle.append(said("u0"))
        await handle.passivate()
        await handle.aclose()
        await until(lambda: cluster.find() is None)
        before = await store.read(CONVERSATION)
        now += 60.0
        read = await Reader(store, None, cluster.settings).read(CONVERSATION)
        after = await store.read(CONVERSATION)
        assert cluster.find() is None
        assert (read.epoch, after.epoch) == (before.epoch, before.epoch)
        assert after.left == before.left - timedelta(seconds=60)


async def test_what_is_not_there_or_no_longer() -> None:
    """Never opened, expired, deleted: there is no such conversation."""
    now = 1000.0
    store = MemoryStore(clock=lambda: now)
    reader = Reader(store, None, brief())
    for name in ("expired", "deleted"):
        await store.activate(name, owner="o", create=True, ttl=TTL)
        assert (await reader.read(name)).items == ()
    await store.delete("deleted", ttl=TTL)
    now += TTL.total_seconds()
    for name in ("never", "expired", "deleted"):
        with pytest.raises(ConversationNotFoundError, match=name):
            await reader.read(name)


async def test_damage_is_named() -> None:
    """By the key and the place in it, as its owner would."""
    store = MemoryStore()
    claim = (await store.activate(CONVERSATION, owner="o", create=True, ttl=TTL)).claim
    await store.append(claim, expected_seq=0, entries=[b"no entry"], ttl=TTL)
    with pytest.raises(CorruptStateError, match=r"journal\[0\]"):
        await Reader(store, None, brief()).read(CONVERSATION)


async def test_a_store_that_is_away_is_waited_for() -> None:
    """As long as a command may take; then the error tells what the store said."""
    store = FaultyStore()
    await store.activate(CONVERSATION, owner="o", create=True, ttl=TTL)
    store.is_down = True
    reading = asyncio.create_task(Reader(store, None, brief()).read(CONVERSATION))
    await until(lambda: store.reads > 1)
    store.is_down = False
    assert (await reading).epoch == 1
    store.is_down = True
    with pytest.raises(StoreUnavailableError, match="did not arrive"):
        await Reader(store, None, brief(command=0.05)).read(CONVERSATION)


class Lagging(MemoryStore):
    """A replica that says how far behind it may be."""

    async def read(self, conversation_id: str) -> Stored:
        """See `Store.read`."""
        return replace(await super().read(conversation_id), lag=timedelta(seconds=3))


async def test_a_replica_is_read_where_that_may_be_stale() -> None:
    """And only there; the snapshot tells how far behind it may be."""
    primary, replica = FaultyStore(), Lagging()
    for store in (primary, replica):
        await store.activate(CONVERSATION, owner="o", create=True, ttl=TTL)
    reader = Reader(primary, replica, brief())
    assert (await reader.read(CONVERSATION, stale_ok=True)).lag == timedelta(seconds=3)
    assert primary.reads == 0
    assert (await reader.read(CONVERSATION)).lag == timedelta(0)
    assert primary.reads == 1


async def test_what_a_replica_does_not_have_is_read_from_the_primary() -> None:
    """A conversation may be younger than it; one that is nowhere does not exist."""
    primary, replica = FaultyStore(), FaultyStore()
    await primary.activate(CONVERSATION, owner="o", create=True, ttl=TTL)
    reader = Reader(primary, replica, brief())
    assert (await reader.read(CONVERSATION, stale_ok=True)).lag == timedelta(0)
    with pytest.raises(ConversationNotFoundError):
        await reader.read("never", stale_ok=True)


async def test_a_replica_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """The primary is read instead, and the log tells it once, until the replica is back."""
    primary, replica = FaultyStore(), FaultyStore()
    for store in (primary, replica):
        await store.activate(CONVERSATION, owner="o", create=True, ttl=TTL)
    reader = Reader(primary, replica, brief(), timing=Timing(read_away=0.0))
    for is_down, lines in ((True, 1), (True, 1), (False, 1), (True, 2)):
        replica.is_down = is_down
        await reader.read(CONVERSATION, stale_ok=True)
        assert len([line for line in caplog.records if "replica" in line.getMessage()]) == lines
    assert primary.reads == 3


async def test_a_replica_that_hangs_is_not_waited_for_each_time() -> None:
    """Each read would take its time-out longer; the next ones go to the primary at once."""
    primary, replica = FaultyStore(), FaultyStore()
    for store in (primary, replica):
        await store.activate(CONVERSATION, owner="o", create=True, ttl=TTL)
    replica.is_down = True
    reader = Reader(primary, replica, brief())
    for _ in range(5):
        await reader.read(CONVERSATION, stale_ok=True)
    assert (replica.reads, primary.reads) == (1, 5)


async def test_without_a_replica_the_primary_is_read() -> None:
    """`stale_ok` allows, and asks for nothing."""
    primary = FaultyStore()
    await primary.activate(CONVERSATION, owner="o", create=True, ttl=TTL)
    assert (await Reader(primary, None, brief()).read(CONVERSATION, stale_ok=True)).lag == timedelta(0)


class Ray:
    """A cluster that is away, or there, or does not answer."""

    def __init__(self) -> None:
        """Away."""
        self.is_away = True
        self.reason: Exception = ClusterUnavailableError("no Ray cluster")
        self.answers = asyncio.Event()
        self.answers.set()
        self.joined = self.asked = 0

    async def connect(self, _settings: Settings, **_: object) -> None:
        """See `runtime.connect`."""
        self.asked += 1
        await self.answers.wait()
        if self.is_away:
            raise self.reason
        self.joined += 1


class Directory:
    """No actors."""

    def __init__(self, _settings: Settings) -> None:
        """Nothing runs."""

    async def start_pool(self) -> None:
        """Start nothing."""

    def find(self, _conversation_id: str) -> None:
        """Find nobody."""


class Checked(FaultyStore):
    """A store whose check may fail."""

    objection: Exception | None = None

    async def check(self) -> None:
        """See `Store.check`."""
        if self.objection is not None:
            raise self.objection


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    """The cluster that clients join."""
    made = Ray()
    monkeypatch.setattr(runtime, "connect", made.connect)
    monkeypatch.setattr(runtime, "ActorDirectory", Directory)
    return made


@pytest.fixture
async def store(monkeypatch: pytest.MonkeyPatch) -> Checked:
    """The store that clients open, with one conversation."""
    made = Checked()
    await made.activate(CONVERSATION, owner="o", create=True, ttl=TTL)
    await made.index(CONVERSATION, participants=[], ttl=TTL)
    monkeypatch.setattr(opening, "open_store", lambda _settings: made)
    return made


async def test_no_ray_is_needed_to_look(ray: Ray, store: Checked) -> None:
    """Entering, reading, listing and deleting work without a cluster; opening tells that there is none."""
    async with ConversationClient(brief()) as client:
        assert (await client.read(CONVERSATION)).epoch == 1
        assert [found.conversation_id async for found in client.list()] == [CONVERSATION]
        with pytest.raises(ClusterUnavailableError, match="no Ray cluster"):
            await client.open(CONVERSATION)
        await client.delete(CONVERSATION)
        with pytest.raises(ConversationNotFoundError):
            await client.read(CONVERSATION)
        with pytest.raises(ConversationNotFoundError):
            await client.open(CONVERSATION, create=False)
    assert not ray.joined


async def test_a_join_in_the_background_changes_no_environment(ray: Ray, store: Checked) -> None:
    """What Ray is to read when it connects is set while Ray is called, and inherited by no process started before."""
    ray.answers.clear()
    before = dict(os.environ)
    async with ConversationClient(brief()) as client:
        joining = asyncio.create_task(client.join_cluster())
        await until(lambda: ray.asked > 0)
        assert dict(os.environ) == before
        ray.answers.set()
        with pytest.raises(ClusterUnavailableError):
            await joining


async def test_looking_waits_for_no_ray(ray: Ray, store: Checked) -> None:
    """A cluster that does not answer holds up nobody but who opens."""
    ray.answers.clear()
    async with ConversationClient(brief()) as client:
        assert (await client.read(CONVERSATION)).epoch == 1
        opening_it = asyncio.create_task(client.open(CONVERSATION))
        await turns()
        assert not opening_it.done()
        ray.answers.set()
        with pytest.raises(ClusterUnavailableError):
            await opening_it


@pytest.mark.parametrize(
    "reason",
    [ClusterUnavailableError("away"), ClusterMisconfiguredError("no token"), IncompatibleVersionError("other Ray")],
    ids=lambda reason: type(reason).__name__,
)
async def test_a_deletion_fails_for_no_cluster(ray: Ray, store: Checked, reason: Exception) -> None:
    """Whatever keeps this process out of one: what was asked for has happened, and a repeat would find nothing."""
    ray.reason = reason
    async with ConversationClient(brief()) as client:
        await client.delete(CONVERSATION)
        with pytest.raises(ConversationNotFoundError):
            await client.read(CONVERSATION)


async def test_many_deletions_look_for_a_cluster_once(
    ray: Ray, store: Checked, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that does not answer is not waited for with each; once it is joined, owners are told again."""
    caplog.set_level("INFO")
    for number in range(20):
        await store.activate(f"c{number}", owner="o", create=True, ttl=TTL)
    ray.answers.clear()
    async with ConversationClient(brief(), timing=Timing(tell=1.0)) as client:
        for number in range(10):
            await client.delete(f"c{number}")
        assert caplog.text.count("owners, if any run, are not told of deletions") == 1
        ray.is_away = False
        ray.answers.set()
        await client.join_cluster()
        told = []
        monkeypatch.setattr(Directory, "find", lambda _self, name: told.append(name))
        monkeypatch.setattr(Directory, "confirm", lambda _self: None, raising=False)
        for number in range(10, 20):
            await client.delete(f"c{number}")
        assert told == [f"c{number}" for number in range(10, 20)]


async def test_a_deletion_does_not_fail_with_its_owner(
    ray: Ray, store: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner that cannot read either finds out later."""
    ray.is_away = False

    class Owner:
        async def tell_of_deletion(self) -> None:
            message = "Redis is away"
            raise StoreUnavailableError(message)

        async def aclose(self) -> None:
            """Do nothing."""

    async with ConversationClient(brief()) as client:
        monkeypatch.setattr(client, "_owner", lambda _conversation_id: Owner())
        await client.delete(CONVERSATION)
        with pytest.raises(ConversationNotFoundError):
            await client.read(CONVERSATION)


@pytest.mark.parametrize(("address", "uses_ray"), [(None, False), (None, True), ("head:6379", False)])
async def test_who_only_reads_meets_no_cluster_by_chance(
    ray: Ray, store: Checked, monkeypatch: pytest.MonkeyPatch, address: str | None, *, uses_ray: bool
) -> None:
    """Entering joins a cluster that is named, or that the process is in; a local one is looked for by who opens."""
    monkeypatch.setattr(client_module, "_has_imported", lambda _package: uses_ray)
    ray.is_away = False
    async with ConversationClient(brief().model_copy(update={"ray_address": address})) as client:
        assert (await client.read(CONVERSATION)).epoch == 1
        is_expected = address is not None or uses_ray
        assert (client._joining is not None) == is_expected
        await client.join_cluster()
    assert ray.joined == 1


async def test_a_cluster_that_comes_later_is_joined(ray: Ray, store: Checked) -> None:
    """A failure to join is told each time, and lasts no longer than the cluster is away."""
    async with ConversationClient(brief()) as client:
        for _ in range(2):
            with pytest.raises(ClusterUnavailableError):
                await client.join_cluster()
        ray.is_away = False
        await asyncio.gather(client.join_cluster(), client.join_cluster())
        await client.join_cluster()
    assert ray.joined == 1


async def test_a_client_that_closes_ends_who_waits_to_join(ray: Ray, store: Checked) -> None:
    """With the error of a closed client, not as if the caller had been cancelled."""
    ray.answers.clear()
    async with ConversationClient(brief(), timing=Timing(joined=0.01)) as client:
        waiting = asyncio.create_task(client.join_cluster())
        await turns()
    with pytest.raises(InvalidInputError, match="not connected"):
        await waiting


async def test_a_client_that_closes_lets_ray_finish(ray: Ray, store: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends while Ray joins, which takes long on a busy machine, may crash."""
    monkeypatch.setattr(runtime, "is_joining", lambda: not ray.joined)
    ray.answers.clear()
    ray.is_away = False
    settings = brief().model_copy(update={"ray_address": "head:6379"})
    client = await ConversationClient(settings, timing=Timing(joined=0.01)).__aenter__()
    await until(lambda: client._is_joining())  # noqa: PLW0108  # it becomes another one
    closing = asyncio.create_task(client.aclose())
    done, _ = await asyncio.wait({closing}, timeout=0.2)
    assert not done
    ray.answers.set()
    await closing
    assert ray.joined == 1


async def test_nobody_complains_of_a_cluster_that_was_not_needed(
    ray: Ray, store: Checked, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the log nor the event loop tells who only reads that there is none."""
    with caplog.at_level(logging.INFO):
        async with ConversationClient(brief()) as client:
            await client.read(CONVERSATION)
            await turns()
    assert not caplog.records


async def test_who_may_only_read_reads(ray: Ray, store: Checked) -> None:
    """A missing right to write is told to who writes; any other objection to who enters."""
    ray.is_away = False
    store.objection = StoreMisconfiguredError("NOPERM", lacks_right=True)
    async with ConversationClient(brief()) as client:
        assert (await client.read(CONVERSATION)).epoch == 1
        with pytest.raises(StoreMisconfiguredError, match="NOPERM"):
            await client.open(CONVERSATION)
        store.objection = None
        with pytest.raises(ConversationNotFoundError):  # the right was granted: it is looked for
            await client.open("never", create=False)
    store.objection = StoreMisconfiguredError("WRONGPASS")
    with pytest.raises(StoreMisconfiguredError, match="WRONGPASS"):
        await ConversationClient(brief()).__aenter__()


async def test_a_closed_client_reads_nothing(ray: Ray, store: Checked) -> None:
    """No repeat helps."""
    async with ConversationClient(brief()) as client:
        pass
    with pytest.raises(InvalidInputError, match="not connected"):
        await client.read(CONVERSATION)
    with pytest.raises(InvalidInputError, match="not connected"):
        await client.join_cluster()


async def test_the_replicas_url_is_read_like_the_other(ray: Ray, store: Checked) -> None:
    """A mistake in it is told when the client is entered, without what is secret in it."""
    settings = Settings(read_url=SecretStr("http://user:geheim@replica"))
    with pytest.raises(InvalidInputError) as caught:
        await ConversationClient(settings).__aenter__()
    assert str(caught.value).startswith("read_url: must start with")
    assert "geheim" not in str(caught.value)
    assert "geheim" not in repr(settings)
