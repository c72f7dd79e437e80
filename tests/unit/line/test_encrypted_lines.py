"""Lines between nodes where Ray speaks TLS: both sides show a certificate of one authority, and prove themselves."""

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from conversation_actors.line import listener
from conversation_actors.line.messages import Ping
from conversation_actors.line.tls import client_context, server_context
from tests.support.fakes import turns, until
from tests.support.lines import Obedient, RawLine, listening
from tests.support.quick import QUICK

Files = tuple[Path, Path, Path]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Make the authority's certificate, a key and its certificate, which names another host than the tests use."""
    return _files(trustme.CA(), tmp_path / "ours")


def _files(authority: trustme.CA, directory: Path) -> Files:
    directory.mkdir()
    paths = directory / "ca.pem", directory / "key.pem", directory / "certificate.pem"
    leaf = authority.issue_cert("a-node.test")
    authority.cert_pem.write_to_path(paths[0])
    leaf.private_key_pem.write_to_path(paths[1])
    leaf.cert_chain_pems[0].write_to_path(paths[2])
    return paths


async def _nothing() -> None:
    """Answer nothing: no test here asks."""


async def test_a_line_from_outside_is_encrypted_and_one_of_this_node_is_not(files: Files, tmp_path: Path) -> None:
    """The proof follows inside of TLS."""
    async with listening(Obedient(_nothing), tmp_path, tls=server_context(*files)) as owner:
        line = await RawLine.by_tcp(owner.address, ssl=client_context(*files))
        await line.prove(owner.address.secret)
        line.send(Ping(1))
        assert await line.answer(1) is None
        here = await RawLine.proven(owner.address)
        for one in (line, here):
            one.close()

    assert owner.address.is_encrypted
    assert owner.failures.counts == {}


async def _without_certificate(owner_files: Files, port: int, _: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(owner_files[0])
    await _told(port, ssl=context)


async def _of_another_authority(owner_files: Files, port: int, directory: Path) -> None:
    _, key, certificate = _files(trustme.CA(), directory / "theirs")
    await _told(port, ssl=client_context(owner_files[0], key, certificate))


async def _without_tls(_: Files, port: int, __: Path) -> None:
    await _told(port)


async def _told(port: int, **named: Any) -> None:
    """Connect, say what a stranger might, and make sure that nothing is told, not even a nonce."""
    told = b""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, **named)
        writer.write(bytes(64))
        told = await reader.read()
    except OSError:  # the handshake was refused
        return
    assert len(told) < 32  # a TLS alert at most
    writer.transport.abort()


Stranger = Callable[[Files, int, Path], Coroutine[None, None, None]]


@pytest.mark.parametrize("stranger", [_without_certificate, _of_another_authority, _without_tls])
async def test_who_has_no_certificate_hears_nothing(
    stranger: Stranger, files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A stranger does not even come to the proof, and the log does not fill with what it tried."""
    async with listening(Obedient(_nothing), tmp_path, tls=server_context(*files)) as owner:
        assert owner.address.tcp is not None
        for number in range(3):
            (tmp_path / str(number)).mkdir()
            await stranger(files, owner.address.tcp[1], tmp_path / str(number))
        await until(lambda: not owner.server.connections)

    assert caplog.records == []


async def test_handshakes_that_do_not_end_are_bounded_in_number(files: Files, tmp_path: Path) -> None:
    """Who has connected and says nothing counts as a stranger that has not proven itself."""
    timing = replace(QUICK, line_proof=3600.0)
    async with listening(Obedient(_nothing), tmp_path, tls=server_context(*files), timing=timing) as owner:
        strangers = [await RawLine.by_tcp(owner.address) for _ in range(listener.MOST_STRANGERS + 20)]
        await until(lambda: owner.server.connections >= listener.MOST_STRANGERS)
        await turns()
        most = owner.server.connections
        for one in strangers:
            one.close()
        line = await RawLine.by_tcp(owner.address, ssl=client_context(*files))
        await line.prove(owner.address.secret)
        line.close()
        await until(lambda: not owner.server.connections)

    assert most == listener.MOST_STRANGERS


async def test_a_handshake_that_does_not_end_is_bounded_in_time(files: Files, tmp_path: Path) -> None:
    """Who says nothing is closed, and has heard nothing."""
    timing = replace(QUICK, line_proof=0.05)
    async with listening(Obedient(_nothing), tmp_path, tls=server_context(*files), timing=timing) as owner:
        stranger = await RawLine.by_tcp(owner.address)
        assert await stranger.rest() == b""
        stranger.close()
        await until(lambda: not owner.server.connections)
