"""Everybody who is real in the call of a stranger's agent, and what may happen to it."""

import asyncio
import secrets
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from pydantic import SecretStr

from agent_worker.settings import LiveKitSettings
from agent_worker.worker.migration import migrate
from conversation_actors import ConversationClient, Settings
from tests.adopt.model import Asked, Model
from tests.adopt.shapes import Fault, Shape, Turn
from tests.e2e.calls import BACK, Stored, agent_of, identity_of, stored
from tests.support.caller import Caller
from tests.support.livekit_server import LiveKitServer
from tests.support.observation import make_settings
from tests.support.processes import is_alive, kill, pause, resume
from tests.support.ray_cluster import RayCluster, program_environment
from tests.support.servers import Server, wait_for, wait_until
from tests.support.witness import Caption, State
from tests.support.workers import WorkerProcess

AGENTS = Path(__file__).parent / "agents"
PROGRAM = (sys.executable, "-m", "agent_worker")
HEARD = 30.0
"""Seconds an answer may take on a busy machine."""
ELSE = 3.0
"""Seconds that are waited for the right answer behind a wrong one, and for the wrong one where none should come."""
_LISTENING = "listening"


class Program(WorkerProcess):
    """A worker process with a command line of its own."""

    def __init__(self, directory: Path, environment: Mapping[str, str], *command: str) -> None:
        """Nothing runs before `start`."""
        super().__init__(directory, environment)
        self._command = list(command)


@dataclass(slots=True)
class Stage:
    """The servers that all calls share."""

    redis: Server
    cluster: RayCluster
    livekit: LiveKitServer
    model: Model
    directory: Path

    @property
    def settings(self) -> Settings:
        """What this process reads the conversations with."""
        return make_settings(self.redis.url, self.cluster.address)

    def environment(self, shape: Shape) -> dict[str, str]:
        """The environment of a worker for one shape."""
        return program_environment(
            **self.livekit.env,
            **self.model.environment(shape.name),
            CONVERSATION_REDIS_URL=self.redis.url,
            RAY_ADDRESS=self.cluster.address,
            LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE="0",
            **{shape.effects_as: str(self.effects(shape))},
            **shape.environment,
        )

    def effects(self, shape: Shape) -> Path:
        """The file into which a shape's agents write what they have done."""
        return self.directory / f"{shape.name}.effects"


class Workers:
    """The workers of one shape, as many as its calls need; those that have ended are replaced."""

    def __init__(self, stage: Stage, shape: Shape) -> None:
        """Nothing runs before `ready`."""
        self.stage, self.shape = stage, shape
        self._all: list[WorkerProcess] = []
        self._watcher: WorkerProcess | None = None
        stage.model.rules[shape.name] = shape

    @property
    def running(self) -> list[WorkerProcess]:
        """Those that have not ended."""
        return [one for one in self._all if one.process.poll() is None]

    def ready(self, count: int = 2) -> None:
        """Have that many that wait for calls; they are started at the same time."""
        started = [self._worker().launch() for _ in range(count - len(self.running))]
        if self.shape.by_livekit and self._watcher is None:
            self._watcher = self._program("watcher", *PROGRAM, "watch").launch()
        self._all += started
        for one in started:
            one.wait_ready()
        if (watcher := self._watcher) is not None:
            wait_for(lambda: "health" in watcher.log(), "somebody to watch")

    def _worker(self) -> WorkerProcess:
        if self.shape.by_livekit:
            return self._program("worker", sys.executable, str(AGENTS / f"{self.shape.name}.py"), "start")
        return self._program("worker", *PROGRAM, "work", "--development", self.shape.module)

    def _program(self, name: str, *command: str) -> WorkerProcess:
        directory = self.stage.directory / f"{self.shape.name}-{name}-{secrets.token_hex(3)}"
        return Program(directory, self.stage.environment(self.shape), *command)

    def of(self, pid: int) -> WorkerProcess:
        """The worker that a job's process belongs to."""
        above = {parent.pid for parent in psutil.Process(pid).parents()}
        return next(one for one in self.running if one.process.pid in above)

    def stop(self) -> None:
        """End them all, at once."""
        for one in [*self._all, *([self._watcher] if self._watcher else [])]:
            one.stop()

    def log(self) -> str:
        """What all of them have logged."""
        return "\n".join(f"--- {one.log_path.parent.name}\n{one.log()}" for one in self._everybody)

    @property
    def _everybody(self) -> list[WorkerProcess]:
        return [*self._all, *([self._watcher] if self._watcher else [])]


@dataclass(slots=True)
class Performance:
    """One call, as long as it lasts."""

    workers: Workers
    client: ConversationClient
    caller: Caller
    room: str
    began: float = field(default_factory=time.monotonic)

    @property
    def stage(self) -> Stage:
        """The servers."""
        return self.workers.stage

    @property
    def shape(self) -> Shape:
        """Which agent it is."""
        return self.workers.shape

    @property
    def asked(self) -> list[Asked]:
        """What the model was asked in this call so far."""
        return self.stage.model.asked(self.shape.name, since=self.began)

    @property
    def said(self) -> list[str]:
        """All that agents have said to the caller, in the order they began; a line that broke off too."""
        return [one.text for one in self._lines if one.text]

    @property
    def _lines(self) -> list[Caption]:
        by_agents = (one for one in self.caller.captions if one.identity.startswith("agent-"))
        return [one for one in by_agents if one.is_final or one.state is State.BROKEN]

    @property
    def effects(self) -> list[str]:
        """What the agents have done."""
        path = self.stage.effects(self.shape)
        return path.read_text().splitlines() if path.exists() else []

    async def agent(self, *, other_than: str = "") -> tuple[str, int]:
        """The job that is the agent, and its process."""
        return await agent_of(self.stage.settings, self.room, other_than=other_than)

    async def stored(self) -> Stored:
        """What the conversation holds."""
        return await stored(self.client, self.room)

    async def greeted(self) -> None:
        """Wait until the agent listens, has done what it begins with, and has greeted if it does."""
        holder, _ = await self.agent()
        await self.listens(holder)
        await wait_until(self._has_begun, "what the agent begins with", patience=HEARD)
        if self.shape.greeting:
            await self.caller.wait(lambda: self.shape.greeting in self.said, "to be greeted", HEARD)
            await self._is_stored(self.shape.greeting)

    async def _has_begun(self) -> bool:
        return self.effects[: len(self.shape.begins)] == list(self.shape.begins)

    async def listens(self, holder: str) -> None:
        """Wait until that agent can be spoken to: what is said to nobody is lost."""
        identity = identity_of(holder)

        def is_listening() -> bool:
            told = self.caller.rtc_room.remote_participants.get(identity)
            return told is not None and told.attributes.get("lk.agent.state") == _LISTENING

        await self.caller.wait(is_listening, f"{identity} to listen", HEARD)

    async def hears(self, text: str, *, known: int) -> bool:
        """Wait until something has been said once more than it was; tells whether it was, or something else instead."""

        def is_said() -> bool:
            return self.said.count(text) > known

        lines = len(self.said)
        await self.caller.wait(lambda: len(self.said) > lines or is_said(), f"an answer such as {text!r}", HEARD)
        with suppress(TimeoutError):
            await self.caller.wait(is_said, f"to hear {text!r}", ELSE)
        return is_said()

    async def turn(self, turn: Turn) -> None:
        """Say something, hear what is answered, and wait until it is durable."""
        known = self.said.count(turn.hears)
        await self.say(turn.says)
        if not turn.hears:
            await asyncio.sleep(ELSE)  # what is refused leaves no trace that could be waited for
        elif await self.hears(turn.hears, known=known):
            await self._is_stored(turn.hears)

    async def say(self, text: str) -> None:
        """Say something, as callers of this shape do."""
        if self.shape.is_voice:
            await self.caller.say(text)
        else:
            await self.caller.chat(text)

    async def _is_stored(self, text: str) -> None:
        async def is_stored() -> bool:
            said = (await self.stored()).said
            return bool(said) and said[-1] == ("assistant", text)

        await wait_until(is_stored, f"{text!r} to be stored")

    async def keeps(self, texts: Sequence[str]) -> None:
        """Wait until all of these answers are durable, which several agents may have given, in whatever order."""

        async def are_stored() -> bool:
            said = (await self.stored()).said
            return all(("assistant", text) in said for text in texts)

        await wait_until(are_stored, f"{texts} to be stored")

    async def suffers(self, fault: Fault) -> "Blow":
        """Have it happen, and wait until the next agent listens."""
        holder, pid = await self.agent()
        blow = Blow(pid, time.monotonic())
        if fault is Fault.NOTHING:
            return blow
        match fault:
            case Fault.CRASH:
                kill(pid)
            case Fault.HANG:
                pause(pid)
            case Fault.DEPLOY:
                blow.leaving = self.workers.of(pid)
                blow.leaving.terminate()
            case Fault.MIGRATE:
                await self.migrate()
        successor, _ = await self.agent(other_than=holder)
        blow.taken_over = time.monotonic()
        await self.listens(successor)
        if not fault.is_planned:
            with suppress(TimeoutError):
                await self.caller.wait(lambda: BACK in self.said, "the agent to say it is back", ELSE)
        return blow

    async def migrate(self) -> str:
        """Have another worker's agent take the call over."""
        server = self.stage.livekit
        livekit = LiveKitSettings(url=server.url, api_key=server.api_key, api_secret=SecretStr(server.api_secret))
        return await migrate(self.room, store=self.stage.settings, livekit=livekit)

    async def is_over_for(self, pid: int) -> None:
        """Wait until the old agent's process has ended; one that slept wakes up first."""
        with suppress(ProcessLookupError):
            resume(pid)

        async def has_ended() -> bool:
            return not is_alive(pid)

        await wait_until(has_ended, "the old agent to end", patience=HEARD)


@asynccontextmanager
async def performance(workers: Workers, *, count: int = 2) -> AsyncIterator[Performance]:
    """A call to a shape's agent; what it needs is ready, and nobody is left behind.

    `count` workers wait for it: an agent that dies is followed in one worker too, one that is handed over is not.
    """
    await asyncio.to_thread(workers.ready, count)
    stage, shape = workers.stage, workers.shape
    stage.effects(shape).unlink(missing_ok=True)
    room = f"{shape.name}-{secrets.token_hex(4)}"
    stage.cluster.join()
    async with (
        ConversationClient(stage.settings) as client,
        Caller(stage.livekit, room=room) as caller,
    ):
        if shape.agent_name:
            await stage.livekit.create_dispatch(shape.agent_name, room, shape.metadata)
        try:
            yield Performance(workers, client, caller, room)
        finally:
            if await stage.livekit.participants(room):
                await stage.livekit.delete_room(room)


async def play(on: Performance, fault: Fault) -> "Played":
    """Hold a shape's whole call, with the fault in the middle of it."""
    await on.greeted()
    for turn in on.shape.before:
        await on.turn(turn)
    before = on.asked[-1]
    blow = await on.suffers(fault)
    first, *others = on.shape.after
    await on.turn(first)
    if fault is not Fault.NOTHING:
        await on.is_over_for(blow.old)
    if blow.leaving is not None:
        blow.exit_code = await blow.leaving.wait_ended()
    for turn in others:
        await on.turn(turn)
    since = [one for one in on.asked if one.at > blow.happened]
    kept = await on.stored()
    return Played(
        on.shape, fault, before, since, blow, asked=on.asked, said=on.said, effects=on.effects, stored=kept,
        is_there=bool(await on.stage.livekit.participants(on.room)),
    )  # fmt: skip


@dataclass(slots=True)
class Blow:
    """What happened to an agent, and when."""

    old: int
    """The process of the agent that it happened to."""
    happened: float
    taken_over: float = 0.0
    leaving: WorkerProcess | None = None
    """The worker that was told to end."""
    exit_code: int = 0
    """With which it has."""

    @property
    def seconds(self) -> float:
        """How long it took until another agent had the call."""
        return self.taken_over - self.happened


@dataclass(frozen=True, slots=True)
class Played:
    """What became of a call."""

    shape: Shape
    fault: Fault
    before: Asked
    """The last request before the fault."""
    since: list[Asked]
    """All requests from then on."""
    blow: Blow
    asked: list[Asked]
    """All requests of the call."""
    said: list[str]
    effects: list[str]
    stored: Stored
    is_there: bool
    """Whether the room is still there at the end."""
