"""Stand-ins for what the owner's and the handle's tests do not need for real: Redis that fails, and Ray."""

import asyncio
import copy
import pickle
import random
import time
import uuid
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from enum import StrEnum
from types import TracebackType
from typing import Any, Self, cast

from conversation_actors.activation import Activation
from conversation_actors.activation.activation import Place
from conversation_actors.activation.recovery import rebuild
from conversation_actors.client import ConversationHandle
from conversation_actors.client.archive import ClientArchive
from conversation_actors.client.history import Histories
from conversation_actors.client.owner import RemoteOwner
from conversation_actors.errors import ConversationError, OutcomeUnknownError, StoreUnavailableError
from conversation_actors.local.host import LocalHost
from conversation_actors.local.port import LocalPeer
from conversation_actors.port import Peer, PeerLostError
from conversation_actors.protocol import ActivationInfo, Done, Executed, Request
from conversation_actors.settings import HistoryLimits, Settings, Timeouts
from conversation_actors.state import AppendItems, ConversationState, Limits
from conversation_actors.store import Claim, Found, Head, HeartbeatStore, MemoryStore, Outcome, Recovered, Store, Stored
from conversation_actors.store.backlog import Backlog, Bounds
from conversation_actors.store.expectations import MemoryExpectations
from conversation_actors.timing import Timing
from tests.support.quick import QUICK
from tests.support.strategies import message

CONVERSATION = "c"
PATIENCE = 20.0
"""Seconds until a condition that does not come about fails its test; nothing waits that long otherwise."""


def brief(
    *,
    write: float = PATIENCE,
    command: float = PATIENCE,
    attempt: float = PATIENCE,
    close: float = PATIENCE,
    poll: float = PATIENCE,
    idle: float = 300.0,
    ttl: float = 7 * 86_400.0,
    outbox_items: int = 10_000,
    **history: int,
) -> Settings:
    """Return settings, with what a test is about in seconds and the history's bounds by name."""
    return Settings(
        idle_timeout=timedelta(seconds=idle),
        ttl=timedelta(seconds=ttl),
        outbox_items=outbox_items,
        history=HistoryLimits.model_validate(history),
        timeouts=Timeouts(
            write=timedelta(seconds=write),
            command=timedelta(seconds=command),
            attempt=timedelta(seconds=attempt),
            close=timedelta(seconds=close),
            poll=timedelta(seconds=poll),
        ),
    )


async def until(condition: Callable[[], bool], *, patience: float = PATIENCE) -> None:
    """Return when `condition` holds; fail the test when it does not come about."""
    async with asyncio.timeout(patience):
        while not condition():  # noqa: ASYNC110  # conditions on what has no event to wait for
            await asyncio.sleep(0.001)


async def turns() -> None:
    """Let everything run that can run: what is still waiting after this, waits for something outside the loop."""
    for _ in range(50):
        await asyncio.sleep(0)


def append(identity: str, text: str = "hello", *, request_id: str | None = None) -> Request:
    """Return a request to append one message of this id; its request id follows from the item's."""
    return Request(request_id or f"request-{identity}", AppendItems((message(identity, text),)))


async def execute(activation: Activation, *requests: Request, watcher: str = "nobody", after_seq: int = 0) -> Executed:
    """Execute, as an actor would."""
    return await activation.execute(requests, watcher=watcher, after_seq=after_seq)


async def done(activation: Activation, request: Request) -> Done:
    """Execute one request that must succeed, again where `timeouts.write` was short: as a handle would."""
    async with asyncio.timeout(PATIENCE):
        while True:
            (reply,) = (await execute(activation, request)).replies
            if not isinstance(reply, OutcomeUnknownError):
                assert isinstance(reply, Done), reply
                return reply


def ids(state: ConversationState) -> list[str]:
    """Ids of the history's items."""
    return [item.id for item in state.window]


class Fault(StrEnum):
    """How a write of a `FaultyStore` goes wrong."""

    BEFORE = "raises, and nothing was written"
    AFTER = "raises, and everything was written"
    HANG = "never answers; nothing was written"


class FaultyStore:
    """A `MemoryStore` whose writes can be held, refused, lost on the way there and lost on the way back.

    `appends`, `snapshots` and `indexed` tell what was asked for, failed attempts too; `landed` holds every
    entry ever written, by `seq`, whatever was compacted since.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time, archive: Bounds | None = None) -> None:
        """Start empty and healthy."""
        self.inner = MemoryStore(clock=clock, archive=archive)
        self.is_down = False
        self.reads = 0
        self.append_faults: deque[Fault | Outcome | Exception] = deque()
        self.snapshot_faults: deque[Fault | Outcome | Exception] = deque()
        self.index_fault: ConversationError | None = None
        self.appends: list[tuple[int, tuple[bytes, ...]]] = []
        self.snapshots: list[int] = []
        self.indexed: list[tuple[str, ...]] = []
        self.landed: dict[int, bytes] = {}
        self.answers: list[Outcome] = []
        self._released = asyncio.Event()
        self._released.set()
        self._index_released = asyncio.Event()
        self._index_released.set()
        self._snapshots_released = asyncio.Event()
        self._snapshots_released.set()

    @property
    def journal(self) -> int:
        """Entries in the journal: those to replay, and those kept for watchers."""
        return len(self.inner._conversations[CONVERSATION].journal)

    @property
    def writes(self) -> int:
        """Calls that would write."""
        return len(self.appends) + len(self.snapshots)

    def hold(self) -> None:
        """Let writes arrive and go no further."""
        self._released.clear()

    def release(self) -> None:
        """Let everything go on."""
        self._released.set()
        self._index_released.set()
        self._snapshots_released.set()

    def hold_snapshots(self) -> None:
        """Let snapshots arrive and go no further, and all else pass."""
        self._snapshots_released.clear()

    @property
    def content(self) -> bytes:
        """All that is stored of the conversation, which fences nobody."""
        kept = self.inner._conversations[CONVERSATION]
        return b"\n".join([kept.snapshot or b"", *kept.journal])

    def lose_everything(self) -> None:
        """Restart without persistence."""
        self.inner._conversations.clear()
        self.inner.backlog().clear()

    def remember(self) -> Callable[[], None]:
        """Return what brings back the store as it is now: a failover to a replica that lagged."""
        kept = copy.deepcopy(self.inner._conversations)

        def fail_over() -> None:
            self.inner._conversations = copy.deepcopy(kept)

        return fail_over

    def hold_index(self) -> None:
        """Let listings wait."""
        self._index_released.clear()

    async def check(self) -> None:
        """Find nothing wrong."""

    async def activate(self, conversation_id: str, *, owner: str, create: bool, ttl: timedelta) -> Recovered:
        """See `Store.activate`."""
        if self.is_down:
            message = "down"
            raise StoreUnavailableError(message)
        return await self.inner.activate(conversation_id, owner=owner, create=create, ttl=ttl)

    async def append(
        self,
        claim: Claim,
        *,
        expected_seq: int,
        entries: Sequence[bytes],
        ttl: timedelta,
        kept: timedelta | None = None,
        participants: Sequence[str] | None = None,
    ) -> Outcome:
        """See `Store.append`."""
        self.appends.append((expected_seq, tuple(entries)))

        async def land() -> Outcome:
            outcome = await self.inner.append(
                claim, expected_seq=expected_seq, entries=entries, ttl=ttl, kept=kept, participants=participants
            )
            if outcome is Outcome.OK:
                self.landed.update(enumerate(entries, expected_seq + 1))
            return outcome

        return await self._write(self.append_faults, land)

    async def save_snapshot(
        self,
        claim: Claim,
        *,
        seq: int,
        snapshot: bytes,
        ttl: timedelta,
        participants: Sequence[str],
        kept: timedelta | None = None,
        keep: int = 0,
        restore: bool = True,
    ) -> Outcome:
        """See `Store.save_snapshot`."""
        self.snapshots.append(seq)
        await self._snapshots_released.wait()

        async def land() -> Outcome:
            return await self.inner.save_snapshot(
                claim,
                seq=seq,
                snapshot=snapshot,
                ttl=ttl,
                kept=kept,
                participants=participants,
                keep=keep,
                restore=restore,
            )

        return await self._write(self.snapshot_faults, land)

    async def keep(self, conversation_id: str, *, ttl: timedelta) -> timedelta | None:
        """See `Store.keep`."""
        return await self.inner.keep(conversation_id, ttl=ttl)

    async def head(self, conversation_id: str) -> Head | None:
        """See `Store.head`."""
        return await self.inner.head(conversation_id)

    async def read(self, conversation_id: str) -> Stored:
        """See `Store.read`."""
        self.reads += 1
        if self.is_down:
            message = "the read did not arrive"
            raise StoreUnavailableError(message)
        return await self.inner.read(conversation_id)

    async def index(self, conversation_id: str, *, participants: Sequence[str], ttl: timedelta) -> None:
        """See `Store.index`."""
        self.indexed.append(tuple(participants))
        await self._index_released.wait()
        if self.index_fault is not None:
            raise self.index_fault
        await self.inner.index(conversation_id, participants=participants, ttl=ttl)

    async def reindex(self) -> int:
        """See `Store.reindex`."""
        return await self.inner.reindex()

    def heartbeats(self, lease: str, *, ttl: timedelta) -> HeartbeatStore:
        """See `Store.heartbeats`."""
        return self.inner.heartbeats(lease, ttl=ttl)

    def expectations(self, lease: str) -> MemoryExpectations:
        """See `Store.expectations`."""
        return self.inner.expectations(lease)

    async def delete(self, conversation_id: str, *, ttl: timedelta) -> bool:
        """See `Store.delete`."""
        return await self.inner.delete(conversation_id, ttl=ttl)

    async def remembers_deletion(self, conversation_id: str) -> bool:
        """See `Store.remembers_deletion`."""
        return await self.inner.remembers_deletion(conversation_id)

    def backlog(self) -> Backlog:
        """See `Store.backlog`."""
        return self.inner.backlog()

    async def requeue(self, claim: Claim, *, entries: Sequence[bytes]) -> Outcome:
        """See `Store.requeue`. Held and refused as all writes are."""
        await self._released.wait()
        if self.is_down:
            message = "the write did not arrive"
            raise StoreUnavailableError(message)
        return await self.inner.requeue(claim, entries=entries)

    async def revive(
        self,
        left_by: Claim,
        *,
        seq: int,
        snapshot: bytes,
        ttl: timedelta,
        participants: Sequence[str],
        kept: timedelta,
    ) -> bool:
        """See `Store.revive`."""
        return await self.inner.revive(
            left_by, seq=seq, snapshot=snapshot, ttl=ttl, participants=participants, kept=kept
        )

    async def aclose(self) -> None:
        """Do nothing."""

    async def _write(
        self, faults: deque[Fault | Outcome | Exception], land: Callable[[], Awaitable[Outcome]]
    ) -> Outcome:
        await self._released.wait()
        fault = faults.popleft() if faults else None
        if fault is Fault.HANG:
            await asyncio.Event().wait()
        if fault is Fault.BEFORE or self.is_down:
            message = "the write did not arrive"
            raise StoreUnavailableError(message)
        if isinstance(fault, Exception):
            raise fault
        if isinstance(fault, Outcome):
            self.answers.append(fault)
            return fault
        outcome = await land()
        if fault is Fault.AFTER:
            message = "the answer did not arrive"
            raise StoreUnavailableError(message)
        self.answers.append(outcome)
        return outcome

    def list(self, *, participant: str | None = None) -> AsyncIterator[Found]:
        """See `Store.list`."""
        return self.inner.list(participant=participant)


async def stored(store: Store, conversation_id: str = CONVERSATION) -> tuple[ConversationState, Recovered]:
    """Return what is stored, read as the next activation would (which fences the present one)."""
    recovered = await store.activate(conversation_id, owner=uuid.uuid4().hex, create=False, ttl=timedelta(days=1))
    return rebuild(recovered, Limits())[0], recovered


class Activations:
    """Starts activations, and stops at the end of a test those that still run."""

    def __init__(self) -> None:
        """None yet."""
        self._started: list[Activation] = []

    async def __aenter__(self) -> Self:
        """Begin."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop them all."""
        for activation in self._started:
            await activation.aclose()

    async def __call__(
        self,
        store: Store,
        settings: Settings | None = None,
        *,
        create: bool = True,
        elapsed: Callable[[], float] = time.monotonic,
        timing: Timing = QUICK,
    ) -> Activation:
        """One more activation of the one conversation; it fences those before it."""
        activation = await Activation.recover(
            CONVERSATION,
            owner=uuid.uuid4().hex,
            create=create,
            store=store,
            settings=settings or brief(),
            place=Place(pid=1, node_id="node"),
            elapsed=elapsed,
            timing=timing,
        )
        self._started.append(activation)
        return activation


class FakeActor(LocalHost):
    """An owner in this process whose activation a test may look at."""

    @property
    def activation(self) -> Activation | None:
        """The activation, once it is recovered."""
        return self._activation


class FakePeer:
    """The `Peer` of a `FakeActor`: calls are counted, what passes is pickled, and answers get lost."""

    is_current = True

    def __init__(self, cluster: "FakeCluster", actor: FakeActor) -> None:
        """Ask this actor."""
        self._cluster, self._peer = cluster, LocalPeer(actor)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        """Make a method of a `LocalPeer` that may fail."""

        async def call(*arguments: Any, **named: Any) -> Any:
            self._cluster.calls[name] += 1
            arguments, named = pickle.loads(pickle.dumps((arguments, named)))
            answer = await getattr(self._peer, name)(*arguments, **named)
            if self._cluster.loses(name):
                raise PeerLostError
            return pickle.loads(pickle.dumps(answer))

        return call

    def suspect(self) -> None:
        """Do nothing: no fake owner hangs."""


class FakeCluster:
    """A name under which at most one actor of the conversation is found, and ways to disturb it."""

    def __init__(self, store: Store, settings: Settings) -> None:
        """No actor runs yet."""
        self.store, self.settings = store, settings
        self.archive = ClientArchive(settings)
        self.timing = QUICK
        """How long what is started from now on waits."""
        self.actor: FakeActor | None = None
        self.actors: list[FakeActor] = []
        self.calls: Counter[str] = Counter()
        """Calls that were sent, by method."""
        self.looks = 0
        """How often somebody looked for an actor without wanting to start one."""
        self.replies_to_lose: Counter[str] = Counter()
        self.loss = 0.0
        """The share of all answers that are lost."""
        self.random = random.Random(0)
        self._handles: list[ConversationHandle] = []

    async def __aenter__(self) -> Self:
        """Begin."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the handles, stop the actors."""
        self.loss = 0.0
        for handle in self._handles:
            await handle.aclose()
        for actor in self.actors:
            await actor.kill()
        await self.archive.aclose()

    def find(self) -> FakeActor | None:
        """Return the actor that runs, if one does."""
        return self.actor if self.actor is not None and self.actor.is_running else None

    def get_or_create(self) -> FakeActor:
        """Return the actor that runs, started if there is none."""
        actor = self.find()
        if actor is None:
            actor = self.actor = FakeActor(CONVERSATION, self.settings, self.store, timing=self.timing)
            self.actors.append(actor)
        return actor

    def loses(self, name: str) -> bool:
        """Whether this answer is lost."""
        if self.replies_to_lose[name]:
            self.replies_to_lose[name] -= 1
            return True
        return self.random.random() < self.loss

    async def kill(self) -> None:
        """Kill the actor that runs."""
        actor = self.find()
        if actor is not None:
            await actor.kill()

    def owner(self) -> RemoteOwner:
        """Return the conversation's owner, as one more process sees it."""
        return RemoteOwner(FakePort(self), self.settings, timing=self.timing)

    async def handle(self) -> ConversationHandle:
        """One more handle, as another process would have it."""
        owner = self.owner()
        _, view = await owner.open(create=True)
        histories = Histories(self.archive, lambda: self.store, self.settings, timing=self.timing)
        handle = ConversationHandle(CONVERSATION, owner, view, self.settings, histories=histories, timing=self.timing)
        self._handles.append(handle)
        return handle


class FakePort:
    """Finds and starts the actors of a `FakeCluster`; an `OwnerPort`."""

    def __init__(self, cluster: FakeCluster) -> None:
        """Look for actors there."""
        self._cluster = cluster

    async def find(self) -> Peer | None:
        """See `OwnerPort.find`."""
        self._cluster.looks += 1
        actor = self._cluster.find()
        return None if actor is None else self._peer(actor)

    async def find_or_start(self) -> Peer:
        """See `OwnerPort.find_or_start`."""
        return self._peer(self._cluster.get_or_create())

    def _peer(self, actor: FakeActor) -> Peer:
        return cast("Peer", FakePeer(self._cluster, actor))

    async def confirm(self) -> None:
        """See `OwnerPort.confirm`: there always is a cluster."""

    def note_start(self, info: ActivationInfo, *, was_ready: bool) -> None:
        """See `OwnerPort.note_start`: there is no pool."""

    async def aclose(self) -> None:
        """See `OwnerPort.aclose`: nothing is kept open."""
