"""One connection to an owner's process, from a client's side: its proof, its calls, and what the owner pushes."""

import asyncio
import os
from collections.abc import Sequence
from typing import Any, Literal

from conversation_actors.errors import ConversationError
from conversation_actors.line.frames import FrameError, FrameReader
from conversation_actors.line.inbox import CREDIT, Inbox
from conversation_actors.line.messages import (
    MOST_SUBSCRIPTIONS,
    Answer,
    Ended,
    ExecuteCall,
    Failed,
    LetGo,
    More,
    Ping,
    Push,
    ReadCall,
    Subscribe,
    ToClient,
    decode_to_client,
    encode,
)
from conversation_actors.line.proof import (
    NONCE_BYTES,
    PROOF_BYTES,
    client_proof,
    is_proven,
    new_nonce,
    server_proof,
)
from conversation_actors.protocol import Execute, Executed, Polled, Seen, View

Way = Literal["unix", "tcp"]


class LineLostError(Exception):
    """There is no line, or there is none any more: whether the owner has heard the call, nobody knows."""


class WrongProofError(LineLostError):
    """Who answers at the owner's address does not know the owner's secret."""


class CallFailedError(Exception):
    """The owner could not answer this call by a line; the line is as good as before. Ray's call tells the reason."""


class SlowAnswerError(Exception):
    """The answer is late. It comes to `answer`, if it comes."""

    def __init__(self, answer: "asyncio.Future[Any]") -> None:
        """Take where the answer comes to."""
        super().__init__("the answer is late")
        self.answer = answer


class LineConnection(asyncio.Protocol):
    """One line. Belongs to the event loop and to the process that made it; see `connecting`."""

    def __init__(self, way: Way, secret: bytes) -> None:
        """Be connected by `way` to whoever knows the `secret`."""
        self.way: Way = way
        self.owner: str | None = None
        """The activation that has answered; None until it has."""
        self.has_answered = False
        """Whether anything has come by this line since the proof."""
        self._loop = asyncio.get_running_loop()
        self.proven: asyncio.Future[None] = self._loop.create_future()
        """Done when the other side has proven itself."""
        self.lost: asyncio.Future[str] = self._loop.create_future()
        """Done when the line has fallen, with the reason."""
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._process = os.getpid()
        self._secret, self._greeting, self._expected = secret, bytearray(), b""
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader()
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._inboxes: dict[str, Inbox] = {}
        self._numbers: dict[int, Inbox] = {}
        self._last = 0

    @property
    def is_up(self) -> bool:
        """Whether calls may be sent: both sides are proven, the line has not fallen, and no fork has copied it."""
        return self.proven.done() and not self.lost.done() and self._process == os.getpid()

    @property
    def is_closed(self) -> bool:
        """Whether its descriptor is closed, or was never opened."""
        return self._transport is None or self._closed.done()

    def execute(self, call: Execute) -> "asyncio.Future[Executed | ConversationError]":
        """Send requests. Raises `FrameTooLargeError`.

        The future raises `LineLostError`, `CallFailedError` if the owner cannot answer by a line, and `SlowAnswerError`
        if `give_up` is called before the answer is there.
        """
        self._last += 1
        answer = self._ask(self._last, encode(ExecuteCall(self._last, call)))
        if call.seen is not None and (inbox := self._inboxes.get(call.watcher)) is not None:
            inbox.has_reached(call.after_seq, call.seen)
        return answer

    def read(self, *, fresh: bool) -> "asyncio.Future[View | ConversationError]":
        """Ask for the state; see `execute`."""
        self._last += 1
        return self._ask(self._last, encode(ReadCall(self._last, fresh)))

    def ping(self) -> "asyncio.Future[None]":
        """Ask for a sign of life; see `execute`."""
        self._last += 1
        return self._ask(self._last, encode(Ping(self._last)))

    def give_up(self, answer: "asyncio.Future[Any]") -> None:
        """Have an `answer` that is not there yet raise `SlowAnswerError`, which tells where it comes to instead."""
        for number, waited_for in self._calls.items():
            if waited_for is answer and not answer.done():
                late = self._calls[number] = self._loop.create_future()
                answer.set_exception(SlowAnswerError(late))
                return

    async def poll(self, watcher: str, after_seq: int, seen: Seen, seconds: float) -> Polled | ConversationError:
        """Return entries that were pushed after a position of the history `seen`; empty if none came in time.

        Raises `LineLostError`, or `CallFailedError` for a watcher more than a line may have. A watcher is let go when
        its poll is cancelled.
        """
        deadline = self._loop.time() + seconds
        while True:
            if not self.is_up:
                raise self.loss()
            inbox = self._inbox(watcher, after_seq, seen)
            polled = inbox.take(after_seq)
            if credit := inbox.credit():
                self._write(encode(More(inbox.number, credit)))
            if polled is not None:
                return polled
            if inbox.error is not None:
                self._drop(inbox)
                return inbox.error
            try:
                has_news = await inbox.news(deadline - self._loop.time())
            except asyncio.CancelledError:
                if self._inboxes.get(watcher) is inbox and self.is_up:
                    self.let_go([watcher])
                raise
            if not has_news:
                return await self._nothing(seen)

    def let_go(self, watchers: Sequence[str]) -> None:
        """Tell the owner that these watchers read no longer."""
        for watcher in watchers:
            if (inbox := self._inboxes.get(watcher)) is not None:
                self._drop(inbox)
        self._write(encode(LetGo(tuple(watchers))))

    def close(self, reason: str = "closed") -> None:
        """Let the line fall. Whoever waits for an answer by it is told. Idempotent."""
        if self.lost.done():
            return
        self.lost.set_result(reason)
        if not self.proven.done():
            _fail(self.proven, LineLostError(reason))
        calls, self._calls = self._calls, {}
        for answer in calls.values():
            if not answer.done():
                _fail(answer, LineLostError(reason))
        for inbox in self._inboxes.values():
            inbox.fail(LineLostError(reason))
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Return when the descriptor of a line that has fallen is closed."""
        if not self.is_closed:
            await asyncio.shield(self._closed)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`: the other side speaks first."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self.lost.done():
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`: read the proof, then frames."""
        if self.lost.done():
            return
        try:
            if not self.proven.done():
                data = self._prove(data)
            for body in self._reader.feed(data):
                self._take(decode_to_client(body))
        except FrameError as error:
            self.close(f"what came is no message: {error}")

    def eof_received(self) -> None:
        """See `asyncio.Protocol`: an owner that sends no more answers no more."""
        self.close("the owner's process has closed it")

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.close(f"cut: {error!r}" if error else "the owner's process has closed it")
        if not self._closed.done():
            self._closed.set_result(None)

    def _ask(self, number: int, frame: bytes) -> "asyncio.Future[Any]":
        answer: asyncio.Future[Any] = self._loop.create_future()
        if not self.is_up:
            _fail(answer, self.loss())
            return answer
        self._calls[number] = answer
        self._transport.write(frame)  # type: ignore[union-attr]  # it is up
        return answer

    def _write(self, frame: bytes) -> None:
        """Send what has no answer. Raises `LineLostError`."""
        if not self.is_up:
            raise self.loss()
        self._transport.write(frame)  # type: ignore[union-attr]  # it is up

    def loss(self) -> LineLostError:
        """Return why no call can be sent."""
        return LineLostError(self.lost.result() if self.lost.done() else "the line is another process's")

    def _take(self, message: ToClient) -> None:
        """Hand on what the owner says."""
        self.has_answered = True
        if type(message) is Answer:
            value = message.value
            if type(value) is Executed or type(value) is View:
                self.owner = value.owner
            answer = self._calls.pop(message.call, None)
            if answer is not None and not answer.done():
                answer.set_result(value)
        elif type(message) is Push:
            self.owner = message.owner
            if (inbox := self._numbers.get(message.subscription)) is not None:
                inbox.put(message)
        elif type(message) is Ended:
            if (inbox := self._numbers.get(message.subscription)) is not None:
                inbox.end(message.error)
        elif type(message) is Failed:
            answer = self._calls.pop(message.call, None)
            if answer is not None and not answer.done():
                _fail(answer, CallFailedError(message.reason))

    def _inbox(self, watcher: str, after_seq: int, seen: Seen) -> Inbox:
        """Return the watcher's subscription, or one that is made anew if what comes there does not lead on."""
        inbox = self._inboxes.get(watcher)
        if inbox is not None and inbox.leads_on(after_seq, seen, owner=self.owner):
            return inbox
        if inbox is not None:
            self.let_go([watcher])  # two of one watcher would wake each other for ever
        if len(self._inboxes) >= MOST_SUBSCRIPTIONS:
            reason = f"{MOST_SUBSCRIPTIONS} subscriptions of one line, which is the limit"
            raise CallFailedError(reason)
        self._last += 1
        self._write(encode(Subscribe(self._last, watcher, after_seq, seen, CREDIT)))
        inbox = self._inboxes[watcher] = self._numbers[self._last] = Inbox(
            self._last, watcher, after_seq=after_seq, seen=seen
        )
        return inbox

    def _drop(self, inbox: Inbox) -> None:
        del self._inboxes[inbox.watcher], self._numbers[inbox.number]

    async def _nothing(self, seen: Seen) -> Polled | ConversationError:
        """Return that nothing has come, and from whom."""
        owner = self.owner or seen.owner
        if owner is None:  # neither side has named one yet, and a poll's answer names one
            view = await self.read(fresh=False)
            if isinstance(view, ConversationError):
                return view
            owner = view.owner
        return Polled((), owner)

    def _prove(self, data: bytes) -> bytes:
        """Take the next bytes before the proof; return those after it."""
        greeting = self._greeting
        greeting += data
        if not self._expected:
            if len(greeting) < NONCE_BYTES:
                return b""
            theirs, ours = bytes(greeting[:NONCE_BYTES]), new_nonce()
            del greeting[:NONCE_BYTES]
            self._expected = server_proof(self._secret, theirs, ours)
            self._transport.write(ours + client_proof(self._secret, theirs, ours))  # type: ignore[union-attr]  # connected
        if len(greeting) < PROOF_BYTES:
            return b""
        given, rest = bytes(greeting[:PROOF_BYTES]), bytes(greeting[PROOF_BYTES:])
        greeting.clear()
        if not is_proven(self._expected, given):
            reason = "who answers there does not know the owner's secret"
            _fail(self.proven, WrongProofError(reason))
            self.close(reason)
            return b""
        self.proven.set_result(None)
        return rest


def _fail(answer: "asyncio.Future[Any]", error: Exception) -> None:
    """Have a future raise, and nobody be told if nobody waits for it."""
    answer.set_exception(error)
    answer.exception()
