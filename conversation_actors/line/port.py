"""The port that asks an owner by a line of its own while there is one, and else by the port that it wraps."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from conversation_actors.errors import (
    ActivationLostError,
    ConversationError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from conversation_actors.failures import Failures
from conversation_actors.line.connection import CallFailedError, LineConnection, LineLostError, SlowAnswerError, Way
from conversation_actors.line.frames import FrameTooLargeError
from conversation_actors.line.keeper import LineKeeper
from conversation_actors.port import OwnerPort, Peer, PeerRestartingError
from conversation_actors.protocol import ActivationInfo, Execute, Executed, LineAddress, Opened, Polled, Seen, View
from conversation_actors.timing import TIMING, Timing

Value = TypeVar("Value")

_NOT_BY_LINE = (LineLostError, CallFailedError, FrameTooLargeError)
"""What says that a call is to be made by the wrapped port."""


class DirectPort:
    """Where one conversation's owner is found and asked, by a line if that is possible; an `OwnerPort`.

    Whoever asks notices the line by its speed alone: what goes wrong with it is asked again of the wrapped port in the
    same call. So an owner may hear a call twice, as it may after any repeat.
    """

    def __init__(
        self,
        inner: OwnerPort,
        *,
        timing: Timing = TIMING,
        tls: ssl.SSLContext | None = None,
        failures: Failures | None = None,
    ) -> None:
        """Find owners by `inner`. `tls` is how this process speaks TLS to owners, if Ray does here."""
        self._inner, self._timing = inner, timing
        self._keeper = LineKeeper(timing=timing, tls=tls, failures=failures)
        self._looks: set[asyncio.Task[None]] = set()

    @property
    def way(self) -> Way | None:
        """The way of the line that is up now; None if none is."""
        return None if (line := self._keeper.line) is None else line.way

    async def find(self) -> "DirectPeer | None":
        """See `OwnerPort.find`."""
        peer = await self._inner.find()
        return None if peer is None else self._peer(peer)

    async def find_or_start(self) -> "DirectPeer":
        """See `OwnerPort.find_or_start`."""
        return self._peer(await self._inner.find_or_start())

    async def confirm(self) -> None:
        """See `OwnerPort.confirm`."""
        await self._inner.confirm()

    def note_start(self, info: ActivationInfo, *, was_ready: bool) -> None:
        """See `OwnerPort.note_start`."""
        self._inner.note_start(info, was_ready=was_ready)

    async def aclose(self) -> None:
        """See `OwnerPort.aclose`."""
        looks = list(self._looks)
        for look in looks:
            look.cancel()
        await self._keeper.aclose()
        await asyncio.gather(*looks, return_exceptions=True)
        await self._inner.aclose()

    def _peer(self, peer: Peer) -> "DirectPeer":
        return DirectPeer(peer, self._keeper, self._looks, timing=self._timing)


class DirectPeer:
    """One process that owns the conversation, reached by its line or else as the wrapped peer is; a `Peer`."""

    def __init__(
        self, inner: Peer, keeper: LineKeeper, looks: "set[asyncio.Task[None]]", *, timing: Timing = TIMING
    ) -> None:
        """Relieve `inner`. `looks` holds the tasks that look whether the process hangs."""
        self._inner, self._keeper, self._looks = inner, keeper, looks
        self._patience, self._quiet = timing.line_answer, timing.line_quiet
        self._loop = asyncio.get_running_loop()
        self._is_doubted = False
        """Whether the owner could not write when it was asked by the line.

        Another process may own the conversation by now, and only the wrapped peer's port would know.
        """

    @property
    def is_current(self) -> bool:
        """See `Peer.is_current`."""
        return self._inner.is_current

    def suspect(self) -> None:
        """See `Peer.suspect`. An owner that gives a sign of life by its line is not suspected."""
        line = self._keeper.line_still_to(self._inner)
        if line is None:
            self._inner.suspect()
        elif not self._looks:
            look = asyncio.create_task(self._look(line))
            self._looks.add(look)
            look.add_done_callback(self._looks.discard)

    async def open(self, *, create: bool) -> Opened | ConversationError:
        """See `Peer.open`."""
        opened = await self._inner.open(create=create)
        if isinstance(opened, Opened):
            self._keeper.told(self._inner, opened.line)
            return replace(opened, info=self._facts(opened.info))
        return opened

    async def info(self) -> ActivationInfo | ConversationError:
        """See `Peer.info`."""
        info = await self._inner.info()
        return info if isinstance(info, ConversationError) else self._facts(info)

    async def execute(self, call: Execute) -> Executed | ConversationError:
        """See `Peer.execute`."""
        line = self._line()
        if line is None:
            return await self._by_port(self._inner.execute(call))
        # Beside a line that may still answer, no entries are told on behalf of the watcher: nobody may read them, and
        # its subscription would pass over them.
        return await self._by_line(
            line,
            lambda: line.execute(call),
            lambda: self._inner.execute(call),
            lambda: self._inner.execute(replace(call, watcher="")),
        )

    async def read(self, *, fresh: bool) -> View | ConversationError:
        """See `Peer.read`."""
        line = self._line()
        if line is None:
            return await self._by_port(self._inner.read(fresh=fresh))
        ask = partial(self._inner.read, fresh=fresh)
        return await self._by_line(line, lambda: line.read(fresh=fresh), ask, ask)

    async def poll(self, watcher: str, after_seq: int, seen: Seen, seconds: float) -> Polled | ConversationError:
        """See `Peer.poll`: while the line is up, the owner pushes entries, and nothing is asked.

        Who hears nothing for so long asks the owner's process for a sign of life: the line may be half open, or the
        process may hang.
        """
        ending = self._loop.time() + seconds
        line = self._keeper.line_to(self._inner)
        while True:
            if line is not None:
                try:
                    left = ending - self._loop.time()
                    polled = await line.poll(watcher, after_seq, seen, min(left, self._quiet))
                except _NOT_BY_LINE:
                    line = None
                else:
                    if isinstance(polled, Polled) and not polled.entries:
                        self.suspect()
                        if left > self._quiet:
                            continue
                    return self._noted(line, polled)
            left = max(ending - self._loop.time(), 0.0)
            answer = await self._unless_up(self._inner.poll(watcher, after_seq, seen, left))
            if answer is not None:
                return answer
            line = self._keeper.line_still_to(self._inner)

    async def let_go(self, watchers: Sequence[str]) -> None:
        """See `Peer.let_go`."""
        line = self._keeper.line_still_to(self._inner)
        if line is not None:
            try:
                line.let_go(watchers)
            except _NOT_BY_LINE:
                pass
            else:
                return
        await self._inner.let_go(watchers)

    async def passivate(self) -> bool | ConversationError:
        """See `Peer.passivate`."""
        return await self._inner.passivate()

    async def line(self) -> LineAddress | None:
        """See `Peer.line`."""
        return await self._inner.line()

    def _line(self) -> LineConnection | None:
        """Return the line that the next call goes by."""
        line = self._keeper.line_to(self._inner)
        return None if self._is_doubted else line

    async def _by_line(
        self,
        line: LineConnection,
        send: "Callable[[], asyncio.Future[Value | ConversationError]]",
        ask: Callable[[], Awaitable[Value | ConversationError]],
        ask_too: Callable[[], Awaitable[Value | ConversationError]],
    ) -> Value | ConversationError:
        """Return the answer by a line; or else, or if it is late, what the wrapped peer answers when it is asked.

        It is asked by `ask` in the place of a line that has fallen, and by `ask_too` beside one that is late.
        """
        late: asyncio.Future[Value | ConversationError] | None = None
        doubt: asyncio.TimerHandle | None = None
        try:
            answer = send()
            doubt = self._loop.call_later(self._patience, line.give_up, answer)
            return self._noted(line, await answer)
        except SlowAnswerError as slow:
            late = slow.answer
        except _NOT_BY_LINE:
            pass
        finally:
            if doubt is not None:
                doubt.cancel()
        return await (self._by_port(ask()) if late is None else self._by_either(line, late, ask_too))

    async def _by_either(
        self,
        line: LineConnection,
        late: "asyncio.Future[Value | ConversationError]",
        ask: Callable[[], Awaitable[Value | ConversationError]],
    ) -> Value | ConversationError:
        """Return the answer that comes first: by the line, which is late, or by the wrapped peer."""
        asking = asyncio.ensure_future(self._by_port(ask()))
        try:
            await asyncio.wait({asking, late}, return_when=asyncio.FIRST_COMPLETED)
            if asking.done() and isinstance(asking.exception(), PeerRestartingError):
                await asyncio.wait({late})  # it cannot be reached so now, and may have heard the line
            if late.done() and late.exception() is None:
                return self._noted(line, late.result())
            if asking.done():
                self._keeper.drop(line, "the owner answered by another way first")
            return await asking
        finally:
            await _ended(asking)

    async def _by_port(self, asked: Awaitable[Value | ConversationError]) -> Value | ConversationError:
        """Return the wrapped peer's answer. If its owner can write, the line is trusted again."""
        answer = await asked
        self._is_doubted = self._is_doubted and _tells_of_no_write(answer)
        return answer

    def _noted(self, line: LineConnection, answer: Value) -> Value:
        """Return an answer by a line, with its consequence for the line drawn."""
        if isinstance(answer, ActivationLostError):
            self._keeper.drop(line, "the activation has stopped")
        elif _tells_of_no_write(answer):
            self._is_doubted = True
        return answer

    async def _unless_up(self, poll: "Coroutine[Any, Any, Value]") -> Value | None:
        """Return what a poll of the wrapped peer's returns; None if a line came up first."""
        is_up = self._keeper.when_up(self._inner)
        if is_up is None:
            return await poll
        polling = asyncio.create_task(poll)
        try:
            await asyncio.wait((polling, is_up), return_when=asyncio.FIRST_COMPLETED)
            return polling.result() if polling.done() else None
        finally:
            is_up.cancel()
            await _ended(polling)

    async def _look(self, line: LineConnection) -> None:
        """Have the process suspected if it gives no sign of life by its line; leave the line if the owner is another.

        A process that Ray has given up may live on, and answer, on a node that was cut off.
        """
        try:
            async with asyncio.timeout(self._patience):
                await line.ping()
        except (TimeoutError, *_NOT_BY_LINE):
            self._keeper.drop(line, "no sign of life")
            self._inner.suspect()
        else:
            await self._keeper.check(line, self._inner)

    def _facts(self, info: ActivationInfo) -> ActivationInfo:
        line = self._keeper.line_still_to(self._inner)
        return info if line is None or self._is_doubted else replace(info, reached_by=line.way)


async def _ended(asking: "asyncio.Future[Value]") -> None:
    """Cancel what nobody waits for any more; how it ends, or has ended at this moment, is nobody's concern."""
    if not asking.done():
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    elif not asking.cancelled():
        asking.exception()


def _tells_of_no_write(answer: object) -> bool:
    """Whether an owner answers that it cannot write, or does not know whether it has written."""
    if type(answer) is Executed:
        return bool(answer.replies) and type(answer.replies[-1]) is OutcomeUnknownError
    return isinstance(answer, (StoreUnavailableError, OutcomeUnknownError))
