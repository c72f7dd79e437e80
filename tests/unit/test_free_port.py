"""Ports for servers that take no port 0."""

import socket
from pathlib import Path

import pytest

from conversation_actors import free_port as module
from conversation_actors.free_port import free_port

HOST = "127.0.0.1"


def _range(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "ip_local_port_range"
    file.write_text(text)
    monkeypatch.setattr(module, "_RANGE_FILE", file)


@pytest.mark.parametrize("text", ["25000\t60999\n", "32768 60999", "nonsense", ""])
def test_it_is_no_port_that_connections_get(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection made anywhere on the machine could take it before the server listens."""
    _range(text, tmp_path, monkeypatch)
    first = int(text.split(maxsplit=1)[0]) if text[:1].isdigit() else 32_768
    assert all(20_000 <= free_port(HOST) < first for _ in range(300))


def test_where_connections_get_all_ports_it_is_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing better to be had then."""
    _range("1024 65535", tmp_path, monkeypatch)
    assert 20_000 <= free_port(HOST) < 65_536


def test_a_port_in_use_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """So are those that Ray's client server gives to its clients' servers, one after the other."""
    with socket.socket() as held:
        held.bind((HOST, 0))
        free = free_port(HOST)
        picked = iter([held.getsockname()[1], 23_500, free])
        monkeypatch.setattr("conversation_actors.free_port.random.randrange", lambda *_: next(picked))
        assert free_port(HOST) == free


def test_no_free_port_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told after a bounded search."""
    with socket.socket() as held:
        held.bind((HOST, 0))
        monkeypatch.setattr("conversation_actors.free_port.random.randrange", lambda *_: held.getsockname()[1])
        with pytest.raises(OSError, match="no free port was found on"):
            free_port(HOST)
