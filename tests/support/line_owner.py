"""The owner's side of a line on real sockets, which does what a test tells it to: a `LineServer` never misbehaves."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from conversation_actors.line.frames import FrameReader
from conversation_actors.line.messages import ToClient, ToOwner, decode_to_owner, encode
from conversation_actors.line.proof import (
    NONCE_BYTES,
    PROOF_BYTES,
    client_proof,
    is_proven,
    new_nonce,
    new_secret,
    server_proof,
)
from conversation_actors.protocol import LineAddress
from tests.support.fakes import until

Answering = Callable[[ToOwner], Awaitable[ToClient | bytes | None]]


class LineOwner:
    """Listens on a Unix socket or by TCP, and answers what `answer` returns: a message, raw bytes, or nothing."""

    def __init__(self, directory: Path, answer: Answering | None = None, *, is_tcp: bool = False) -> None:
        """Answer nothing unless told to."""
        self.answer = answer or _nothing
        self.heard: list[ToOwner] = []
        self.accepted = 0
        self.secret = new_secret()
        self.knows_secret = True
        self.echoes_proof = False
        """Whether it sends back the client's proof as its own."""
        self.is_mute = False
        """Whether it accepts connections and says nothing."""
        self.spoken_by_proven = b""
        """What else is said in the same breath as the proof."""
        self._directory, self._is_tcp = directory, is_tcp
        self._lines: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._address = LineAddress("", b"")

    @property
    def address(self) -> LineAddress:
        """Where it listens, or did."""
        return self._address

    @property
    def lines(self) -> int:
        """How many lines are up."""
        return len(self._lines)

    async def __aenter__(self) -> Self:
        """Listen."""
        await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop."""
        await self.die()

    async def listen(self) -> None:
        """Listen, as another process than before."""
        process = os.urandom(4).hex()
        if self._is_tcp:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            host, port = self._server.sockets[0].getsockname()
            self._address = LineAddress(process, self.secret, tcp=(host, port))
        else:
            path = str(self._directory / f"{process}.sock")
            self._server = await asyncio.start_unix_server(self._serve, path)
            self._address = LineAddress(process, self.secret, unix=path)

    async def die(self) -> None:
        """Close everything, as the kernel does for a process that is killed."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Close all lines, and go on listening."""
        for writer in list(self._lines):
            writer.transport.abort()

    def say(self, message: ToClient | bytes) -> None:
        """Send to every line that is up."""
        for writer in self._lines:
            writer.write(message if isinstance(message, bytes) else encode(message))

    async def hears(self, kind: type, count: int = 1) -> None:
        """Return when so many messages of a kind have come."""
        await until(lambda: len(self.told(kind)) >= count)

    def told(self, kind: type) -> list[ToOwner]:
        """Return the messages of a kind that have come."""
        return [message for message in self.heard if type(message) is kind]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        self._lines.append(writer)
        try:
            if self.is_mute:
                await reader.read()
                return
            await self._prove(reader, writer)
            frames = FrameReader()
            while data := await reader.read(1 << 16):
                for body in frames.feed(data):
                    self._take(decode_to_owner(body), writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            self._lines.remove(writer)
            writer.close()
            self._tasks.discard(task)

    async def _prove(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ours = new_nonce()
        writer.write(ours)
        theirs, proof = await reader.readexactly(NONCE_BYTES), await reader.readexactly(PROOF_BYTES)
        assert is_proven(client_proof(self.secret, ours, theirs), proof) or not self.knows_secret
        secret = self.secret if self.knows_secret else new_secret()
        shown = proof if self.echoes_proof else server_proof(secret, ours, theirs)
        writer.write(shown + self.spoken_by_proven)

    def _take(self, message: ToOwner, writer: asyncio.StreamWriter) -> None:
        self.heard.append(message)
        answering = asyncio.create_task(self._answer(message, writer))
        self._tasks.add(answering)
        answering.add_done_callback(self._tasks.discard)

    async def _answer(self, message: ToOwner, writer: asyncio.StreamWriter) -> None:
        answer = await self.answer(message)
        if answer is not None and not writer.is_closing():
            writer.write(answer if isinstance(answer, bytes) else encode(answer))


async def _nothing(_: ToOwner) -> None:
    """Answer nothing."""
