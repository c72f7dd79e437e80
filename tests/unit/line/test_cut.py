"""A line that goes wrong at every byte, in both directions: before, in and behind the proof, and in every frame.

Real sockets, a real owner, real handles and their policy. One exchange is played for each byte: whatever the cut hits,
each append happens once and is acknowledged, what another handle writes arrives, and the line comes back.
"""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from conversation_actors.client import ConversationHandle
from tests.support.fakes import FaultyStore, brief, until
from tests.support.both_ports import LineCluster
from tests.support.observation import Watcher, assert_contiguous, texts, user
from tests.support.relay import Direction, Fault, Kind

PROOF = {Direction.TO_OWNER: 64, Direction.TO_CLIENT: 64}
"""Bytes before the first frame."""
SETTINGS = brief(items=4, command=10.0, attempt=5.0, poll=5.0)
"""A short history: the state that a read shows is short."""


@pytest.fixture
def sockets() -> Iterator[Path]:
    """Make a directory for sockets: their paths may have 107 bytes, and pytest's are too deep."""
    with tempfile.TemporaryDirectory(prefix="line-") as directory:
        yield Path(directory)


@pytest.fixture
async def cluster(sockets: Path) -> AsyncIterator[LineCluster]:
    """Make owners that are reached by both ports."""
    async with LineCluster(FaultyStore(), SETTINGS, sockets) as made:
        yield made


class Exchanges:
    """Plays exchanges over lines that go wrong, beside a handle whose line does not."""

    def __init__(self, cluster: LineCluster, steady: ConversationHandle, watcher: Watcher) -> None:
        """Nothing is played yet."""
        self._cluster, self._steady, self._watcher = cluster, steady, watcher
        self.acknowledged: list[str] = []
        self._last = 0
        self.passed = dict.fromkeys(Direction, 0)
        """Bytes that passed in the last exchange, each way."""

    async def play(self, fault: Fault | None) -> bool:
        """Play one with a new handle, whose first line goes wrong so; return whether it did."""
        relay, name = self._cluster.relay, f"{len(self.acknowledged):05}"
        relay.faults.append(fault)
        count = len(relay.passages)
        handle = await self._cluster.handle()
        port = self._cluster.ports[-1]
        await until(lambda: len(relay.passages) > count)
        passage = relay.passages[count]
        await until(lambda: port.way == "unix" or passage.has_failed.is_set())
        await self._append(handle, f"first-{name}")
        await self._append(self._steady, f"elsewhere-{name}")
        await until(lambda: handle.seq >= self._steady.seq)
        snapshot = await handle.snapshot(fresh=True)
        assert texts(snapshot.items) == self.acknowledged[-len(snapshot.items) :]
        handle.record(user(f"recorded-{name}"))
        await handle.flush()
        self.acknowledged.append(f"recorded-{name}")
        has_failed = passage.has_failed.is_set()
        if has_failed:
            await until(lambda: port.way == "unix")  # and back again
            await self._append(handle, f"again-{name}")
        await handle.aclose()
        await port.aclose()
        self.passed = {way: passage.passed[way] for way in Direction}
        return has_failed

    async def _append(self, handle: ConversationHandle, text: str) -> None:
        receipt = await handle.append(user(text))
        self.acknowledged.append(text)
        assert handle.seq >= receipt.seq > self._last
        self._last = receipt.seq

    async def judge(self) -> None:
        """All that was acknowledged is there, once, in order, and was seen so by who watched."""
        await self._watcher.saw((await self._steady.snapshot(fresh=True)).seq)
        assert_contiguous(self._watcher.seqs)
        assert self._watcher.texts == self.acknowledged


@pytest.fixture
async def exchanges(cluster: LineCluster) -> AsyncIterator[Exchanges]:
    """Make what plays exchanges; a steady handle watches all of them over a line that is never cut."""
    steady = await cluster.connected()
    async with Watcher(steady) as watcher:
        playing = Exchanges(cluster, steady, watcher)
        yield playing
        await playing.judge()
    assert not cluster.relay.passages[0].is_over.is_set()


@pytest.mark.parametrize("direction", Direction)
async def test_a_line_may_be_cut_at_every_byte(exchanges: Exchanges, direction: Direction) -> None:
    """Closed behind each byte of an exchange: nothing is lost, doubled or moved, and the line comes back."""
    assert not await exchanges.play(None)
    longest = exchanges.passed[direction]
    assert longest > PROOF[direction] + 100
    for after in range(longest - 16):  # the last bytes are the farewell, whose answer nobody waits for
        assert await exchanges.play(Fault(Kind.CLOSE, direction, after)), after
