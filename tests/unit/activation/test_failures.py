"""What runs in the background goes on, whatever is thrown into it, or ends with a reason; and counts it."""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest

from conversation_actors.activation.listing import LISTED_RETENTIONS
from conversation_actors.client import ConversationClient
from conversation_actors.errors import (
    FencedError,
    IncompatibleVersionError,
    OwnerFailedError,
    StoreMisconfiguredError,
    StoreUnavailableError,
)
from conversation_actors.failures import Failures
from conversation_actors.protocol import PROTOCOL
from conversation_actors.runtime import warm_pool
from conversation_actors.runtime.fork_server import server
from conversation_actors.runtime.host import ActivationHost
from conversation_actors.settings import PoolSettings
from tests.support.fakes import (
    PATIENCE,
    Activations,
    FakeCluster,
    Fault,
    FaultyStore,
    append,
    brief,
    done,
    execute,
    until,
)
from tests.support.quick import QUICK
from tests.support.strategies import message
from tests.unit.runtime.test_warm_pool import FakeNodes


class UnforeseenError(Exception):
    """A defect, or something of a library's that nobody here knows."""


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[str], list[Any]]:
    """Return what the log says of a task: the exceptions it came with."""

    def of(task: str) -> list[Any]:
        records = [record for record in caplog.records if getattr(record, "task", None) == task]
        return [record.exc_info[0] for record in records if record.exc_info]

    return of


Told = Callable[[str], list[Any]]


class Throwing:
    """In the place of a function: raises a number of times, then is that function."""

    def __init__(self, function: Callable[..., Any], *, times: int = 2) -> None:
        self._function, self._left = function, times
        self.calls = 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Raise, or call it."""
        self.calls += 1
        if self._left:
            self._left -= 1
            message = "nobody thought of this"
            raise UnforeseenError(message)
        return self._function(*arguments, **named)


# The class itself


async def test_kept_work_goes_on(told: Told) -> None:
    """Work that fails begins anew until it returns; each failure is counted and logged with its traceback."""
    kept = Failures(timing=QUICK)

    async def work() -> None:
        return None

    throwing = Throwing(work, times=3)
    await kept.keep("a task", throwing)
    assert (throwing.calls, kept.counts) == (4, {"a task": 3})
    assert told("a task") == [UnforeseenError] * 3


async def test_kept_work_can_be_cancelled() -> None:
    """Cancelling is no failure: it ends the work."""
    kept = Failures(timing=QUICK)
    task = asyncio.create_task(kept.keep("a task", asyncio.Event().wait))  # type: ignore[arg-type]  # never returns
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (task.cancelled(), kept.counts) == (True, {})


async def test_our_own_errors_are_logged_in_a_line(caplog: pytest.LogCaptureFixture) -> None:
    """What was foreseen needs no traceback; counts are a copy, as of when they were asked for."""
    kept = Failures(timing=QUICK)
    before = kept.counts
    kept.note("a task", StoreUnavailableError("away"))
    (record,) = caplog.records
    assert (record.levelno, record.exc_info, record.reason) == (logging.WARNING, None, "away")  # type: ignore[attr-defined]
    assert (before, kept.counts) == ({}, {"a task": 1})


# The owner's tasks


async def test_upkeep_goes_on_after_an_unforeseen_failure(
    start: Activations, monkeypatch: pytest.MonkeyPatch, told: Told
) -> None:
    """What nobody foresaw postpones the upkeep of a conversation in use, and does not end it."""
    store = FaultyStore()
    owner = await start(store, brief(idle=0.05, ttl=0.2))
    throwing = Throwing(owner._committer.upkeep)
    monkeypatch.setattr(owner._committer, "upkeep", throwing)
    poll = asyncio.create_task(owner.poll(watcher="w", after_seq=0, timeout=PATIENCE))
    await until(lambda: throwing.calls > 3)
    assert not owner.stopped.done()
    assert owner.info().failures["upkeep"] == 2
    assert told("upkeep") == [UnforeseenError] * 2
    poll.cancel()


async def test_postponed_upkeep_is_counted(start: Activations) -> None:
    """A store that does not answer is counted, too."""
    store = FaultyStore()
    owner = await start(store, brief(idle=0.05, ttl=0.2))

    async def upkeep() -> NoReturn:
        message = "away"
        raise StoreUnavailableError(message)

    owner._committer.upkeep = upkeep  # type: ignore[method-assign]  # a store in this state hangs the upkeep's own repeats
    await until(lambda: owner.info().failures.get("upkeep", 0) >= 2)
    assert not owner.stopped.done()


async def test_upkeep_that_cannot_be_mended_stops_the_activation(start: Activations) -> None:
    """Any other of our own errors ends the activation, with that reason, and never the upkeep alone."""
    owner = await start(FaultyStore(), brief(idle=0.05, ttl=0.2))

    async def upkeep() -> NoReturn:
        message = "WRONGTYPE"
        raise StoreMisconfiguredError(message)

    owner._committer.upkeep = upkeep  # type: ignore[method-assign]
    async with asyncio.timeout(PATIENCE):
        assert isinstance(await owner.stopped, StoreMisconfiguredError)


async def test_failed_listing_is_tried_again_by_the_next_upkeep(
    start: Activations, monkeypatch: pytest.MonkeyPatch, told: Told
) -> None:
    """A listing that fails in whatever way is tried again by the next upkeep."""
    store = FaultyStore()
    throwing = Throwing(store.index)
    monkeypatch.setattr(store, "index", throwing)
    owner = await start(store, brief(idle=0.05, ttl=0.2))
    poll = asyncio.create_task(owner.poll(watcher="w", after_seq=0, timeout=PATIENCE))
    await until(lambda: bool(store.indexed))
    assert owner.info().failures["listing"] == 2
    assert told("listing") == [UnforeseenError] * 2
    poll.cancel()


async def test_listing_is_entered_for_the_conversations_own_time(start: Activations) -> None:
    """The entry lives longer than the conversation's own retention, not than its owner's setting."""
    store = FaultyStore()
    now = 1000.0
    store.inner = type(store.inner)(clock=lambda: now)
    await start(store, brief(idle=10.0, ttl=100.0))
    await until(lambda: bool(store.inner._active.expiries))
    assert store.inner._active.expiries == {"c": now + 100.0 * LISTED_RETENTIONS}


async def test_writer_that_fails_stops_the_activation(
    start: Activations, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without its writer an activation is none: it stops with the reason, and whoever waits is told."""
    owner = await start(FaultyStore())
    monkeypatch.setattr(owner._committer, "_compact_if_due", Throwing(owner._committer._compact_if_due))
    await done(owner, append("u0"))
    async with asyncio.timeout(PATIENCE):
        reason = await owner.stopped
    assert isinstance(reason, FencedError)
    assert "nobody thought of this" in str(reason)
    assert "the committer failed" in caplog.text
    with pytest.raises(FencedError):
        await execute(owner, append("u1"))


async def test_repeated_writes_are_counted(start: Activations) -> None:
    """Each write that did not arrive is counted, though only the first of a row is logged."""
    store = FaultyStore()
    owner = await start(store)
    store.append_faults.extend([Fault.BEFORE] * 2)
    await done(owner, append("u0"))
    assert owner.info().failures["write"] == 2


# The process around the owner


class Host(ActivationHost):
    """A host whose activations and exits a test sees; nothing of Ray."""

    def __init__(self) -> None:
        self.exits = 0
        super().__init__("c", brief())

    async def _exit(self) -> None:
        self.exits += 1


@pytest.fixture
async def host(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a host whose recovery fails in a way that nobody foresaw, twice."""
    store = FaultyStore()
    throwing = Throwing(store.activate)
    monkeypatch.setattr(store, "activate", throwing)
    monkeypatch.setattr("conversation_actors.runtime.host.open_store", lambda _: store)
    monkeypatch.setattr("conversation_actors.runtime.host.ray.get_runtime_context", Context)
    monkeypatch.setattr("conversation_actors.runtime.host.ray.util.get_node_ip_address", lambda: "127.0.0.1")
    made = Host()
    yield made
    for task in made._tasks:
        task.cancel()
    await asyncio.gather(*made._tasks, return_exceptions=True)
    await made._line.aclose()
    if made._activation is not None:
        await made._activation.aclose()
    await made._listening
    await made._line.aclose()


async def past_the_faults(host: Host) -> None:
    """Have both failures happen: before anybody asks, and to the first who does."""
    await until(lambda: host._failures.counts.get("recovery") == 1)
    with pytest.raises(UnforeseenError):
        await host._answer(lambda owner: owner.read(fresh=False), create=True)


class Context:
    """Ray's, as far as a host asks it."""

    def get_node_id(self) -> str:
        """Where it is."""
        return "node"


async def test_recovery_that_fails_is_counted_and_tried_again(host: Host) -> None:
    """The recovery before anybody asks is noted; those who ask are told, and the next one gets the activation."""
    await past_the_faults(host)
    facts: Any = await host._answer(_facts_of(host), create=True)
    assert facts.failures == {"recovery": 1}
    assert host.exits == 0


def _facts_of(host: Host) -> Callable[[Any], Awaitable[Any]]:
    async def work(activation: Any) -> Any:
        return host._facts(activation)

    return work


async def test_process_leaves_whatever_fails(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """When its activation has stopped a process goes, though what comes before fails."""
    await past_the_faults(host)
    monkeypatch.setattr(host, "_last_replies", Throwing(host._last_replies))
    await host._answer(_passivate, create=True)
    await until(lambda: host.exits == 1)
    assert host._failures.counts["exit"] == 2


async def test_sigterm_is_obeyed_whatever_fails(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot that cannot be saved in whatever way does not keep the process."""
    await past_the_faults(host)
    owner: Any = await host._answer(_itself, create=True)
    monkeypatch.setattr(owner, "passivate", Throwing(owner.passivate))
    host._on_sigterm()
    await until(lambda: host.exits >= 1)
    assert owner.stopped.done()
    assert host._failures.counts["snapshot at SIGTERM"] == 1


async def test_an_owner_that_cannot_listen_is_asked_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever keeps it from listening is counted, and its clients are told of no line."""
    unforeseen = Throwing(str)
    monkeypatch.setattr("conversation_actors.runtime.host.open_store", lambda _: FaultyStore())
    monkeypatch.setattr("conversation_actors.runtime.host.ray.get_runtime_context", Context)
    monkeypatch.setattr("conversation_actors.runtime.host.ray.util.get_node_ip_address", unforeseen)
    host = Host()
    opened: Any = await host.open(create=True, protocol=PROTOCOL)
    await host._answer(_passivate)
    await until(lambda: host.exits == 1)

    assert unforeseen.calls == 1
    assert opened.line is None
    assert host._failures.counts == {"line": 1}


async def test_an_owner_tells_where_it_listens_with_what_it_shows(host: Host) -> None:
    """Whoever opens need not ask once more; it is the address that `line` tells."""
    await past_the_faults(host)
    opened: Any = await host.open(create=True, protocol=PROTOCOL)
    assert opened.line.process == host._owner
    assert opened.line.unix
    assert opened.line.tcp[0] == "127.0.0.1"
    assert await host.line(protocol=PROTOCOL) == opened.line
    assert isinstance(await host.line(protocol=PROTOCOL - 1), IncompatibleVersionError)


async def test_no_secret_goes_with_a_large_state(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray keeps what is large in its object store, and may spill it to a disk."""
    await past_the_faults(host)
    monkeypatch.setattr("conversation_actors.activation.host._WITH_SECRET_BYTES", 0)
    opened: Any = await host.open(create=True, protocol=PROTOCOL)
    assert opened.line is None
    told: Any = await host.line(protocol=PROTOCOL)
    assert told.process == host._owner


async def _passivate(owner: Any) -> None:
    await owner.passivate()


async def _itself(owner: Any) -> Any:
    return owner


async def test_pool_that_cannot_be_told_is_counted(host: Host, monkeypatch: pytest.MonkeyPatch, told: Told) -> None:
    """An owner that could not tell the pool of its restart serves as any other."""
    await past_the_faults(host)
    monkeypatch.setattr(host, "_tell_pool", _failing)
    await host._answer(lambda owner: owner.read(fresh=False), create=True)
    await until(lambda: host._failures.counts.get("pool") == 1)
    assert told("pool") == [UnforeseenError]


async def _failing() -> NoReturn:
    message = "nobody thought of this"
    raise UnforeseenError(message)


async def test_pool_goes_on_after_a_failed_round(monkeypatch: pytest.MonkeyPatch, told: Told) -> None:
    """A round of the pool that fails in whatever way is followed by the next."""
    nodes = FakeNodes("a")
    monkeypatch.setattr(nodes, "alive", Throwing(nodes.alive))
    pool = warm_pool.WarmPool(PoolSettings(minimum=2, maximum=4), nodes, timing=replace(QUICK, pool_look=0.01))
    await until(lambda: nodes.started["a:1"] == 2)
    assert await pool.failures() == {"pool": 2}
    assert told("pool") == [UnforeseenError] * 2
    await pool.aclose()


def test_fork_server_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A launcher whose request fails in whatever way gets no answer, which is logged; the next one does."""
    worker = ModuleType("ray._private.workers.default_worker")
    worker.__file__ = "/where/default_worker.py"
    monkeypatch.setitem(sys.modules, "ray._private.workers.default_worker", worker)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "listener"))
        listener.listen()
        forking = server.ForkServer(listener, os.getpid(), environment={})
        throwing = Throwing(lambda connection: connection.send(b"answer"), times=1)
        monkeypatch.setattr(forking, "_answer", throwing)
        assert [asked(forking, tmp_path / "listener") for _ in range(2)] == [b"", b"answer"]
    assert [record.exc_info and record.exc_info[0] for record in caplog.records] == [UnforeseenError]


def asked(forking: server.ForkServer, path: Path) -> bytes:
    """Connect, have one connection served, and return what came back."""
    with socket.socket(socket.AF_UNIX) as launcher:
        launcher.connect(str(path))
        forking._serve_one()
        return launcher.recv(16)


# The client's tasks


async def test_copy_that_could_not_be_updated_is_updated_later(monkeypatch: pytest.MonkeyPatch, told: Told) -> None:
    """A copy that could not be updated in whatever way is updated later; the handle tells how often that failed."""
    async with FakeCluster(FaultyStore(), brief()) as cluster:
        reader, writer = await cluster.handle(), await cluster.handle()
        throwing = Throwing(reader._copy.apply)
        monkeypatch.setattr(reader._copy, "apply", throwing)
        await writer.append(message("u0").to_item())
        await until(lambda: reader.seq == 1)
        assert reader.failures == {"following": 2}
        assert told("following") == [UnforeseenError] * 2


@pytest.mark.parametrize("step", ["_fill", "_take_replies"])
async def test_commands_after_a_failed_batch_are_sent(monkeypatch: pytest.MonkeyPatch, told: Told, step: str) -> None:
    """Whoever's commands were on their way when sending failed is told; what comes behind is sent."""
    async with FakeCluster(FaultyStore(), brief()) as cluster:
        handle = await cluster.handle()
        throwing = Throwing(getattr(handle._outbox._delivery, step), times=1)
        monkeypatch.setattr(handle._outbox._delivery, step, throwing)
        with pytest.raises(OwnerFailedError, match="nobody thought of this"):
            await handle.append(message("u0").to_item())
        assert (await handle.append(message("u1").to_item())).seq > 0
        assert handle.failures == {"sending": 1}
        assert told("sending") == [UnforeseenError]


async def test_what_was_recorded_is_not_lost_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that nobody waits for and that had left the queue when sending failed: a flush tells of them."""
    async with FakeCluster(FaultyStore(), brief()) as cluster:
        handle = await cluster.handle()
        packer = handle._outbox._delivery._packer
        monkeypatch.setattr(packer, "parcels", Throwing(packer.parcels, times=1))
        handle.record(message("u0").to_item())
        with pytest.raises(OwnerFailedError):
            await handle.flush()
        handle.record(message("u1").to_item())
        await handle.flush()
        assert [item.id for item in handle.items] == ["u1"]


async def test_batch_that_cannot_be_sent_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that fails in whatever way is counted on the handle."""
    async with FakeCluster(FaultyStore(), brief()) as cluster:
        handle = await cluster.handle()
        delivery = handle._outbox._delivery
        monkeypatch.setattr(delivery, "_send", Throwing(delivery._send, times=1))
        with pytest.raises(OwnerFailedError):
            await handle.append(message("u0").to_item())
        assert handle.failures == {"sending": 1}


async def test_pool_that_cannot_be_started_is_counted(told: Told) -> None:
    """A client works without a pool, and tells that it does."""
    client = ConversationClient(brief())
    await client._failures.once("pool", _failing)
    assert client.failures == {"pool": 1}
    assert told("pool") == [UnforeseenError]
