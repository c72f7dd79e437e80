"""One listening socket, and a bound on those whom it has let in and who have not proven themselves yet."""

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress

from conversation_actors.failures import Failures

logger = logging.getLogger(__name__)

MOST_STRANGERS = 64
"""Connections without proof at one time; who comes then waits in the kernel's queue, and costs this process nothing."""
_AT_ONCE = 16
"""Connections accepted in one turn of the event loop."""
_SCARCE_SECONDS = 1.0
"""How long nobody is accepted when the process has no descriptor left."""


class Stranger:
    """The place of a connection without proof, which is given back once."""

    def __init__(self, leave: Callable[[], None]) -> None:
        """Take what gives the place back."""
        self._leave: Callable[[], None] | None = leave

    def leave(self) -> None:
        """Give the place back: whoever had it is proven, or gone. Idempotent."""
        if (leave := self._leave) is not None:
            self._leave = None
            leave()


class Listener:
    """Accepts connections of one socket while there is room for strangers. Belongs to the running event loop."""

    def __init__(
        self, listening: socket.socket, admit: Callable[[socket.socket, Stranger], None], *, failures: Failures
    ) -> None:
        """Accept from now on, and hand each connection to `admit` with its place."""
        self._socket, self._admit, self._failures = listening, admit, failures
        self._loop = asyncio.get_running_loop()
        self._strangers = 0
        self._is_accepting = False
        self._pause: asyncio.TimerHandle | None = None
        self._accept_again()

    def close(self) -> None:
        """Listen no longer; those who are in stay. Idempotent."""
        self._stop_accepting()
        if self._pause is not None:
            self._pause.cancel()
        self._socket.close()

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if self._strangers >= MOST_STRANGERS:
                self._stop_accepting()
                return
            try:
                connection, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor, or no memory: it would be told again and again
                self._failures.note("line", error)
                self._stop_accepting()
                self._pause = self._loop.call_later(_SCARCE_SECONDS, self._accept_again)
                return
            self._strangers += 1
            self._let_in(connection)

    def _let_in(self, connection: socket.socket) -> None:
        stranger = Stranger(self._left)
        try:
            connection.setblocking(False)
            self._admit(connection, stranger)
        except OSError:  # it is gone already
            connection.close()
            stranger.leave()

    def _left(self) -> None:
        self._strangers -= 1
        if not self._is_accepting and self._pause is None:
            self._accept_again()

    def _accept_again(self) -> None:
        self._pause = None
        if self._socket.fileno() >= 0:
            self._is_accepting = True
            self._loop.add_reader(self._socket, self._accept)

    def _stop_accepting(self) -> None:
        if self._is_accepting:
            self._is_accepting = False
            with suppress(ValueError):  # closed elsewhere
                self._loop.remove_reader(self._socket)
