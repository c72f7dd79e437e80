"""What links a handle to its conversation: commands go out in order, and a local copy follows."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress

from conversation_actors.client import arguments
from conversation_actors.client.copy import LocalCopy, StoredState
from conversation_actors.client.following import Feed, Follower
from conversation_actors.client.lifetime import Lifetime
from conversation_actors.client.outbox import Outbox
from conversation_actors.client.owner import RemoteOwner
from conversation_actors.client.sigterm import flushed_at_sigterm
from conversation_actors.client.views import Receipt
from conversation_actors.client.waking import wake
from conversation_actors.client.watching import watch
from conversation_actors.errors import ClusterUnavailableError, ConversationError, RetryableError
from conversation_actors.failures import Failures
from conversation_actors.protocol import Done, Execute, Executed, Request, Seen, Turn, View
from conversation_actors.settings import Settings
from conversation_actors.state import Command, Entry, Lease, Participant
from conversation_actors.timing import TIMING, Timing
from conversation_actors.values import check_id

logger = logging.getLogger(__name__)


class Link:
    """Sends commands, and keeps a copy that shows each one when it is acknowledged, until it is closed."""

    def __init__(
        self,
        owner: RemoteOwner,
        view: View | StoredState,
        settings: Settings,
        *,
        lifetime: Lifetime,
        failures: Failures,
        timing: Timing = TIMING,
    ) -> None:
        """Follow the conversation from `view` on, in tasks whose `failures` are counted.

        If `view` is what was stored, wake the owner.
        """
        self._owner, self._lifetime, self._timing = owner, lifetime, timing
        self._failures = failures
        self._attempt_seconds = settings.timeouts.attempt.total_seconds()
        self._close_seconds = settings.timeouts.close.total_seconds()
        self._command_seconds = settings.timeouts.command.total_seconds()
        self.copy = LocalCopy(view)
        self.outbox = Outbox(self._send, settings, failures, timing=timing)
        self._told_by = view.seen.owner
        """The owner that has answered last."""
        self._catching_up = asyncio.Lock()
        self._last_words = flushed_at_sigterm(self.outbox, seconds=self._close_seconds)
        feed = Feed(owner, timing=timing)
        self._follower = Follower(self.copy, feed, lambda: owner.read(fresh=False), failures, timing=timing)
        self._tasks = [asyncio.create_task(self.outbox.run()), asyncio.create_task(self._follower.run())]
        self._waking: asyncio.Task[None] | None = None
        if isinstance(view, StoredState):
            self._wake()

    def put(self, command: Command, lease: Lease | None) -> None:
        """Queue a command that nobody waits for; see `Outbox.put`."""
        self._lifetime.check()
        self.outbox.put(command, lease=arguments.guard(lease))

    async def flush(self) -> None:
        """See `Outbox.flush`."""
        self._lifetime.check()
        await self.outbox.flush()

    async def ask(
        self,
        command: Command,
        request_id: str | None,
        lease: Lease | None = None,
        *,
        position: int | None = None,
        digest: str | None = None,
    ) -> Done:
        """Send a command in its turn; return when it is durable and the local copy shows it. See `Outbox.ask`.

        `position` is the one that the command names, if it names one. `digest` is that of what the caller has given, if
        the command says the same in another way.
        """
        self._lifetime.check()
        if request_id is not None:
            request_id = check_id(request_id, "request_id")
        seen = None if position is None else self._seen_at(position)
        done = await self.outbox.ask(command, request_id, lease=arguments.guard(lease), seen=seen, digest=digest)
        await self._show(done.seq)
        return done

    async def write(
        self,
        command: Command,
        request_id: str | None,
        lease: Lease | None,
        *,
        position: int | None = None,
        digest: str | None = None,
    ) -> Receipt:
        """Send a command whose answer is a position; see `ask`."""
        done = await self.ask(command, request_id, lease, position=position, digest=digest)
        return Receipt(done.seq, done.epoch)

    async def participant(self, command: Command, request_id: str | None, lease: Lease | None) -> Participant:
        """Send a command whose answer is a participant; see `ask`."""
        done = await self.ask(command, request_id, lease)
        assert isinstance(done.result, Participant)
        return done.result

    async def read(self, *, fresh: bool) -> View:
        """Ask the owner for the durable state."""
        self._lifetime.check()
        view = await self._owner.read(fresh=fresh)
        if view.life != self.copy.seen.life:
            self.copy.replace(view)  # else a watch from this view's position would be one of the old life
        return view

    def watch(self, after_seq: int) -> AsyncGenerator[Entry, None]:
        """Watch from a position of the history that is known here now."""
        self._lifetime.check()
        feed = Feed(self._owner, timing=self._timing)
        return watch(feed, after_seq, self._seen_at(after_seq), lifetime=self._lifetime, pause=self._timing.dormant[1])

    async def catch_up(self, view: View) -> None:
        """Return when the local copy is where a view of the owner is. Raises `ClusterUnavailableError`."""
        self._lifetime.check()
        if view.seen != self.copy.seen:
            self.copy.replace(view)
        self._follower.fell_behind()
        try:
            async with asyncio.timeout(self._command_seconds):
                await self._lifetime.unless_over(self.copy.reach(view.seq))
        except TimeoutError:
            stands = f"the local copy stands at {self.copy.seq}"
            message = f"{stands}, and did not reach {view.seq} in {self._command_seconds} s"
            raise ClusterUnavailableError(message) from None

    def show(self, stored: StoredState) -> None:
        """Have the local copy show what was stored, unless it is as far on; wake the owner in the background."""
        self._lifetime.check()
        if stored.seen.life != self.copy.seen.life or stored.seq > self.copy.seq:
            self.copy.replace(stored)
        self._wake()

    async def aclose(self) -> None:
        """Send what is in the outbox, for at most `timeouts.close`; then let go. The lifetime must be over."""
        try:
            async with asyncio.timeout(self._close_seconds):
                await self.outbox.flush()
        except (TimeoutError, ConversationError) as error:
            logger.warning("closing: not all that was sent was taken", extra={"reason": str(error)})
        finally:
            if len(self.outbox):
                logger.error("closed with unacknowledged commands", extra={"unacknowledged": len(self.outbox)})
            tasks = [*self._tasks, *([self._waking] if self._waking else [])]
            for task in tasks:
                task.cancel()
            self.outbox.close(self._lifetime.refusal())
            if self._last_words is not None:
                self._last_words.remove(self.outbox)
            try:
                await asyncio.gather(*tasks, return_exceptions=True)
                await self._follower.let_go()
            finally:
                await self._owner.aclose()  # also if the closing is cancelled: a line would be sought for ever

    def _wake(self) -> None:
        """Wake the owner in the background, unless that is under way."""

        async def wake_and_follow() -> None:
            await wake(self._owner, self._failures, timing=self._timing)
            self._follower.look_now()

        if self._waking is None or self._waking.done():
            self._waking = asyncio.create_task(wake_and_follow())

    def _seen_at(self, seq: int) -> Seen:
        """Return the history that a caller's position is one of; of one beyond the copy only the life is known."""
        seen = self.copy.seen
        return seen if seq <= self.copy.seq else seen._replace(owner=None)

    async def _show(self, seq: int) -> None:
        """Return when the local copy has what was acknowledged at `seq`. The write stands if that takes too long."""
        owner = self._told_by
        if self.copy.shows(seq, owner):
            return  # nearly always
        with suppress(TimeoutError):
            # The entries usually came with the answer. If not, the poll brings them,
            async with asyncio.timeout(self._timing.entries):
                await self.copy.reach(seq, owner=owner)
        if not self.copy.shows(seq, owner):
            # unless the owner has died since (to be followed only, none is started), or the copy is one of what was
            # lost: then it may be further on, and shows nothing of this.
            try:
                async with asyncio.timeout(self._attempt_seconds), self._catching_up:
                    if not self.copy.shows(seq, owner):  # no other call has read it meanwhile
                        view = await self._owner.read(fresh=False)
                        if view.seq >= seq:
                            self.copy.replace(view)
            except (ConversationError, TimeoutError) as error:
                logger.warning("the local copy does not show a write yet", extra={"reason": str(error)})

    async def _send(self, requests: Sequence[Request], seconds: float, turn: Callable[[], Turn]) -> Executed:
        asked = self.copy.position

        def compose() -> Execute:
            nonlocal asked
            asked = self.copy.position  # the copy may have gone on since the last attempt
            return Execute(requests, self._follower.watcher, *asked, turn())

        try:
            executed = await self._owner.execute(compose, seconds)
        except RetryableError:
            self._follower.fell_behind()  # entries that came with a lost answer are not announced again
            raise
        self._told_by = executed.owner
        commands = [request.command for request in requests]
        if not self.copy.apply(executed.entries, owner=executed.owner, asked=asked, sent=commands):
            self._follower.fell_behind()  # those between came with another batch's answer, which is late or lost
        return executed
