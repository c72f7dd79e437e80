"""The port that asks by a line: it falls back within one call, comes back by itself, and leaves nothing behind."""

import asyncio
import gc
import logging
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from conversation_actors.client import ConversationHandle
from conversation_actors.client.owner import RemoteOwner
from conversation_actors.errors import (
    ConversationError,
    FencedError,
    OutcomeUnknownError,
    PassivatedError,
    StoreUnavailableError,
)
from conversation_actors.failures import Failures
from conversation_actors.items import Message
from conversation_actors.line.messages import (
    MOST_SUBSCRIPTIONS,
    Answer,
    Ended,
    ExecuteCall,
    Failed,
    LetGo,
    Ping,
    Push,
    ReadCall,
    Subscribe,
    ToClient,
    ToOwner,
)
from conversation_actors.line.port import DirectPeer, DirectPort
from conversation_actors.line.server import LineServer
from conversation_actors.local.port import LocalPeer
from conversation_actors.port import PeerFailedError, PeerLostError, PeerRestartingError
from conversation_actors.protocol import (
    PROTOCOL,
    ActivationInfo,
    Done,
    Execute,
    Executed,
    LineAddress,
    Opened,
    Polled,
    Seen,
    View,
)
from conversation_actors.store import MemoryStore
from conversation_actors.timing import Timing
from tests.support.fakes import CONVERSATION, PATIENCE, FakeActor, append, brief, turns, until
from tests.support.line_owner import LineOwner
from tests.support.waiting import wait_until

SEEN = Seen("life", "o")
CALM = Timing(line_connect=PATIENCE, line_answer=PATIENCE, line_again=(0.001, 0.01))
HASTY = Timing(line_connect=PATIENCE, line_answer=0.02, line_again=(0.001, 0.01))
BY_LINE, BY_PORT = View(1, 1, b"line", "life", "o"), View(1, 1, b"port", "life", "o")
INFO = ActivationInfo("c", 1, 0, 1, "n", 0.0, 0, 0, 0.0)
CALL = Execute([append("a")], "w", 0)


class WrappedPeer:
    """The peer that a line relieves: it answers at once, unless it is told to hang or to raise."""

    def __init__(self) -> None:
        """Listen nowhere."""
        self.address: LineAddress | None = None
        self.asked: Counter[str] = Counter()
        self.calls: list[Execute] = []
        self.error: Exception | None = None
        self.answer: Any = None
        self.hangs = False
        self.has_room = True
        """Whether its answer to an `open` tells where it listens."""
        self.is_current = True

    def suspect(self) -> None:
        """See `Peer.suspect`."""
        self.asked["suspect"] += 1

    async def open(self, *, create: bool) -> Any:
        """See `Peer.open`."""
        return await self._answer("open", Opened(INFO, BY_PORT, create, self.address if self.has_room else None))

    async def info(self) -> Any:
        """See `Peer.info`."""
        return await self._answer("info", INFO)

    async def execute(self, call: Execute) -> Any:
        """See `Peer.execute`."""
        self.calls.append(call)
        return await self._answer("execute", Executed((Done(2, 1),) * len(call.requests), (), "o"))

    async def read(self, *, fresh: bool) -> Any:
        """See `Peer.read`."""
        return await self._answer(f"read {fresh}", BY_PORT)

    async def poll(self, watcher: str, after_seq: int, seen: Seen, seconds: float) -> Any:
        """See `Peer.poll`."""
        assert (watcher, after_seq, seen) == ("w", 3, SEEN)
        assert 0 <= seconds <= PATIENCE
        return await self._answer("poll", Polled((b"by port",), "o"))

    async def let_go(self, watchers: Sequence[str]) -> None:
        """See `Peer.let_go`."""
        await self._answer(f"let go {list(watchers)}", None)

    async def passivate(self) -> Any:
        """See `Peer.passivate`."""
        return await self._answer("passivate", True)

    async def line(self) -> LineAddress | None:
        """See `Peer.line`."""
        self.asked["line"] += 1
        if self.error is not None:
            raise self.error
        return self.address

    async def _answer(self, name: str, usual: Any) -> Any:
        self.asked[name] += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return usual if self.answer is None else self.answer


class WrappedPort:
    """Finds one peer; another one when it is told to."""

    def __init__(self) -> None:
        """Find a peer of its own."""
        self.peer: WrappedPeer | None = WrappedPeer()
        self.asked: Counter[str] = Counter()

    async def find(self) -> WrappedPeer | None:
        """See `OwnerPort.find`."""
        return self.peer

    async def find_or_start(self) -> WrappedPeer:
        """See `OwnerPort.find_or_start`."""
        assert self.peer is not None
        return self.peer

    async def confirm(self) -> None:
        """See `OwnerPort.confirm`."""
        self.asked["confirm"] += 1

    def note_start(self, _info: ActivationInfo, *, was_ready: bool) -> None:
        """See `OwnerPort.note_start`."""
        self.asked[f"start {was_ready}"] += 1

    async def aclose(self) -> None:
        """See `OwnerPort.aclose`."""
        self.asked["close"] += 1


@dataclass
class Stage:
    """An owner's line, the port that it relieves, and the one that is tested."""

    owner: LineOwner
    wrapped: WrappedPeer
    port: DirectPort
    inner: WrappedPort
    peer: DirectPeer

    async def up(self) -> None:
        """Return when the line is up."""
        await until(lambda: self.port.way is not None)


async def by_line(message: ToOwner) -> ToClient | bytes | None:
    """Answer each call at once."""
    match message:
        case ExecuteCall(call, execute):
            return Answer(call, Executed((Done(1, 1),) * len(execute.requests), (), "o"))
        case ReadCall(call):
            return Answer(call, BY_LINE)
        case Ping(call):
            return Answer(call, None)
    return None


@asynccontextmanager
async def staged(
    directory: Path, *, timing: Timing = CALM, is_open: bool = True, failures: Failures | None = None
) -> AsyncIterator[Stage]:
    """Provide a stage whose line is up, unless the conversation is not to be opened."""
    async with LineOwner(directory, by_line) as owner:
        inner = WrappedPort()
        assert inner.peer is not None
        inner.peer.address = owner.address
        port = DirectPort(inner, timing=timing, failures=failures)
        stage = Stage(owner, inner.peer, port, inner, await port.find_or_start())
        try:
            if is_open:
                await stage.peer.open(create=True)
                await stage.up()
            yield stage
        finally:
            await port.aclose()


async def within(waited: Any) -> Any:
    """Return what is waited for; fail the test if it does not come about."""
    async with asyncio.timeout(PATIENCE):
        return await waited


def descriptors() -> int:
    """Return how many descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


# By the line


async def test_calls_go_by_the_line_once_it_is_up(tmp_path: Path) -> None:
    """Where the owner listens, its answer to an `open` tells; nobody waits for the line."""
    async with staged(tmp_path, is_open=False) as stage:
        opened = await stage.peer.open(create=True)
        assert isinstance(opened, Opened)
        assert stage.port.way is None
        assert await stage.peer.read(fresh=True) == BY_PORT
        await stage.up()
        assert await stage.peer.read(fresh=True) == BY_LINE
        assert await stage.peer.execute(CALL) == Executed((Done(1, 1),), (), "o")
        await stage.peer.let_go(["w"])
        await stage.owner.hears(LetGo)
        assert stage.wrapped.asked == {"open": 1, "read True": 1}
        assert stage.owner.accepted == 1


async def test_what_is_not_for_the_line_is_asked_of_the_wrapped_port(tmp_path: Path) -> None:
    """Finding, opening, facts and leaving stay where they were."""
    async with staged(tmp_path) as stage:
        assert await stage.peer.passivate() is True
        assert await stage.peer.line() == stage.owner.address
        for is_current in (True, False):
            stage.wrapped.is_current = is_current
            assert stage.peer.is_current is is_current
        await stage.port.confirm()
        stage.port.note_start(INFO, was_ready=True)
        stage.inner.peer = None
        assert await stage.port.find() is None
        assert stage.inner.asked == {"confirm": 1, "start True": 1}
        assert stage.owner.heard == []
    assert stage.inner.asked["close"] == 1


async def test_an_owner_that_nobody_opened_here_is_asked_for_its_address(tmp_path: Path) -> None:
    """A call after a crash goes to an owner that somebody else has opened."""
    async with staged(tmp_path, is_open=False) as stage:
        assert await stage.peer.execute(CALL) == Executed((Done(2, 1),), (), "o")
        await stage.up()
        assert await stage.peer.execute(CALL) == Executed((Done(1, 1),), (), "o")
        assert stage.wrapped.asked == {"execute": 1, "line": 1}


async def test_the_facts_tell_the_way_that_is_used(tmp_path: Path) -> None:
    """By the line's name, or else as the wrapped peer tells it."""
    async with staged(tmp_path, is_open=False) as stage:
        for way in ("ray", "unix"):
            info, opened = await stage.peer.info(), await stage.peer.open(create=True)
            assert isinstance(info, ActivationInfo)
            assert isinstance(opened, Opened)
            assert (info.reached_by, opened.info.reached_by) == (way, way)
            await stage.up()
        assert stage.port.way == "unix"
        stage.wrapped.answer = StoreUnavailableError("away")
        assert await stage.peer.info() is stage.wrapped.answer
        assert await stage.peer.open(create=True) is stage.wrapped.answer


# Falling back


async def _cut(stage: Stage) -> None:
    async def cut(message: ToOwner) -> None:
        if not isinstance(message, Subscribe):
            stage.owner.cut()

    stage.owner.answer = cut


async def _other_version(stage: Stage) -> None:
    async def other(_: ToOwner) -> bytes:
        return struct.pack("!IB", 2, PROTOCOL + 1) + b"\xc0"

    stage.owner.answer = other


async def _failed(stage: Stage) -> None:
    async def fail(message: ToOwner) -> ToClient:
        assert isinstance(message, (ExecuteCall, ReadCall))
        return Failed(message.call, "ZeroDivisionError()")

    stage.owner.answer = fail


async def _refused(stage: Stage) -> None:
    await stage.owner.die()
    await until(lambda: stage.port.way is None)


async def _wrong_proof(stage: Stage) -> None:
    stage.owner.knows_secret = False
    stage.owner.cut()
    await until(lambda: stage.owner.accepted >= 3)


async def _mute(stage: Stage) -> None:
    stage.owner.is_mute = True
    stage.owner.cut()
    await until(lambda: stage.owner.accepted >= 2)


async def _deaf(stage: Stage) -> None:
    stage.wrapped.address = None
    stage.owner.cut()
    await until(lambda: stage.wrapped.asked["line"] > 0)


FAULTS = {
    "closed in the middle of an answer": _cut,
    "another version": _other_version,
    "failed": _failed,
    "refused": _refused,
    "wrong proof": _wrong_proof,
    "no proof": _mute,
    "listens no more": _deaf,
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_whatever_goes_wrong_the_wrapped_peer_answers_in_the_same_call(
    tmp_path: Path, fault: Callable[[Stage], Any]
) -> None:
    """Whoever asks sees one answer, and no error of the line's."""
    async with staged(tmp_path) as stage:
        await fault(stage)
        assert await within(stage.peer.execute(CALL)) == Executed((Done(2, 1),), (), "o")
        assert await within(stage.peer.read(fresh=True)) == BY_PORT
        assert (stage.wrapped.asked["execute"], stage.wrapped.asked["read True"]) == (1, 1)


async def test_what_no_frame_holds_goes_by_the_wrapped_port(tmp_path: Path) -> None:
    """And the line stays as it is."""
    async with staged(tmp_path) as stage:
        unspeakable = replace(CALL, after_seq=1 << 70)
        assert await stage.peer.execute(unspeakable) == Executed((Done(2, 1),), (), "o")
        assert await stage.peer.read(fresh=False) == BY_LINE
        assert stage.owner.accepted == 1


@pytest.mark.parametrize("error", [PeerLostError(), PeerRestartingError(), PeerFailedError(ZeroDivisionError())])
async def test_what_the_wrapped_peer_raises_is_raised(tmp_path: Path, error: Exception) -> None:
    """With a line that has fallen, it alone knows what has become of the owner."""
    async with staged(tmp_path) as stage:
        stage.wrapped.error = error
        await _cut(stage)
        with pytest.raises(type(error)):
            await within(stage.peer.execute(CALL))


# Coming back


async def test_a_line_that_fell_comes_back_by_itself(tmp_path: Path) -> None:
    """The address is asked for anew: the process that listens by then may be another one, with another secret."""
    async with staged(tmp_path) as stage:
        await stage.owner.die()
        await until(lambda: stage.port.way is None)
        stage.wrapped.error = PeerRestartingError()
        await until(lambda: stage.wrapped.asked["line"] > 1)
        async with LineOwner(tmp_path, by_line, is_tcp=True) as successor:
            stage.wrapped.error, stage.wrapped.address = None, successor.address
            await stage.up()
            assert stage.port.way == "tcp"
            assert await stage.peer.read(fresh=False) == BY_LINE
            assert successor.told(ReadCall)


async def test_attempts_become_rarer_and_come_one_at_a_time(tmp_path: Path) -> None:
    """An owner that answers nobody is not besieged, however much is asked of it by the other way."""
    rare = Timing(line_connect=PATIENCE, line_answer=PATIENCE, line_again=(PATIENCE, PATIENCE))
    async with staged(tmp_path, timing=rare) as stage:
        stage.owner.cut()
        await until(lambda: stage.port.way is None)
        for _ in range(20):
            assert await stage.peer.read(fresh=False) == BY_PORT
            await turns()
        assert (stage.owner.accepted, stage.wrapped.asked["line"]) == (1, 0)
    async with staged(tmp_path, is_open=False) as stage:
        stage.owner.is_mute = True
        for _ in range(20):
            assert await stage.peer.read(fresh=False) == BY_PORT
        await until(lambda: stage.owner.accepted == 1)
        await turns()
        assert (stage.owner.accepted, stage.wrapped.asked["line"]) == (1, 1)


async def test_an_owner_that_is_gone_is_asked_for_its_address_when_somebody_asks_it_anything(tmp_path: Path) -> None:
    """And by nobody before: to an idle handle an owner that has left is none."""
    async with staged(tmp_path) as stage:
        stage.wrapped.error = PeerLostError()
        stage.owner.cut()
        await until(lambda: stage.wrapped.asked["line"] == 1)
        await turns()
        assert stage.wrapped.asked["line"] == 1
        stage.wrapped.error = None
        assert await stage.peer.read(fresh=False) == BY_PORT
        await stage.up()


async def test_a_line_leads_to_the_owner_that_is_asked_now(tmp_path: Path) -> None:
    """Whoever was found anew is another one, or may be: the line to the one before is let go."""
    async with staged(tmp_path) as stage, LineOwner(tmp_path, by_line) as other:
        found = WrappedPeer()
        found.address = other.address
        stage.inner.peer = found
        peer = await stage.port.find_or_start()
        assert await stage.peer.read(fresh=False) == BY_LINE
        assert await peer.read(fresh=False) == BY_PORT
        await until(lambda: stage.owner.lines == 0)
        await stage.up()
        assert await peer.read(fresh=False) == BY_LINE
        assert len(other.told(ReadCall)) == 1


async def test_an_open_that_another_process_answers_ends_the_line(tmp_path: Path) -> None:
    """The process that had the conversation may listen on for a while."""
    async with staged(tmp_path) as stage, LineOwner(tmp_path, by_line) as other:
        stage.wrapped.address = other.address
        await stage.peer.open(create=True)
        await stage.up()
        assert (stage.owner.lines, other.accepted) == (0, 1)
        await stage.peer.open(create=True)
        assert other.accepted == 1
        stage.wrapped.has_room = False
        await stage.peer.open(create=True)
        assert (stage.port.way, other.accepted) == ("unix", 1), "an answer that does not tell says nothing"


async def test_where_an_owner_listens_is_asked_if_its_first_answer_has_no_room_for_that(tmp_path: Path) -> None:
    """A large state goes where no secret belongs."""
    async with staged(tmp_path, is_open=False) as stage:
        stage.wrapped.has_room = False
        await stage.peer.open(create=True)
        await stage.up()
        assert stage.wrapped.asked["line"] == 1


@pytest.mark.parametrize("stopped", [FencedError("fenced"), PassivatedError("passivated")])
async def test_an_activation_that_has_stopped_is_not_asked_again(tmp_path: Path, stopped: ConversationError) -> None:
    """Its answer is returned as it is, and the line is let go, whatever was asked."""
    answers: dict[str, Callable[[Stage], Any]] = {
        "execute": lambda stage: stage.peer.execute(CALL),
        "read": lambda stage: stage.peer.read(fresh=False),
        "poll": lambda stage: stage.peer.poll("w", 3, SEEN, PATIENCE),
    }

    async def answer(message: ToOwner) -> ToClient | None:
        match message:
            case ExecuteCall(call) | ReadCall(call):
                return Answer(call, stopped)
            case Subscribe(number):
                return Ended(number, stopped)
        return None

    for ask in answers.values():
        async with staged(tmp_path) as stage:
            stage.owner.answer = answer
            told = await within(ask(stage))
            assert (type(told), str(told)) == (type(stopped), str(stopped))
            await until(lambda stage=stage: stage.owner.accepted == 2)  # type: ignore[misc]


async def test_a_long_poll_that_is_quiet_gives_signs_of_life(tmp_path: Path) -> None:
    """However long polls may take by the settings: an owner lets go of a client that says nothing."""
    timing = replace(CALM, line_quiet=0.01)
    async with staged(tmp_path, timing=timing) as stage:
        polling = asyncio.create_task(stage.peer.poll("w", 3, SEEN, PATIENCE))
        await stage.owner.hears(Ping, 3)
        assert not polling.done()
        (asked,) = stage.owner.told(Subscribe)
        assert isinstance(asked, Subscribe)
        stage.owner.say(Push(asked.subscription, 3, (b"entry",), "o"))
        assert await within(polling) == Polled((b"entry",), "o")


# Slow answers


async def test_a_slow_line_is_no_slow_answer(tmp_path: Path) -> None:
    """The wrapped peer is asked too; if it is quicker, the line is let go, and taken again later."""
    async with staged(tmp_path, timing=HASTY) as stage:
        stage.owner.answer = hanging
        assert await within(stage.peer.read(fresh=True)) == BY_PORT
        assert stage.owner.told(ReadCall)
        await until(lambda: stage.owner.accepted == 2)
        stage.owner.answer = by_line

        async def is_taken_again() -> bool:
            return await stage.peer.read(fresh=True) == BY_LINE

        await wait_until(is_taken_again, "an answer by the line")  # a busy machine may be slow once more


async def test_an_answer_that_is_late_by_the_line_counts_if_it_comes_first(tmp_path: Path) -> None:
    """An owner may be slow by itself: then the other way is no quicker, and the line is as good as before."""
    async with staged(tmp_path, timing=HASTY) as stage:
        stage.owner.answer = hanging
        stage.wrapped.hangs = True
        reading = asyncio.create_task(stage.peer.read(fresh=True))
        await until(lambda: stage.wrapped.asked["read True"] == 1)
        (call,) = stage.owner.told(ReadCall)
        assert isinstance(call, ReadCall)
        stage.owner.say(Answer(call.call, BY_LINE))
        assert await within(reading) == BY_LINE
        await turns()
        assert (stage.port.way, stage.owner.accepted) == ("unix", 1)


async def test_who_is_asked_beside_a_late_line_tells_no_watcher(tmp_path: Path) -> None:
    """What an answer tells that nobody takes, the watcher's subscription would pass over."""
    async with staged(tmp_path, timing=HASTY) as stage:
        stage.owner.answer = hanging
        await within(stage.peer.execute(CALL))
        stage.owner.cut()
        await until(lambda: stage.port.way is None)
        stage.wrapped.address = None
        await within(stage.peer.execute(CALL))
        assert [call.watcher for call in stage.wrapped.calls] == ["", "w"]


async def test_a_line_that_falls_while_both_are_asked_leaves_the_other_answer(tmp_path: Path) -> None:
    """And the wrapped peer is not asked twice."""
    async with staged(tmp_path, timing=HASTY) as stage:
        stage.owner.answer = hanging
        stage.wrapped.hangs = True
        reading = asyncio.create_task(stage.peer.read(fresh=True))
        await until(lambda: stage.wrapped.asked["read True"] == 1)
        stage.owner.cut()
        await until(lambda: stage.port.way is None)
        assert not reading.done()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        assert stage.wrapped.asked["read True"] == 1


async def test_an_owner_that_the_other_way_does_not_reach_is_waited_for_by_the_line(tmp_path: Path) -> None:
    """It may be as slow as Redis is, and Ray may be away at the same time: a line that lives is not given up."""
    async with staged(tmp_path, timing=HASTY) as stage:
        stage.owner.answer = hanging
        stage.wrapped.error = PeerRestartingError()
        reading = asyncio.create_task(stage.peer.read(fresh=True))
        await until(lambda: stage.wrapped.asked["read True"] == 1)
        await turns()
        (call,) = stage.owner.told(ReadCall)
        assert isinstance(call, ReadCall)
        stage.owner.say(Answer(call.call, BY_LINE))
        assert await within(reading) == BY_LINE
        assert (stage.port.way, stage.owner.accepted) == ("unix", 1)


async def test_an_owner_that_neither_way_reaches_is_being_restarted(tmp_path: Path) -> None:
    """The line that falls meanwhile leaves what the wrapped peer has told."""
    async with staged(tmp_path, timing=HASTY) as stage:
        stage.owner.answer = hanging
        stage.wrapped.error = PeerRestartingError()
        reading = asyncio.create_task(stage.peer.read(fresh=True))
        await until(lambda: stage.wrapped.asked["read True"] == 1)
        stage.owner.cut()
        with pytest.raises(PeerRestartingError):
            await within(reading)


async def test_an_owner_that_is_gone_is_not_waited_for_by_the_line(tmp_path: Path) -> None:
    """A half-open line would keep quiet for ever; whoever finds owners knows better."""
    async with staged(tmp_path, timing=HASTY) as stage:
        stage.owner.answer = hanging
        stage.wrapped.error = PeerLostError()
        with pytest.raises(PeerLostError):
            await within(stage.peer.execute(CALL))
        assert stage.port.way is None


async def hanging(_: ToOwner) -> None:
    """Never answer."""
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    "trouble",
    [StoreUnavailableError("away"), Executed((OutcomeUnknownError("late"),), (), "o")],
    ids=["store away", "outcome unknown"],
)
async def test_an_owner_that_cannot_write_is_asked_by_the_other_way_next(tmp_path: Path, trouble: Any) -> None:
    """Another process may own the conversation by now: only the wrapped port would know."""

    async def answer(message: ToOwner) -> ToClient | None:
        assert isinstance(message, ExecuteCall)
        return Answer(message.call, trouble)

    async with staged(tmp_path) as stage:
        stage.owner.answer = answer
        assert type(await stage.peer.execute(CALL)) is type(trouble)
        stage.owner.answer, stage.wrapped.answer = by_line, trouble
        for _ in range(2):
            assert await stage.peer.execute(CALL) is trouble
        stage.wrapped.answer = None
        assert await stage.peer.execute(CALL) == Executed((Done(2, 1),), (), "o")
        assert await stage.peer.execute(CALL) == Executed((Done(1, 1),), (), "o")
        assert stage.owner.accepted == 1


# Polls


async def test_a_poll_that_waits_goes_over_to_the_line_that_comes_up(tmp_path: Path) -> None:
    """A handle's first poll is sent a moment before its line is there, and would be parked for half a minute."""
    async with staged(tmp_path, is_open=False) as stage:
        stage.wrapped.hangs = True
        polling = asyncio.create_task(stage.peer.poll("w", 3, SEEN, PATIENCE))
        await stage.owner.hears(Subscribe)
        stage.owner.say(Push(1, 3, (b"by line",), "o"))
        assert await within(polling) == Polled((b"by line",), "o")
        assert stage.wrapped.asked == {"line": 1, "poll": 1}


async def test_a_poll_goes_on_by_the_wrapped_port_when_the_line_falls(tmp_path: Path) -> None:
    """And comes back to the line: nobody who follows notices either."""
    async with staged(tmp_path) as stage:
        stage.wrapped.hangs = True
        polling = asyncio.create_task(stage.peer.poll("w", 3, SEEN, PATIENCE))
        await stage.owner.hears(Subscribe)
        stage.owner.cut()
        await until(lambda: stage.wrapped.asked["poll"] == 1)
        await stage.owner.hears(Subscribe, 2)
        stage.owner.say(Push(1, 3, (b"by line",), "o"))
        assert await within(polling) == Polled((b"by line",), "o")


async def test_a_poll_without_a_line_is_answered_by_the_wrapped_port(tmp_path: Path) -> None:
    """Also if it answers while a line is being sought."""
    async with staged(tmp_path) as stage:
        stage.wrapped.address = None
        stage.owner.cut()
        assert await within(stage.peer.poll("w", 3, SEEN, PATIENCE)) == Polled((b"by port",), "o")
        await until(lambda: stage.wrapped.asked["line"] == 1)
        assert await within(stage.peer.poll("w", 3, SEEN, PATIENCE)) == Polled((b"by port",), "o")
        await stage.peer.let_go(["w"])
        assert stage.wrapped.asked["let go ['w']"] == 1


async def test_a_watcher_more_than_a_line_may_have_is_served_by_the_wrapped_port(tmp_path: Path) -> None:
    """The line stays for the others, and nobody waits in vain."""
    async with staged(tmp_path) as stage:
        line = stage.peer._line()  # a poll of the stage's peer has one name only
        assert line is not None
        polls = [asyncio.create_task(line.poll(f"w{n}", 3, SEEN, PATIENCE)) for n in range(MOST_SUBSCRIPTIONS)]
        await stage.owner.hears(Subscribe, MOST_SUBSCRIPTIONS)
        assert await within(stage.peer.poll("w", 3, SEEN, PATIENCE)) == Polled((b"by port",), "o")
        assert stage.port.way == "unix"
        for poll in polls:
            poll.cancel()
        await asyncio.gather(*polls, return_exceptions=True)
        polling = asyncio.create_task(stage.peer.poll("w", 3, SEEN, PATIENCE))
        await stage.owner.hears(Subscribe, MOST_SUBSCRIPTIONS + 1)
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)


# Signs of life


async def test_an_owner_that_gives_a_sign_of_life_is_not_suspected(tmp_path: Path) -> None:
    """It may be slow, and lives."""
    async with staged(tmp_path) as stage:
        stage.peer.suspect()
        stage.peer.suspect()
        await stage.owner.hears(Ping)
        await turns()
        assert len(stage.owner.told(Ping)) == 1
        assert not stage.wrapped.asked["suspect"]
        assert stage.port.way == "unix"


async def test_a_line_to_an_owner_that_is_gone_is_left(tmp_path: Path) -> None:
    """It answers, and is an owner no more: Ray has given up its node, and it lives on there."""
    async with staged(tmp_path) as stage:
        stage.wrapped.error = PeerLostError()
        stage.peer.suspect()
        await until(lambda: stage.port.way is None)
        assert not stage.wrapped.asked["suspect"]


async def test_a_line_to_another_process_than_the_owners_is_left(tmp_path: Path) -> None:
    """The actor was started anew, and the process before it does not know."""
    async with staged(tmp_path) as stage:
        stage.wrapped.address = replace(stage.owner.address, process="another")
        stage.peer.suspect()
        await until(lambda: stage.owner.accepted == 2)


@pytest.mark.parametrize("error", [PeerRestartingError(), PeerFailedError(ValueError())])
async def test_a_line_to_an_owner_of_which_nobody_knows_better_stays(tmp_path: Path, error: Exception) -> None:
    """Ray may be away while the owner is well."""
    async with staged(tmp_path) as stage:
        stage.wrapped.error = error
        stage.peer.suspect()
        await until(lambda: stage.wrapped.asked["line"] == 1)
        await turns()
        assert (stage.port.way, stage.owner.accepted) == ("unix", 1)


async def test_an_owner_that_gives_none_is_suspected(tmp_path: Path) -> None:
    """At once if there is no line to ask it by."""
    async with staged(tmp_path, timing=HASTY) as stage:
        stage.owner.answer = hanging
        stage.peer.suspect()
        await until(lambda: stage.wrapped.asked["suspect"] == 1)
        await stage.owner.die()
        await until(lambda: stage.port.way is None)
        stage.peer.suspect()
        assert stage.wrapped.asked["suspect"] == 2


# Closing


async def test_a_port_that_is_closed_leaves_nothing(tmp_path: Path) -> None:
    """Neither while a line is up, nor while one is sought, nor while a ping is under way."""
    tasks, before = asyncio.all_tasks(), descriptors()
    async with staged(tmp_path) as stage:
        stage.owner.answer = hanging
        stage.peer.suspect()
        await stage.owner.hears(Ping)
    async with staged(tmp_path, is_open=False) as stage:
        stage.owner.is_mute = True
        await stage.peer.open(create=True)
        await until(lambda stage=stage: stage.owner.accepted == 1)  # type: ignore[misc]
    async with staged(tmp_path) as stage:
        stage.wrapped.error = PeerRestartingError()
        stage.owner.cut()
        await until(lambda stage=stage: stage.wrapped.asked["line"] > 2)  # type: ignore[misc]
    async with staged(tmp_path) as stage:
        await stage.port.aclose()
        assert descriptors() == before + 2  # the owner's two: where it listens, and where the line was
        await stage.port.aclose()
        assert await stage.peer.read(fresh=False) == BY_PORT
        assert stage.owner.accepted == 1
    await until(lambda: asyncio.all_tasks() == tasks and descriptors() == before)


async def test_an_impostor_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """However often it is met."""
    async with staged(tmp_path) as stage:
        stage.owner.knows_secret = False
        stage.owner.cut()
        await until(lambda: stage.owner.accepted >= 5)
    (told,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "does not know the owner's secret" in told.__dict__["reason"]


async def test_what_nobody_foresaw_is_counted_and_leaves_the_wrapped_port(tmp_path: Path) -> None:
    """A fault of ours in seeking a line is no reason not to be answered."""
    failures = Failures()
    async with staged(tmp_path, failures=failures) as stage:
        stage.wrapped.error = ZeroDivisionError()
        stage.owner.cut()
        await until(lambda: failures.counts == {"line": 1})
        stage.wrapped.error = None
        assert await stage.peer.read(fresh=False) == BY_PORT
        await turns()
        assert (stage.port.way, failures.counts) == (None, {"line": 1})
    gc.collect()


# A real owner


class HostPeer(LocalPeer):
    """A host of this process that listens for lines too, as an actor does."""

    def __init__(self, actor: FakeActor, address: LineAddress) -> None:
        """Ask this one, or connect to it there."""
        super().__init__(actor)
        self._address = address

    async def open(self, *, create: bool) -> Opened | ConversationError:
        """See `Peer.open`."""
        opened = await super().open(create=create)
        return opened if isinstance(opened, ConversationError) else replace(opened, line=self._address)

    async def line(self) -> LineAddress:
        """See `Peer.line`."""
        return self._address


class HostPort(WrappedPort):
    """Finds one host."""

    def __init__(self, peer: HostPeer) -> None:
        """Find this one."""
        super().__init__()
        self._peer = peer

    async def find(self) -> Any:
        """See `OwnerPort.find`."""
        return self._peer

    find_or_start = find


@asynccontextmanager
async def hosting() -> AsyncIterator[tuple[FakeActor, MemoryStore]]:
    """Provide an owner of a conversation that exists."""
    store = MemoryStore()
    actor = FakeActor(CONVERSATION, brief(), store)
    try:
        assert isinstance(await actor.open(create=True, protocol=PROTOCOL), Opened)
        yield actor, store
    finally:
        await actor.kill()


@pytest.mark.parametrize("is_late", [False, True], ids=["lost", "late"])
async def test_one_request_over_both_ports_happens_once(tmp_path: Path, *, is_late: bool) -> None:
    """The owner decides what came by the line, the answer is lost or late, and the repeat gets the first result."""
    async with hosting() as (actor, _), LineOwner(tmp_path) as owner:
        decided: list[Executed | ConversationError] = []

        async def decide(message: ToOwner) -> None:
            if isinstance(message, ExecuteCall):
                decided.append(await actor.decide(message.execute))
                if not is_late:
                    owner.cut()

        owner.answer = decide
        port = DirectPort(HostPort(HostPeer(actor, owner.address)), timing=HASTY if is_late else CALM)
        peer = await port.find_or_start()
        await peer.read(fresh=False)
        await until(lambda: port.way is not None)
        executed = await within(peer.execute(CALL))
        (first,) = decided
        assert isinstance(executed, Executed)
        assert isinstance(first, Executed)
        assert executed.replies == first.replies
        info = await peer.info()
        assert isinstance(info, ActivationInfo)
        assert info.history_items == 1
        await port.aclose()


async def test_handles_write_and_follow_by_their_lines(tmp_path: Path) -> None:
    """Two handles of a real owner that really listens: each is told of what the other writes, and by pushes alone."""
    async with hosting() as (actor, _):
        server = LineServer(actor, "p", failures=Failures())
        address = await server.listen(None, directory=tmp_path)
        assert address is not None
        ports = [DirectPort(HostPort(HostPeer(actor, address)), timing=CALM) for _ in range(2)]
        handles = []
        for port in ports:
            owner = RemoteOwner(port, brief())
            _, view = await owner.open(create=True)
            handles.append(ConversationHandle(CONVERSATION, owner, view, brief()))
        writer, follower = handles
        await writer.append(Message(role="user", content="0"))
        await until(lambda: None not in {port.way for port in ports})
        for number in range(1, 20):
            await writer.append(Message(role="user", content=str(number)))
        for _ in range(20):
            writer.record(Message(role="user", content="recorded"))
        await writer.flush()
        await follower.append(Message(role="user", content="mine"))
        await until(lambda: len(writer.items) == len(follower.items) == 41)
        assert [item.id for item in writer.items] == [item.id for item in follower.items]
        info = await follower.info()
        assert (info.reached_by, info.watchers) == ("unix", 2)
        for handle in handles:
            await handle.aclose()
        await until(lambda: server.connections == 0)
        await server.aclose()
