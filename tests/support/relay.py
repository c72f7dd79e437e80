"""A relay between the two ends of a line, on real sockets, which lets through what a test says and nothing more.

It counts the bytes of each direction. A `Fault` says after which of them, and how, one connection goes wrong: at every
byte, one after the other, that is every way in which a line can be cut.
"""

import asyncio
import socket
from collections import Counter, deque
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Self

from conversation_actors.protocol import LineAddress

_MOST = 1 << 16


class Direction(StrEnum):
    """Which of the two streams of a connection."""

    TO_OWNER = "to the owner"
    TO_CLIENT = "to the client"


class Kind(StrEnum):
    """What happens to a connection."""

    CLOSE = "both ends see the connection closed"
    RESET = "both ends are reset; what they have not read is lost"
    SWALLOW = "what goes this way is lost in silence, from then on"
    HOLD = "what goes this way is not taken any more: the sender's buffers fill"


@dataclass(frozen=True, slots=True)
class Fault:
    """How one connection goes wrong, once `after` bytes have passed in one direction."""

    kind: Kind
    direction: Direction
    after: int = 0


class Passage:
    """One connection through the relay, with what has passed of it."""

    def __init__(self, fault: Fault | None, piece: int) -> None:
        """Pass pieces of at most so many bytes."""
        self.passed: Counter[Direction] = Counter()
        self.has_failed = asyncio.Event()
        """Whether the fault has happened."""
        self.is_over = asyncio.Event()
        self._fault, self._piece = fault, piece
        self._released = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    async def run(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        owner: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        """Pass on both ways until either end has closed, or the fault ends it."""
        self._writers = [client[1], owner[1]]
        ways = {
            asyncio.create_task(self._pass(Direction.TO_OWNER, client[0], owner[1])),
            asyncio.create_task(self._pass(Direction.TO_CLIENT, owner[0], client[1])),
        }
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for writer in self._writers:
                writer.close()
            self.is_over.set()

    def fail(self, fault: Fault) -> None:
        """Go wrong, with what passes next in that direction; at once where the connection is to end."""
        self._fault = replace(fault, after=self.passed[fault.direction])
        if fault.kind in {Kind.CLOSE, Kind.RESET}:
            self._end()

    def release(self) -> None:
        """Go on with what was held."""
        self._fault = None
        self._released.set()

    async def _pass(self, way: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while await self._may_go_on(way):
                data = await reader.read(self._next_size(way))
                if not data:
                    return
                if not await self._may_go_on(way):  # it was made to fail meanwhile
                    return
                if self._is_lost(way):
                    continue
                writer.write(data)
                await writer.drain()
                self.passed[way] += len(data)

    async def _may_go_on(self, way: Direction) -> bool:
        """Have the fault happen if it is time; return whether this way goes on."""
        fault = self._fault
        if fault is None or fault.direction is not way or self.passed[way] < fault.after:
            return True
        if fault.kind is Kind.SWALLOW:
            self.has_failed.set()
            return True
        if fault.kind is Kind.HOLD:
            self.has_failed.set()
            await self._released.wait()
            return True
        self._end()
        return False

    def _end(self) -> None:
        assert self._fault is not None
        self.has_failed.set()
        for writer in self._writers:
            if self._fault.kind is Kind.RESET:
                _reset(writer)
            else:
                writer.close()  # behind what was written

    def _is_lost(self, way: Direction) -> bool:
        fault = self._fault
        if fault is None or fault.kind is not Kind.SWALLOW or fault.direction is not way:
            return False
        return self.passed[way] >= fault.after

    def _next_size(self, way: Direction) -> int:
        """How much to take: not beyond the byte at which this way goes wrong."""
        fault = self._fault
        if fault is None or fault.direction is not way or self.passed[way] >= fault.after:
            return self._piece
        return min(self._piece, fault.after - self.passed[way])


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection without its last words; over TCP the other end is told so."""
    taken: socket.socket = writer.get_extra_info("socket")
    if taken.family != socket.AF_UNIX:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    writer.transport.abort()


class Relay:
    """Listens where a line's client connects, and connects to the owner. Use it as a context manager.

    `faults` are of the connections to come, in their order; None, and what comes after the last, is a connection
    that nothing happens to.
    """

    def __init__(self, *, directory: Path | None = None, piece: int = _MOST) -> None:
        """Listen on a Unix socket in this directory; without one on TCP. Pass pieces of at most so many bytes."""
        self.faults: deque[Fault | None] = deque()
        self.passages: list[Passage] = []
        self.is_refusing = False
        """Whether who connects is turned away."""
        self._path = directory / "relay.sock" if directory else None
        self._piece = piece
        self._target: LineAddress | None = None
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Listen."""
        if self._path is not None:
            self._server = await asyncio.start_unix_server(self._take, self._path)
        else:
            self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        """End all connections, and listen no more."""
        assert self._server is not None
        self._server.close()
        for running in [*self._running]:
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def lead_to(self, target: LineAddress) -> LineAddress:
        """Connect to this owner from now on; return what its clients are to be told."""
        assert self._server is not None
        self._target = target
        if self._path is not None:
            return replace(target, unix=str(self._path), tcp=None)
        return replace(target, unix=None, tcp=self._server.sockets[0].getsockname()[:2])

    @property
    def last(self) -> Passage:
        """The connection that came last."""
        return self.passages[-1]

    def fail(self, fault: Fault) -> None:
        """Have every connection that there is go wrong."""
        for passage in self.passages:
            if not passage.is_over.is_set():
                passage.fail(fault)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running = asyncio.current_task()
        assert running is not None
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        if self.is_refusing or self._target is None:
            writer.close()
            return
        passage = Passage(self.faults.popleft() if self.faults else None, self._piece)
        self.passages.append(passage)
        try:
            owner = await _connect(self._target)
        except OSError:
            writer.close()
            passage.is_over.set()
            return
        with suppress(asyncio.CancelledError):
            await passage.run((reader, writer), owner)


def _connect(target: LineAddress) -> Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    if target.unix is not None:
        return asyncio.open_unix_connection(target.unix)
    assert target.tcp is not None
    return asyncio.open_connection(*target.tcp)
