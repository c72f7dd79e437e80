"""The owner's side of a line: calls, their order and their bounds, and what is left when it ends."""

import asyncio
import gc
import socket
import warnings
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conversation_actors.errors import ConversationError, StoreUnavailableError
from conversation_actors.line import server_connection
from conversation_actors.line.frames import MAX_FRAME
from conversation_actors.line.messages import Answer, Failed, LetGo, Ping, ReadCall, Subscribe
from conversation_actors.line.server_connection import ServerConnection
from conversation_actors.protocol import Done, Executed, View
from conversation_actors.store import MemoryStore, Recovered
from tests.support.fakes import CONVERSATION, FakeActor, FaultyStore, append, brief, ids, stored, until
from tests.support.lines import ListeningOwner, Obedient, RawLine, executing, listening, listening_owner
from tests.support.quick import QUICK

Connect = Callable[[ListeningOwner], Coroutine[None, None, RawLine]]


async def _by_unix(owner: ListeningOwner) -> RawLine:
    return await RawLine.by_unix(owner.address)


async def _by_tcp(owner: ListeningOwner) -> RawLine:
    return await RawLine.by_tcp(owner.address)


@pytest.mark.parametrize("connect", [_by_unix, _by_tcp])
async def test_what_is_asked_by_a_line_is_answered(connect: Connect, tmp_path: Path) -> None:
    """Requests, the state and a sign of life, by the Unix socket and by TCP."""
    async with listening_owner(tmp_path) as owner:
        line = await connect(owner)
        await line.prove(owner.address.secret)

        executed = await line.execute(1, append("a"))
        line.send(ReadCall(2, False), Ping(3))
        view, pong = await line.answer(2), await line.answer(3)
        line.close()

    assert [type(reply) for reply in executed.replies] == [Done]
    assert isinstance(view, View)
    assert view.seq == executed.replies[0].seq  # type: ignore[union-attr]  # see above
    assert pong is None


async def test_an_error_that_the_owner_answers_is_the_answer(tmp_path: Path) -> None:
    """A refusal is a value, as by any other way."""

    async def refuse() -> ConversationError:
        return StoreUnavailableError("down")

    async with listening(Obedient(refuse), tmp_path) as owner:
        line = await RawLine.proven(owner.address)
        line.send(ReadCall(1, True))
        answer = await line.answer(1)
        line.close()

    assert isinstance(answer, StoreUnavailableError)
    assert str(answer) == "down"


async def test_what_an_owner_raises_fails_one_call(tmp_path: Path) -> None:
    """The client is told that this call failed, the owner counts it, and the line goes on."""

    async def fail() -> None:
        message = "what somebody said"
        raise KeyError(message)

    async with listening(Obedient(fail), tmp_path) as owner:
        line = await RawLine.proven(owner.address)
        line.send(ReadCall(1, False), Ping(2))
        messages = {type(message): message for message in (await line.receive(), await line.receive())}
        line.close()

    assert messages == {Failed: Failed(1, "KeyError"), Answer: Answer(2, None)}
    assert owner.failures.counts == {"line": 1}


async def test_an_answer_that_no_frame_holds_fails_its_call(tmp_path: Path) -> None:
    """The client asks by Ray's call then, and the line goes on."""

    async def much() -> View:
        return View(1, 1, bytes(MAX_FRAME))

    async with listening(Obedient(much), tmp_path) as owner:
        line = await RawLine.proven(owner.address)
        line.send(ReadCall(1, False))
        failed = await line.receive()
        line.send(Ping(2))
        assert await line.answer(2) is None
        line.close()

    assert isinstance(failed, Failed)
    assert failed.call == 1


class SlowToRecover(MemoryStore):
    """A store that gives a conversation to its next owner when it may."""

    def __init__(self) -> None:
        """Give at once."""
        super().__init__()
        self.may_give = asyncio.Event()
        self.may_give.set()

    async def activate(self, *arguments: Any, **named: Any) -> Recovered:
        """See `Store.activate`."""
        await self.may_give.wait()
        return await super().activate(*arguments, **named)


async def test_calls_of_one_line_are_decided_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    """Those that come while the owner still recovers, those that come right when it has, and those after."""
    store, names = SlowToRecover(), [f"{number:03}" for number in range(150)]
    async with listening_owner(tmp_path, store=store, settings=brief(items=400)):
        pass
    store.may_give.clear()
    host = FakeActor(CONVERSATION, brief(items=400), store, timing=QUICK)
    async with listening(host, tmp_path) as owner:
        line = await RawLine.proven(owner.address)
        calls = [executing(number, append(name)) for number, name in enumerate(names)]
        line.send(*calls[:40])
        await until(lambda: len(owner.server._service.tasks) == 40)
        store.may_give.set()
        for call in calls[40:]:
            line.send(call)
            await asyncio.sleep(0)
        for number in range(len(names)):
            assert isinstance(await line.answer(number), Executed)
        line.close()
    await host.kill()

    assert ids((await stored(store))[0]) == names


async def test_calls_outlive_the_line_that_they_came_by(tmp_path: Path) -> None:
    """What was decided is written, although nobody is there for the answer."""
    store = FaultyStore()
    async with listening_owner(tmp_path, store=store) as owner:
        line = await RawLine.proven(owner.address)
        store.hold()
        line.send(executing(1, append("a")))
        await until(lambda: bool(store.appends))
        line.close()
        await until(lambda: not owner.server.connections)
        store.release()
        await until(lambda: bool(store.landed))
        await until(lambda: not owner.server._service.tasks)

    assert ids((await stored(store))[0]) == ["a"]
    assert owner.failures.counts == {}


async def test_a_call_is_not_cancelled_because_its_line_is_lost(tmp_path: Path) -> None:
    """Whatever the owner was doing for it, it does to the end."""
    may_answer, answered = asyncio.Event(), asyncio.Event()

    async def answer() -> View:
        await may_answer.wait()
        answered.set()
        return View(1, 1, b"")

    host = Obedient(answer)
    async with listening(host, tmp_path) as owner:
        line = await RawLine.proven(owner.address)
        line.send(ReadCall(1, False))
        await until(lambda: host.begun == 1)
        line.close()
        await until(lambda: not owner.server.connections)
        may_answer.set()
        await until(answered.is_set)
        await until(lambda: not owner.server._service.tasks)

    assert owner.failures.counts == {}


async def test_calls_beyond_the_bound_wait_and_are_answered_all_the_same(tmp_path: Path) -> None:
    """Who sends many calls at once makes the owner work on some of them only, and hold no more than one read."""
    may_answer = asyncio.Event()

    async def answer() -> View:
        await may_answer.wait()
        return View(1, 1, b"")

    host = Obedient(answer)
    async with listening(host, tmp_path) as owner:
        line = await RawLine.proven(owner.address)
        line.send(*(ReadCall(number, False) for number in range(200)))
        await until(lambda: host.begun == server_connection.MOST_CALLS)
        (connection,) = owner.server._connections
        await until(lambda: not connection._is_reading)
        most = host.begun
        may_answer.set()
        answered = [await line.answer(number) for number in range(200)]
        line.close()

    assert most == server_connection.MOST_CALLS
    assert len(answered) == 200


async def test_a_client_that_takes_nothing_is_not_read_and_then_closed(tmp_path: Path) -> None:
    """Its answers fill no memory: one answer beyond the bound at most, and after a while it is gone."""
    timing = replace(QUICK, line_stalled=0.2)
    size = 200_000

    async def answer() -> View:
        return View(1, 1, bytes(size))

    host = Obedient(answer)
    async with listening(host, tmp_path, timing=timing) as owner:
        line = await RawLine.proven(owner.address)
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a socket, it can
        line.send(*(ReadCall(number, False) for number in range(1000)))
        (connection,) = owner.server._connections
        await until(lambda: not connection._is_reading)
        assert connection._made is not None
        held = connection._made.get_write_buffer_size()
        await until(lambda: not owner.server.connections)
        line.close()

    assert held <= server_connection.HIGH_WATER + size + 1000
    assert host.begun <= server_connection.MOST_CALLS + 20


async def test_a_client_that_says_nothing_keeps_no_owner_in_use(tmp_path: Path) -> None:
    """It hangs, or is a fork's copy of one that is gone: its line ends, and what it follows is pushed no more."""
    async with listening_owner(tmp_path) as owner:
        line = await RawLine.proven(owner.address)
        line.send(Subscribe(1, "w", 0, owner.seen, 8))
        await until(lambda: bool(owner.host.activation._watchers))
        (connection,) = owner.server._connections
        connection._heard -= QUICK.line_silent
        connection._check_heard()
        await until(lambda: not owner.server.connections)
        await until(lambda: not owner.host.activation._watchers)
        line.close()


async def test_a_client_that_says_something_now_and_then_is_kept(tmp_path: Path) -> None:
    """However little it is."""
    async with listening_owner(tmp_path, timing=replace(QUICK, line_silent=1.0)) as owner:
        line = await RawLine.proven(owner.address)
        (connection,) = owner.server._connections
        for number in range(5):
            connection._heard -= 0.9
            line.send(Ping(number))
            assert await line.answer(number) is None
            connection._check_heard()
        assert owner.server.connections == 1
        line.close()


async def test_nothing_is_read_from_a_client_that_takes_nothing(tmp_path: Path) -> None:
    """Also if it has sent no more than was answered; it is read again when it has taken that."""

    async def answer() -> View:
        return View(1, 1, bytes(3_000_000))

    async with listening(Obedient(answer), tmp_path) as owner:
        line = await RawLine.proven(owner.address)
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a socket, it can
        line.send(ReadCall(1, False))
        (connection,) = owner.server._connections
        await until(lambda: owner.host.begun == 1 and not connection._under_way)
        is_read = connection._is_reading
        line.send(Ping(2))
        line.writer.transport.resume_reading()  # type: ignore[attr-defined]  # see above
        assert len((await line.answer(1)).snapshot) == 3_000_000
        assert await line.answer(2) is None
        line.close()

    assert not is_read


async def _stalling(owner: ListeningOwner) -> tuple[RawLine, ServerConnection]:
    """Return a line whose client has begun to take nothing of a long answer, and the owner's side of it."""
    line = await RawLine.proven(owner.address)
    line.writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a socket, it can
    line.send(ReadCall(1, False))
    (connection,) = owner.server._connections
    await until(lambda: owner.host.begun == 1 and not connection._under_way)
    assert connection._deadline is not None
    connection._deadline.cancel()
    return line, connection


async def _much() -> View:
    return View(1, 1, bytes(3_000_000))


async def test_a_client_that_is_slow_but_takes_is_kept(tmp_path: Path) -> None:
    """However little it takes in the time, and however often; the rest comes as it should."""
    async with listening(Obedient(_much), tmp_path) as owner:
        line, connection = await _stalling(owner)
        for _ in range(3):
            connection._taken -= 1  # it has taken one more byte since the last time
            connection._check_taken()
            assert connection._deadline is not None
            connection._deadline.cancel()
        line.writer.transport.resume_reading()  # type: ignore[attr-defined]  # of a socket, it can
        assert len((await line.answer(1)).snapshot) == 3_000_000
        line.send(Ping(2))
        assert await line.answer(2) is None
        line.close()


async def test_a_client_that_has_taken_something_and_takes_nothing_more_is_closed(tmp_path: Path) -> None:
    """What it took before the last time counts for nothing."""
    async with listening(Obedient(_much), tmp_path) as owner:
        line, connection = await _stalling(owner)
        connection._taken -= 1  # it has taken one more byte since the last time
        connection._check_taken()
        assert connection._deadline is not None
        connection._deadline.cancel()
        connection._check_taken()
        await until(lambda: not owner.server.connections)
        line.close()


@pytest.mark.parametrize(
    "malformed",
    [
        b"\xff\xff\xff\xff\x09",
        b"\x00\x00\x00\x00",
        b"\x00\x00\x00\x02\x08\x01",
        b"\x00\x00\x00\x08\x09secret!",
    ],
    ids=["4 GB", "no length", "another version", "no message"],
)
async def test_a_malformed_frame_closes_its_line_and_no_other(
    malformed: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The reason is logged once, and nothing of what came; nothing is kept for what does not come."""
    async with listening_owner(tmp_path) as owner:
        other = await RawLine.proven(owner.address)
        for _ in range(3):
            line = await RawLine.proven(owner.address)
            line.writer.write(malformed)
            assert await line.rest() == b""
            line.close()
        await until(lambda: owner.server.connections == 1)
        other.send(Ping(1))
        assert await other.answer(1) is None
        other.close()

    logged = [record for record in caplog.records if record.getMessage() == "a line was closed"]
    assert len(logged) == 1
    assert "secret!" not in str(vars(logged[0]))


async def test_nothing_is_left_when_a_server_has_closed(tmp_path: Path) -> None:
    """No task, no descriptor and no file, whatever was under way."""
    never = asyncio.Event()

    async def answer() -> View:
        await never.wait()
        return View(1, 1, b"")

    gc.collect()
    before, tasks = _descriptors(), asyncio.all_tasks()
    async with listening(Obedient(answer), tmp_path) as owner:
        directory = Path(owner.address.unix or "").parent
        strangers = [await RawLine.by_tcp(owner.address), await RawLine.by_unix(owner.address)]
        line = await RawLine.proven(owner.address)
        line.send(ReadCall(1, False), Subscribe(2, "w", 0, owner.seen, 8), LetGo(("other",)))
        await until(lambda: owner.host.begun == 2)
    for one in [line, *strangers]:
        await one.rest()
        one.close()
        one.writer.close()
    await until(lambda: _descriptors() == before)

    assert asyncio.all_tasks() == tasks
    assert Path(owner.address.unix or "").name not in _names(directory)
    await owner.server.aclose()  # idempotent


async def test_what_was_answered_leaves_before_the_server_is_closed(tmp_path: Path) -> None:
    """The last replies of an owner that ends reach their clients."""

    async def answer() -> View:
        return View(1, 1, bytes(500_000))

    async with listening(Obedient(answer), tmp_path, timing=replace(QUICK, line_leave=20.0)) as owner:
        line = await RawLine.proven(owner.address)
        line.send(ReadCall(1, False))
        await until(lambda: owner.host.begun == 1)
        await until(lambda: not owner.server._service.tasks)
        closing = asyncio.create_task(owner.server.aclose())
        view = await line.answer(1)
        assert await line.rest() == b""
        await closing
        line.close()

    assert len(view.snapshot) == 500_000


async def test_who_comes_as_the_server_closes_is_left_no_socket(tmp_path: Path) -> None:
    """A connection that was accepted, and whose task has not begun, is closed and not left to the collector."""
    async with listening_owner(tmp_path) as owner:
        with socket.socket(socket.AF_UNIX) as coming, warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            coming.connect(str(owner.address.unix))
            owner.server._listeners[0]._accept()
            assert owner.server._admissions
            await owner.server.aclose()
            gc.collect()

    assert [str(warning.message) for warning in told] == []


async def test_who_does_not_take_the_last_answer_keeps_no_server_from_closing(tmp_path: Path) -> None:
    """The owner's process ends on time."""

    async def answer() -> View:
        return View(1, 1, bytes(2_000_000))

    async with listening(Obedient(answer), tmp_path, timing=replace(QUICK, line_leave=0.01)) as owner:
        line = await RawLine.proven(owner.address)
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a socket, it can
        line.send(ReadCall(1, False))
        await until(lambda: owner.host.begun == 1)
        await owner.server.aclose()
        line.close()

    assert not owner.server.connections


async def test_who_cannot_listen_outside_listens_here(tmp_path: Path) -> None:
    """An address that is not this node's is counted as a failure, and told to nobody."""
    async with listening_owner(tmp_path, node="192.0.2.1") as owner:
        line = await RawLine.proven(owner.address)
        assert (await line.execute(1, append("a"))).replies
        line.close()

    assert owner.address.tcp is None
    assert owner.failures.counts == {"line": 1}


async def test_a_connection_by_tcp_is_watched_by_the_kernel(tmp_path: Path) -> None:
    """Small messages leave at once, and a peer that is gone is noticed within seconds."""
    async with listening_owner(tmp_path) as owner:
        line = await RawLine.by_tcp(owner.address)
        await line.prove(owner.address.secret)
        (connection,) = owner.server._connections
        assert connection._made is not None
        accepted: socket.socket = connection._made.get_extra_info("socket")
        set_up = {
            name: accepted.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
            for name in ("TCP_NODELAY", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
        }
        is_kept_alive = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        line.close()

    assert set_up == {
        "TCP_NODELAY": 1,
        "TCP_KEEPIDLE": 5,
        "TCP_KEEPINTVL": 2,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": 10_000,
    }
    assert is_kept_alive == 1


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]
