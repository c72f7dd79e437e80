"""How a job stays the one agent of its conversation: by a heartbeat, a lease, and a conversation that is kept.

Each has its own task. Whatever goes wrong in one is counted, and tried again; they end with the tenure.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from enum import Enum

from agent_worker.failures import Failures
from agent_worker.timing import TIMING, Timing
from conversation_actors import ConversationHandle, Lease, LeaseHeldError
from conversation_actors.backoff import Backoff
from conversation_actors.errors import ConversationClosedError, ConversationNotFoundError, RefusedError

logger = logging.getLogger(__name__)

MAX_BEATS = 4
"""Beats that wait for their answers at a time: with the settings' defaults no more wait than Redis may take."""
_KEEP_SHARE = 0.25
"""Of the conversation's retention, from one time to the next."""
_SHOWN_SECONDS = 5.0


class News(Enum):
    """What a conversation that answers may lack of what it was told."""

    NONE = "none"
    """The lease is the same."""
    ANOTHER_LEASE = "another lease"
    """The lease was gone: what came in its name meanwhile was refused."""
    AFRESH = "afresh"
    """The conversation was gone: it knows nothing."""


class Tenure:
    """The time in which a job is its conversation's agent; begins with the lease just acquired."""

    def __init__(
        self,
        handle: ConversationHandle,
        lease: Lease,
        *,
        duration: timedelta,
        beat: Callable[[], Awaitable[bool]],
        keep: Callable[[], Awaitable[timedelta | None]],
        open_anew: Callable[[], Awaitable[object]],
        on_renewed: Callable[[News], None],
        on_deposed: Callable[[str], None],
        failures: Failures,
        interval: timedelta,
        timing: Timing = TIMING,
    ) -> None:
        """`duration`: what the lease is renewed for; `interval`: from beat to beat.

        `beat` tells whether this job is the agent still, `keep` how long the conversation is kept, if there is one.
        `open_anew` makes one that is gone, and has the handle follow it. `on_renewed` hears each time that the
        conversation has answered, `on_deposed` why somebody else is the agent.
        """
        self.lease = lease
        self.is_ending = False
        """The call is over: nothing that is gone is brought back."""
        self._handle, self._failures, self._interval = handle, failures, interval.total_seconds()
        self._duration, self._timing = duration, timing
        self._beat, self._keep, self._open_anew = beat, keep, open_anew
        self._on_renewed, self._on_deposed = on_renewed, on_deposed
        self._doubted, self._is_over = asyncio.Event(), False
        self._is_gone = self._is_shown = self._is_claimed = False
        self._unanswered = 0

    def doubt(self) -> None:
        """Ask now whether the conversation answers, and whose it is, and not when it is time."""
        self._doubted.set()

    def end(self) -> None:
        """Be the agent no longer."""
        self._is_over = True

    def compare(self, lease: Lease | None) -> None:
        """Look at the lease in the local copy: another's deposes; where the copy may be behind, the owner is asked."""
        mine = self.lease
        if lease is not None and (lease.holder, lease.token, lease.life) == (mine.holder, mine.token, mine.life):
            self._is_shown = True
        elif lease is not None and lease.holder != mine.holder and (self._is_shown or lease.token > mine.token):
            self._on_deposed(f"the lease is held by {lease.holder}")
        elif self._is_shown:
            self._is_shown = False
            self.doubt()

    async def keep_alive(self) -> None:
        """Beat at a fixed rate while the event loop runs, until somebody else has the call.

        No beat waits for the answer to the one before: one that Redis is slow to take would cost the call, though the
        next one might have got through. Whatever goes wrong is counted, and followed by the next beat: nobody can claim
        the call either while Redis is away, or refuses.
        """
        due = time.monotonic()
        async with asyncio.TaskGroup() as beats:
            while not self._has_ended():
                due = max(due + self._interval, time.monotonic())
                await asyncio.sleep(due - time.monotonic())
                if self._has_ended():  # meanwhile: a beat now would make a lost record this job's again
                    return
                if self._unanswered < MAX_BEATS:
                    self._unanswered += 1
                    beats.create_task(self._beat_beside())

    def _has_ended(self) -> bool:
        """Whether somebody else has the call, or is to have it."""
        return self._is_claimed or self._is_over

    async def _beat_beside(self) -> None:
        """Beat once, beside those that were not answered yet."""
        try:
            if not await self._beat_or_count():
                self._is_claimed = True
        finally:
            self._unanswered -= 1

    async def _beat_or_count(self) -> bool:
        """Whether this job is the agent, as far as Redis says."""
        try:
            return await self._beat()
        except Exception as error:  # noqa: BLE001  # see `keep_alive`
            self._failures.count("heartbeat", error, "no heartbeat", conversation_id=self._handle.id)
            return True

    async def keep_conversation(self) -> None:
        """Have the conversation kept until the call is over, whatever becomes of Ray: that needs only Redis.

        Whatever goes wrong is counted, and tried again at the next beat. Where the conversation is gone, the lease is
        renewed, which brings it back.
        """
        told, kept = float("-inf"), timedelta(0)
        while not (self._is_over or self.is_ending):
            now = time.monotonic()
            shortest = min(kept, self._handle.retention or kept).total_seconds()
            if now - told >= min(self._timing.keep, _KEEP_SHARE * shortest):
                try:
                    found = await self._keep()
                except Exception as error:  # noqa: BLE001  # see the docstring
                    told_operator = "the conversation was not kept"
                    self._failures.count("keep", error, told_operator, conversation_id=self._handle.id)
                else:
                    if found is None:
                        self.doubt()
                    else:
                        told, kept = now, found
            await asyncio.sleep(self._interval)

    async def hold(self) -> None:
        """Renew the lease once, when it is time or in doubt; repeated until that is done, or refused.

        That is also how a job learns that its conversation answers again. Whatever goes wrong is counted.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timing.renew):
                await self._doubted.wait()
        self._doubted.clear()
        backoff = Backoff(self._timing.pulse)
        while not self._is_over:
            try:
                await self._renew()
            except Exception as error:  # noqa: BLE001  # see the docstring
                self._failures.count("lease", error, "the lease was not renewed", conversation_id=self._handle.id)
                if isinstance(error, RefusedError) and not isinstance(error, ConversationNotFoundError):
                    return
            else:
                return
            await backoff.wait()
        await asyncio.Event().wait()

    async def _renew(self) -> None:
        """Hold the lease, and tell that the conversation answers; deposed where somebody else holds it, or is to."""
        if not await self._beat_or_count():
            return
        try:
            lease = await self._taken()
        except LeaseHeldError as error:
            self._on_deposed(f"the lease is held by {error.holder}")
            return
        news = self._news(lease)
        if news is not News.NONE:
            await self._until_shown(lease)
        self.lease, self._is_gone, self._is_shown = lease, False, False
        self._on_renewed(news)

    def _news(self, lease: Lease) -> News:
        if self._is_gone or lease.life != self.lease.life:
            return News.AFRESH
        return News.NONE if lease.token == self.lease.token else News.ANOTHER_LEASE

    async def _taken(self) -> Lease:
        """The lease, also of a conversation that is gone or closed: that is made anew or reopened in mid-call."""
        try:
            return await self._acquired()
        except ConversationClosedError:
            if self.is_ending:
                raise
            logger.warning("closed in mid-call: it is reopened", extra={"conversation_id": self._handle.id})
            await self._handle.reopen_conversation()
            return await self._acquired()
        except ConversationNotFoundError:
            if self.is_ending:
                raise
        self._is_gone = True
        logger.warning("the conversation is gone: it is opened anew", extra={"conversation_id": self._handle.id})
        await self._open_anew()
        return await self._acquired()

    async def _acquired(self) -> Lease:
        return await self._handle.acquire_lease(self.lease.name, holder=self.lease.holder, duration=self._duration)

    async def _until_shown(self, lease: Lease) -> None:
        """Return when the local copy shows a lease that was just acquired: before, it may be of another life."""
        try:
            async with asyncio.timeout(_SHOWN_SECONDS):
                while self._handle.leases.get(lease.name) != lease:  # noqa: ASYNC110  # there is no event for this
                    await asyncio.sleep(self._timing.pulse_look)
        except TimeoutError as error:
            told = "the local copy does not show the lease"
            self._failures.count("lease", error, told, conversation_id=self._handle.id)
