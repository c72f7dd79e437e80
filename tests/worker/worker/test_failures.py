"""What looks after things goes on, whatever was thrown into it: that is counted where an operator looks."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from livekit.agents import AgentServer

from agent_worker.failures import Failures
from agent_worker.tenure import wishes
from agent_worker.tenure.assignment import RestartReason
from agent_worker.tenure.backlog import Operation
from agent_worker.tenure.conversation import HANDOVER, LEASE, CallConversation
from agent_worker.tenure.pulse import MAX_BEATS
from agent_worker.tenure.sign_of_life import SignOfLife
from agent_worker.tenure.telling import Telling
from agent_worker.timing import Timing
from agent_worker.worker import server as worker
from agent_worker.worker.failure_detector import FailureDetector
from agent_worker.worker.supervisor import EXIT_NOT_STARTED, EXIT_USAGE, Supervisor
from agent_worker.worker.takeover import Takeover
from conversation_actors import ConversationHandle, Heartbeats, Message, OverloadedError, Settings
from conversation_actors.errors import StoreUnavailableError
from tests.support.fakes import until
from tests.support.sessions.fakes_call import Clock, ShakyStore, World, Worlds, on_store

PRIVATE = "private words"


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A conversation that can be opened."""
    async with Worlds(monkeypatch, Clock(), close=0.5) as made:
        made.timing = replace(made.timing, renew=0.02)
        yield made


class Broken:
    """Has a function raise what no program of ours raises, a few times."""

    def __init__(self, patch: pytest.MonkeyPatch, owner: Any, name: str, *, times: int = 2) -> None:
        """Take the function's place until it has raised often enough."""
        original = getattr(owner, name)
        self.left = times

        def broken(*arguments: Any, **named: Any) -> Any:
            if self.left:
                self.left -= 1
                raise TypeError(PRIVATE)
            return original(*arguments, **named)

        patch.setattr(owner, name, broken)


# Counting


def test_failures_are_counted_by_their_task(caplog: pytest.LogCaptureFixture) -> None:
    """Each is told in the log, ours with its words, others by their type."""
    failures = Failures()
    failures.count("a", OverloadedError("too many"), conversation_id="c")
    failures.count("a", TypeError(PRIVATE))
    failures.count("b", TimeoutError())
    assert failures.add("b") == 2
    assert failures.counts == {"a": 2, "b": 2}
    told = [record.__dict__ for record in caplog.records]
    assert [(one["task"], one["count"]) for one in told] == [("a", 1), ("a", 2), ("b", 1)]
    assert [one["reason"] for one in told] == ["OverloadedError: too many", "TypeError", "TimeoutError"]
    assert told[0]["conversation_id"] == "c"


def test_a_series_of_failures_is_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """All are counted; one of another task, type or kind is told beside it."""
    clock = Clock()
    failures = Failures(clock)
    for _ in range(240):
        failures.count("heartbeat", StoreUnavailableError("refused"), "no heartbeat")
        failures.count("keep", StoreUnavailableError("refused"), "not kept")
        clock.now += 0.75
    assert failures.counts == {"heartbeat": 240, "keep": 240}
    told = [(line.__dict__["task"], line.__dict__["count"]) for line in caplog.records]
    assert told == [(task, 1 + minute * 80) for minute in range(3) for task in ("heartbeat", "keep")]
    failures.count("keep", TimeoutError(), "not kept")
    failures.count("keep", StoreUnavailableError("refused"), "something else")
    assert len(caplog.records) == 8


async def test_a_step_is_repeated_until_it_is_done() -> None:
    """Then it is not done again."""
    failures, done = Failures(), []

    async def step() -> None:
        done.append(1)
        if len(done) < 3:
            raise TypeError(PRIVATE)

    await failures.until_done("a", step, pause=0.001)
    assert (len(done), failures.counts) == (3, {"a": 2})
    await failures.at_most_once("b", step)
    assert "b" not in failures.counts


async def test_a_step_goes_on_for_ever_until_it_is_cancelled() -> None:
    """Being cancelled is no failure."""
    failures, done = Failures(), []

    async def step() -> None:
        await asyncio.sleep(0)
        done.append(1)
        if len(done) % 2:
            raise TypeError(PRIVATE)

    running = asyncio.create_task(failures.forever("a", step, pause=0.001))
    await until(lambda: len(done) > 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert failures.counts["a"] >= 5


# A call


async def test_the_heart_beats_on(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a beat raised; the record shows how often, without a word of what it was."""
    call = world.call()
    await call.open()
    world.agents.trouble = TypeError(PRIVATE)
    await until(lambda: call.failures.counts.get("heartbeat", 0) > 1)
    world.agents.trouble = None
    before = world.agents.asked
    await until(lambda: world.agents.asked > before + 2)
    record = await world.agents.find("c")
    assert record is not None
    assert record.details["failures"] == call.failures.counts
    assert not call.deposed.is_set()
    assert PRIVATE not in caplog.text


async def test_a_beat_that_hangs_holds_up_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few hang at most; an answer that comes late deposes as well."""
    call = world.call()
    await call.open()
    beat, let_go = world.agents.beat, asyncio.Event()
    hanging, landed = 0, 0

    async def hang(*arguments: Any, **named: Any) -> bool:
        nonlocal hanging, landed
        if hanging < limit:
            hanging += 1
            await let_go.wait()
        landed += 1
        return await beat(*arguments, **named)

    limit = 2
    monkeypatch.setattr(world.agents, "beat", hang)
    await until(lambda: hanging == 2 and landed > 2)
    limit = 100
    # one more is the lease's
    await until(lambda: hanging == MAX_BEATS + 1)
    assert await world.agents.claim("c", "w", hold=timedelta(hours=1), holder="job-1")
    let_go.set()
    await asyncio.wait_for(call.deposed.wait(), 5)
    assert hanging == MAX_BEATS + 1


Evidence = Callable[[CallConversation, World], Any]


async def _is_kept(_call: CallConversation, world: World) -> None:
    await until(lambda: len(world.store.kept) == 1)


async def _is_renewed(call: CallConversation, _world: World) -> None:
    assert call._standing.handle is not None
    handle = call._standing.handle
    first = handle.leases[LEASE].expires_at
    await until(lambda: handle.leases[LEASE].expires_at > first)


async def _is_asked(call: CallConversation, world: World) -> None:
    await (await world.cluster.handle()).set_attributes({HANDOVER: {"from": "job-1", "to": "job-2"}})
    await asyncio.wait_for(call.handover_asked.wait(), 5)


async def _is_acknowledged(call: CallConversation, _world: World) -> None:
    for number in range(3):
        call.record(Message(id=f"u{number}", role="user", content="hello"))
        await until(lambda: not call._telling.recording.to_acknowledge.is_set())
    await until(lambda: len(call.items) == 3)


async def _is_noted(call: CallConversation, _world: World) -> None:
    for number in range(5):
        call.note("x", number)
        await until(lambda: len(call._telling.changes) == 0)
    assert call.attributes["x"] == 4


def _joining(identity: str) -> Operation:
    return lambda handle, lease: handle.join(identity, lease=lease)


async def _is_done(call: CallConversation, _world: World) -> None:
    for number in range(5):
        call.later(_joining(f"p{number}"))
    await call.flush()
    assert "p4" in call.participants


TASKS: dict[str, tuple[Any, str, Evidence]] = {
    "keep": (Heartbeats, "keep", _is_kept),
    "lease": (ConversationHandle, "acquire_lease", _is_renewed),
    "guard": (wishes, "wish_of", _is_asked),
    "items": (ConversationHandle, "flush", _is_acknowledged),
    "notes": (ConversationHandle, "set_attributes", _is_noted),
    "changes": (ConversationHandle, "join", _is_done),
}
"""Where something is thrown into each task, and what tells that it goes on."""


@pytest.mark.parametrize("task", TASKS)
async def test_whatever_is_thrown_into_a_task_of_a_call(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    task: str,
) -> None:
    """It is counted under the task's name, and what the task is for is done all the same."""
    owner, name, evidence = TASKS[task]
    call = world.call()
    if task == "keep":
        broken = Broken(monkeypatch, owner, name)
        await call.open()
    else:
        await call.open()
        await until(lambda: len(call._telling.changes) == 0)
        broken = Broken(monkeypatch, owner, name)
    await evidence(call, world)
    await until(lambda: broken.left == 0)
    assert call.failures.counts[task] == 2
    assert not call.deposed.is_set()
    assert PRIVATE not in caplog.text


async def test_whatever_is_thrown_at_the_opening(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again; also where what was opened half cannot be closed."""
    call = world.call()
    Broken(monkeypatch, SignOfLife, "begin")

    async def broken_close() -> None:
        monkeypatch.setattr(call._opening.stack, "aclose", original)
        await original()
        raise TypeError(PRIVATE)

    original = call._opening.stack.aclose
    monkeypatch.setattr(call._opening.stack, "aclose", broken_close)
    assert await call.open()
    assert call.failures.counts["open"] == 3


async def test_whatever_is_thrown_by_one_who_is_asked_again(world: World) -> None:
    """The others are asked all the same."""
    call = world.call()
    await call.open()
    asked: list[bool] = []

    def broken(_is_afresh: bool) -> None:  # noqa: FBT001  # a callback of one value
        raise TypeError(PRIVATE)

    call.on_items_missed(broken)
    call.on_items_missed(asked.append)
    call.on_changes_missed(asked.append)
    await world.lose_everything()
    call.note("x", 1)
    await until(lambda: asked == [True, True])
    assert call.failures.counts["missed"] == 1


async def test_whatever_is_thrown_at_the_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease is given back although not all was taken; `release` raises nothing."""
    call = world.call()
    await call.open()
    Broken(monkeypatch, Telling, "flush", times=1)
    await call.release()
    assert call.failures.counts["release"] == 1
    assert LEASE not in (await world.cluster.handle()).leases


# A worker, and its supervisor


QUICK = Timing(server_retry=0.001, supervisor_look=0.001, restart_delays=(0.0,))


class Server:
    """The part of LiveKit's server that a worker runs and drains."""

    def __init__(self) -> None:
        """It serves."""
        self.active_jobs: list[Any] = []
        self.drained, self.closed = asyncio.Event(), asyncio.Event()

    async def run(self, *, devmode: bool) -> None:
        """Serve until the end."""
        assert not devmode
        await self.closed.wait()

    async def drain(self) -> None:
        """Wait for the jobs."""
        await self.drained.wait()

    async def aclose(self) -> None:
        """End."""
        self.closed.set()


async def test_whatever_is_thrown_into_a_worker_that_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Successors are asked for all the same, and a worker whose supervisor is gone ends; both are counted."""
    monkeypatch.setattr(worker, "instance_from_environment", lambda: "w")
    supervisors = iter([1, 1])
    monkeypatch.setattr("os.getppid", lambda: next(supervisors, 2))
    server, asked = Server(), asyncio.Event()

    async def give_over() -> None:
        asked.set()

    async def watch() -> None:
        await asyncio.Event().wait()

    detector = SimpleNamespace(run=watch, give_over=give_over)
    Broken(monkeypatch, detector, "give_over")
    Broken(monkeypatch, worker, "_stop_when_orphaned")
    failures, stop = Failures(), asyncio.Event()
    running = asyncio.create_task(
        worker._run_until(
            (stop, asyncio.Event()),
            cast("AgentServer", server),
            cast("FailureDetector", detector),
            cast("worker.WorkerOptions", SimpleNamespace(is_development=False, timing=QUICK)),
            failures,
        )
    )
    async with asyncio.timeout(5):
        await stop.wait()
        await asked.wait()
        server.drained.set()
        await running
    assert failures.counts == {"orphaned": 2, "give_over": 2}


async def test_a_worker_that_cannot_watch_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what went wrong: its supervisor starts it again."""
    monkeypatch.setattr(worker, "instance_from_environment", lambda: None)

    async def watch() -> None:
        raise TypeError(PRIVATE)

    detector = SimpleNamespace(run=watch, give_over=watch)
    options = SimpleNamespace(is_development=False, timing=QUICK)
    told = (asyncio.Event(), asyncio.Event())
    with pytest.raises(TypeError):
        await worker._run_until(told, cast("Any", Server()), cast("Any", detector), cast("Any", options), Failures())


@pytest.mark.usefixtures("livekit")
async def test_a_watcher_that_cannot_watch_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what went wrong: whoever started it starts it again; it takes no calls meanwhile."""
    jobs: list[int] = []

    async def watch(detector: FailureDetector) -> None:
        jobs.append(len(detector._jobs.active_jobs))
        raise TypeError(PRIVATE)

    monkeypatch.setenv("CONVERSATION_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("AGENT_HEALTH_PORT", "0")
    monkeypatch.setattr(FailureDetector, "run", watch)
    with on_store(monkeypatch, ShakyStore(Clock())):
        try:
            with pytest.raises(TypeError):
                await worker.run_watcher(worker.WorkerOptions())
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().remove_signal_handler(number)
    assert jobs == [0]


@pytest.fixture
def livekit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings as a supervisor has them."""
    for name in ("URL", "API_KEY", "API_SECRET"):
        monkeypatch.setenv(f"LIVEKIT_{name}", "ws://127.0.0.1:1" if name == "URL" else "secret")


@pytest.mark.usefixtures("livekit")
async def test_whatever_is_thrown_into_a_supervisor(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that the system could not start is started again, and what cannot be looked up is found by the clock."""
    caplog.set_level(logging.WARNING)
    runs: list[str] = []

    class Unable(Supervisor):
        async def run_once(self, name: str) -> int:
            runs.append(name)
            if len(runs) < 3:
                message = "no more processes"
                raise OSError(message)
            await asyncio.sleep(0)  # lets the take-overs begin
            return EXIT_USAGE

    Broken(monkeypatch, Heartbeats, "claim_group")
    store = ShakyStore(Clock())
    with on_store(monkeypatch, store):
        one = Unable([], "p", timing=QUICK)
        try:
            assert await one.run() == EXIT_USAGE
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().remove_signal_handler(number)
    assert runs == ["p-1", "p-2", "p-3"]
    assert one._failures.counts == {"worker": 2, "take_over": 2}
    assert EXIT_NOT_STARTED in {record.__dict__.get("code") for record in caplog.records}
    assert PRIVATE not in caplog.text


async def test_one_call_that_a_supervisor_cannot_hand_over_costs_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is counted; workers find it by the clock."""
    ran: list[str] = []

    class Half:
        async def run(self, record: Any, *, reason: RestartReason) -> None:
            assert reason is RestartReason.WORKER
            ran.append(record.conversation_id)
            if record.conversation_id == "c0":
                raise TypeError(PRIVATE)

    with on_store(monkeypatch, ShakyStore(Clock())):
        async with Heartbeats(Settings()) as heartbeats:
            for number in range(2):
                await heartbeats.start(f"c{number}", "job", valid_for=timedelta(seconds=3), group="p-1")
            one = Supervisor([], "p")
            await one._take_over(heartbeats, cast("Takeover", Half()), "p-1")
    assert sorted(ran) == ["c0", "c1"]
    assert one._failures.counts == {"take_over": 1}
    assert PRIVATE not in caplog.text
