"""Three nodes with three clocks, and a server whose clock is set: what lasts, lasts as long as it was asked for."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from conversation_actors.codec import decode_entry
from conversation_actors.state import Entry
from tests.store.conftest import make_store
from tests.support.faketime import REMEDY, ClockedServer, can_fake, libfaketime
from tests.support.servers import BINARIES, wait_for

PROGRAM = Path(__file__).parent / "programs" / "owner.py"
HOUR = 3600


class Owner:
    """An owner on a node of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Take the process, when it owns the conversation."""
        self._process = process
        self.facts = self._answer()

    def ask(self, **command: Any) -> dict[str, Any]:
        """Have one command executed."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@pytest.fixture
def library() -> Path:
    """Find what lets a process have another clock."""
    found = libfaketime()
    if found is None:
        pytest.skip(REMEDY)
    return found


@pytest.fixture
def server(tmp_path: Path, library: Path) -> Iterator[ClockedServer]:
    """Make a server whose clock can be set."""
    binary = next((path for path in BINARIES.values() if can_fake(path, library)), None)
    if binary is None:
        pytest.skip("no server whose clock can be set: install redis-server or valkey")
    with ClockedServer(binary, tmp_path / "server", library) as started:
        yield started


@contextmanager
def owner(server: ClockedServer, library: Path, *, ahead: int) -> Iterator[Owner]:
    """Own the conversation on a node whose clock is so many seconds ahead of this machine's."""
    clock = {"LD_PRELOAD": str(library), "FAKETIME": f"{ahead:+d}", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), server.url, "c"],
        env={**os.environ, **clock, "PYTHONPATH": root},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Owner(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=30) == 0


async def journal(server: ClockedServer) -> list[Entry]:
    """Read all that was written."""
    store = make_store(server.url)
    recovered = await store.activate("c", owner="reader", create=False, ttl=timedelta(hours=1))
    await store.aclose()
    return [decode_entry(data) for data in recovered.journal]


async def test_no_node_dates_what_is_written(server: ClockedServer, library: Path) -> None:
    """Whatever a node's clock says, entries are dated by the server's; so nobody's lease is held for an hour more."""
    began = server.time()
    for number, ahead in enumerate((HOUR, 0, -HOUR)):
        with owner(server, library, ahead=ahead) as node:
            assert abs(node.facts["node_time"] - server.time() - ahead) < 60
            assert "seq" in node.ask(append=f"u{number}")
    dates = [entry.at for entry in await journal(server)]
    assert dates == sorted(dates)
    assert began - 1 <= dates[0] <= dates[-1] <= server.time() + 1


async def test_a_lease_ends_on_every_node(server: ClockedServer, library: Path) -> None:
    """Taken for a second on a node an hour ahead, it is free on a node an hour behind when that second is over."""
    with owner(server, library, ahead=HOUR) as node:
        assert "seq" in node.ask(lease="one", seconds=1.0)
    with owner(server, library, ahead=-HOUR) as node:
        wait_for(lambda: "seq" in node.ask(lease="two", seconds=60.0), "the lease to be free")
        assert node.ask(lease="one", seconds=1.0) == {"error": "LeaseHeldError"}


async def test_nobody_forgets_a_request_by_a_clock(server: ClockedServer, library: Path) -> None:
    """A node a thousand seconds ahead, and a server that is set an hour ahead, execute no repeat again."""
    with owner(server, library, ahead=0) as node:
        first = node.ask(append="u0", request="r")
    with owner(server, library, ahead=1000) as node:
        node.ask(append="u1")
        assert node.ask(append="u0", request="r") == first
    server.set_clock(HOUR)
    with owner(server, library, ahead=0) as node:
        node.ask(append="u2")
        assert node.ask(append="u0", request="r") == first
    assert [entry.seq for entry in await journal(server)] == [1, 2, 3]


async def test_a_server_that_is_set_back_prolongs_no_lease(server: ClockedServer, library: Path) -> None:
    """A lease that was taken while the server was an hour ahead ends when its time is over, and not an hour later."""
    server.set_clock(HOUR)
    with owner(server, library, ahead=0) as node:
        assert "seq" in node.ask(lease="one", seconds=1.0)
    server.set_clock(0)
    with owner(server, library, ahead=0) as node:
        wait_for(lambda: "seq" in node.ask(lease="two", seconds=60.0), "the lease to be free")
