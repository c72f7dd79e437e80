"""Stand-ins for what surrounds a call: Ray and Redis, and the conversation of whoever calls."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import pytest

from agent_worker.settings import CallSettings, TakeoverSettings
from agent_worker.tenure import opening as tenure_opening
from agent_worker.tenure.assignment import Assignment
from agent_worker.tenure.conversation import CallConversation
from agent_worker.tenure.post import Post
from agent_worker.tenure.role import AGENT_ROLE, LEASE
from agent_worker.timing import Timing
from conversation_actors import ConversationHandle
from conversation_actors.client import opening
from conversation_actors.errors import ConversationError
from conversation_actors.settings import BackendSettings, Settings
from conversation_actors.store import Beat, HeartbeatRecord, Place
from conversation_actors.store.expectations import MemoryExpectations
from conversation_actors.store.heartbeats import MemoryHeartbeats, Page
from conversation_actors.values import decode
from tests.support.fakes import CONVERSATION, FakeCluster, FaultyStore, brief

ROOM = "room-1"
POST = Post(room=ROOM, agent_name="support", agent_identity="agent-1", group="worker-1")
QUICK = Timing(
    guard=0.002,
    handover_look=0.002,
    opening=(0.002, 0.01),
    backlog_pause=0.002,
    pulse_look=0.002,
    pulse=(0.002, 0.01),
    once=(0.001, 0.01),
    expected_look=0.002,
    room_poll=0.002,
    tracks_together=0.005,
    data_pause=0.01,
)
"""How long a call waits in tests: shorter wherever a test would wait for it."""


class Clock:
    """A clock that a test moves: that of whoever looks at heartbeats."""

    def __init__(self) -> None:
        """Somewhere behind the beginning."""
        self.now = 1000.0
        self.pace = 0.0
        """Seconds that go by with every look for silent agents."""

    def __call__(self) -> float:
        """Seconds."""
        return self.now


class ShakyHeartbeats(MemoryHeartbeats):
    """Heartbeats in memory, on a server that can be away."""

    def __init__(self, clock: Clock) -> None:
        """In good order."""
        super().__init__(clock)
        self._pace = clock
        self.trouble: Exception | None = None
        """What every call raises."""
        self.asked = 0
        """Calls so far, failed ones too."""

    def answer(self) -> None:
        """Count a question, and fail where the server is away."""
        self.asked += 1
        if self.trouble is not None:
            raise self.trouble

    async def start(
        self, conversation_id: str, holder: str, *, valid_for: timedelta, group: str, details: bytes
    ) -> None:
        """See `HeartbeatStore.start`."""
        self.answer()
        await super().start(conversation_id, holder, valid_for=valid_for, group=group, details=details)

    async def beat(
        self, conversation_id: str, holder: str, *, valid_for: timedelta, group: str, details: bytes | None
    ) -> bool:
        """See `HeartbeatStore.beat`."""
        self.answer()
        return await super().beat(conversation_id, holder, valid_for=valid_for, group=group, details=details)

    async def end(self, conversation_id: str, holder: str) -> bool:
        """See `HeartbeatStore.end`."""
        self.answer()
        return await super().end(conversation_id, holder)

    async def silent(self, *, after: int, until: int, limit: int) -> Page:
        """See `HeartbeatStore.silent`."""
        self._pace.now += self._pace.pace
        self.answer()
        return await super().silent(after=after, until=until, limit=limit)

    async def claim(
        self,
        conversation_id: str,
        claimant: str,
        *,
        hold: timedelta,
        holder: str | None,
        seen: Beat | None = None,
    ) -> HeartbeatRecord | None:
        """See `HeartbeatStore.claim`."""
        self.answer()
        return await super().claim(conversation_id, claimant, hold=hold, holder=holder, seen=seen)

    async def find(self, conversation_id: str) -> HeartbeatRecord | None:
        """See `HeartbeatStore.find`."""
        self.answer()
        return await super().find(conversation_id)

    async def announce(self, conversation_id: str, holder: str) -> None:
        """See `HeartbeatStore.announce`."""
        self.answer()
        await super().announce(conversation_id, holder)

    async def withdraw(self, conversation_id: str, holder: str) -> None:
        """See `HeartbeatStore.withdraw`."""
        self.answer()
        await super().withdraw(conversation_id, holder)


class ShakyExpectations(MemoryExpectations):
    """Who is expected, on the server of the heartbeats; kept by the time that goes by in tests."""

    def __init__(self, agents: ShakyHeartbeats) -> None:
        """Nobody yet."""
        super().__init__(time.monotonic)
        self._agents = agents

    async def put(self, place: Place, token: str, told: bytes, *, keep: timedelta, is_new: bool) -> bool:
        """See `ExpectationStore.put`."""
        self._answer()
        return await super().put(place, token, told, keep=keep, is_new=is_new)

    async def all(self, place: Place) -> list[tuple[str, bytes]]:
        """See `ExpectationStore.all`."""
        self._answer()
        return await super().all(place)

    async def drop(self, place: Place, token: str) -> bool:
        """See `ExpectationStore.drop`."""
        self._answer()
        return await super().drop(place, token)

    async def last_without_call(self, room: str, agent_name: str) -> Assignment | None:
        """What the newest one that LiveKit has not answered yet is told."""
        told = [decode(data) for _, data in await super().all(Place(room, agent_name))]
        return next((Assignment.of(one["told"]) for one in reversed(told) if not one["call"]), None)

    def _answer(self) -> None:
        self._agents.answer()


class ShakyStore(FaultyStore):
    """A store in memory whose heartbeats have a clock of their own, and may be away."""

    def __init__(self, clock: Clock) -> None:
        """Start empty."""
        super().__init__()
        self.agents = ShakyHeartbeats(clock)
        self.called = ShakyExpectations(self.agents)
        self.kept: list[timedelta | None] = []
        """What was answered to those who had the conversation kept."""

    async def keep(self, conversation_id: str, *, ttl: timedelta) -> timedelta | None:
        """See `Store.keep`."""
        if self.agents.trouble is not None:
            raise self.agents.trouble
        self.kept.append(await super().keep(conversation_id, ttl=ttl))
        return self.kept[-1]

    def expectations(self, lease: str) -> "ShakyExpectations":
        """See `Store.expectations`."""
        assert lease == LEASE
        return self.called

    def heartbeats(self, lease: str, *, ttl: timedelta) -> ShakyHeartbeats:
        """See `Store.heartbeats`: there is one lease."""
        assert lease == LEASE
        assert ttl > timedelta(0)
        return self.agents


class World:
    """The conversation "c", with a real owner on a store in memory, and signs of life beside it."""

    def __init__(self, store: ShakyStore, cluster: FakeCluster) -> None:
        """All is well."""
        self.store, self.cluster = store, cluster
        self.ray_trouble: ConversationError | None = None
        """What joining Ray raises."""
        self.may_open = asyncio.Event()
        """Cleared, the owner gives no answer to an `open`."""
        self.may_open.set()
        self.timing = QUICK
        """How long the calls wait that are made from now on."""
        self.backend: BackendSettings | None = None
        """What the calls have that are made from now on; None: what the settings of the cluster say."""
        self.clients = 0
        """Clients that are connected now."""
        self._calls: list[CallConversation] = []

    @property
    def agents(self) -> ShakyHeartbeats:
        """The signs of life."""
        return self.store.agents

    def call(
        self,
        holder: str = "job-1",
        assignment: Assignment | None = None,
        *,
        post: Post = POST,
        settings: CallSettings | None = None,
        takeover: TakeoverSettings | None = None,
        role: str = AGENT_ROLE,
    ) -> CallConversation:
        """The conversation as one job has it; closed behind the test."""
        stored = self.cluster.settings
        if self.backend is not None:
            stored = stored.model_copy(update={"backend": self.backend})
        made = CallConversation(
            CONVERSATION,
            holder=holder,
            role=role,
            post=post,
            assignment=assignment or Assignment(conversation_id=CONVERSATION),
            store=stored,
            call=settings or CallSettings(),
            takeover=takeover or TakeoverSettings(heartbeat=timedelta(milliseconds=5), valid_for=timedelta(seconds=3)),
            timing=self.timing,
        )
        self._calls.append(made)
        return made

    async def lose_everything(self) -> None:
        """Kill the owner and lose all that is stored. No other owner reads any of it in between."""
        self.store.is_down = True
        await self.cluster.kill()
        self.store.lose_everything()
        self.store.is_down = False

    async def aclose(self) -> None:
        """End all jobs."""
        self.may_open.set()
        for made in self._calls:
            await made.aclose()


class FakeClient:
    """The twin of `ConversationClient`, on a `World`."""

    def __init__(self, world: World) -> None:
        """Not connected yet."""
        self._world = world
        self._handle: ConversationHandle | None = None

    async def __aenter__(self) -> Self:
        """Connect, where Ray is."""
        if self._world.ray_trouble is not None:
            raise self._world.ray_trouble
        self._world.clients += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close what was opened."""
        self._world.clients -= 1
        if self._handle is not None:
            await self._handle.aclose()

    async def open(self, conversation_id: str, *, create: bool = True) -> ConversationHandle:
        """A handle of its own, as another process would have it; the same one at the second time."""
        if not create:
            await self._world.cluster.owner().open(create=False)
        assert conversation_id == CONVERSATION
        await self._world.may_open.wait()
        if self._handle is None:
            self._handle = await self._world.cluster.handle()
        else:
            _, view = await self._world.cluster.owner().open(create=True)
            await self._handle.catch_up(view)
        return self._handle


@contextmanager
def on_store(monkeypatch: pytest.MonkeyPatch, store: ShakyStore) -> Iterator[None]:
    """Whoever opens a store gets this one."""

    def opened(settings: Settings) -> ShakyStore:
        assert isinstance(settings, Settings)
        return store

    with monkeypatch.context() as patch:
        patch.setattr(opening, "open_store", opened)
        yield


class Worlds:
    """Makes a `World`, and takes it down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, clock: Clock, **settings: Any) -> None:
        """`settings`: as `brief` takes them."""
        self._patch, self._clock, self._settings = monkeypatch, clock, settings

    async def __aenter__(self) -> World:
        """Begin."""
        store = ShakyStore(self._clock)
        self._cluster = await FakeCluster(store, brief(**self._settings)).__aenter__()
        self._world = world = World(store, self._cluster)
        self._on_store = on_store(self._patch, store)
        self._on_store.__enter__()
        self._patch.setattr(tenure_opening, "ConversationClient", lambda _settings: FakeClient(world))
        return world

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End all of it."""
        await self._world.aclose()
        await self._cluster.__aexit__(kind, error, traceback)
        self._on_store.__exit__(None, None, None)
