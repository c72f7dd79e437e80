"""A line that goes wrong at every byte, in both directions: before, in and behind the proof, and in every frame.

Real sockets, a real owner, real handles and their policy. One handle's lines go wrong one after the other, each a byte
later than the one before. Whatever is hit: each append happens once and is acknowledged, in order; what another handle
writes arrives without a gap; and in the end the line is back.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import pytest

from conversation_actors.client import ConversationHandle
from conversation_actors.timing import Timing
from tests.support.both_ports import LINE_PATIENT, LINE_QUICK, LineCluster
from tests.support.fakes import PATIENCE, FaultyStore, brief, until
from tests.support.observation import Watcher, assert_contiguous, texts, user
from tests.support.relay import Direction, Fault, Kind, Relay

BYTES = 320
"""Of a line that are cut one by one: the proof, and the first frames of a client or of an owner as a whole."""
LONG_BYTES = 1500
SILENT = [0, 1, 32, 63, 64, 65, 68, 69, 70, 100, 150, 200, 250, 300, 400, 600]
"""Bytes after which a line falls silent in the short test: each costs the client's patience."""
SETTINGS = brief(items=4, command=10.0, attempt=5.0, poll=5.0)
"""A short history: the state that a read shows is short."""


@pytest.fixture
def sockets() -> Iterator[Path]:
    """Make a directory for sockets: their paths may have 107 bytes, and pytest's are too deep."""
    with tempfile.TemporaryDirectory(prefix="line-") as directory:
        yield Path(directory)


class Shaken:
    """A handle whose lines go wrong, beside one whose line does not and who watches."""

    def __init__(self, cluster: LineCluster, steady: ConversationHandle, watcher: Watcher) -> None:
        """Nothing has happened yet."""
        self._cluster, self._steady, self._watcher = cluster, steady, watcher
        self._said: dict[str, list[str]] = {"steady": [], "shaken": []}

    async def play(self, faults: Iterable[Fault]) -> None:
        """Have one line after the other go wrong so, and write all the time, until the last one is over."""
        relay = self._cluster.relay
        relay.faults += faults
        count, total = len(relay.passages), len(relay.faults)
        handle = await self._cluster.handle()
        port = self._cluster.ports[-1]
        async with Watcher(handle) as watcher:
            while True:
                await until(lambda: port.way is not None)
                if len(relay.passages) > count + total:
                    break
                await self._round(handle)
            await self._round_by_lines(handle)
            last = await handle.snapshot(fresh=True)
            await watcher.saw(last.seq)
            await self._watcher.saw(last.seq)
        failed = [passage.has_failed.is_set() for passage in relay.passages[count : count + total]]
        assert sum(failed) > total / 2  # and all, where no client drops a line that is slow
        assert all(failed) or self._cluster.timing is LINE_QUICK
        for seen in (watcher, self._watcher):
            assert_contiguous(seen.seqs)
            for name, said in self._said.items():
                assert [text for text in seen.texts if text.startswith(name)] == said
        assert texts(last.items) == self._watcher.texts[-len(last.items) :]
        await handle.aclose()

    async def _round(self, handle: ConversationHandle) -> None:
        """Append by both handles, record by one, and have each see what the other wrote."""
        await asyncio.gather(self._append("shaken", handle), self._append("steady", self._steady))
        recorded = self._next("shaken")
        handle.record(user(recorded))
        await handle.flush()
        await until(lambda: handle.seq == self._steady.seq)

    async def _round_by_lines(self, handle: ConversationHandle) -> None:
        """See that all of a round goes by lines, or of a later one where an answer by a line may be late."""
        cluster = self._cluster
        async with asyncio.timeout(PATIENCE):
            while True:
                before = cluster.asked_by_line["execute"], cluster.calls["execute"]
                await self._round(handle)
                if (cluster.asked_by_line["execute"] - 3, cluster.calls["execute"]) == before:
                    return
                assert cluster.timing is LINE_QUICK

    async def _append(self, name: str, handle: ConversationHandle) -> None:
        receipt = await handle.append(user(self._next(name)))
        assert handle.seq >= receipt.seq

    def _next(self, name: str) -> str:
        text = f"{name}-{len(self._said[name]):05}"
        self._said[name].append(text)
        return text


@pytest.fixture(params=["unix", "tcp"])
def way(request: pytest.FixtureRequest) -> str:
    """Return by which kind of socket the line goes."""
    return str(request.param)


@pytest.fixture
def timing() -> Timing:
    """Return how long a silent line is waited for: not at all, where none falls silent."""
    return LINE_PATIENT


@pytest.fixture
async def shaken(sockets: Path, way: str, timing: Timing) -> AsyncIterator[Shaken]:
    """Make owners that are reached by both ports, and a steady handle that watches."""
    relay = Relay(directory=sockets if way == "unix" else None)
    async with LineCluster(FaultyStore(), SETTINGS, sockets, relay=relay, is_relayed=False, timing=timing) as cluster:
        steady = await cluster.connected()
        cluster.is_relayed = True
        async with Watcher(steady) as watcher:
            yield Shaken(cluster, steady, watcher)


def at(kind: Kind, direction: Direction, places: Iterable[int]) -> Iterator[Fault]:
    """Return the faults of one line after the other."""
    return (Fault(kind, direction, after) for after in places)


@pytest.mark.parametrize("way", ["unix"], indirect=True)
@pytest.mark.parametrize("direction", Direction)
async def test_a_line_may_be_cut_at_every_byte(shaken: Shaken, direction: Direction) -> None:
    """Closed behind each byte of the proof and of the first frames: nothing is lost, doubled or moved."""
    await shaken.play(at(Kind.CLOSE, direction, range(BYTES)))


@pytest.mark.parametrize("way", ["tcp"], indirect=True)
@pytest.mark.parametrize("direction", Direction)
async def test_a_line_may_be_reset(shaken: Shaken, direction: Direction) -> None:
    """Reset by the network, which loses what was on its way: as if it were closed."""
    await shaken.play(at(Kind.RESET, direction, range(0, BYTES, 7)))


@pytest.mark.parametrize("timing", [LINE_QUICK])
@pytest.mark.parametrize("way", ["tcp"], indirect=True)
@pytest.mark.parametrize("direction", Direction)
async def test_a_line_may_fall_silent_in_one_direction(shaken: Shaken, direction: Direction) -> None:
    """Half open: one side hears nothing more, and nobody is told. Each call is answered all the same."""
    await shaken.play(at(Kind.SWALLOW, direction, SILENT))


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", [Kind.CLOSE, Kind.RESET])
@pytest.mark.parametrize("direction", Direction)
async def test_a_line_may_be_cut_at_every_byte_of_several_exchanges(
    shaken: Shaken, direction: Direction, kind: Kind
) -> None:
    """As the short tests, by each kind of socket."""
    await shaken.play(at(kind, direction, range(LONG_BYTES)))


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("timing", [LINE_QUICK])
@pytest.mark.parametrize("direction", Direction)
async def test_a_line_may_fall_silent_anywhere(shaken: Shaken, direction: Direction) -> None:
    """As the short test, by each kind of socket."""
    await shaken.play(at(Kind.SWALLOW, direction, range(0, LONG_BYTES, 5)))


async def test_bytes_may_come_one_by_one(sockets: Path) -> None:
    """In segments of one byte, both ways, the line is used for everything and says the same."""
    async with LineCluster(FaultyStore(), SETTINGS, sockets, relay=Relay(directory=sockets, piece=1)) as cluster:
        handle = await cluster.connected()
        for number in range(10):
            await handle.append(user(str(number)))
        assert texts((await handle.snapshot(fresh=True)).items) == ["6", "7", "8", "9"]
        assert cluster.asked_by_line["execute"] == 10
        assert cluster.calls["execute"] == cluster.calls["read"] == 0
