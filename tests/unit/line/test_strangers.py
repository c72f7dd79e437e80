"""Whoever connects to an owner without knowing its secret learns nothing, gets nowhere, and costs little."""

import asyncio
import os
import resource
import socket
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path

import pytest

from conversation_actors.line import listener, proof, server
from conversation_actors.line.messages import Ping
from conversation_actors.protocol import LineAddress
from tests.support.fakes import turns, until
from tests.support.lines import NONCE, RawLine, listening_owner
from tests.support.quick import QUICK

SECRET = bytes(32)
Connect = Callable[[LineAddress], Coroutine[None, None, RawLine]]
Attempt = Callable[[RawLine, LineAddress], Coroutine[None, None, bytes]]


async def _open(address: LineAddress) -> RawLine:
    return await RawLine.by_tcp(address)


async def test_who_says_nothing_is_told_a_nonce_and_closed_after_a_while(tmp_path: Path) -> None:
    """A stranger hears 32 bytes, which are others each time."""
    async with listening_owner(tmp_path, timing=replace(QUICK, line_proof=0.05)) as owner:
        lines = [await _open(owner.address), await RawLine.by_unix(owner.address)]
        told = [await line.rest() for line in lines]
        for line in lines:
            line.close()
        await until(lambda: not owner.server.connections)

    assert [len(nonce) for nonce in told] == [32, 32]
    assert told[0] != told[1]


async def test_bytes_that_come_slowly_do_not_lengthen_the_time_for_the_proof(tmp_path: Path) -> None:
    """A stranger that sends a byte now and then is closed as one that sends nothing."""
    async with listening_owner(tmp_path, timing=replace(QUICK, line_proof=0.1)) as owner:
        line = await _open(owner.address)
        assert len(await line.reader.readexactly(32)) == 32  # first: a connection that is reset forgets what came by it
        sent = 0

        async def send_slowly() -> None:
            nonlocal sent
            while True:
                line.writer.write(b"x")
                sent += 1
                await asyncio.sleep(0.02)

        sending = asyncio.create_task(send_slowly())
        assert await line.rest() == b""
        sending.cancel()
        line.close()

    assert sent < 64  # else it was the wrong proof


async def _wrong(line: RawLine, _: LineAddress) -> bytes:
    nonce = await line.nonce()
    return NONCE + proof.client_proof(SECRET, nonce, NONCE)


async def _replayed(line: RawLine, address: LineAddress) -> bytes:
    await line.nonce()
    return NONCE + proof.client_proof(address.secret, bytes(32), NONCE)  # it held for another connection's nonce


async def _reflected(line: RawLine, address: LineAddress) -> bytes:
    nonce = await line.nonce()
    return nonce + proof.server_proof(address.secret, nonce, nonce)  # what an owner would say, to itself


async def _long(line: RawLine, _: LineAddress) -> bytes:
    await line.nonce()
    return b"\xff\xff\xff\xff\x09" + bytes(10_000)


async def _frame_first(line: RawLine, _: LineAddress) -> bytes:
    await line.nonce()
    return b"\x00\x00\x00\x04\x09\x92\x06\x01" * 8


@pytest.mark.parametrize("attempt", [_wrong, _replayed, _reflected, _long, _frame_first])
@pytest.mark.parametrize("by", [RawLine.by_unix, RawLine.by_tcp], ids=["unix", "tcp"])
async def test_who_proves_nothing_is_closed_without_a_word(
    by: Connect, attempt: Attempt, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a stranger sends instead of its proof: the owner reads 64 bytes of it, and tells nobody."""
    async with listening_owner(tmp_path) as owner:
        line = await by(owner.address)
        sent = await attempt(line, owner.address)
        (connection,) = owner.server._connections
        line.writer.write(sent)
        assert await line.rest() == b""
        line.close()
        await until(lambda: not owner.server.connections)

        assert len(connection._claimed) == 64
        assert not connection.is_proven
    assert owner.address.secret.hex() not in caplog.text
    assert [record.__dict__["reason"] for record in caplog.records if "a line was" in record.getMessage()] == [
        "a wrong proof"
    ]


async def test_no_more_than_64_bytes_are_read_before_the_proof(tmp_path: Path) -> None:
    """What a client sends behind its proof is read as frames, when the proof has been found right."""
    async with listening_owner(tmp_path) as owner:
        line = await RawLine.by_unix(owner.address)
        nonce = await line.nonce()
        line.writer.write(NONCE + proof.client_proof(owner.address.secret, nonce, NONCE))
        line.send(Ping(1))
        assert await line.reader.readexactly(32) == proof.server_proof(owner.address.secret, nonce, NONCE)
        assert await line.answer(1) is None
        line.close()


async def test_many_strangers_take_little_and_keep_out_nobody_of_this_node(tmp_path: Path) -> None:
    """200 connect at once: 64 of them are let in, the others wait in the kernel until those have gone."""
    async with listening_owner(tmp_path, timing=replace(QUICK, line_proof=3600.0)) as owner:
        strangers = [await _open(owner.address) for _ in range(200)]
        await until(lambda: owner.server.connections >= listener.MOST_STRANGERS)
        await turns()
        most, tasks = owner.server.connections, len(owner.server._admissions)
        here = await RawLine.proven(owner.address)
        outside = await _open(owner.address)
        for line in strangers:
            line.close()
        await outside.prove(owner.address.secret)
        outside.send(Ping(1))
        assert await outside.answer(1) is None
        for line in (here, outside):
            line.close()
        await until(lambda: not owner.server.connections)

    assert most == listener.MOST_STRANGERS
    assert tasks == 0


async def test_strangers_that_go_make_room_at_once(tmp_path: Path) -> None:
    """Nobody waits for the time of a stranger that is gone."""
    async with listening_owner(tmp_path, timing=replace(QUICK, line_proof=3600.0)) as owner:
        for _ in range(3):
            strangers = [await _open(owner.address) for _ in range(listener.MOST_STRANGERS + 5)]
            for line in strangers[: listener.MOST_STRANGERS]:
                await line.nonce()
            for line in strangers:
                line.close()
        client = await _open(owner.address)
        await client.prove(owner.address.secret)
        client.close()


async def test_lines_are_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes with a proof while there are very many is closed, and the next one is let in when one has gone."""
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 2)
    async with listening_owner(tmp_path) as owner:
        first, second = [await RawLine.proven(owner.address) for _ in range(2)]
        with pytest.raises(asyncio.IncompleteReadError):
            await RawLine.proven(owner.address)
        first.close()
        await until(lambda: owner.server.connections == 1)
        third = await RawLine.proven(owner.address)
        third.send(Ping(1))
        assert await third.answer(1) is None
        third.close()
        second.close()


async def test_a_process_without_descriptors_accepts_nobody_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner does not turn in a circle; who has waited in the kernel is let in when there is room again."""
    monkeypatch.setattr(listener, "_SCARCE_SECONDS", 0.1)
    timing = replace(QUICK, line_sweep=3600.0)  # which would need a descriptor too
    async with listening_owner(tmp_path, timing=timing) as owner:
        here = owner.server._listeners[0]
        visitor = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        visitor.connect(owner.address.unix or "")
        next_one = os.dup(visitor.fileno())
        os.close(next_one)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (next_one, hard))
        try:
            await until(lambda: bool(owner.failures.counts))
            is_accepting = here._is_accepting
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        line = RawLine(*await asyncio.open_unix_connection(sock=visitor))
        await line.prove(owner.address.secret)
        line.close()

    assert not is_accepting
