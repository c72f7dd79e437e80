"""The client's side of a line: the proof, calls and their answers, pushed entries, and every way in which it falls."""

import asyncio
import gc
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conversation_actors.errors import PositionLostError, StoreUnavailableError
from conversation_actors.line.connecting import connect
from conversation_actors.line.connection import (
    CallFailedError,
    LineConnection,
    LineLostError,
    SlowAnswerError,
    WrongProofError,
)
from conversation_actors.line.frames import FrameTooLargeError
from conversation_actors.line.inbox import CREDIT
from conversation_actors.line.messages import (
    Answer,
    Ended,
    ExecuteCall,
    Failed,
    LetGo,
    More,
    Ping,
    Push,
    ReadCall,
    Subscribe,
    ToClient,
    ToOwner,
    encode,
)
from conversation_actors.protocol import PROTOCOL, Done, Execute, Executed, LineAddress, Polled, Seen, View
from conversation_actors.timing import Timing
from tests.support.fakes import PATIENCE, append, turns, until
from tests.support.line_owner import LineOwner

VIEW = View(3, 1, b"state", "life", "o")
SEEN = Seen("life", "o")
TIMING = Timing(line_connect=PATIENCE)
HASTY = Timing(line_connect=0.05)
ENTRIES = tuple(f"entry {number}".encode() for number in range(100))


@asynccontextmanager
async def connected(owner: LineOwner, *, timing: Timing = TIMING) -> AsyncIterator[LineConnection]:
    """Provide a line, and close it."""
    line = await connect(owner.address, timing=timing)
    try:
        yield line
    finally:
        line.close()
        await line.wait_closed()


async def answering(message: ToOwner) -> ToClient | None:
    """Answer each call at once."""
    match message:
        case ExecuteCall(call, execute):
            return Answer(call, Executed(tuple(Done(seq, 1) for seq, _ in enumerate(execute.requests, 1)), (), "o"))
        case ReadCall(call):
            return Answer(call, VIEW)
        case Ping(call):
            return Answer(call, None)
    return None


def descriptors() -> int:
    """Return how many descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


def push(owner: LineOwner, after_seq: int, count: int = 1, *, subscription: int | None = None, by: str = "o") -> None:
    """Push entries to whoever has subscribed last."""
    if subscription is None:
        (*_, last) = owner.told(Subscribe)
        assert isinstance(last, Subscribe)
        subscription = last.subscription
    owner.say(Push(subscription, after_seq, ENTRIES[after_seq : after_seq + count], by))


async def within(waited: Any) -> Any:
    """Return what is waited for; fail the test if it does not come about."""
    async with asyncio.timeout(PATIENCE):
        return await waited


# The proof, and the way


@pytest.mark.parametrize("is_tcp", [False, True], ids=["unix", "tcp"])
async def test_calls_are_answered_by_either_way(tmp_path: Path, *, is_tcp: bool) -> None:
    """Whatever order the answers come in: a number tells which call each one is for."""
    async with LineOwner(tmp_path, answering, is_tcp=is_tcp) as owner, connected(owner) as line:
        assert line.way == ("tcp" if is_tcp else "unix")
        assert line.is_up
        executing, reading, pinging = line.execute(Execute([append("a")], "w", 0)), line.read(fresh=True), line.ping()
        assert await within(pinging) is None
        assert await within(reading) == VIEW
        assert (await within(executing)).replies == (Done(1, 1),)


async def test_the_unix_socket_comes_first_and_tcp_is_used_without_one(tmp_path: Path) -> None:
    """A socket whose file is gone, or that nobody listens on, is the socket of another node or of a dead process."""
    async with LineOwner(tmp_path) as near, LineOwner(tmp_path, is_tcp=True) as far:
        far.secret = near.secret
        both = replace(near.address, tcp=far.address.tcp)
        line = await connect(both, timing=TIMING)
        assert line.way == "unix"
        line.close()
        for path in (str(tmp_path / "gone.sock"), near.address.unix):
            if path == near.address.unix:
                await near.die()
            line = await connect(replace(both, unix=path), timing=TIMING)
            assert line.way == "tcp"
            line.close()
            await line.wait_closed()


@pytest.mark.parametrize("is_tcp", [False, True], ids=["unix", "tcp"])
async def test_who_does_not_know_the_secret_is_not_spoken_to(tmp_path: Path, *, is_tcp: bool) -> None:
    """Nothing but the client's own proof is sent to somebody who listens where the owner did."""
    async with LineOwner(tmp_path, answering, is_tcp=is_tcp) as owner:
        owner.knows_secret = False
        with pytest.raises(WrongProofError):
            await connect(owner.address, timing=TIMING)
        await until(lambda: owner.lines == 0)
        assert owner.heard == []


async def test_a_proof_that_is_echoed_proves_nothing(tmp_path: Path) -> None:
    """Whoever sends back what came has not shown that it knows the secret."""
    async with LineOwner(tmp_path, answering) as owner:
        owner.echoes_proof = True
        with pytest.raises(WrongProofError):
            await connect(owner.address, timing=TIMING)


async def test_who_says_nothing_is_not_waited_for(tmp_path: Path) -> None:
    """Not the connection but the proof counts: it has to be there in `line_connect`."""
    async with LineOwner(tmp_path) as owner:
        owner.is_mute = True
        with pytest.raises(LineLostError, match=r"no answer in 0\.05 s"):
            await connect(owner.address, timing=HASTY)
        await until(lambda: owner.lines == 0)


@pytest.mark.parametrize(
    "address",
    [
        LineAddress("p", bytes(32)),
        LineAddress("p", bytes(32), unix="/nowhere/at/all.sock"),
        LineAddress("p", bytes(32), unix=f"/{'a' * 300}/not-to-be-looked-at.sock"),
        LineAddress("p", bytes(32), tcp=("127.0.0.1", 1), is_encrypted=True),
    ],
    ids=["nowhere", "another node's", "another user's", "TLS there and none here"],
)
async def test_an_address_without_a_way_is_no_line(address: LineAddress) -> None:
    """It is told at once."""
    with pytest.raises(LineLostError, match="nowhere that this process can reach"):
        await connect(address, timing=TIMING)


async def test_a_socket_that_may_not_be_looked_at_leaves_tcp(tmp_path: Path) -> None:
    """The directory of another user on the same node hides it; what cannot be looked at here has a name too long."""
    async with LineOwner(tmp_path, is_tcp=True) as owner:
        hidden = replace(owner.address, unix=f"/{'a' * 300}/hidden.sock")
        line = await connect(hidden, timing=TIMING)
        assert line.way == "tcp"
        line.close()


async def test_what_is_said_in_one_breath_with_the_proof_is_heard(tmp_path: Path) -> None:
    """The kernel may deliver both at once, or the proof byte by byte."""
    async with LineOwner(tmp_path) as owner:
        owner.spoken_by_proven = encode(Push(99, 0, ENTRIES[:1], "o"))
        async with connected(owner) as line:
            await until(lambda: line.has_answered)
            assert line.is_up


# Falling


FAULTS = {
    "the process is gone": None,
    "another version": struct.pack("!IB", 2, PROTOCOL + 1) + b"\xc0",
    "4 GB": struct.pack("!IB", 0xFFFFFFFF, PROTOCOL),
    "no message": struct.pack("!IB", 2, PROTOCOL) + b"\xc1",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_whoever_waits_is_told_when_the_line_falls(tmp_path: Path, fault: bytes | None) -> None:
    """By whatever it falls: calls and polls that wait raise, and so does everything that is asked later."""
    async with LineOwner(tmp_path) as owner, connected(owner) as line:
        executing = line.execute(Execute([append("a")], "w", 0))
        polling = asyncio.create_task(line.poll("w", 3, SEEN, PATIENCE))
        await owner.hears(Subscribe)
        owner.cut() if fault is None else owner.say(fault)
        with pytest.raises(LineLostError):
            await within(executing)
        with pytest.raises(LineLostError):
            await within(polling)
        assert not line.is_up
        with pytest.raises(LineLostError):
            await line.read(fresh=False)
        with pytest.raises(LineLostError):
            await line.poll("w", 3, SEEN, PATIENCE)
        with pytest.raises(LineLostError):
            line.let_go(["w"])
        assert await within(line.lost)
        await until(lambda: owner.lines == 0)


async def test_nobody_hears_of_an_answer_that_nobody_waits_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A call that was given up, and one whose line fell, leave no complaint behind."""
    async with LineOwner(tmp_path) as owner, connected(owner) as line:
        for _ in range(2):
            line.read(fresh=False)
        waited = asyncio.create_task(_wait(line.read(fresh=False)))
        await owner.hears(ReadCall, 3)
        waited.cancel()
        await asyncio.gather(waited, return_exceptions=True)
        last = owner.told(ReadCall)[-1]
        assert isinstance(last, ReadCall)
        owner.say(Answer(last.call, VIEW))
        owner.say(Answer(1000, VIEW))
        await until(lambda: line.has_answered)
        owner.cut()
        await within(line.lost)
    gc.collect()
    await turns()
    assert not caplog.records


async def _wait(answer: "asyncio.Future[Any]") -> Any:
    return await answer


async def test_a_line_leaves_no_descriptor(tmp_path: Path) -> None:
    """Neither one that was closed, nor one that fell, nor one that never came about."""
    async with LineOwner(tmp_path) as owner:
        before = descriptors()
        async with connected(owner):
            pass
        async with connected(owner) as line:
            owner.cut()
            await within(line.lost)
        owner.knows_secret = False
        with pytest.raises(WrongProofError):
            await connect(owner.address, timing=TIMING)
        owner.is_mute = True
        with pytest.raises(LineLostError):
            await connect(owner.address, timing=HASTY)
        await until(lambda: owner.lines == 0 and descriptors() == before)


async def test_a_line_is_not_a_forks(tmp_path: Path) -> None:
    """What a fork has copied would write into the middle of its parent's frames."""
    async with LineOwner(tmp_path, answering) as owner, connected(owner) as line:
        read, write = os.pipe()
        if not (child := os.fork()):
            os.write(write, b"up" if line.is_up else b"no")
            os._exit(0)
        os.waitpid(child, 0)  # noqa: ASYNC222  # it ends at once
        assert os.read(read, 2) == b"no"
        os.close(read)
        os.close(write)
        assert line.is_up
        assert await within(line.read(fresh=False)) == VIEW


# Calls


async def test_a_message_that_no_frame_holds_is_refused_and_the_line_stays(tmp_path: Path) -> None:
    """Nothing of it is sent."""
    async with LineOwner(tmp_path, answering) as owner, connected(owner) as line:
        with pytest.raises(FrameTooLargeError):
            line.execute(Execute([append("a")], "w", 1 << 70))
        assert await within(line.read(fresh=False)) == VIEW


async def test_what_an_owner_cannot_answer_is_told_and_the_line_stays(tmp_path: Path) -> None:
    """An error of the conversation's is an answer; a failure is none."""

    async def failing(message: ToOwner) -> ToClient | None:
        match message:
            case ReadCall(call, True):
                return Failed(call, "ZeroDivisionError()")
            case ReadCall(call):
                return Answer(call, StoreUnavailableError("away"))
        return None

    async with LineOwner(tmp_path, failing) as owner, connected(owner) as line:
        with pytest.raises(CallFailedError, match="ZeroDivisionError"):
            await within(line.read(fresh=True))
        assert isinstance(await within(line.read(fresh=False)), StoreUnavailableError)
        assert line.is_up


async def test_a_late_answer_comes_where_the_slowness_was_told(tmp_path: Path) -> None:
    """Who gives up an answer may go on waiting for it beside something else."""
    async with LineOwner(tmp_path) as owner, connected(owner) as line:
        answer = line.read(fresh=False)
        await owner.hears(ReadCall)
        line.give_up(answer)
        with pytest.raises(SlowAnswerError) as slow:
            await answer
        owner.say(Answer(1, VIEW))
        assert await within(slow.value.answer) == VIEW
        line.give_up(answer)  # answered meanwhile: nothing happens


# Pushed entries


async def test_pushed_entries_answer_one_poll_after_the_other(tmp_path: Path) -> None:
    """One subscription serves them all: nothing is asked of the owner again."""
    async with LineOwner(tmp_path) as owner, connected(owner) as line:
        polling = asyncio.create_task(line.poll("w", 3, Seen("life", "before"), PATIENCE))
        await owner.hears(Subscribe)
        push(owner, 3, 2)
        push(owner, 5, 1)
        assert await within(polling) == Polled(ENTRIES[3:5], "o")
        assert await within(line.poll("w", 5, SEEN, PATIENCE)) == Polled(ENTRIES[5:6], "o")
        assert owner.heard == [Subscribe(1, "w", 3, Seen("life", "before"), CREDIT)]


async def test_entries_that_came_by_another_way_are_not_brought_again(tmp_path: Path) -> None:
    """The answer to a write brings its entries too: the copy is further on than what was pushed."""
    async with LineOwner(tmp_path) as owner, connected(owner) as line:
        assert await within(line.poll("w", 3, SEEN, 0)) == Polled((), "o")
        push(owner, 3, 2)
        push(owner, 5, 3)
        assert await within(line.poll("w", 7, SEEN, PATIENCE)) == Polled(ENTRIES[7:8], "o")
        assert len(owner.told(Subscribe)) == 1


async def test_a_position_that_a_command_tells_is_where_pushes_go_on(tmp_path: Path) -> None:
    """A poll that waits may have asked from an earlier one: what lies between came with answers."""
    async with LineOwner(tmp_path) as owner, connected(owner) as line:
        polling = asyncio.create_task(line.poll("w", 3, SEEN, PATIENCE))
        await owner.hears(Subscribe)
        line.execute(Execute([append("a")], "w", 9, SEEN))
        await owner.hears(ExecuteCall)
        push(owner, 3, 2)  # was on its way
        push(owner, 9, 2)
        assert await within(polling) == Polled(ENTRIES[9:11], "o")
        assert len(owner.told(Subscribe)) == 1


async def test_the_owner_is_given_credit_for_what_was_taken(tmp_path: Path) -> None:
    """And for no more: what nobody takes stays with the owner."""
    async with LineOwner(tmp_path) as owner, connected(owner) as line:
        for position in range(12):
            polling = asyncio.create_task(line.poll("w", position, SEEN, PATIENCE))
            await owner.hears(Subscribe)
            push(owner, position)
            await within(polling)
        await owner.hears(More, 3)
        assert owner.told(More) == [More(1, 4)] * 3


async def test_an_owner_that_pushes_more_than_it_may_loses_the_line(tmp_path: Path) -> None:
    """A client holds so many pushes and no more."""
    async with LineOwner(tmp_path) as owner, connected(owner) as line:
        await within(line.poll("w", 0, SEEN, 0))
        await owner.hears(Subscribe)
        for position in range(CREDIT):
            push(owner, position)
        await until(lambda: line.has_answered)
        assert line.is_up
        push(owner, CREDIT)
        assert "more than 8 pushes" in await within(line.lost)


@pytest.mark.parametrize(
    ("after_seq", "seen"),
    [(5, SEEN), (9, Seen("another life", "o")), (9, Seen("life", "a third owner"))],
    ids=["behind what was taken", "another life", "another history"],
)
async def test_a_position_that_no_push_follows_is_subscribed_to_anew(
    tmp_path: Path, after_seq: int, seen: Seen
) -> None:
    """The old subscription ends first: two of one watcher would take each other's place for ever."""
    async with LineOwner(tmp_path) as owner, connected(owner) as line:
        polling = asyncio.create_task(line.poll("w", 3, SEEN, PATIENCE))
        await owner.hears(Subscribe)
        push(owner, 3, 5)
        assert (await within(polling)).entries == ENTRIES[3:8]
        polling = asyncio.create_task(line.poll("w", after_seq, seen, PATIENCE))
        await owner.hears(Subscribe, 2)
        assert owner.heard[1:] == [LetGo(("w",)), Subscribe(2, "w", after_seq, seen, CREDIT)]
        push(owner, 8, 1, subscription=1)  # was on its way
        push(owner, after_seq, 1)
        assert await within(polling) == Polled(ENTRIES[after_seq : after_seq + 1], "o")


async def test_a_gap_in_what_is_pushed_is_not_passed_over(tmp_path: Path) -> None:
    """Entries that are missing are asked for anew."""
    async with LineOwner(tmp_path) as owner, connected(owner) as line:
        polling = asyncio.create_task(line.poll("w", 3, SEEN, PATIENCE))
        await owner.hears(Subscribe)
        push(owner, 5)
        await owner.hears(Subscribe, 2)
        push(owner, 3, 3)
        assert await within(polling) == Polled(ENTRIES[3:6], "o")


async def test_the_end_of_a_subscription_is_the_answer_of_a_poll(tmp_path: Path) -> None:
    """The next poll subscribes anew."""
    async with LineOwner(tmp_path) as owner, connected(owner) as line:
        polling = asyncio.create_task(line.poll("w", 3, SEEN, PATIENCE))
        await owner.hears(Subscribe)
        owner.say(Ended(1, PositionLostError("too old", first_available=7)))
        error = await within(polling)
        assert isinstance(error, PositionLostError)
        assert error.first_available == 7
        assert await within(line.poll("w", 9, SEEN, 0)) == Polled((), "o")
        await owner.hears(Subscribe, 2)


async def test_a_poll_that_brings_nothing_asks_nothing(tmp_path: Path) -> None:
    """An idle line is quiet."""
    async with LineOwner(tmp_path) as owner, connected(owner) as line:
        for _ in range(3):
            assert await within(line.poll("w", 3, SEEN, 0.001)) == Polled((), "o")
        assert await within(line.poll("w", 3, Seen("life", "o"), 0)) == Polled((), "o")
        await owner.hears(Subscribe)
        assert len(owner.heard) == 1


async def test_a_poll_that_brings_nothing_tells_who_owns_the_conversation(tmp_path: Path) -> None:
    """Also if the watcher had only a number: the next poll's position is one of that owner's history."""
    async with LineOwner(tmp_path, answering) as owner, connected(owner) as line:
        assert await within(line.poll("w", 3, Seen("life", None), 0)) == Polled((), "o")
        assert await within(line.poll("w", 3, SEEN, 0)) == Polled((), "o")
        assert len(owner.told(Subscribe)) == 1


async def test_a_second_poll_of_a_watcher_ends_its_first(tmp_path: Path) -> None:
    """As at the owner."""
    async with LineOwner(tmp_path) as owner, connected(owner) as line:
        first = asyncio.create_task(line.poll("w", 3, SEEN, PATIENCE))
        await owner.hears(Subscribe)
        second = asyncio.create_task(line.poll("w", 3, SEEN, PATIENCE))
        assert await within(first) == Polled((), "o")
        push(owner, 3)
        assert await within(second) == Polled(ENTRIES[3:4], "o")


async def test_a_watcher_whose_poll_is_given_up_is_let_go(tmp_path: Path) -> None:
    """Nobody reads what would be pushed; another watcher's subscription stays."""
    async with LineOwner(tmp_path) as owner, connected(owner) as line:
        polling = asyncio.create_task(line.poll("w", 3, SEEN, PATIENCE))
        other = asyncio.create_task(line.poll("v", 3, SEEN, PATIENCE))
        await owner.hears(Subscribe, 2)
        polling.cancel()
        await owner.hears(LetGo)
        assert owner.told(LetGo) == [LetGo(("w",))]
        push(owner, 3)
        assert await within(other) == Polled(ENTRIES[3:4], "o")
