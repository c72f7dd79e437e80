"""Writes what was decided, and only then lets the world know.

One batch is on its way at a time; all that is decided meanwhile forms the next one (group commit). A
batch whose fate is unknown is repeated, the same bytes at the same position, until the store says what
became of it. Everything an activation writes goes through here, one write after the other.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from conversation_actors.activation.gate import OutputGate
from conversation_actors.activation.journal import RecentEntries
from conversation_actors.activation.watchers import Watchers
from conversation_actors.clock import uptime
from conversation_actors.codec import encode_entry, encode_snapshot
from conversation_actors.errors import (
    ConversationError,
    CorruptStateError,
    FencedError,
    PassivatedError,
    RetryableError,
)
from conversation_actors.failures import Failures
from conversation_actors.settings import Settings
from conversation_actors.state import (
    ConversationState,
    Entry,
    Event,
    ItemsAppended,
    ItemsEvicted,
    ParticipantForgotten,
    ParticipantJoined,
    RetentionChanged,
)
from conversation_actors.store import Claim, Head, Outcome, Store

log = logging.getLogger(__name__)

BATCH_ENTRIES = 1000
BATCH_BYTES = 1 << 20
"""Bounds of one write, so that it does not hold up the store's other users."""

COMPACT_ENTRIES = 2000
COMPACT_BYTES = 1 << 20
"""A journal shorter than this is not worth a snapshot, which holds the request memory too: 5 to 10 ms, while nothing
else is written. Replaying it costs a recovery 10 microseconds an entry."""

KEPT_ENTRIES = 64
"""Entries kept in the journal behind a snapshot, so that a watcher finds its place across a restart."""

FORGET_SECONDS = 1.0
"""How long those who follow may still be told what was before the past was forgotten: it is on its way to them."""

LISTED_RETENTIONS = 1.5
"""An entry in the listings outlives the last use that it may not show yet (`_listing_seconds`); reading passes over it
where the conversation is gone."""

_ITEMS_MOVED = frozenset({ItemsAppended, ItemsEvicted})
"""Nearly all events; they change neither who takes part nor how long the conversation is kept."""
_SHORTEST_TTL = timedelta(seconds=1)
_BACKOFF = (0.02, 1.0)
_MOST_HEALS = 3


@dataclass(slots=True)
class _Pending:
    entry: Entry
    data: bytes


class Committer:
    """Owns the durable state; `durable` changes only here, after the store has the entries."""

    def __init__(  # the parts it puts in order; all of them by name
        self,
        *,
        store: Store,
        claim: Claim,
        durable: ConversationState,
        snapshot_seq: int,
        journal_bytes: int,
        recent: RecentEntries,
        watchers: Watchers,
        settings: Settings,
        last_use: Callable[[], float | None],
        on_lost: Callable[[ConversationError], None],
        failures: Failures,
    ) -> None:
        """Continue after `durable`. `on_lost` is called once, when nothing more can be written.

        `last_use` tells the `uptime` of the last use, from which on a conversation is kept, and None while it is
        in use; at first that is the use which the stored TTL tells of.
        """
        self.durable = durable
        # what the activation before this one has not forgotten to its end is not acknowledged yet
        self.gate = OutputGate(durable.forgotten_seq - 1 if durable.forgotten_seq else durable.seq)
        self.failing_since: float | None = None
        """`uptime` at the first failure of the write that is being repeated now."""
        self.failing_reason: RetryableError | None = None
        """The latest failure since the store has last decided a write."""
        self.pending_bytes = 0
        self.upkeep_due = asyncio.Event()
        """Set when the retention has changed, or the stored TTL tells of an old use only; whoever waits clears it."""
        self._store, self._claim, self._settings = store, claim, settings
        self._last_use, self._failures = last_use, failures
        self._recent, self._watchers, self._on_lost = recent, watchers, on_lost
        self._snapshot_seq = snapshot_seq
        self._journal_bytes = journal_bytes
        self._pending: deque[_Pending] = deque()
        self._wake = asyncio.Event()
        self._lock = asyncio.Lock()
        self._listing_due = asyncio.Event()
        self._listing_due.set()
        self._listed_seq, self._listed_at = -1, 0.0
        self._touched_at = uptime()
        self._told_use_at = self._telling_use_at = self._last_use_at
        """`uptime` at the last use that the stored TTL tells of."""

    @property
    def retention(self) -> timedelta:
        """How long the conversation is kept after its last use."""
        return self._retention(self.durable.retention)

    @property
    def _listing_seconds(self) -> float:
        """How old an entry in the listings may get while the conversation is looked after."""
        return self.retention.total_seconds() / 4

    @property
    def has_expired(self) -> bool:
        """Nobody has used it for so long that it is kept no more: whatever the store says, it is not to come back."""
        return self.unused_for >= self.retention

    @property
    def is_ttl_old(self) -> bool:
        """Whether the stored TTL is to be refreshed, if the conversation is in use."""
        return self._is_due(self._told_use_at)

    @property
    def unused_for(self) -> timedelta:
        """How long ago the last use was."""
        last = self._last_use()
        return timedelta(0) if last is None else timedelta(seconds=uptime() - last)

    @property
    def _last_use_at(self) -> float:
        last = self._last_use()
        return uptime() if last is None else last

    @property
    def pending(self) -> int:
        """Entries decided and not yet durable."""
        return len(self._pending)

    def submit(self, entries: Sequence[Entry]) -> None:
        """Queue entries that were decided; they follow, in `seq`, what was submitted before."""
        encoded = [_Pending(entry, encode_entry(entry)) for entry in entries]
        for pending in encoded:
            self._pending.append(pending)
            self.pending_bytes += len(pending.data)
        self._wake.set()

    async def run(self) -> None:
        """Write until nothing more can be written; then tell `on_lost` why, whatever it was."""
        try:
            if self.gate.durable_seq < self.durable.seq:
                async with self._lock:
                    await self._forget_past()
                    self.gate.open_to(self.durable.seq)
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._pending:
                    async with self._lock:
                        await self._write(self._next_batch())
                        await self._compact_if_due()
        except ConversationError as error:
            self._on_lost(error)
        except Exception as error:
            log.exception("the committer failed", extra={"epoch": self._claim.epoch})
            self._on_lost(FencedError(f"this activation failed and stopped: {error!r}"))

    async def upkeep(self) -> None:
        """Keep TTLs fresh, and the listings, which show when a conversation was last active.

        Is no use: of what nobody uses, no TTL ends later for it. Raises `PassivatedError` when it has expired.
        """
        async with self._lock:
            if self._pending:
                return
            self._raise_if_expired()
            is_due = self._is_due(self._touched_at) or (self.is_ttl_old and self._has_news_of_use)
            # Also where there is no news: a loss, a deletion, or a fence, is judged by it.
            if is_due or not await self._is_ours():
                await self._refresh()
        if self.durable.seq != self._listed_seq or uptime() - self._listed_at > self._listing_seconds:
            self._listing_due.set()

    async def save_snapshot(self) -> None:
        """Store the durable state, unless the journal behind the last snapshot is empty; and how long it is kept."""
        async with self._lock:
            if self.durable.seq > self._snapshot_seq:
                await self._save_snapshot()
            else:
                await self._refresh()  # the last chance to notice, and to mend, that the store has lost it

    async def confirm_ownership(self) -> None:
        """Make sure in the store that this claim is the newest. Raises `FencedError` if it is not."""
        async with self._lock:
            try:
                await self._refresh()
            except FencedError as error:
                self._on_lost(error)
                raise

    def _next_batch(self) -> Sequence[_Pending]:
        batch: list[_Pending] = []
        size = 0
        for pending in self._pending:
            size += len(pending.data)
            # What one request caused shares a batch: only its first entry has the request's id.
            starts_request = pending.entry.request_id is not None
            if batch and starts_request and (size > BATCH_BYTES or len(batch) >= BATCH_ENTRIES):
                break
            batch.append(pending)
        return batch

    async def _write(self, batch: Sequence[_Pending]) -> None:
        """Store, apply, reply, notify: in this order, here and nowhere else."""
        events = [event for pending in batch if type(event := pending.entry.event) not in _ITEMS_MOVED]
        identities, retention = self._identities_after(events), self._retention_after(events)
        encoded = [pending.data for pending in batch]
        await self._append(batch[0].entry.seq - 1, encoded, identities, retention)
        if retention != self.retention:
            self.upkeep_due.set()
        for pending in batch:
            self.durable.apply(pending.entry)
            self._pending.popleft()
        size = sum(map(len, encoded))
        self.pending_bytes -= size
        self._journal_bytes += size
        self._recent.extend(encoded)  # in step with `durable`: reads show its position
        if identities is not None:
            self._listing_due.set()
        if self.durable.forgotten_seq >= batch[0].entry.seq:
            await self._forget_past()  # before anybody is answered
        self.gate.open_to(self.durable.seq)
        # One turn of the loop later: those who are being answered now take the entries along, and then
        # their own parked polls need not be woken for them.
        asyncio.get_running_loop().call_soon(self._watchers.notify, self.durable.seq)

    def _identities_after(self, events: Sequence[Event]) -> tuple[str, ...] | None:
        """The participants' identities behind a batch's events, or None where they do not change them."""
        identities = dict.fromkeys(self.durable.participants)
        changed = False
        for event in events:
            if isinstance(event, ParticipantJoined) and event.participant.identity not in identities:
                identities[event.participant.identity] = None
                changed = True
            elif isinstance(event, ParticipantForgotten):
                identities.pop(event.identity, None)
                changed = True
        return tuple(identities) if changed else None

    def _retention_after(self, events: Sequence[Event]) -> timedelta:
        """How long the conversation is kept from this batch on: also the write that shortens it is kept no longer."""
        changes = [event for event in events if isinstance(event, RetentionChanged)]
        return self._retention(changes[-1].seconds) if changes else self.retention

    def _retention(self, seconds: float | None) -> timedelta:
        return self._settings.ttl if seconds is None else timedelta(seconds=seconds)

    def _is_due(self, last: float) -> bool:
        """Whether what happened last at this `uptime` is to happen again: four times in a retention."""
        return uptime() - last > self.retention.total_seconds() / 4

    @property
    def _has_news_of_use(self) -> bool:
        """Whether somebody has used it since the use that the stored TTL tells of."""
        return self._last_use_at > self._told_use_at

    def _note_touch(self) -> None:
        """Remember of which use the stored TTL tells: while it was being written there may have been another one."""
        self._touched_at, self._told_use_at = uptime(), self._telling_use_at

    def _left_of(self, retention: timedelta) -> timedelta:
        """The TTL of what is written now: kept from the last use on, which the write itself is not."""
        self._telling_use_at = self._last_use_at
        return max(retention - self.unused_for, _SHORTEST_TTL)

    async def _is_ours(self) -> bool:
        """Whether what is stored is what this claim has left; a look that writes nothing."""
        head = await self._store.head(self._claim.conversation_id)
        return head == Head(self._claim.epoch, self._claim.owner, self.durable.seq)

    async def _refresh(self) -> None:
        """Write nothing but the TTL; a fence, and a loss, are found by it as well."""
        await self._append(self.durable.seq, (), None, self.retention)

    async def _append(
        self, expected_seq: int, entries: Sequence[bytes], identities: Sequence[str] | None, retention: timedelta
    ) -> None:
        """Write until the store has decided. Raises `FencedError`, or what no repeat can mend."""
        heals = 0
        while True:
            outcome = await self._until_decided(
                lambda: self._store.append(
                    self._claim,
                    expected_seq=expected_seq,
                    entries=entries,
                    ttl=self._left_of(retention),
                    kept=retention,
                    participants=identities,
                )
            )
            if outcome in {Outcome.OK, Outcome.DUPLICATE}:
                self._note_touch()
                return
            self._raise_if_fenced(outcome)
            self._raise_if_expired()
            heals += 1
            if heals > _MOST_HEALS:
                message = f"the store stays behind seq {expected_seq}, whatever is written to it"
                raise CorruptStateError(message, key=self._claim.conversation_id, position=0)
            log.warning(
                "the store lost acknowledged writes; restoring it from memory",
                extra={"epoch": self._claim.epoch, "seq": self.durable.seq},
            )
            await self._save_snapshot(restore=True)

    async def _save_snapshot(self, *, restore: bool = False) -> None:
        """Store the durable state; where the store has lost it, with `restore` or after having seen that."""
        seq, snapshot, kept = self.durable.seq, encode_snapshot(self.durable), self._entries_to_keep
        outcome = await self._until_decided(
            lambda: self._store.save_snapshot(
                self._claim,
                seq=seq,
                snapshot=snapshot,
                ttl=self._left_of(self.retention),
                kept=self.retention,
                participants=tuple(self.durable.participants),
                keep=kept,
                restore=restore,
            )
        )
        self._raise_if_fenced(outcome)
        if outcome is Outcome.GAP and not restore:
            self._raise_if_expired()
            await self._save_snapshot(restore=True)
            return
        if outcome is Outcome.GAP:
            message = f"what is stored is damaged, and ahead of seq {seq}"
            raise CorruptStateError(message, key=self._claim.conversation_id, position=0)
        self._snapshot_seq = seq
        self._journal_bytes = 0
        self._note_touch()

    async def _forget_past(self) -> None:
        """Leave nothing stored of what was before the latest request to forget it."""
        await self._save_snapshot()
        loop, forgotten = asyncio.get_running_loop(), self.durable.forgotten_seq
        loop.call_later(FORGET_SECONDS, self._recent.forget_before, forgotten)

    @property
    def _entries_to_keep(self) -> int:
        """Entries behind a snapshot for watchers: none of a past that was to be forgotten.

        Nor the one that says so: an owner of a version that does not know of it could not open the conversation.
        """
        forgotten = self.durable.forgotten_seq
        return min(KEPT_ENTRIES, self.durable.seq - forgotten) if forgotten else KEPT_ENTRIES

    async def _compact_if_due(self) -> None:
        entries = self.durable.seq - self._snapshot_seq
        most_entries = max(COMPACT_ENTRIES, 2 * self.durable.limits.items)
        most_bytes = max(COMPACT_BYTES, 2 * self.durable.window.size)
        if entries >= most_entries or self._journal_bytes >= most_bytes:
            await self._save_snapshot()

    async def keep_listed(self) -> None:
        """Enter the conversation in the listings when that is due, beside the writes: nobody waits for it.

        A failure, whatever it is, is noted; the next upkeep tries again. Listings can be repaired, and the
        conversation is none the worse.
        """
        while True:
            await self._listing_due.wait()
            self._listing_due.clear()
            seq, identities = self.durable.seq, tuple(self.durable.participants)
            try:
                await self._store.index(
                    self._claim.conversation_id, participants=identities, ttl=LISTED_RETENTIONS * self.retention
                )
            except Exception as error:  # noqa: BLE001  # it goes on, whatever it was
                self._failures.note("listing", error)
                self._listed_seq = -1
            else:
                self._listed_seq, self._listed_at = seq, uptime()

    async def _until_decided(self, write: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """Repeat `write` until the store answers it; raises what a repeat cannot mend."""
        delay, longest = _BACKOFF
        try:
            while True:
                try:
                    outcome = await write()
                except RetryableError as error:
                    self.failing_reason = error
                    self._failures.count("write")
                    if self.failing_since is None:
                        self.failing_since = uptime()
                        log.warning("a write is being repeated", extra={"reason": str(error)})
                    await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311  # spreads load, guards nothing
                    delay = min(delay * 2, longest)
                else:
                    self.failing_reason = None
                    return outcome
        finally:
            # Given up by its caller too: commands, refused while this is set, are what finds the store well again.
            self.failing_since = None

    def _raise_if_expired(self) -> None:
        """Tell a conversation that is gone because nobody used it from one that the store has lost."""
        if self.has_expired:
            message = f"nobody has used the conversation for {self.unused_for}; it was kept for {self.retention}"
            raise PassivatedError(message)

    def _raise_if_fenced(self, outcome: Outcome) -> None:
        if outcome is Outcome.FENCED:
            message = f"epoch {self._claim.epoch} was fenced by another activation, or another life of the conversation"
            raise FencedError(message)
