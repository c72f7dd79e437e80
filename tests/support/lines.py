"""A client's side of a line, byte by byte, for tests of the owner's side; and an owner that does as it is told."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from conversation_actors.errors import ConversationError
from conversation_actors.failures import Failures
from conversation_actors.line import proof
from conversation_actors.line.answerer import Answerer
from conversation_actors.line.frames import FrameReader
from conversation_actors.line.messages import Answer, ExecuteCall, ToClient, ToOwner, decode_to_client, encode
from conversation_actors.line.server import LineServer
from conversation_actors.protocol import PROTOCOL, Execute, Executed, LineAddress, Polled, Request, Seen, View
from conversation_actors.settings import Settings
from conversation_actors.store import MemoryStore, Store
from conversation_actors.timing import Timing
from tests.support.fakes import CONVERSATION, PATIENCE, FakeActor, brief
from tests.support.quick import QUICK

LOOPBACK = "127.0.0.1"
NONCE = bytes(range(32))


class RawLine:
    """A connection to who listens at an address; nothing is sent that a test does not send."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take what is connected."""
        self.reader, self.writer = reader, writer
        self._frames = FrameReader()
        self._messages: list[ToClient] = []

    @classmethod
    async def by_unix(cls, address: LineAddress) -> Self:
        """Connect to the Unix socket; prove nothing."""
        assert address.unix is not None
        return cls(*await asyncio.open_unix_connection(address.unix))

    @classmethod
    async def by_tcp(cls, address: LineAddress, **named: Any) -> Self:
        """Connect by TCP; prove nothing."""
        assert address.tcp is not None
        return cls(*await asyncio.open_connection(*address.tcp, **named))

    @classmethod
    async def proven(cls, address: LineAddress) -> Self:
        """Connect to the Unix socket, and prove both sides."""
        line = await cls.by_unix(address)
        try:
            await line.prove(address.secret)
        except BaseException:
            line.close()
            raise
        return line

    async def prove(self, secret: bytes) -> None:
        """Prove oneself, and have the other side do so."""
        theirs = await self.nonce()
        self.writer.write(NONCE + proof.client_proof(secret, theirs, NONCE))
        async with asyncio.timeout(PATIENCE):
            answer = await self.reader.readexactly(proof.PROOF_BYTES)
        assert answer == proof.server_proof(secret, theirs, NONCE)

    async def nonce(self) -> bytes:
        """Return the nonce that the other side sends at once."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readexactly(proof.NONCE_BYTES)

    async def rest(self) -> bytes:
        """Return all that comes until the other side closes."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    def send(self, *messages: ToOwner) -> None:
        """Send messages in one piece."""
        self.writer.write(b"".join(map(encode, messages)))

    async def receive(self) -> ToClient:
        """Return the next message."""
        async with asyncio.timeout(PATIENCE):
            while not self._messages:
                data = await self.reader.read(1 << 16)
                if not data:
                    raise EOFError
                self._messages += map(decode_to_client, self._frames.feed(data))
        return self._messages.pop(0)

    async def answer(self, call: int) -> Any:
        """Return the value that answers this call; other messages stay to be received."""
        others: list[ToClient] = []
        while True:
            message = await self.receive()
            if isinstance(message, Answer) and message.call == call:
                self._messages[:0] = others
                return message.value
            others.append(message)

    async def execute(
        self, call: int, *requests: Request, watcher: str = "writer", seen: Seen | None = None
    ) -> Executed:
        """Have requests decided, and return the answer."""
        self.send(executing(call, *requests, watcher=watcher, seen=seen))
        executed = await self.answer(call)
        assert isinstance(executed, Executed), executed
        return executed

    def take_little(self) -> None:
        """Have the kernel hold little of what comes, so that the other side soon notices that nobody reads."""
        peer: socket.socket = self.writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

    def close(self) -> None:
        """Go without a word."""
        self.writer.transport.abort()


def executing(
    call: int, *requests: Request, watcher: str = "writer", after: int = 0, seen: Seen | None = None
) -> ExecuteCall:
    """Return the message that has requests decided."""
    return ExecuteCall(call, Execute(requests, watcher, after, seen))


class ListeningOwner:
    """A host of the conversation in this process, with a server of its lines."""

    def __init__(self, host: Any, server: LineServer, address: LineAddress, failures: Failures) -> None:
        """Take what runs."""
        self.host, self.server, self.address, self.failures = host, server, address, failures
        self.seen = Seen("", None)
        """The history that the host's activation tells."""


@asynccontextmanager
async def listening_owner(
    directory: Path,
    *,
    store: Store | None = None,
    settings: Settings | None = None,
    timing: Timing = QUICK,
    node: str | None = LOOPBACK,
) -> AsyncIterator[ListeningOwner]:
    """Run a host that has made the conversation, and listens; end both."""
    host = FakeActor(CONVERSATION, settings or brief(), store or MemoryStore(), timing=timing)
    try:
        opened = await host.open(create=True, protocol=PROTOCOL)
        assert not isinstance(opened, ConversationError), opened
        async with listening(host, directory, timing=timing, node=node) as owner:
            owner.seen = opened.view.seen
            yield owner
    finally:
        await host.kill()


@asynccontextmanager
async def listening(
    host: Any, directory: Path, *, timing: Timing = QUICK, node: str | None = LOOPBACK, tls: Any = None
) -> AsyncIterator[ListeningOwner]:
    """Have whatever answers listen."""
    failures = Failures(timing=timing)
    server = LineServer(host, "process", failures=failures, timing=timing)
    address = await server.listen(node, directory=directory, tls=tls)
    assert address is not None, failures.counts
    try:
        yield ListeningOwner(host, server, address, failures)
    finally:
        await server.aclose()


class Obedient:
    """An `Answerer` whose answers a test makes; `begun` counts the calls that came."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Answer every call with what this returns."""
        self._work = work
        self.begun = 0

    async def decide(self, call: Execute) -> Executed | ConversationError:
        """See `Answerer.decide`."""
        del call
        answer: Executed | ConversationError = await self._answer()
        return answer

    async def read(self, *, fresh: bool) -> View | ConversationError:
        """See `Answerer.read`."""
        del fresh
        answer: View | ConversationError = await self._answer()
        return answer

    async def poll(
        self,
        watcher: str,
        after_seq: int,
        seen: Seen,
        timeout: float,  # noqa: ASYNC109  # as an activation's
    ) -> Polled | ConversationError:
        """See `Answerer.poll`."""
        del watcher, after_seq, seen, timeout
        answer: Polled | ConversationError = await self._answer()
        return answer

    async def let_go(self, watchers: Sequence[str]) -> None:
        """See `Answerer.let_go`."""

    async def _answer(self) -> Any:
        self.begun += 1
        return await self._work()


def _is_answerer(obedient: Obedient) -> Answerer:
    return obedient
