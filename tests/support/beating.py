"""Agents that beat, and workers that look for silent ones, on one server that is stopped, or whose clock steps."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast

from agent_worker.settings import TakeoverSettings
from agent_worker.tenure.assignment import RestartReason
from agent_worker.worker.failure_detector import FailureDetector, JobSource
from agent_worker.worker.rooms import Rooms
from agent_worker.worker.takeover import Takeover
from conversation_actors import HeartbeatRecord, Heartbeats, Settings
from conversation_actors.errors import ConversationError
from tests.support.processes import paused
from tests.support.servers import PATIENCE, Server, wait_until

AGENTS, WORKERS = 30, 2
DETAILS = {"room": "r", "agent_name": "a", "agent_identity": "i", "attempt": 0}


class _NoJobs:
    active_jobs: tuple[Any, ...] = ()


@dataclass
class Agent:
    """An agent as far as its heartbeat goes, with a connection of its own."""

    conversation_id: str
    heartbeats: Heartbeats
    takeover: TakeoverSettings
    is_deposed: bool = False
    answered: int = 0
    """Beats that the server has answered."""
    task: "asyncio.Task[None] | None" = None

    @property
    def holder(self) -> str:
        """Its job."""
        return f"job of {self.conversation_id}"

    async def live(self) -> None:
        """Beat by its own clock, whatever becomes of a beat; each waits for the one before, as no `Tenure` does."""
        await self.heartbeats.start(
            self.conversation_id, self.holder, valid_for=self.takeover.valid_for, group="g", details=DETAILS
        )
        # agents do not beat in step
        await asyncio.sleep(random.uniform(0, self.takeover.heartbeat.total_seconds()))
        while not self.is_deposed:
            with suppress(ConversationError):
                self.is_deposed = not await self.heartbeats.beat(
                    self.conversation_id, self.holder, valid_for=self.takeover.valid_for, group="g", details=DETAILS
                )
                self.answered += 1
            await asyncio.sleep(self.takeover.heartbeat.total_seconds())


@dataclass
class Beating:
    """What goes on, and what came of it."""

    server: Server
    settings: Settings
    takeover: TakeoverSettings
    agents: dict[str, Agent]
    claims: Counter[str] = field(default_factory=Counter)
    """How often each conversation was claimed."""
    claimed_at: dict[str, float] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def deposed(self) -> set[str]:
        """Agents that live, and were taken for dead."""
        told = {name for name, agent in self.agents.items() if agent.is_deposed}
        return (told | set(self.claims)) - self.dead

    async def kill(self, conversation_id: str) -> None:
        """Have an agent beat no more."""
        task = self.agents[conversation_id].task
        self.dead.add(conversation_id)
        if task is not None:
            await _ended(task)

    async def found(self, conversation_id: str, *, patience: float = 20.0) -> float:
        """Wait until a dead agent is claimed; when that was."""

        async def is_claimed() -> bool:
            return conversation_id in self.claimed_at

        await wait_until(is_claimed, f"{conversation_id} to be claimed", patience=patience)
        return self.claimed_at[conversation_id]

    async def all_have_beaten(self) -> None:
        """Wait until every living agent has had an answer to a beat that it sent after this call."""
        living = [agent for name, agent in self.agents.items() if name not in self.dead]
        before = {agent.conversation_id: agent.answered for agent in living}

        async def have_beaten() -> bool:  # the first answer may be that to a beat which was on its way
            return all(agent.is_deposed or agent.answered >= before[agent.conversation_id] + 2 for agent in living)

        await wait_until(have_beaten, "everybody to have beaten")

    async def all_known(self) -> None:
        """Wait until every living agent has a record: those whose record was lost have written it anew."""
        async with Heartbeats(self.settings) as heartbeats:
            for name in self.agents.keys() - self.dead:

                async def has_record(name: str = name) -> bool:
                    return await heartbeats.find(name) is not None

                await wait_until(has_record, f"{name}'s record")

    async def add_worker(self) -> None:
        """One more looks for silent agents, with a reader of its own."""
        heartbeats = await self.stack.enter_async_context(Heartbeats(self.settings))
        detector = FailureDetector(
            cast("JobSource", _NoJobs()),
            heartbeats,
            cast("Takeover", _Noting(self, heartbeats)),
            cast("Rooms", None),
            instance=f"worker-{random.random()}",
            settings=self.takeover,
        )
        task = asyncio.create_task(detector.run())
        self.stack.push_async_callback(_ended, task)

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Stop the server while the block runs."""
        with paused(self.server.pid):
            yield


class _Noting:
    """Takes a call over by noting that it would have."""

    def __init__(self, beating: Beating, heartbeats: Heartbeats) -> None:
        self._beating, self._heartbeats = beating, heartbeats

    async def run(self, record: HeartbeatRecord, *, reason: RestartReason) -> None:  # noqa: ARG002  # as in Takeover
        self._beating.claims[record.conversation_id] += 1
        self._beating.claimed_at.setdefault(record.conversation_id, time.monotonic())
        with suppress(ConversationError):
            await self._heartbeats.settle(record)


async def _ended(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    await asyncio.wait({task}, timeout=PATIENCE)
    assert task.done(), task.get_stack()


@asynccontextmanager
async def beating(server: Server, *, agents: int = AGENTS, workers: int = WORKERS) -> AsyncIterator[Beating]:
    """So many agents and workers, with the settings that they have where nobody sets any."""
    settings = Settings(redis_url=server.url)
    async with AsyncExitStack() as stack:
        scene = Beating(server, settings, TakeoverSettings(), {}, stack=stack)
        for number in range(agents):
            heartbeats = await stack.enter_async_context(Heartbeats(settings))
            agent = Agent(f"c{number:02}", heartbeats, scene.takeover)
            agent.task = asyncio.create_task(agent.live())
            stack.push_async_callback(_ended, agent.task)
            scene.agents[agent.conversation_id] = agent
        for _ in range(workers):
            await scene.add_worker()
        yield scene
