"""Keeping one line to the owner that is asked now: connecting beside the calls, and again when it falls."""

import asyncio
import logging
import ssl

from conversation_actors.backoff import Backoff
from conversation_actors.errors import ConversationError
from conversation_actors.failures import Failures
from conversation_actors.line.connecting import connect
from conversation_actors.line.connection import LineConnection, LineLostError, WrongProofError
from conversation_actors.port import Peer, PeerFailedError, PeerLostError, PeerRestartingError
from conversation_actors.protocol import LineAddress
from conversation_actors.timing import TIMING, Timing

logger = logging.getLogger(__name__)


class LineKeeper:
    """Keeps at most one line, to the peer that was asked last, in a task of its own: no call waits for it.

    Where a peer listens, its answer to an `open` tells, or else the peer itself, by the port that the line relieves.
    Belongs to one event loop.
    """

    def __init__(
        self, *, timing: Timing = TIMING, tls: ssl.SSLContext | None = None, failures: Failures | None = None
    ) -> None:
        """Keep nothing yet. `failures` counts what nobody foresaw, as ``line``."""
        self._timing, self._tls, self._failures = timing, tls, failures or Failures(timing=timing)
        self._backoff = Backoff(timing.line_again)
        self._peer: Peer | None = None
        self._address: LineAddress | None = None
        self._is_deaf = False
        """Whether the peer listens nowhere."""
        self._must_pause = False
        """Whether a line to this peer has fallen, or was not to be had."""
        self._line: LineConnection | None = None
        self._process = ""
        self._fallen: list[LineConnection] = []
        self._seeking: asyncio.Task[None] | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._complaint = ""
        self._is_closed = False

    @property
    def line(self) -> LineConnection | None:
        """The line that is up now, whoever it leads to."""
        return self._line if self._line is not None and self._line.is_up else None

    def line_to(self, peer: Peer) -> LineConnection | None:
        """Return the line to a peer that is asked now, if it is up; else seek one. A line to another peer ends."""
        if self._peer is not peer:
            self._turn_to(peer)
        line = self._line
        if line is not None and line.is_up:
            return line
        if self._seeking is None:
            self._seek()
        return None

    def line_still_to(self, peer: Peer) -> LineConnection | None:
        """Return the line to a peer, if it is up and nobody has asked another peer since."""
        return self.line if self._peer is peer else None

    def told(self, peer: Peer, address: LineAddress | None) -> None:
        """Take where a peer listens, as its answer to an `open` has told; None if that has not told it."""
        if self._peer is not peer:
            self._turn_to(peer)
        if self._line is not None and address is not None and address.process != self._process:
            self._line.close("the owner is another process")
            self._line = None
        self._is_deaf, self._address, self._must_pause = False, address, False
        if self._line is None and self._seeking is None:
            self._seek()

    def when_up(self, peer: Peer) -> "asyncio.Future[None] | None":
        """Return what is done when a line to the peer is up; None if none is being sought."""
        if self._seeking is None or self._peer is not peer:
            return None
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)
        return waiting

    def drop(self, line: LineConnection, reason: str) -> None:
        """Let a line fall that answers too slowly, or is no good any more; another one is sought after a pause."""
        if line is self._line:
            line.has_answered = False  # what is slow again and again is taken again ever more rarely
        line.close(reason)

    async def check(self, line: LineConnection, peer: Peer) -> None:
        """Let a line fall if its peer, asked by the port that the line relieves, is gone or is another process."""
        try:
            async with asyncio.timeout(self._timing.line_address):
                address = await peer.line()
        except PeerLostError:
            self.drop(line, "the owner's process is not to be found any more")
        except (PeerFailedError, PeerRestartingError, TimeoutError):
            return  # nobody knows better than the line
        else:
            if line is self._line and (address is None or address.process != self._process):
                self.drop(line, "the owner is another process")

    async def aclose(self) -> None:
        """Let the line fall, and seek no other; return when no task and no descriptor is left. Idempotent."""
        self._is_closed = True
        seeking = self._stop_seeking()
        if self._line is not None:
            self._line.close()
            self._fallen.append(self._line)
            self._line = None
        if seeking is not None:
            await asyncio.wait({seeking})
        for line in list(self._fallen):
            await line.wait_closed()

    def _turn_to(self, peer: Peer) -> None:
        """Begin anew with another peer: what is known of the one before says nothing about it."""
        self._stop_seeking()
        if self._line is not None:
            self._line.close("another owner is asked")
            self._line = None
        self._peer, self._address, self._is_deaf, self._must_pause = peer, None, False, False

    def _stop_seeking(self) -> "asyncio.Task[None] | None":
        seeking, self._seeking = self._seeking, None
        if seeking is not None:
            seeking.cancel()
        return seeking

    def _seek(self) -> None:
        if self._is_closed or self._is_deaf or self._peer is None:
            return
        seeking = self._seeking = asyncio.create_task(self._find(self._peer))
        seeking.add_done_callback(self._sought)

    def _sought(self, seeking: "asyncio.Task[None]") -> None:
        if self._seeking is seeking:
            self._seeking = None

    async def _find(self, peer: Peer) -> None:
        """Return when there is a line, or when the peer will have none, or is gone."""
        while True:
            if self._must_pause:
                await self._backoff.wait()
            self._must_pause = True
            try:
                await self._connect(peer)
            except PeerLostError:
                return  # whoever asks next finds that out, or is answered: then it is sought again
            except (LineLostError, PeerFailedError, PeerRestartingError, ConversationError, TimeoutError) as error:
                self._tell(error)
            except Exception as error:  # noqa: BLE001  # nobody waits for this task, and the port is as good as ever
                self._failures.note("line", error)
                self._is_deaf = True
                return
            else:
                return

    async def _connect(self, peer: Peer) -> None:
        """Try once. Returns when there is a line, or the peer listens nowhere."""
        address, self._address = self._address, None
        if address is None:
            async with asyncio.timeout(self._timing.line_address):
                address = await peer.line()
        if address is None:
            self._is_deaf = True
        else:
            self._take(await connect(address, timing=self._timing, tls=self._tls), address)

    def _take(self, line: LineConnection, address: LineAddress) -> None:
        self._line, self._process = line, address.process
        line.lost.add_done_callback(lambda _: self._fell(line))
        logger.debug("a line of its own to the owner is up", extra={"way": line.way})
        for waiting in list(self._waiting):
            if not waiting.done():
                waiting.set_result(None)

    def _fell(self, line: LineConnection) -> None:
        self._fallen = [fallen for fallen in self._fallen if not fallen.is_closed]
        if not line.is_closed:
            self._fallen.append(line)
        if line is not self._line:
            return
        self._line = None
        if line.has_answered:
            self._backoff.reset()
            self._complaint = ""
        logger.debug("a line of its own to the owner has fallen", extra={"reason": line.lost.result()})
        if self._seeking is None:
            self._seek()

    def _tell(self, error: Exception) -> None:
        """Log why there is no line, once for each reason."""
        reason = str(error) or f"the owner has not told its address in {self._timing.line_address:g} s"
        if reason != self._complaint:
            self._complaint = reason
            level = logging.WARNING if isinstance(error, WrongProofError) else logging.INFO
            logger.log(level, "no line of its own to the owner: Ray's calls are used", extra={"reason": reason})
