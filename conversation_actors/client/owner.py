"""Asking a conversation's owner, wherever it runs and however often it dies.

Three loops repeat what failed, and each ends for a reason of its own. The outbox sends each batch through the first
loop; the follower's polls pass it by, because each of them asks the owner that runs now, once.

1. `RemoteOwner`, here, repeats one *call* while the owner cannot be reached: the process died, is being started again,
   has just left, or was replaced. It ends when the owner has answered or the caller's time is up. It knows nothing of
   what the call says.
2. `Outbox` repeats one *batch of commands*: a call whose time was up, and a command that the owner answered with a
   `RetryableError` (Redis does not answer, or the owner is overloaded). It ends when each command is answered or the
   time of who waits for it is up; a command that nobody waits for is repeated for as long as the handle is open. It
   sends the same request ids again, by which the owner recognises what it has done already.
3. `Follower`, and a watch, repeat *polls*, each from the position where the one before ended. They end with the
   handle. They only ask an owner that runs: following a conversation starts nothing.

So a call may be executed more than once, a command is not, and an entry is neither missed nor brought twice.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from conversation_actors.backoff import Backoff
from conversation_actors.clock import uptime
from conversation_actors.errors import (
    ActivationLostError,
    ClusterUnavailableError,
    ConversationError,
    ConversationNotFoundError,
    OwnerFailedError,
    RetryableError,
)
from conversation_actors.port import OwnerPort, Peer, PeerFailedError, PeerLostError, PeerRestartingError
from conversation_actors.protocol import ActivationInfo, Execute, Executed, Polled, Seen, View
from conversation_actors.settings import Settings
from conversation_actors.timing import TIMING, Timing

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Ask = Callable[[Peer], Awaitable[Answer | ConversationError]]

_USUAL_SECONDS = 2.0
"""An owner that has not answered for so long may hang, and is looked at."""
_LET_GO_SECONDS = 1.0
_QUIET_SECONDS = 60.0
_SPREAD = (0.8, 1.2)
"""The share of `timeouts.poll` that a poll takes, by chance: polls that began together do not end together."""


class AbsenceNotice:
    """Tells the log that owners cannot be looked for, once a minute: each open handle of a process finds the same."""

    def __init__(self, clock: Callable[[], float] = uptime) -> None:
        """Tell of the first absence at once; `clock` is in seconds."""
        self._clock = clock
        self._told_at: float | None = None

    def tell(self, error: Exception) -> None:
        """Log the reason, unless that was done within the last minute."""
        now = self._clock()
        if self._told_at is None or now - self._told_at >= _QUIET_SECONDS:
            self._told_at = now
            reason = str(error) or "no answer in time"
            logger.warning(
                "owners cannot be looked for: Ray does not answer, and is asked again", extra={"reason": reason}
            )


_ABSENCE = AbsenceNotice()
"""Of the process, as its connection to Ray is."""


class RemoteOwner:
    """One conversation's owner as seen from this process.

    Each method finds the owner, asks it, and asks again after a crash, a restart, a passivation or a fence. So a call
    may be executed more than once: what changes anything carries a request id, by which the owner recognises the
    repeat.

    Each method raises the owner's `ConversationError`. Those that need an answer start an owner if none runs, and raise
    `ClusterUnavailableError` when their time is up; the call may have been executed all the same.
    """

    def __init__(
        self, port: OwnerPort, settings: Settings, *, timing: Timing = TIMING, absence: AbsenceNotice = _ABSENCE
    ) -> None:
        """Know where to ask; nobody is looked up yet."""
        self._port, self._timing, self._absence = port, timing, absence
        timeouts = settings.timeouts
        self._attempt_seconds = timeouts.attempt.total_seconds()
        self._open_seconds = timeouts.open.total_seconds()
        self._command_seconds = timeouts.command.total_seconds()
        self._poll_seconds = timeouts.poll.total_seconds()
        self._peer: Peer | None = None
        self._restarting_since: float | None = None
        self._has_asked = False
        self._resolving = asyncio.Lock()

    async def aclose(self) -> None:
        """Let go of what is kept open to owners. Nothing is asked here afterwards. Idempotent."""
        await self._port.aclose()

    async def open(self, *, create: bool) -> tuple[ActivationInfo, View]:
        """Have the owner show its state. Raises `ConversationNotFoundError` unless `create`."""
        opened = await self._until_answered(lambda peer: peer.open(create=create), self._open_seconds, is_patient=True)
        if opened.was_ready is not None:
            self._port.note_start(opened.info, was_ready=opened.was_ready)
        return opened.info, opened.view

    async def open_running(self) -> tuple[ActivationInfo, View] | None:
        """Have the owner that runs now show its state; None if none runs, or it has none.

        Starts none, unless that one dies meanwhile.
        """
        try:
            if await self._port.find() is None:
                return None
        except ClusterUnavailableError as error:  # `open` waits until it can be asked
            self._absence.tell(error)
        try:
            return await self.open(create=False)
        except ConversationNotFoundError:
            return None

    async def confirm(self) -> None:
        """Return if owners can be asked for at all. Raises the `ConversationError` for which they cannot."""
        await self._port.confirm()

    async def info(self) -> ActivationInfo:
        """Return facts about the activation. Raises `ConversationNotFoundError`."""
        return await self._until_answered(lambda peer: peer.info(), self._open_seconds, is_patient=True)

    async def execute(self, compose: Callable[[], Execute], seconds: float) -> Executed:
        """Send what `compose` returns, which is asked anew for each attempt, within so many `seconds`.

        A `RetryableError` of the owner is raised: the sender decides what of it to send again.
        """
        return await self._until_answered(lambda peer: peer.execute(compose()), seconds)

    async def read(self, *, fresh: bool) -> View:
        """Return the durable state; if `fresh`, only after the store has confirmed the owner."""
        return await self._until_answered(lambda peer: peer.read(fresh=fresh), self._command_seconds, is_patient=True)

    async def poll(self, watcher: str, after_seq: int, seen: Seen) -> Polled | None:
        """Wait for entries at the owner that runs now; None if none does, or its answer was lost."""
        seconds = self._poll_seconds * random.uniform(*_SPREAD)  # noqa: S311  # spreads load, guards nothing
        longest = self._poll_seconds * max(_SPREAD)
        return await self._ask_running(
            lambda peer: peer.poll(watcher, after_seq, seen, seconds), longest + self._attempt_seconds, usual=longest
        )

    async def let_go(self, watchers: Sequence[str]) -> None:
        """Tell the owner that runs now, if one does, that these watchers read no longer.

        No owner is looked for if none was ever asked: none can know them.
        """
        if self._has_asked:
            await self._ask_running(lambda peer: peer.let_go(watchers), _LET_GO_SECONDS)

    async def tell_of_deletion(self) -> None:
        """Have the owner that runs now, if one does, find out by a fresh read that it owns nothing any more."""
        await self._ask_running(lambda peer: peer.read(fresh=True), self._timing.tell)

    async def passivate(self) -> None:
        """Have the owner that runs now stop; return when it has, or when none runs."""
        backoff = Backoff(self._timing.ask)
        try:
            async with asyncio.timeout(self._command_seconds):
                while await self._port.find() is not None:
                    if await self._ask_running(lambda peer: peer.passivate(), self._command_seconds):
                        return
                    await backoff.wait()
        except TimeoutError:
            message = f"the conversation's owner has not answered in {self._command_seconds} s"
            raise ClusterUnavailableError(message) from None

    async def _until_answered(self, ask: Ask[Answer], seconds: float, *, is_patient: bool = False) -> Answer:
        """Ask until answered, for so many `seconds` in all.

        If `is_patient`, an owner's `RetryableError` is no answer until the time is up.
        """
        trouble: Exception | None = None
        backoff = Backoff(self._timing.ask)
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        return await self._attempt(ask)
                    except _NoAnswerError as error:
                        trouble = error.reason
                    except RetryableError as error:
                        if not is_patient:
                            raise
                        trouble = error
                    await backoff.wait()
        except TimeoutError:
            if isinstance(trouble, RetryableError):
                raise trouble from None
            reason = str(trouble or "") or "no reply"
            message = f"the conversation's owner has not answered in {seconds} s ({reason})"
            raise ClusterUnavailableError(message) from trouble

    async def _attempt(self, ask: Ask[Answer]) -> Answer:
        """Ask once, the peer in hand or the one that runs now."""
        async with self._resolving:
            try:
                await self._confirm_if_restarting()
                peer = self._current_peer() or await self._port.find_or_start()
            except ClusterUnavailableError as error:
                raise _NoAnswerError(error) from error
            self._peer = peer
        return await self._ask(peer, ask, self._attempt_seconds)

    async def _ask_running(self, ask: Ask[Answer], seconds: float, *, usual: float = _USUAL_SECONDS) -> Answer | None:
        """Ask the owner that runs now, once; None if none does, or its answer was lost. Starts none."""
        try:
            async with asyncio.timeout(seconds):
                await self._confirm_if_restarting()
                peer = self._peer = self._current_peer() or await self._port.find()
        except (ClusterUnavailableError, TimeoutError) as error:
            self._absence.tell(error)
            return None
        if peer is None:
            return None
        try:
            return await self._ask(peer, ask, seconds, usual=usual)
        except _NoAnswerError:
            return None

    def _current_peer(self) -> Peer | None:
        """Return the peer in hand, if it was found where this process is now."""
        return self._peer if self._peer is not None and self._peer.is_current else None

    async def _confirm_if_restarting(self) -> None:
        """Have the port confirm that there is a cluster, if the peer in hand has been restarting for too long.

        Raises `ClusterUnavailableError`. Without a head a peer seems to be restarting for ever; under another head too.
        """
        since = self._restarting_since
        if since is not None and asyncio.get_running_loop().time() - since >= self._timing.restart:
            await self._port.confirm()

    async def _ask(self, peer: Peer, ask: Ask[Answer], seconds: float, *, usual: float = _USUAL_SECONDS) -> Answer:
        """Return the answer. Raises what the owner raises, or `_NoAnswerError` if another try may find an answer.

        An owner that takes longer than its `usual` seconds is suspected of hanging.
        """
        self._has_asked = True
        loop = asyncio.get_running_loop()
        doubt = loop.call_later(min(usual, seconds / 2), peer.suspect)
        try:
            # not wait_for: up to Python 3.11 it loses a cancellation that comes together with the answer
            async with asyncio.timeout(seconds):
                answer = await ask(peer)
        except PeerFailedError as error:
            message = f"the conversation's owner failed: {error}"
            raise OwnerFailedError(message) from error
        except PeerRestartingError as error:
            if self._restarting_since is None:
                self._restarting_since = loop.time()
            raise _NoAnswerError(error) from error
        except (PeerLostError, TimeoutError) as error:
            self._forget(peer)
            raise _NoAnswerError(error) from error
        finally:
            doubt.cancel()
        self._restarting_since = None
        if isinstance(answer, ActivationLostError):
            self._forget(peer)
            raise _NoAnswerError(answer)
        if isinstance(answer, ConversationError):
            raise answer
        return answer

    def _forget(self, peer: Peer) -> None:
        """Look the owner up again before the next call, unless somebody has done so meanwhile."""
        if self._peer is peer:
            self._peer = None


class _NoAnswerError(Exception):
    """Another try may find an answer; carries why this one did not."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason
