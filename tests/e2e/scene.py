"""One test's call, and everybody who is real in it."""

import asyncio
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conversation_actors import ConversationClient, Settings
from tests.e2e.calls import UTTERANCE, Stored, agent_of, dispatch, identity_of, stored
from tests.support.caller import Caller
from tests.support.livekit_server import LiveKitServer
from tests.support.servers import wait_until
from tests.support.witness import Witness
from tests.support.workers import OfflineModels, WorkerProcess


@dataclass(frozen=True, slots=True)
class SharedWorker:
    """A worker for the tests of a module, which harm nothing but its jobs: starting one takes ten seconds."""

    agent_name: str
    process: WorkerProcess


@contextmanager
def shared_worker(
    directory: Path, environment: Mapping[str, str], entrypoint: str, **variables: str
) -> Iterator[SharedWorker]:
    """Start it, with these variables and a name of its own; it ends behind the tests."""
    name = f"agent-{secrets.token_hex(4)}"
    own = {**environment, "LIVEKIT_AGENT_NAME": name, **variables}
    with WorkerProcess(directory, own, options=("--entrypoint", entrypoint)) as process:
        yield SharedWorker(name, process)


@dataclass(slots=True)
class Scene:
    """One test's call: its room, its workers, and everybody who is real in it."""

    server: LiveKitServer
    settings: Settings
    client: ConversationClient
    models: OfflineModels
    directory: Path
    room: str
    environment: Mapping[str, str]
    figures: list[tuple[str, object]]
    workers: list[WorkerProcess] = field(default_factory=list)
    agent_name: str = field(default_factory=lambda: f"agent-{secrets.token_hex(4)}")

    async def worker(self, *options: str, **variables: str) -> WorkerProcess:
        """Start a worker that takes this test's calls, and no others."""
        environment = {
            **self.environment,
            **self.models.environment,
            "LIVEKIT_AGENT_NAME": self.agent_name,
            **variables,
        }
        worker = WorkerProcess(self.directory / f"worker-{len(self.workers)}", environment, options=options)
        self.workers.append(worker)
        return await asyncio.to_thread(worker.start)  # callers go on speaking and listening meanwhile

    async def two_workers(self, *options: str, **variables: str) -> None:
        """Start two workers alike at the same time: a call can go from the one to the other."""
        await asyncio.gather(*(self.worker(*options, **variables) for _ in range(2)))

    def caller(self, identity: str = "caller", *, room: str = "", **told: Any) -> Caller:
        """Somebody who calls; the first in a room brings the agent."""
        return Caller(
            self.server, room=room or self.room, identity=identity, dispatch=dispatch(self.agent_name), **told
        )

    async def agent(self, room: str = "", *, other_than: str = "") -> tuple[str, int]:
        """The job that is the agent, and its process."""
        return await agent_of(self.settings, room or self.room, other_than=other_than)

    async def stored(self, room: str = "") -> Stored:
        """What the conversation holds now."""
        return await stored(self.client, room or self.room)

    async def settled(self, answer: str | None = None) -> None:
        """Wait until the agent's answer is stored, which comes a moment after it was heard; any, or this one."""

        async def is_answered() -> bool:
            kept = await self.stored()
            is_last = bool(kept.items) and kept.items[-1].to_dict().get("role") == "assistant"
            return is_last and answer in {None, kept.said[-1][1]}

        await wait_until(is_answered, "the answer to be stored", patience=UTTERANCE)

    def record(self, what: str, seconds: float) -> None:
        """Keep a figure for the report; nothing depends on it."""
        self.figures.append((what, f"{seconds:.2f} s"))

    async def heard_again(self, caller: Witness, killed: float, holder: str, what: str) -> None:
        """Wait for the first audible frame of the next agent; note how long it took."""
        successor = await caller.wait_agent(UTTERANCE, other_than={identity_of(holder)})
        audible = await caller.wait_audible(killed, UTTERANCE, identity=successor.identity)
        self.record(f"{what}: successor joined after", successor.joined - killed)
        self.record(f"{what}: successor audible after", audible - killed)
