"""The owner of one conversation while its process lives.

The path of a command: decided at once against the working state, queued, made durable by the
`Committer`, and answered through the output gate. Refusals pass the same gate, because they too speak of
a state that might still vanish. Reads are answered from the durable state without waiting.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice
from typing import Self

from conversation_actors.activation.committer import COMPACT_BYTES, COMPACT_ENTRIES, Committer
from conversation_actors.activation.journal import RecentEntries, fitting
from conversation_actors.activation.passing_time import ForgottenRequests, store_clock
from conversation_actors.activation.positions import objection_to
from conversation_actors.activation.recovery import rebuild
from conversation_actors.activation.requests import Decided, Decider
from conversation_actors.activation.retention import Retention, Use, kept_for
from conversation_actors.activation.turns import Turns
from conversation_actors.activation.watchers import Watchers
from conversation_actors.clock import uptime
from conversation_actors.codec import encode_snapshot
from conversation_actors.errors import (
    ActivationLostError,
    ConversationError,
    OutcomeUnknownError,
    PassivatedError,
    PositionLostError,
    StoreUnavailableError,
)
from conversation_actors.failures import Failures
from conversation_actors.protocol import ActivationInfo, Echo, Executed, Polled, Reply, Request, Seen, Turn, View
from conversation_actors.settings import Settings
from conversation_actors.state import ConversationState
from conversation_actors.store import Recovered, Store
from conversation_actors.timing import TIMING, Timing

logger = logging.getLogger(__name__)

MAX_WATCHERS = 500
"""Parked polls of one conversation. Ray lets an async actor run 1000 calls at a time."""
REPLY_BYTES = 512 << 10
"""Entries sent along with a reply to a command; what is more comes by the watcher's own poll, all of it once more."""
POLL_BYTES = 1 << 20
"""Entries in one answer to a poll."""
_CANCEL_AGAIN_SECONDS = 0.1
"""Up to Python 3.11 asyncio.wait_for, which redis-py uses, loses a cancellation that comes together with the answer."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an activation runs."""

    pid: int
    node_id: str
    is_forked: bool = False


class Activation:
    """One conversation's owner. All methods belong to one event loop.

    Once stopped (`stopped` tells why) every method raises an `ActivationLostError` that names the reason: what is the
    case by then, the next activation finds out.
    """

    @classmethod
    async def recover(  # where it runs and what it runs with; all of them by name
        cls,
        conversation_id: str,
        *,
        owner: str,
        create: bool,
        store: Store,
        settings: Settings,
        place: Place,
        elapsed: Callable[[], float] = uptime,
        timing: Timing = TIMING,
    ) -> Self:
        """Take the next epoch for `owner` and rebuild the state; the same `owner` may try again.

        Changes no TTL: being recovered is no use. The activation's time is the store's, carried on by `elapsed`, in
        seconds: no node's clock is asked for it. Raises `ConversationNotFoundError` (unless `create`),
        `CorruptStateError`, and what the store raises.
        """
        started = uptime()
        recovered = await store.activate(conversation_id, owner=owner, create=create, ttl=settings.ttl)
        durable, replayed = rebuild(recovered, settings.history.limits())
        clock = store_clock(recovered, durable, elapsed)
        facts = replace(
            _facts(recovered, place),
            seq=durable.seq,
            activated_at=clock(),
            replayed=replayed,
            recovery_seconds=uptime() - started,
        )
        logger.info("activated", extra={"epoch": facts.epoch, "seq": facts.seq, "replayed": replayed})
        return cls(recovered, durable, facts, store=store, settings=settings, clock=clock, timing=timing)

    def __init__(  # see `recover`, which is how to get one
        self,
        recovered: Recovered,
        durable: ConversationState,
        facts: ActivationInfo,
        *,
        store: Store,
        settings: Settings,
        clock: Callable[[], float],
        timing: Timing = TIMING,
    ) -> None:
        """Own what `recovered` claims, from `durable` on."""
        self._claim, self._facts, self._settings, self._clock = recovered.claim, facts, settings, clock
        self._watchers = Watchers(MAX_WATCHERS)
        self._recent = RecentEntries(
            seq=recovered.seq - len(recovered.journal),
            entries=4 * max(COMPACT_ENTRIES, 2 * durable.limits.items),
            size=4 * max(COMPACT_BYTES, 2 * durable.limits.bytes),
        )
        self._recent.extend(recovered.journal)
        unused = max(kept_for(durable.retention, ttl=settings.ttl) - recovered.left, timedelta(0))
        self._use = Use(uptime() - unused.total_seconds())
        self._retention = Retention(durable, self._use, ttl=settings.ttl)
        self._forgotten = ForgottenRequests(durable.limits.request_age)
        self._leaving = False
        self._view: View | None = None
        self._failures = Failures(timing=timing)
        self.stopped: asyncio.Future[ConversationError] = asyncio.get_running_loop().create_future()
        self._committer = Committer(
            store=store,
            claim=recovered.claim,
            durable=durable,
            snapshot_seq=recovered.snapshot_seq,
            journal_bytes=sum(map(len, recovered.journal)),
            recent=self._recent,
            watchers=self._watchers,
            retention=self._retention,
            on_lost=self._stop,
            failures=self._failures,
            timing=timing,
        )
        self._decider = Decider(durable.copy(), self._claim, clock=clock, submit=self._committer.submit)
        self._turns = Turns(self._decider)
        self._tasks = [
            asyncio.create_task(self._committer.run()),
            asyncio.create_task(self._failures.keep("listing", self._committer.listing.run)),
            asyncio.create_task(self._failures.keep("upkeep", self._look_after)),
        ]

    @property
    def epoch(self) -> int:
        """Which activation of the conversation's life this is; also when it has stopped."""
        return self._claim.epoch

    async def execute(
        self,
        requests: Sequence[Request],
        *,
        watcher: str,
        after_seq: int,
        seen: Seen | None = None,
        turn: Turn | None = None,
    ) -> Executed:
        """Decide `requests` in order, and answer when all of that is durable.

        A reply is `Done` or the error; after a refused group nothing is decided. What is not durable after
        `timeouts.write` is answered with `OutcomeUnknownError`. Entries after `after_seq` come along for
        `watcher`, if what it has `seen` leads here (None: whatever it has). `turn` tells when the requests may be
        decided; see `Turns.decide`. The decision is made before this yields to anything else. Raises
        `OverloadedError` or `StoreUnavailableError` before anything was decided.
        """
        with self._in_use():
            committer, seconds = self._alive(), self._settings.timeouts.write.total_seconds()
            committer.raise_if_full()
            committer.patience.raise_if_failing_for(seconds)
            decided = self._turns.decide(requests, turn)
            try:
                async with asyncio.timeout(seconds):
                    await committer.gate.passed(decided.seq)
            except TimeoutError:
                answers = tuple(self._answer(seq, reply) for seq, reply in decided.replies)
                return Executed(answers, (), self._claim.owner)
        unseen = self._entries_for(watcher, after_seq, seen, decided, turn)
        return Executed(tuple(reply for _, reply in decided.replies), unseen, self._claim.owner)

    def _answer(self, seq: int, reply: Reply) -> Reply:
        """Return the reply, if it may leave by now."""
        if seq <= self._committer.gate.durable_seq:
            return reply
        seconds = self._settings.timeouts.write.total_seconds()
        return OutcomeUnknownError(f"not durable after {seconds} s{self._committer.patience.reason}")

    def _entries_for(
        self, watcher: str, after_seq: int, seen: Seen | None, decided: Decided, turn: Turn | None
    ) -> tuple[bytes | Echo, ...]:
        """Return what the watcher has not seen, if it is little; its parked poll is then spared."""
        try:
            self._check_position(after_seq, seen)
            after_seq = max(after_seq, self._turns.told_before(turn))
            following = self._recent.following(after_seq)
        except PositionLostError:
            return ()
        if self._turns.is_followed(turn):
            following = islice(following, max(decided.seq - after_seq, 0))
        echoes = decided.echoes
        told = (echoes.get(seq, data) for seq, data in enumerate(following, after_seq + 1))
        entries = fitting(told, REPLY_BYTES)
        if after_seq + len(entries) == self._recent.seq:
            self._watchers.advance(watcher, self._recent.seq)
        self._turns.note_told(turn, after_seq + len(entries))
        return entries

    async def read(self, *, fresh: bool) -> View:
        """Return the durable state. With `fresh`, only after the store has confirmed that this is the owner."""
        with self._in_use():
            committer = self._alive()
            if fresh:
                await self._in_time(committer.confirm_ownership())
        durable = committer.durable
        if self._view is None or self._view.seq != durable.seq:
            snapshot = encode_snapshot(durable, requests=False)
            self._view = View(durable.seq, self._claim.epoch, snapshot, self._claim.life, self._claim.owner)
        return self._view

    async def poll(
        self,
        *,
        watcher: str,
        after_seq: int,
        timeout: float,  # noqa: ASYNC109  # a parked poll ends by itself; an outer time-out would lose its answer
        seen: Seen | None = None,
    ) -> Polled:
        """Return entries after `after_seq`, waiting up to `timeout` seconds for the first; empty if none came.

        Raises `PositionLostError` for a position that is not kept (any more) or is one of another history than
        this one, and `OverloadedError`. A position that this activation has stored, and does not know to be stored yet,
        is one that a reader of the store may have seen already: it is waited for.
        """
        with self._in_use():
            self._alive()
            self._check_position(after_seq, seen)
            is_stored = seen is not None and seen.owner == self._claim.owner
            if after_seq == self._recent.seq or (is_stored and after_seq > self._recent.seq):
                await self._watchers.park(watcher, after_seq, timeout)
                self._alive()
        if is_stored and after_seq > self._recent.seq:
            return Polled((), self._claim.owner)
        return Polled(self._recent.after(after_seq, size=POLL_BYTES), self._claim.owner)

    def let_go(self, watchers: Sequence[str]) -> None:
        """End the parked polls of these watchers: nobody reads their answers, and they are no use any more."""
        for watcher in watchers:
            self._watchers.release(watcher)

    def _check_position(self, after_seq: int, seen: Seen | None) -> None:
        """Raise `PositionLostError` if what follows the position here does not follow what the reader has seen."""
        message = "" if seen is None else objection_to(self._claim, after_seq, seen)
        if message:
            raise PositionLostError(message, first_available=self._recent.first_available)

    def info(self) -> ActivationInfo:
        """Return facts about this activation, for people and dashboards."""
        committer = self._alive()
        durable = committer.durable
        return replace(
            self._facts,
            seq=durable.seq,
            history_items=len(durable.window),
            history_bytes=durable.window.size,
            pending=committer.pending,
            watchers=len(self._watchers),
            failures=self._failures.counts,
            total_items=max(durable.total_items, len(durable.window)),
            talked_for=timedelta(seconds=durable.talked_until(self._clock())),
            has_counted_all=durable.has_counted_all,
        )

    async def passivate(self) -> None:
        """Take no more commands, make durable what was decided, save a snapshot, stop.

        Raises `StoreUnavailableError`, and goes on as before, if that cannot be done in `timeouts.write`.
        """
        committer = self._alive()
        self._leaving = True
        try:
            await self._in_time(committer.gate.passed(self._decider.working.seq))
            await self._in_time(committer.save_snapshot())
            self._stop(PassivatedError("passivated"))
        except ActivationLostError as error:
            self._stop(error)
            raise
        finally:
            self._leaving = False  # stopped, or going on as before

    async def aclose(self) -> None:
        """Stop without a snapshot. What was decided and is not durable yet may be lost, unanswered."""
        self._stop(PassivatedError("stopped"))
        ending = set(self._tasks)
        while ending:
            _, ending = await asyncio.wait(ending, timeout=_CANCEL_AGAIN_SECONDS)
            for task in ending:
                task.cancel()

    async def _in_time(self, stored: Awaitable[None]) -> None:
        """Wait for something of the store's for `timeouts.write`; then raise `StoreUnavailableError`."""
        seconds = self._settings.timeouts.write.total_seconds()
        try:
            async with asyncio.timeout(seconds):
                await stored
        except TimeoutError:
            message = f"the store has not answered in {seconds} s{self._committer.patience.reason}"
            raise StoreUnavailableError(message) from None

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """Count the enclosed block as use of the conversation while it runs. Raises `PassivatedError` if it is late.

        Beyond its retention a conversation is gone, although this process still knows it: it is not brought
        back by being asked for.
        """
        retention = self._retention
        if not self.stopped.done() and retention.has_expired:
            self._stop(PassivatedError(f"nobody has used the conversation for {retention.unused_for}"))
        with self._use.counted():
            if retention.is_ttl_old:
                retention.upkeep_due.set()  # the first use after a long sleep, or by whoever has just started this
            yield

    def _alive(self) -> Committer:
        if self.stopped.done():
            reason = self.stopped.result()
            raise reason if isinstance(reason, ActivationLostError) else PassivatedError(f"stopped: {reason}")
        if self._leaving:
            message = "passivating"
            raise PassivatedError(message)
        return self._committer

    def _stop(self, reason: ConversationError) -> None:
        """Stop being the owner: answer everybody with `reason`, end the tasks."""
        if self.stopped.done():
            return
        self.stopped.set_result(reason)
        self._committer.gate.close(reason)
        self._watchers.close(reason)
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        logger.info("stopped", extra={"reason": str(reason)})

    async def _look_after(self) -> None:
        """Keep TTLs fresh; passivate when nobody has asked or watched for long enough, well before the TTL ends.

        A store that does not answer postpones it, any other `ConversationError` stops the activation with that
        reason. What nobody foresaw leaves here, and `Failures.keep` begins anew.
        """
        committer, retention = self._committer, self._retention
        while True:
            kept = retention.kept
            idle = min(self._settings.idle_timeout, kept / 2)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(idle / 4, kept / 8, timedelta(seconds=30)).total_seconds()):
                    await retention.upkeep_due.wait()
            retention.upkeep_due.clear()
            self._forgotten.forget((self._decider.working, committer.durable))
            if self._leaving:
                continue  # it ends with a stop, or with the need to be looked after
            try:
                await self._alive().upkeep()
                if retention.unused_for >= idle and not self._leaving:
                    await self.passivate()
                    return
            except StoreUnavailableError as error:
                self._failures.note("upkeep", error)
            except ConversationError as error:
                self._stop(error)
                return


def _facts(recovered: Recovered, place: Place) -> ActivationInfo:
    """Return what is known of an activation before its state is rebuilt."""
    claim = recovered.claim
    return ActivationInfo(
        conversation_id=claim.conversation_id,
        epoch=claim.epoch,
        seq=recovered.seq,
        pid=place.pid,
        node_id=place.node_id,
        is_forked=place.is_forked,
        activated_at=recovered.at,
        recovered_from=recovered.snapshot_seq,
        replayed=0,
        recovery_seconds=0.0,
        tenant=claim.tenant,
        life=claim.life,
    )
