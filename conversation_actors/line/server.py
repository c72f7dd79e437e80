"""Where an owner's process listens for its clients: on a Unix socket for those of its node, and by TCP for all others.

Whoever connects is a stranger until it has proven that it knows the secret, which only Ray tells. See
`server_connection` for what it may do then.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from conversation_actors.failures import Failures
from conversation_actors.line import proof, sockets
from conversation_actors.line.answerer import Answerer
from conversation_actors.line.listener import Listener, Stranger
from conversation_actors.line.litter import sweep, sweep_beside
from conversation_actors.line.server_connection import ServerConnection, Service
from conversation_actors.protocol import LineAddress
from conversation_actors.timing import TIMING, Timing

logger = logging.getLogger(__name__)

MOST_CONNECTIONS = 1024
_CANCEL_AGAIN_SECONDS = 0.1
"""As in `Activation.aclose`: up to Python 3.11, a cancellation may be lost."""


class LineServer:
    """Listens for lines to one host. Belongs to the event loop that `listen` runs in."""

    def __init__(self, host: Answerer, process: str, *, failures: Failures, timing: Timing = TIMING) -> None:
        """Make a secret; nobody can connect yet. `process` tells the host's process from any other."""
        self._process, self._failures, self._timing = process, failures, timing
        self._service = Service(host, proof.new_secret(), failures, timing)
        self._listeners: list[Listener] = []
        self._admissions: set[asyncio.Task[None]] = set()
        self._connections: set[ServerConnection] = set()
        self._proven = 0
        self._path: Path | None = None
        self._tls: ssl.SSLContext | None = None
        self._is_closed = False
        self._sweeping: asyncio.Task[None] | None = None

    @property
    def connections(self) -> int:
        """The number of connections, with and without proof."""
        return len(self._connections)

    async def listen(
        self, node_address: str | None, *, directory: Path | None = None, tls: ssl.SSLContext | None = None
    ) -> LineAddress | None:
        """Listen, and return where; None if that is not possible in either way.

        TCP is at `node_address`, if there is one, and is encrypted if there is `tls`. The Unix socket is in a directory
        of this user's below `directory`, or else where temporary files are. What fails is counted as ``line``.
        """
        self._tls = tls
        path = self._listen_here(directory)
        tcp = self._listen_outside(node_address) if node_address else None
        if path is None and tcp is None:
            return None
        return LineAddress(
            process=self._process,
            secret=self._service.secret,
            unix=None if path is None else str(path),
            tcp=tcp,
            is_encrypted=tls is not None,
        )

    async def aclose(self) -> None:
        """Listen no more, cancel what is under way, and end all connections; what was answered has a moment to leave.

        Afterwards no task, descriptor or file is left. Idempotent.
        """
        self._is_closed = True
        for listener in self._listeners:
            listener.close()
        self._remove_socket()
        sweeping = () if self._sweeping is None else (self._sweeping,)
        await _ended([*self._service.tasks, *self._admissions, *sweeping])
        self._service.tasks.clear()
        for connection in list(self._connections):
            connection.leave()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timing.line_leave):
                while self._connections:  # noqa: ASYNC110  # once in a life, for milliseconds
                    await asyncio.sleep(0.001)
        for connection in list(self._connections):
            connection.abort()
        while self._connections:  # noqa: ASYNC110  # the loop ends them in its next turn
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # what was refused in the last moment

    def _listen_here(self, parent: Path | None) -> Path | None:
        try:
            directory = sockets.private_directory(parent)
            listening, self._path = sockets.unix_listener(directory)
        except OSError as error:
            self._failures.note("line", error)
            return None
        self._open(listening, None)
        sweep_it = partial(self._sweep, directory)
        self._sweeping = asyncio.get_running_loop().create_task(self._failures.once("line", sweep_it))
        return self._path

    def _listen_outside(self, node_address: str) -> tuple[str, int] | None:
        try:
            listening = sockets.tcp_listener(node_address)
        except OSError as error:
            self._failures.note("line", error)
            return None
        port: int = listening.getsockname()[1]
        self._open(listening, self._tls)
        return node_address, port

    def _open(self, listening: socket.socket, tls: ssl.SSLContext | None) -> None:
        def admit(connection: socket.socket, stranger: Stranger) -> None:
            self._admit(connection, stranger, tls)

        self._listeners.append(Listener(listening, admit, failures=self._failures))

    async def _sweep(self, directory: Path) -> None:
        """Remove what dead owners have left, later and beside the event loop: nobody who opens waits for that."""
        await asyncio.sleep(self._timing.line_sweep)
        await asyncio.to_thread(sweep, directory)
        await asyncio.to_thread(sweep_beside, directory, sockets.shared_name())

    def _admit(self, connection: socket.socket, stranger: Stranger, tls: ssl.SSLContext | None) -> None:
        """Let a stranger in, as far as it may come. Raises `OSError` if it is gone."""
        if not sockets.is_of_this_user(connection):
            self._service.complaints.note("a process of another user")
            connection.close()
            stranger.leave()
            return
        sockets.watch_over(connection)
        admission = asyncio.get_running_loop().create_task(self._greet(connection, stranger, tls))
        self._admissions.add(admission)

        def ended(admission: "asyncio.Task[None]") -> None:
            self._admissions.discard(admission)
            if admission.cancelled():  # perhaps before its first step, in which it would have seen to the socket itself
                connection.close()
                stranger.leave()

        admission.add_done_callback(ended)

    async def _greet(self, connection: socket.socket, stranger: Stranger, tls: ssl.SSLContext | None) -> None:
        """Make a connection of a socket; where TLS is spoken, that comes first, and takes a while."""

        def prove(proven: ServerConnection) -> bool:
            del proven
            stranger.leave()
            if self._proven >= MOST_CONNECTIONS or self._is_closed:
                return False
            self._proven += 1
            return True

        def lose(lost: ServerConnection) -> None:
            stranger.leave()
            self._connections.discard(lost)
            self._proven -= lost.is_proven

        line = ServerConnection(self._service, on_proven=prove, on_lost=lose)
        self._connections.add(line)
        loop, seconds = asyncio.get_running_loop(), self._timing.line_proof
        try:
            if tls is None:
                await loop.connect_accepted_socket(lambda: line, connection)
            else:
                await loop.connect_accepted_socket(
                    lambda: line, connection, ssl=tls, ssl_handshake_timeout=seconds, ssl_shutdown_timeout=seconds
                )
        except OSError:
            lose(line)  # it has never begun
            connection.close()
        except asyncio.CancelledError:
            lose(line)
            connection.close()
            raise

    def _remove_socket(self) -> None:
        path, self._path = self._path, None
        if path is None:
            return
        with suppress(OSError):
            path.unlink()
            if path.parent.name != sockets.shared_name():
                path.parent.rmdir()


async def _ended(tasks: Iterable["asyncio.Task[None]"]) -> None:
    """Cancel tasks until they have ended."""
    ending = set(tasks)
    for task in ending:
        task.cancel()
    while ending:
        _, ending = await asyncio.wait(ending, timeout=_CANCEL_AGAIN_SECONDS)
        for task in ending:
            task.cancel()
