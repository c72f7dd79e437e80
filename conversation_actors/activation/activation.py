"""The owner of one conversation while its process lives.

The path of a command: decided at once against the working state, queued, made durable by the
`Committer`, and answered through the output gate. Refusals pass the same gate, because they too speak of
a state that might still vanish. Reads are answered from the durable state without waiting.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Self

from conversation_actors.activation.committer import COMPACT_BYTES, COMPACT_ENTRIES, Committer
from conversation_actors.activation.journal import RecentEntries, fitting
from conversation_actors.activation.passing_time import ForgottenRequests, store_clock
from conversation_actors.activation.recovery import rebuild
from conversation_actors.activation.watchers import Watchers
from conversation_actors.clock import uptime
from conversation_actors.codec import encode_snapshot
from conversation_actors.errors import (
    ActivationLostError,
    ConflictError,
    ConversationError,
    OutcomeUnknownError,
    OverloadedError,
    PassivatedError,
    PositionLostError,
    RefusedError,
    StoreUnavailableError,
)
from conversation_actors.failures import Failures
from conversation_actors.protocol import ActivationInfo, Done, Echo, Executed, Polled, Reply, Request, Seen, View
from conversation_actors.settings import Settings
from conversation_actors.state import (
    EVENT_OF,
    Command,
    ConversationState,
    Entry,
    ItemsAppended,
    ItemsEvicted,
    JoinParticipant,
    NothingChanged,
    Participant,
    Remembered,
    SetAttributes,
    SetSummary,
    UpdateParticipant,
    decide,
)
from conversation_actors.state.commands import described
from conversation_actors.state.conversation import remembered
from conversation_actors.store import Recovered, Store

log = logging.getLogger(__name__)

MOST_PENDING_BYTES = 16 << 20
"""Decided and not yet durable; beyond it commands are answered with `OverloadedError`."""
MOST_WATCHERS = 500
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
        facts = ActivationInfo(
            conversation_id=conversation_id,
            epoch=recovered.claim.epoch,
            seq=durable.seq,
            pid=place.pid,
            node_id=place.node_id,
            is_forked=place.is_forked,
            activated_at=clock(),
            recovered_from=recovered.snapshot_seq,
            replayed=replayed,
            recovery_seconds=uptime() - started,
            tenant=recovered.claim.tenant,
            life=recovered.claim.life,
        )
        log.info("activated", extra={"epoch": facts.epoch, "seq": facts.seq, "replayed": replayed})
        return cls(recovered, durable, facts, store=store, settings=settings, clock=clock)

    def __init__(  # see `recover`, which is how to get one
        self,
        recovered: Recovered,
        durable: ConversationState,
        facts: ActivationInfo,
        *,
        store: Store,
        settings: Settings,
        clock: Callable[[], float],
    ) -> None:
        """Own what `recovered` claims, from `durable` on."""
        self._claim, self._facts, self._settings, self._clock = recovered.claim, facts, settings, clock
        self._working = durable.copy()
        self._watchers = Watchers(MOST_WATCHERS)
        self._recent = RecentEntries(
            seq=recovered.seq - len(recovered.journal),
            entries=4 * max(COMPACT_ENTRIES, 2 * durable.limits.items),
            size=4 * max(COMPACT_BYTES, 2 * durable.limits.bytes),
        )
        self._recent.extend(recovered.journal)
        kept = settings.ttl if durable.retention is None else timedelta(seconds=durable.retention)
        self._last_used = uptime() - max(kept - recovered.left, timedelta(0)).total_seconds()
        self._users = 0
        self._forgotten = ForgottenRequests(durable.limits.request_age)
        self._leaving = False
        self._view: View | None = None
        self._failures = Failures()
        self.stopped: asyncio.Future[ConversationError] = asyncio.get_running_loop().create_future()
        self._committer = Committer(
            store=store,
            claim=recovered.claim,
            durable=durable,
            snapshot_seq=recovered.snapshot_seq,
            journal_bytes=sum(map(len, recovered.journal)),
            recent=self._recent,
            watchers=self._watchers,
            settings=settings,
            last_use=self._last_use,
            on_lost=self._stop,
            failures=self._failures,
        )
        self._tasks = [
            asyncio.create_task(self._committer.run()),
            asyncio.create_task(self._failures.keep("listing", self._committer.keep_listed)),
            asyncio.create_task(self._failures.keep("upkeep", self._look_after)),
        ]

    @property
    def epoch(self) -> int:
        """Which activation of the conversation's life this is; also when it has stopped."""
        return self._claim.epoch

    async def execute(
        self, requests: Sequence[Request], *, watcher: str, after_seq: int, seen: Seen | None = None
    ) -> Executed:
        """Decide `requests` in order, and answer when all of that is durable.

        A reply is `Done` or the error; behind a refused group nothing is decided. What is not durable after
        `timeouts.write` is answered with `OutcomeUnknownError`. Entries behind `after_seq` come along for
        `watcher`, if what it has `seen` leads here (None: whatever it has). Raises `OverloadedError` or
        `StoreUnavailableError` before anything was decided.
        """
        with self._in_use():
            committer = self._admit()
            decided: list[tuple[int, Reply]] = []
            echoes: dict[int, Echo] = {}
            for number, request in enumerate(requests):
                reply, entries = self._decide(request)
                decided.append((self._working.seq, reply))  # the position that must be durable before it may leave
                echoes.update(_echoes(number, entries))
                if request.is_group and isinstance(reply, RefusedError):
                    break
            try:
                async with asyncio.timeout(self._settings.timeouts.write.total_seconds()):
                    await committer.gate.passed(self._working_seq_of(decided))
            except TimeoutError:
                return Executed(tuple(self._answer(seq, reply) for seq, reply in decided), (), self._claim.owner)
        unseen = self._entries_for(watcher, after_seq, seen, echoes)
        return Executed(tuple(reply for _, reply in decided), unseen, self._claim.owner)

    def _admit(self) -> Committer:
        """The committer, if a command may be decided now."""
        committer = self._alive()
        if committer.pending_bytes > MOST_PENDING_BYTES:
            message = f"{committer.pending_bytes} bytes wait to be stored; the limit is {MOST_PENDING_BYTES}"
            raise OverloadedError(message)
        failing = committer.failing_since
        if failing is not None and uptime() - failing > self._settings.timeouts.write.total_seconds():
            message = f"the store has not taken a write for {uptime() - failing:.1f} s{self._store_says()}"
            raise StoreUnavailableError(message)
        return committer

    def _decide(self, request: Request) -> tuple[Reply, Sequence[Entry]]:
        """The reply, and what the request leads to now: nothing where it is a repeat, or refused."""
        try:
            repeated = self._repeat(request)
            return (repeated, ()) if repeated else self._first_time(request)
        except RefusedError as refusal:
            return refusal, ()

    def _repeat(self, request: Request) -> Done | None:
        kept = self._working.requests.get(request.request_id)
        if kept is None:
            return None
        if kept.kind != EVENT_OF[type(request.command)]:
            message = f"request_id {request.request_id!r} was used for another command ({kept.kind})"
            raise ConflictError(message)
        if None not in (kept.digest, request.digest) and kept.digest != request.digest:
            message = f"request_id {request.request_id!r} was used at {kept.seq} for other content ({kept.kind})"
            raise ConflictError(message)
        return self._done(kept, request.command)

    def _done(self, kept: Remembered, command: Command) -> Done:
        """The first result; of a participant, the present state where too many have been remembered since.

        Who has been forgotten altogether is answered with as it was described, and gone.
        """
        result = self._participant_of(command) if kept.result is None else kept.result
        if result is None and isinstance(command, (JoinParticipant, UpdateParticipant)):
            result = described(command, at=kept.at)
        return Done(kept.seq, kept.epoch, result)

    def _participant_of(self, command: Command) -> Participant | None:
        """The participant a command is about, as it is now; None where it is about none."""
        return self._working.participants.get(getattr(command, "identity", ""))

    def _first_time(self, request: Request) -> tuple[Done, Sequence[Entry]]:
        working = self._working
        self._check_named_position(request)
        now = max(self._clock(), working.changed_at)
        events = decide(working, request.command, now=now, lease=request.lease)
        if not events:
            asked = EVENT_OF[type(request.command)]
            events = (NothingChanged(asked, self._participant_of(request.command)),)
        epoch, seq = self._claim.epoch, working.seq + 1
        entries = [Entry(seq, epoch, now, events[0], request.request_id, request.digest)]
        for event in events[1:]:
            entries.append(Entry(seq + len(entries), epoch, now, event))
        self._alive().submit(entries)  # first: what cannot be encoded must leave no trace in the working state
        for entry in entries:
            working.apply(entry)
        return self._done(remembered(entries[0]), request.command), entries

    @staticmethod
    def _working_seq_of(decided: Sequence[tuple[int, Reply]]) -> int:
        return decided[-1][0] if decided else 0

    def _answer(self, seq: int, reply: Reply) -> Reply:
        """The reply, if it may leave by now."""
        if seq <= self._committer.gate.durable_seq:
            return reply
        seconds = self._settings.timeouts.write.total_seconds()
        return OutcomeUnknownError(f"not durable after {seconds} s{self._store_says()}")

    def _store_says(self) -> str:
        """The end of a message: why the store takes nothing now, as far as it has told."""
        reason = self._committer.failing_reason
        return "" if reason is None else f": {reason}"

    def _entries_for(
        self, watcher: str, after_seq: int, seen: Seen | None, echoes: Mapping[int, Echo]
    ) -> tuple[bytes | Echo, ...]:
        """What the watcher has not seen, if it is little; its parked poll is then spared."""
        try:
            self._check_position(after_seq, seen)
            behind = self._recent.behind(after_seq)
        except PositionLostError:
            return ()
        told = (echoes.get(seq, data) for seq, data in enumerate(behind, after_seq + 1))
        entries = fitting(told, REPLY_BYTES)
        if after_seq + len(entries) == self._recent.seq:
            self._watchers.advance(watcher, self._recent.seq)
        return entries

    async def read(self, *, fresh: bool) -> View:
        """The durable state. With `fresh`, only after the store has confirmed that this is the owner."""
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
        """Entries after `after_seq`, waiting up to `timeout` seconds for the first; empty if none came.

        Raises `PositionLostError` for a position that is not kept (any more) or is one of another history than
        this one, and `OverloadedError`.
        """
        with self._in_use():
            self._alive()
            self._check_position(after_seq, seen)
            if after_seq == self._recent.seq:
                await self._watchers.park(watcher, after_seq, timeout)
                self._alive()
        return Polled(self._recent.after(after_seq, size=POLL_BYTES), self._claim.owner)

    def let_go(self, watchers: Sequence[str]) -> None:
        """End the parked polls of these watchers: nobody reads their answers, and they are no use any more."""
        for watcher in watchers:
            self._watchers.release(watcher)

    def _check_position(self, after_seq: int, seen: Seen | None) -> None:
        """Raise `PositionLostError` where what follows the position here does not follow what the reader has seen."""
        message = "" if seen is None else self._objection_to(after_seq, seen)
        if message:
            raise PositionLostError(message, first_available=self._recent.first_available)

    def _check_named_position(self, request: Request) -> None:
        """Raise `ConflictError` where the position that a command names is none of this history."""
        if request.seen is None:  # first: nearly all commands name none
            return
        match request.command:
            case SetAttributes(expected_seq=int(seq)) | SetSummary(through_seq=seq):
                message = self._objection_to(seq, request.seen)
            case _:
                return
        if message:
            raise ConflictError(message)

    def _objection_to(self, seq: int, seen: Seen) -> str:
        """Why a position of what a reader has seen is none of this history; empty where it is one."""
        claim = self._claim
        if seen.life != claim.life:
            return "the position is one of another life of this conversation"
        if not seq or seen.owner in {None, claim.owner}:
            return ""
        end = claim.end_of(seen.owner or "")
        if end is None:
            return f"position {seq} was told by an activation that this one does not know to have been before it"
        return f"entry {seq} was lost: this history went on from {end}" if seq > end else ""

    def info(self) -> ActivationInfo:
        """Facts about this activation, for people and dashboards."""
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
            await self._in_time(committer.gate.passed(self._working.seq))
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
            message = f"the store has not answered in {seconds} s{self._store_says()}"
            raise StoreUnavailableError(message) from None

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """Count the enclosed block as use of the conversation while it runs. Raises `PassivatedError` where it is late.

        Beyond its retention a conversation is gone, although this process still knows it: it is not brought
        back by being asked for.
        """
        if not self.stopped.done() and self._committer.has_expired:
            self._stop(PassivatedError(f"nobody has used the conversation for {self._committer.unused_for}"))
        self._users += 1
        if self._committer.is_ttl_old:
            self._committer.upkeep_due.set()  # the first use after a long sleep, or by whoever has just started this
        try:
            yield
        finally:
            self._users -= 1
            self._last_used = uptime()

    def _last_use(self) -> float | None:
        return None if self._users else self._last_used

    def _alive(self) -> Committer:
        if self.stopped.done():
            reason = self.stopped.result()
            raise reason if isinstance(reason, ActivationLostError) else PassivatedError(f"stopped: {reason}")
        if self._leaving:
            message = "passivating"
            raise PassivatedError(message)
        return self._committer

    def _stop(self, reason: ConversationError) -> None:
        """Be the owner no more: answer everybody with `reason`, end the tasks."""
        if self.stopped.done():
            return
        self.stopped.set_result(reason)
        self._committer.gate.close(reason)
        self._watchers.close(reason)
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        log.info("stopped", extra={"reason": str(reason)})

    async def _look_after(self) -> None:
        """Keep TTLs fresh; passivate when nobody has asked or watched for long enough, well before the TTL ends.

        A store that does not answer postpones it, any other `ConversationError` stops the activation with that
        reason. What nobody foresaw leaves here, and `Failures.keep` begins anew.
        """
        committer = self._committer
        while True:
            kept = committer.retention
            idle = min(self._settings.idle_timeout, kept / 2)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(idle / 4, kept / 8, timedelta(seconds=30)).total_seconds()):
                    await committer.upkeep_due.wait()
            committer.upkeep_due.clear()
            self._forgotten.forget((self._working, committer.durable))
            if self._leaving:
                continue  # it ends with a stop, or with the need to be looked after
            try:
                await self._alive().upkeep()
                if committer.unused_for >= idle and not self._leaving:
                    await self.passivate()
                    return
            except StoreUnavailableError as error:
                self._failures.note("upkeep", error)
            except ConversationError as error:
                self._stop(error)
                return


def _echoes(number: int, entries: Sequence[Entry]) -> Iterator[tuple[int, Echo]]:
    """Which of its `entries` the sender of request `number` can be told without their items' bytes, by position."""
    for entry in entries:
        match entry.event:
            case ItemsAppended():  # of all that were sent, those that change the window
                yield entry.seq, Echo(entry.seq, entry.epoch, entry.at, number)
            case ItemsEvicted(items):
                yield entry.seq, Echo(entry.seq, entry.epoch, entry.at, None, tuple([item.id for item in items]))
