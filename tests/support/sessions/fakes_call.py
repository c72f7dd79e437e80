"""Stand-ins for what surrounds a call: Ray and Redis, LiveKit's server, a room and who is in it."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from types import TracebackType
from typing import Any, Self, cast

import pytest
from livekit import rtc
from livekit.agents import JobContext
from livekit.agents.job import JobAcceptArguments, RunningJobInfo
from livekit.agents.testing import fake_job_context
from livekit.api.access_token import Claims
from livekit.protocol import agent as agent_proto
from livekit.protocol import models

from agent_worker.settings import CallSettings, TakeoverSettings
from agent_worker.tenure import opening as tenure_opening
from agent_worker.tenure.assignment import Assignment
from agent_worker.tenure.conversation import CallConversation
from agent_worker.tenure.post import Post
from agent_worker.tenure.role import AGENT_ROLE, LEASE
from agent_worker.timing import Timing
from agent_worker.worker.rooms import AgentInRoom, Occupants, Original, Rooms, RoomServiceError
from conversation_actors import ConversationHandle
from conversation_actors.client import opening
from conversation_actors.errors import ConversationError
from conversation_actors.settings import Settings
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
STANDARD = rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD

_sids = count(1)


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
        made = CallConversation(
            CONVERSATION,
            holder=holder,
            role=role,
            post=post,
            assignment=assignment or Assignment(conversation_id=CONVERSATION),
            store=self.cluster.settings,
            call=settings or CallSettings(),
            takeover=takeover or TakeoverSettings(heartbeat=timedelta(milliseconds=5), valid_for=timedelta(seconds=3)),
            timing=self.timing,
        )
        self._calls.append(made)
        return made

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

    async def open(self, conversation_id: str) -> ConversationHandle:
        """A handle of its own, as another process would have it; the same one at the second time."""
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


# LiveKit's server


@dataclass
class FakeRooms:
    """LiveKit's room service with one room: who is in it, and what was asked for, in order."""

    people: list[str] = field(default_factory=list)
    agents: list[AgentInRoom] = field(default_factory=list)
    exists: bool = True
    store: "ShakyStore | None" = None
    """Where is told what an agent is called for."""
    originals: list[Original | None] = field(default_factory=list)
    """What each dispatch was to be like."""
    is_down: bool = False
    dispatch_trouble: RoomServiceError | None = None
    """What a dispatch raises while all else is well."""
    looks: int = 0
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    looked_at: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def as_rooms(self) -> Rooms:
        """Itself, for those who want the real one."""
        return cast("Rooms", self)

    @property
    def dispatched(self) -> list[tuple[Any, ...]]:
        """Room, agent name and assignment of every dispatch."""
        return [told[1:] for told in self.asked if told[0] == "dispatch"]

    async def occupants(self, room: str) -> Occupants:
        """See `Rooms.occupants`."""
        self.looks += 1
        self.looked_at.set()
        self._answer()
        assert room == ROOM
        if not self.exists:
            return Occupants(exists=False)
        return Occupants(exists=True, people=tuple(self.people), agents=tuple(self.agents))

    async def remove(self, room: str, identity: str) -> bool:
        """See `Rooms.remove`."""
        self._answer()
        self.asked.append(("remove", room, identity))
        here = [agent for agent in self.agents if agent.identity == identity]
        self.agents = [agent for agent in self.agents if agent.identity != identity]
        return bool(here)

    async def dispatch(self, room: str, agent_name: str, original: Original | None = None) -> str:
        """See `Rooms.dispatch`. What the agent is called for has to be told by now."""
        self._answer()
        if self.dispatch_trouble is not None:
            raise self.dispatch_trouble
        assert self.store is not None
        assignment = await self.store.called.last_without_call(room, agent_name)
        self.originals.append(original)
        self.asked.append(("dispatch", room, agent_name, assignment))
        return f"AD_{len(self.asked)}"

    async def check(self) -> None:
        """See `Rooms.check`."""
        self._answer()

    def _answer(self) -> None:
        if self.is_down:
            message = "LiveKit did not answer"
            raise RoomServiceError(message)


def ghost(identity: str = "agent-1", *, name: str = "support", age: float = 60.0) -> AgentInRoom:
    """An agent's participant that joined `age` seconds ago."""
    return AgentInRoom(identity, name, time.time() - age)


def running_job(
    job_id: str,
    *,
    metadata: str = "",
    room_metadata: str = "",
    room: str = ROOM,
    agent_name: str = "support",
    worker_id: str = "w",
) -> RunningJobInfo:
    """A job as LiveKit's server lists it."""
    return RunningJobInfo(
        accept_arguments=JobAcceptArguments(identity="agent-1", name="", metadata=""),
        job=agent_proto.Job(
            id=job_id,
            room=models.Room(name=room, metadata=room_metadata),
            agent_name=agent_name,
            metadata=metadata,
            dispatch_id=f"AD_of_{job_id}",
        ),
        url="",
        token="",
        worker_id=worker_id,
        fake_job=False,
    )


class FakeJob:
    """A job's context, and what became of the job."""

    def __init__(self, context: JobContext) -> None:
        """It runs."""
        self.context = context
        self.ended: list[str] = []
        """Reasons, in order; LiveKit heeds the first."""
        context._on_shutdown = self.ended.append  # LiveKit's fake one forgets it
        context.is_fake_job = lambda: False  # type: ignore[method-assign]  # a fake of a real one
        claims = Claims()
        claims.identity = POST.agent_identity
        context.token_claims = lambda: claims  # type: ignore[method-assign]  # there is no token

    async def shut_down(self, reason: str) -> None:
        """Run what was to be run at the end, as LiveKit does."""
        await asyncio.gather(*(callback(reason) for callback in self.context._shutdown_callbacks))


@contextmanager
def fake_job(
    room: "FakeRoom", *, metadata: str = "", room_metadata: str = "", job_id: str = "job-1"
) -> Iterator[FakeJob]:
    """A job as LiveKit gives it to an entrypoint; it is connected to its room."""
    with fake_job_context(room=room.as_room, job_metadata=metadata, job_id=job_id) as context:
        context.job.room.name, context.job.room.metadata = ROOM, room_metadata
        context.job.agent_name = "support"
        try:
            yield FakeJob(context)
        finally:
            context._tempdir.cleanup()


class FakeJobs:
    """The part of LiveKit's server that knows which jobs run."""

    def __init__(self, *jobs: RunningJobInfo) -> None:
        """These run."""
        self.active_jobs: Sequence[RunningJobInfo] = jobs


# A room, as the agent sees it


@dataclass
class Permissions:
    """What a participant may do."""

    can_update_metadata: bool = False


@dataclass
class FakePublication:
    """A track that somebody has published."""

    source: rtc.TrackSource.ValueType = rtc.TrackSource.SOURCE_MICROPHONE
    muted: bool = False
    sid: str = field(default_factory=lambda: f"TR_{next(_sids)}")


@dataclass
class FakeParticipant:
    """A participant of a room; `sid` is new with each connection."""

    identity: str
    name: str = ""
    kind: rtc.ParticipantKind.ValueType = STANDARD
    metadata: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    permissions: Permissions = field(default_factory=Permissions)
    sid: str = field(default_factory=lambda: f"PA_{next(_sids)}")
    track_publications: dict[str, FakePublication] = field(default_factory=dict)


class FakeText:
    """A text stream that is there."""

    def __init__(self, text: str) -> None:
        """All of it."""
        self.info = None
        self._text = text

    async def read_all(self) -> str:
        """See `rtc.TextStreamReader.read_all`."""
        return self._text


@dataclass
class FakeInfo:
    """What a stream's header tells."""

    topic: str
    stream_id: str = field(default_factory=lambda: f"stream-{next(_sids)}")
    timestamp: int = 1
    mime_type: str = ""
    name: str = ""
    attributes: dict[str, str] = field(default_factory=dict)


class FakeStream:
    """A stream that is being sent: by `send`, `end` and `break_off`."""

    def __init__(self, info: FakeInfo) -> None:
        """Only its header has come."""
        self.info = info
        self.is_closed = False
        self._chunks: asyncio.Queue[Any] = asyncio.Queue()

    def send(self, *chunks: str | bytes) -> Self:
        """Some of it comes."""
        for chunk in chunks:
            self._chunks.put_nowait(chunk)
        return self

    def end(self) -> Self:
        """That was all."""
        return self.send(cast("bytes", None))

    def break_off(self) -> Self:
        """Its sender is gone."""
        return self.send(cast("bytes", ConnectionError("gone")))

    def close(self) -> None:
        """See LiveKit's readers."""
        self.is_closed = True
        self.end()

    def __aiter__(self) -> Self:
        """Read it."""
        return self

    async def __anext__(self) -> Any:
        """Read a part."""
        chunk = await self._chunks.get()
        if isinstance(chunk, Exception):
            raise chunk
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def read_all(self) -> str:
        """Read all of a text."""
        return "".join([chunk async for chunk in self])


class FakeRoom(rtc.EventEmitter[Any]):
    """A room as LiveKit's client has it: participants by identity, and events about them."""

    def __init__(self, *here: FakeParticipant, is_connected: bool = True) -> None:
        """`here` were in the room before it was connected to."""
        super().__init__()
        self.remote_participants = {one.identity: one for one in here}
        self.is_connected = is_connected
        self.name = ROOM
        self.metadata = ""
        self.local_participant = FakeParticipant("agent-1", kind=rtc.ParticipantKind.PARTICIPANT_KIND_AGENT)
        self.text_handlers: dict[str, Callable[[Any, str], None]] = {}
        self.byte_handlers: dict[str, Callable[[Any, str], None]] = {}

    @property
    def as_room(self) -> rtc.Room:
        """Itself, for those who want the real one."""
        return cast("rtc.Room", self)

    def isconnected(self) -> bool:
        """See `rtc.Room.isconnected`."""
        return self.is_connected

    def register_text_stream_handler(self, topic: str, handler: Callable[[Any, str], None]) -> None:
        """See `rtc.Room.register_text_stream_handler`."""
        if topic in self.text_handlers:
            message = f"text stream handler for topic '{topic}' already set"
            raise ValueError(message)
        self.text_handlers[topic] = handler

    def unregister_text_stream_handler(self, topic: str) -> None:
        """See `rtc.Room.unregister_text_stream_handler`."""
        self.text_handlers.pop(topic, None)

    def register_byte_stream_handler(self, topic: str, handler: Callable[[Any, str], None]) -> None:
        """See `rtc.Room.register_byte_stream_handler`."""
        if topic in self.byte_handlers:
            message = f"byte stream handler for topic '{topic}' already set"
            raise ValueError(message)
        self.byte_handlers[topic] = handler

    def unregister_byte_stream_handler(self, topic: str) -> None:
        """See `rtc.Room.unregister_byte_stream_handler`."""
        self.byte_handlers.pop(topic, None)

    def stream(self, kind: str, participant: "FakeParticipant", topic: str, **told: Any) -> FakeStream | None:
        """Somebody begins to send a text, or bytes; None where nobody takes it."""
        handlers = self.text_handlers if kind == "text" else self.byte_handlers
        stream = FakeStream(FakeInfo(topic, **told))
        if topic not in handlers:
            return None
        handlers[topic](stream, participant.identity)
        return stream

    def send(self, data: bytes, topic: str | None, participant: "FakeParticipant | None") -> None:
        """Somebody sends a packet; None: a server."""
        reliable = rtc.DataPacketKind.KIND_RELIABLE
        self.emit("data_received", rtc.DataPacket(data, reliable, cast("rtc.RemoteParticipant", participant), topic))

    def type(self, text: str, participant: "FakeParticipant") -> bool:
        """Somebody types something; whether anybody takes it."""
        handler = self.text_handlers.get("lk.chat")
        if handler is not None:
            handler(FakeText(text), participant.identity)
        return handler is not None

    def change_connection(self, *, is_connected: bool) -> None:
        """Lose or regain the connection."""
        self.is_connected = is_connected
        state = rtc.ConnectionState.CONN_CONNECTED if is_connected else rtc.ConnectionState.CONN_RECONNECTING
        self.emit("connection_state_changed", state)

    def enter(self, participant: FakeParticipant) -> FakeParticipant:
        """Somebody comes."""
        self.remote_participants[participant.identity] = participant
        self.emit("participant_connected", participant)
        return participant

    def publish(
        self, participant: FakeParticipant, source: rtc.TrackSource.ValueType, *, muted: bool = False
    ) -> FakePublication:
        """Somebody opens a microphone, or something else."""
        publication = FakePublication(source, muted)
        participant.track_publications[publication.sid] = publication
        self.emit("track_published", publication, participant)
        return publication

    def unpublish(self, participant: FakeParticipant, publication: FakePublication) -> None:
        """Somebody takes a track away."""
        del participant.track_publications[publication.sid]
        self.emit("track_unpublished", publication, participant)

    def mute(self, participant: FakeParticipant, publication: FakePublication, *, muted: bool = True) -> None:
        """Somebody mutes a track, or opens it again."""
        publication.muted = muted
        self.emit("track_muted" if muted else "track_unmuted", participant, publication)

    def exit(self, participant: FakeParticipant) -> None:
        """Somebody leaves."""
        if self.remote_participants.get(participant.identity) is participant:
            del self.remote_participants[participant.identity]
        self.emit("participant_disconnected", participant)
