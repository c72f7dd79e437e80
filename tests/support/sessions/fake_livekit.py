"""LiveKit's server, as a worker and a job see it: its rooms, its dispatches, and the job that it gives."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from livekit.agents import JobContext
from livekit.agents.job import JobAcceptArguments, RunningJobInfo
from livekit.agents.testing import fake_job_context
from livekit.api.access_token import Claims
from livekit.protocol import agent as agent_proto
from livekit.protocol import models

from agent_worker.worker.rooms import AgentInRoom, Occupants, Original, Rooms, RoomServiceError
from tests.support.sessions.fake_room import FakeRoom
from tests.support.sessions.fakes_call import POST, ROOM, ShakyStore


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
        callbacks = self.context._shutdown_callbacks
        tasks = [asyncio.create_task(callback(reason), name="job_shutdown_callback") for callback in callbacks]
        await asyncio.gather(*tasks)


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
