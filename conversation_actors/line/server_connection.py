"""One connection of a client's to the owner's process: first a stranger's, then a line.

A stranger is read 64 bytes at most. What proves itself is answered: calls run side by side, and begin in the order in
which they came.
"""

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, cast

from conversation_actors.errors import OverloadedError
from conversation_actors.failures import Failures
from conversation_actors.line import proof
from conversation_actors.line.answerer import Answerer
from conversation_actors.line.complaints import Complaints
from conversation_actors.line.frames import FrameError, FrameReader, FrameTooLargeError
from conversation_actors.line.messages import (
    MOST_SUBSCRIPTIONS,
    Answer,
    Ended,
    ExecuteCall,
    Failed,
    LetGo,
    More,
    Ping,
    ReadCall,
    Subscribe,
    ToClient,
    ToOwner,
    decode_to_owner,
    encode,
)
from conversation_actors.line.subscription import Subscription
from conversation_actors.timing import Timing

logger = logging.getLogger(__name__)

MOST_CALLS = 64
"""Calls of one connection under way; what comes then is read later."""
HIGH_WATER = 1 << 20
"""Bytes that a client has not taken yet; beyond it nothing is read from that client, and nothing pushed to it."""
_LOW_WATER = HIGH_WATER // 4
_READ_BYTES = 64 << 10
_PROOF_BYTES = proof.NONCE_BYTES + proof.PROOF_BYTES


@dataclass(frozen=True, slots=True)
class Service:
    """What all connections of one process share."""

    host: Answerer
    secret: bytes = field(repr=False)
    failures: Failures
    timing: Timing
    complaints: Complaints = field(default_factory=Complaints)
    tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    """Calls under way, which outlive the connections that they came by, and subscriptions, which do not."""
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(_READ_BYTES)))
    """Where bytes arrive; they are taken out before the event loop goes on."""


class ServerConnection(asyncio.BufferedProtocol):
    """See the module. `on_proven` may refuse; `on_lost` is called once, if the connection was ever made."""

    def __init__(
        self,
        service: Service,
        *,
        on_proven: Callable[["ServerConnection"], bool],
        on_lost: Callable[["ServerConnection"], None],
    ) -> None:
        """Know nobody yet."""
        self._service, self._on_proven, self._on_lost = service, on_proven, on_lost
        self._loop = asyncio.get_running_loop()
        self._made: asyncio.Transport | None = None
        self._transport: asyncio.Transport | None = None  # None before the connection is made, and once it ends
        self._nonce = proof.new_nonce()
        self._claimed = bytearray(_PROOF_BYTES)
        self._window = memoryview(self._claimed)
        self._is_proven = False
        self._deadline: asyncio.TimerHandle | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._heard = self._loop.time()
        self._frames = FrameReader()
        self._waiting: deque[bytes] = deque()
        self._under_way = 0
        self._is_reading = True
        self._is_writable = asyncio.Event()
        self._is_writable.set()
        self._subscriptions: dict[int, Subscription] = {}
        self._watching: dict[str, Subscription] = {}
        self._sent = 0
        self._taken = 0

    @property
    def is_proven(self) -> bool:
        """Whether the other side knows the secret."""
        return self._is_proven

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send a nonce, and give the other side a short time for its proof."""
        self._transport = self._made = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER, low=_LOW_WATER)
        self._transport.write(self._nonce)
        self._deadline = self._loop.call_later(self._service.timing.line_proof, self.abort)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio's name
        """Return where the next bytes go: for a stranger, the rest of its proof and no more."""
        return self._window

    def buffer_updated(self, nbytes: int) -> None:
        """Take bytes that came."""
        if not self._is_proven:
            self._window = self._window[nbytes:]
            if not self._window:
                self._check_proof()
            return
        self._heard = self._loop.time()
        try:
            self._waiting += self._frames.feed(bytes(self._service.buffer[:nbytes]))
            self._work()
        except FrameError as error:
            self._service.complaints.note(str(error))
            self.abort()

    def eof_received(self) -> None:
        """Close: who says nothing more waits for nothing."""

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # why does not matter
        """Stop pushing. Calls that are under way go on, and their answers are dropped."""
        self._transport = self._made = None
        for timer in (self._deadline, self._silence):
            if timer is not None:
                timer.cancel()
        self._waiting.clear()
        self._is_writable.set()
        for subscription in list(self._subscriptions.values()):
            self._forget(subscription)
        self._on_lost(self)

    def pause_writing(self) -> None:
        """Take and push nothing until the client has taken what it was sent."""
        self._is_writable.clear()
        self._control_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self._is_writable.set()
        self._work_later()

    async def writable(self) -> None:
        """See `Outlet.writable`."""
        while not self._is_writable.is_set():  # somebody who was woken first may have filled it again
            await self._is_writable.wait()

    def send(self, message: ToClient) -> None:
        """See `Outlet.send`."""
        if self._transport is None:
            return
        frame = encode(message)
        self._transport.write(frame)
        self._sent += len(frame)
        if self._deadline is None and self._transport.get_write_buffer_size():
            self._taken = self._sent - self._transport.get_write_buffer_size()
            self._deadline = self._loop.call_later(self._service.timing.line_stalled, self._check_taken)

    def abort(self) -> None:
        """End at once."""
        self._transport = None
        if self._made is not None:
            self._made.abort()

    def leave(self) -> None:
        """Take nothing more, and end when the client has what it was sent."""
        self._transport = None
        if self._made is not None:
            self._made.close()

    def _check_proof(self) -> None:
        assert self._transport is not None
        client_nonce, given = bytes(self._claimed[: proof.NONCE_BYTES]), bytes(self._claimed[proof.NONCE_BYTES :])
        secret = self._service.secret
        if not proof.is_proven(proof.client_proof(secret, self._nonce, client_nonce), given):
            self._service.complaints.note("a wrong proof")
            self.abort()
            return
        if not self._on_proven(self):
            self.abort()
            return
        self._is_proven = True
        self._window = self._service.buffer
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._transport.write(proof.server_proof(secret, self._nonce, client_nonce))
        self._heard = self._loop.time()
        self._check_heard()

    def _check_taken(self) -> None:
        """Close a connection whose client takes nothing."""
        self._deadline = None
        if self._transport is None or not (left := self._transport.get_write_buffer_size()):
            return
        taken = self._sent - left
        if taken <= self._taken:
            self._service.complaints.note("the client takes nothing")
            self.abort()
            return
        self._taken = taken
        self._deadline = self._loop.call_later(self._service.timing.line_stalled, self._check_taken)

    def _check_heard(self) -> None:
        """Close a connection whose client says nothing: what hangs, or is a fork's copy, must keep no owner in use."""
        seconds = self._service.timing.line_silent
        left = self._heard + seconds - self._loop.time()
        if left <= 0:
            self._service.complaints.note(f"the client has said nothing for {seconds:g} s")
            self.abort()
        else:
            self._silence = self._loop.call_later(left, self._check_heard)

    def _work(self) -> None:
        """Begin what waits, while there is room for it."""
        while self._waiting and self._under_way < MOST_CALLS and self._is_writable.is_set():
            self._begin(decode_to_owner(self._waiting.popleft()))
        self._control_reading()

    def _work_later(self) -> None:
        """Go on with what had to wait. Whoever calls this may be part of what goes on."""
        if not self._is_reading:
            self._loop.call_soon(self._work_on)

    def _work_on(self) -> None:
        if self._transport is None:
            return
        try:
            self._work()
        except FrameError as error:
            self._service.complaints.note(str(error))
            self.abort()

    def _control_reading(self) -> None:
        if self._transport is None:
            return
        reads = self._under_way < MOST_CALLS and self._is_writable.is_set() and not self._waiting
        if reads != self._is_reading:
            self._is_reading = reads
            if reads:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _begin(self, message: ToOwner) -> None:
        host = self._service.host
        match message:
            case ExecuteCall(call, execute):
                if execute.seen is not None and (known := self._watching.get(execute.watcher)) is not None:
                    known.has_reached(execute.after_seq, execute.seen)
                self._call(self._answer(call, lambda: host.decide(execute)))
            case ReadCall(call, fresh):
                self._call(self._answer(call, lambda: host.read(fresh=fresh)))
            case Ping(call):
                self.send(Answer(call, None))
            case Subscribe():
                self._subscribe(message)
            case More(number, credit):
                if (known := self._subscriptions.get(number)) is not None:
                    known.allow(credit)
            case LetGo(watchers):
                for watcher in watchers:
                    self._forget(self._watching.get(watcher))
                self._call(self._let_go(watchers))

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        self._under_way += 1
        task = begun(work, self._loop)
        if not task.done():
            self._service.tasks.add(task)

    async def _answer(self, call: int, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Answer a call, once the client takes what it is sent."""
        try:
            try:
                answer: ToClient = Answer(call, await work())
            except Exception as error:  # noqa: BLE001  # whatever it is, the client is told, and others are answered
                self._service.failures.note("line", error)
                answer = Failed(call, type(error).__name__)
            if not self._is_writable.is_set():
                await self.writable()
            try:
                self.send(answer)
            except FrameTooLargeError as error:
                self.send(Failed(call, str(error)))
        finally:
            self._finished()

    async def _let_go(self, watchers: tuple[str, ...]) -> None:
        try:
            await self._service.host.let_go(watchers)
        finally:
            self._finished()

    def _finished(self) -> None:
        self._under_way -= 1
        self._service.tasks.discard(cast("asyncio.Task[None]", asyncio.current_task()))
        self._work_later()

    def _subscribe(self, asked: Subscribe) -> None:
        """Begin to push. A watcher has one subscription: two would take each other's place at the host."""
        self._forget(self._subscriptions.get(asked.subscription))
        self._forget(self._watching.get(asked.watcher))
        if len(self._subscriptions) >= MOST_SUBSCRIPTIONS:
            message = f"{MOST_SUBSCRIPTIONS} subscriptions of one line, which is the limit"
            self.send(Ended(asked.subscription, OverloadedError(message)))
            return
        subscription = Subscription(asked, self._service.host, self, timing=self._service.timing)
        self._subscriptions[subscription.number] = self._watching[subscription.watcher] = subscription
        task = subscription.task = self._loop.create_task(self._push(subscription))
        self._service.tasks.add(task)
        task.add_done_callback(self._service.tasks.discard)

    def _forget(self, subscription: Subscription | None) -> None:
        """Push no more for a subscription, if it is one of those that are known."""
        if subscription is None or self._subscriptions.get(subscription.number) is not subscription:
            return
        del self._subscriptions[subscription.number], self._watching[subscription.watcher]
        assert subscription.task is not None
        if subscription.task is not asyncio.current_task():
            subscription.task.cancel()

    async def _push(self, subscription: Subscription) -> None:
        try:
            await subscription.run()
        except Exception as error:  # noqa: BLE001  # whatever it is: the client learns of it by the end of the line
            self._service.failures.note("line", error)
            self.abort()
        finally:
            self._forget(subscription)


if sys.version_info >= (3, 12):

    def begun(work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> "asyncio.Task[None]":
        """Return a task that has begun already: what does not wait is done without another turn of the loop."""
        return asyncio.Task(work, loop=loop, eager_start=True)

else:

    def begun(work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> "asyncio.Task[None]":
        """Return a task that begins in the next turn of the loop, after those that were made before it."""
        return loop.create_task(work)
