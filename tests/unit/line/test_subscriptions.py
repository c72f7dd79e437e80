"""What an owner pushes by a line: in order and without a gap, as much as the client takes, and nothing that it has."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conversation_actors.activation import activation as activation_module
from conversation_actors.errors import OverloadedError, PassivatedError, PositionLostError
from conversation_actors.line import server_connection, subscription
from conversation_actors.line.frames import MAX_FRAME
from conversation_actors.line.messages import MOST_SUBSCRIPTIONS, Answer, Ended, LetGo, More, Ping, Push, Subscribe
from conversation_actors.protocol import Polled, Seen
from tests.support.fakes import FaultyStore, append, brief, turns, until
from tests.support.lines import ListeningOwner, Obedient, RawLine, executing, listening, listening_owner
from tests.support.quick import QUICK


def _subscribe(
    owner: ListeningOwner, number: int = 1, *, watcher: str = "w", after: int = 0, credit: int = 8
) -> Subscribe:
    return Subscribe(number, watcher, after, owner.seen, credit)


async def _parked(owner: ListeningOwner, count: int = 1) -> None:
    """Return when so many subscriptions wait for entries."""
    await until(lambda: len(owner.host.activation._watchers) == count)


async def _push(line: RawLine) -> Push:
    push = await line.receive()
    assert isinstance(push, Push), push
    return push


async def test_entries_are_pushed_as_they_come(tmp_path: Path) -> None:
    """Those that were there, and each that is written then, without being asked for; from the owner that says so."""
    async with listening_owner(tmp_path) as owner:
        writer, reader = await RawLine.proven(owner.address), await RawLine.proven(owner.address)
        await writer.execute(1, append("a"))
        reader.send(_subscribe(owner, 7))
        first = await _push(reader)
        await writer.execute(2, append("b"))
        second = await _push(reader)
        writer.close()
        reader.close()

    assert (first.subscription, first.after_seq, second.after_seq) == (7, 0, len(first.entries))
    assert [b'"a"' in b"".join(first.entries), b'"b"' in b"".join(second.entries)] == [True, True]
    assert first.owner == owner.seen.owner


async def test_who_has_no_credit_is_pushed_nothing_until_it_asks_for_more(tmp_path: Path) -> None:
    """What is pushed after that goes on where it stopped."""
    async with listening_owner(tmp_path) as owner:
        writer, reader = await RawLine.proven(owner.address), await RawLine.proven(owner.address)
        reader.send(_subscribe(owner, credit=1))
        await _parked(owner)
        await writer.execute(1, append("a"))
        first = await _push(reader)
        await writer.execute(2, append("b"))
        await writer.execute(3, append("c"))
        reader.send(Ping(1))
        assert await reader.receive() == Answer(1, None)
        reader.send(More(1, 2))
        second = await _push(reader)
        writer.close()
        reader.close()

    assert second.after_seq == first.after_seq + len(first.entries)
    assert len(second.entries) == 2


async def test_a_push_holds_a_bounded_number_of_bytes(tmp_path: Path) -> None:
    """Who is far behind gets several, one after the other."""
    async with listening_owner(tmp_path, settings=brief(items=400, bytes=64 << 20)) as owner:
        line = await RawLine.proven(owner.address)
        for number in range(8):
            await line.execute(number, append(str(number), "x" * 100_000))
        line.send(_subscribe(owner))
        pushes = [await _push(line) for _ in range(4)]
        line.close()

    assert [push.after_seq for push in pushes] == [0, 2, 4, 6]
    assert all(sum(map(len, push.entries)) <= subscription.PUSH_BYTES for push in pushes)


async def test_a_slow_reader_costs_little_and_finds_its_position_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is the only queue: what the reader does not take is dropped there, and the reader is told so."""
    monkeypatch.setattr(activation_module, "COMPACT_ENTRIES", 4)
    async with listening_owner(tmp_path, settings=brief(items=4, bytes=1 << 20)) as owner:
        writer, reader = await RawLine.proven(owner.address), await RawLine.proven(owner.address)
        reader.take_little()
        reader.writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a socket, it can
        reader.send(_subscribe(owner, credit=subscription.MOST_CREDIT))
        await _parked(owner)
        (connection,) = [one for one in owner.server._connections if one._subscriptions]
        assert connection._made is not None
        held, text = 0, "x" * 100_000
        for number in range(100):
            await writer.execute(number, append(str(number), text))
            held = max(held, connection._made.get_write_buffer_size())
        reader.writer.transport.resume_reading()  # type: ignore[attr-defined]  # see above
        reached = 0
        while isinstance(message := await reader.receive(), Push):
            assert message.after_seq == reached
            reached += len(message.entries)
        writer.close()
        reader.close()

    assert held <= server_connection.HIGH_WATER + subscription.PUSH_BYTES + 1000
    assert isinstance(message, Ended)
    assert isinstance(message.error, PositionLostError)
    assert message.error.first_available > reached


async def test_a_client_is_not_pushed_what_it_has_said_it_has(tmp_path: Path) -> None:
    """A writer gets its entries with the answers: what others write is pushed alone."""
    async with listening_owner(tmp_path) as owner:
        writer, other = await RawLine.proven(owner.address), await RawLine.proven(owner.address)
        writer.send(_subscribe(owner))
        await _parked(owner)
        for number in range(3):
            writer.send(executing(number, append(str(number)), watcher="w", after=number, seen=owner.seen))
            assert len((await writer.answer(number)).entries) == 1
        await other.execute(1, append("other"))
        push = await _push(writer)
        await other.execute(2, append("another"))
        following = await _push(writer)
        for line in (writer, other):
            line.close()

    # Of its last command the client has not said yet that it has the answer.
    assert (push.after_seq, len(push.entries)) == (2, 2)
    assert (following.after_seq, len(following.entries)) == (4, 1)


async def test_a_position_of_another_life_moves_no_subscription(tmp_path: Path) -> None:
    """A client that speaks of another history is still pushed all that follows its subscription's own."""
    async with listening_owner(tmp_path) as owner:
        line = await RawLine.proven(owner.address)
        line.send(_subscribe(owner))
        await _parked(owner)
        line.send(executing(1, append("a"), watcher="w", after=5, seen=Seen("another life", None)))
        assert await line.answer(1)
        push = await _push(line)
        line.close()

    assert push.after_seq == 0


async def test_a_position_that_is_not_kept_ends_its_subscription(tmp_path: Path) -> None:
    """The client then asks for the whole state."""
    async with listening_owner(tmp_path) as owner:
        line = await RawLine.proven(owner.address)
        line.send(Subscribe(3, "w", 1000, owner.seen._replace(owner=None), 8))
        ended = await line.receive()
        await until(lambda: not owner.server._service.tasks)
        line.close()

    assert isinstance(ended, Ended)
    assert ended.subscription == 3
    assert isinstance(ended.error, PositionLostError)


async def test_an_entry_that_no_frame_holds_ends_its_subscription(tmp_path: Path) -> None:
    """The client then asks for the whole state, by Ray's call if it has to."""

    async def much() -> Polled:
        return Polled((bytes(MAX_FRAME),), "owner")

    async with listening(Obedient(much), tmp_path) as owner:
        line = await RawLine.proven(owner.address)
        line.send(_subscribe(owner, after=4))
        ended = await line.receive()
        line.close()

    assert isinstance(ended, Ended)
    assert isinstance(ended.error, PositionLostError)
    assert ended.error.first_available == 5


async def test_subscriptions_end_with_the_activation(tmp_path: Path) -> None:
    """Each client is told why."""
    async with listening_owner(tmp_path) as owner:
        line = await RawLine.proven(owner.address)
        line.send(_subscribe(owner))
        await _parked(owner)
        await owner.host.passivate()
        ended = await line.receive()
        line.close()

    assert isinstance(ended, Ended)
    assert isinstance(ended.error, PassivatedError)


async def test_a_subscription_is_use_as_a_parked_poll_is(tmp_path: Path) -> None:
    """While somebody watches by a line, the owner does not count as unused; afterwards it does."""
    async with listening_owner(tmp_path, settings=brief(idle=0.2, ttl=60)) as owner:
        line = await RawLine.proven(owner.address)
        line.send(_subscribe(owner))
        await _parked(owner)
        await asyncio.sleep(0.6)  # three times as long as it may be unused
        is_there = not owner.host.activation.stopped.done()
        line.close()
        await until(owner.host.activation.stopped.done)

    assert is_there


async def test_a_subscription_takes_the_place_of_one_with_its_number_or_its_watcher(tmp_path: Path) -> None:
    """Nothing is pushed twice, and nothing waits for who is not there."""
    async with listening_owner(tmp_path) as owner:
        line = await RawLine.proven(owner.address)
        line.send(
            _subscribe(owner, 1, watcher="x"), _subscribe(owner, 1, watcher="y"), _subscribe(owner, 2, watcher="y")
        )
        await _parked(owner)
        (connection,) = owner.server._connections
        known = list(connection._subscriptions)
        await line.execute(5, append("a"))
        push = await _push(line)
        line.send(Ping(6))
        assert await line.receive() == Answer(6, None)
        line.close()

    assert push.subscription == 2
    assert known == [2]


async def test_who_reads_no_longer_is_let_go(tmp_path: Path) -> None:
    """Its poll at the owner ends, and those of others go on."""
    async with listening_owner(tmp_path) as owner:
        line = await RawLine.proven(owner.address)
        line.send(_subscribe(owner, 1, watcher="x"), _subscribe(owner, 2, watcher="y"))
        await _parked(owner, 2)
        line.send(LetGo(("x", "unknown")))
        await _parked(owner, 1)
        assert list(owner.host.activation._watchers._parked) == ["y"]
        (connection,) = owner.server._connections
        assert list(connection._subscriptions) == [2]
        line.close()
        await _parked(owner, 0)


async def test_subscriptions_of_one_line_are_bounded(tmp_path: Path) -> None:
    """One too many is told so, and the others stay."""
    async with listening_owner(tmp_path) as owner:
        line = await RawLine.proven(owner.address)
        most = MOST_SUBSCRIPTIONS
        line.send(*(_subscribe(owner, number, watcher=str(number)) for number in range(most + 1)))
        ended = await line.receive()
        await _parked(owner, most)
        line.close()

    assert isinstance(ended, Ended)
    assert ended.subscription == most
    assert isinstance(ended.error, OverloadedError)


async def test_two_lines_with_one_watcher_keep_no_owner_busy(tmp_path: Path) -> None:
    """They take each other's place at the owner with pauses, and both get what is written."""
    timing = replace(QUICK, line_crowded=(0.01, 0.05))
    async with listening_owner(tmp_path, timing=timing) as owner:
        lines = [await RawLine.proven(owner.address) for _ in range(2)]
        polls = _counted_polls(owner.host)
        for line in lines:
            line.send(_subscribe(owner))
        await until(lambda: len(polls) >= 6)
        began, count = asyncio.get_running_loop().time(), len(polls)
        await asyncio.sleep(0.5)
        passed, more = asyncio.get_running_loop().time() - began, len(polls) - count
        await lines[0].execute(1, append("a"))
        for line in lines:
            assert (await _push(line)).entries
            line.close()

    assert more <= 2 * passed / 0.025 + 2  # without pauses, a hundred times as many


async def test_a_subscription_looks_again_after_a_while(tmp_path: Path) -> None:
    """What it waited for in vain is waited for anew, and nothing is sent for that."""
    async with listening_owner(tmp_path, timing=replace(QUICK, line_poll=0.01)) as owner:
        line = await RawLine.proven(owner.address)
        polls = _counted_polls(owner.host)
        line.send(_subscribe(owner))
        await until(lambda: len(polls) >= 5)
        await line.execute(1, append("a"))
        push = await _push(line)
        line.close()

    assert push.after_seq == 0


async def test_what_an_owner_raises_closes_the_line_that_polls(tmp_path: Path) -> None:
    """The client learns of it at once, and the owner counts it."""

    async def fail() -> None:
        message = "broken"
        raise RuntimeError(message)

    async with listening(Obedient(fail), tmp_path) as owner:
        line = await RawLine.proven(owner.address)
        line.send(_subscribe(owner))
        assert await line.rest() == b""
        line.close()

    assert owner.failures.counts == {"line": 1}


async def test_nothing_is_pushed_before_it_is_durable(tmp_path: Path) -> None:
    """What a store has not confirmed is seen by nobody."""
    store = FaultyStore()
    async with listening_owner(tmp_path, store=store) as owner:
        line = await RawLine.proven(owner.address)
        line.send(_subscribe(owner))
        await _parked(owner)
        store.hold()
        line.send(executing(1, append("a")))
        await until(lambda: bool(store.appends))
        line.send(Ping(2))
        assert await line.receive() == Answer(2, None)
        await turns()
        store.release()
        told = {type(await line.receive()) for _ in range(2)}
        line.close()

    assert told == {Push, Answer}


def _counted_polls(host: Any) -> list[str]:
    """Return the watchers that poll from now on, in order."""
    polls: list[str] = []
    poll = host.poll

    async def counted(watcher: str, *arguments: Any) -> Any:
        polls.append(watcher)
        return await poll(watcher, *arguments)

    host.poll = counted
    return polls
