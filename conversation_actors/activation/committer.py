"""Writes what was decided, and only then lets the world know.

One batch is on its way at a time; all that is decided meanwhile forms the next one (group commit). A
batch whose fate is unknown is repeated, the same bytes at the same position, until the store says what
became of it. Everything an activation writes goes through here, one write after the other.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from conversation_actors.activation.gate import OutputGate
from conversation_actors.activation.journal import RecentEntries
from conversation_actors.activation.listing import ListingUpkeep
from conversation_actors.activation.patience import Patience
from conversation_actors.activation.retention import Retention
from conversation_actors.activation.watchers import Watchers
from conversation_actors.codec import encode_entry, encode_snapshot
from conversation_actors.errors import ConversationError, CorruptStateError, FencedError, OverloadedError
from conversation_actors.failures import Failures
from conversation_actors.state import (
    ConversationState,
    Entry,
    Event,
    ItemsAppended,
    ItemsEvicted,
    ParticipantForgotten,
    ParticipantJoined,
)
from conversation_actors.store import Claim, Head, Outcome, Store
from conversation_actors.timing import TIMING, Timing

logger = logging.getLogger(__name__)

MAX_PENDING_BYTES = 16 << 20
"""Decided and not yet durable; beyond it commands are answered with `OverloadedError`."""

BATCH_ENTRIES = 1000
BATCH_BYTES = 1 << 20
"""Bounds of one write, so that it does not hold up the store's other users."""

COMPACT_ENTRIES = 2000
COMPACT_BYTES = 1 << 20
"""A journal shorter than this is not worth a snapshot, which holds the request memory too: 5 to 10 ms, while nothing
else is written. Replaying it costs a recovery 10 microseconds an entry."""

KEPT_ENTRIES = 64
"""Entries kept in the journal of what a snapshot holds, so that a watcher finds its place across a restart."""

_ITEMS_MOVED = frozenset({ItemsAppended, ItemsEvicted})
"""Nearly all events; they change neither who takes part nor how long the conversation is kept."""
MAX_HEALS = 3
"""How often one write finds that the store has lost what was acknowledged before it, and restores that."""


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
        retention: Retention,
        on_lost: Callable[[ConversationError], None],
        failures: Failures,
        timing: Timing = TIMING,
    ) -> None:
        """Continue after `durable`. `on_lost` is called once, when nothing more can be written."""
        self.durable = durable
        # what the activation before this one has not forgotten to its end is not acknowledged yet
        self.gate = OutputGate(durable.forgotten_seq - 1 if durable.forgotten_seq else durable.seq)
        self.patience = Patience(failures, timing)
        self.listing = ListingUpkeep(claim.conversation_id, durable, retention, store=store, failures=failures)
        self._store, self._claim, self._retention = store, claim, retention
        self._recent, self._watchers, self._on_lost = recent, watchers, on_lost
        self._snapshot_seq = snapshot_seq
        self._journal_bytes = journal_bytes
        self._pending: deque[_Pending] = deque()
        self._pending_bytes = 0
        self._wake = asyncio.Event()
        self._lock = asyncio.Lock()
        self._forget_seconds = timing.forget

    @property
    def pending(self) -> int:
        """Entries decided and not yet durable."""
        return len(self._pending)

    def raise_if_full(self) -> None:
        """Raise `OverloadedError` if too much waits to be stored for anything more to be decided."""
        if self._pending_bytes > MAX_PENDING_BYTES:
            message = f"{self._pending_bytes} bytes wait to be stored; the limit is {MAX_PENDING_BYTES}"
            raise OverloadedError(message)

    def submit(self, entries: Sequence[Entry]) -> None:
        """Queue entries that were decided; they follow, in `seq`, what was submitted before."""
        encoded = [_Pending(entry, encode_entry(entry)) for entry in entries]
        for pending in encoded:
            self._pending.append(pending)
            self._pending_bytes += len(pending.data)
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
            logger.exception("the committer failed", extra={"epoch": self._claim.epoch})
            self._on_lost(FencedError(f"this activation failed and stopped: {error!r}"))

    async def upkeep(self) -> None:
        """Keep TTLs fresh, and the listings, which show when a conversation was last active.

        Upkeep is no use: of what nobody uses, no TTL ends later for it. Raises `PassivatedError` when it has expired.
        """
        async with self._lock:
            if self._pending:
                return
            self._retention.raise_if_expired()
            # Also without news: a loss, a deletion, or a fence, is judged by it.
            if self._retention.is_refresh_due or not await self._is_ours():
                await self._refresh()
        self.listing.note_upkeep()

    async def save_snapshot(self) -> None:
        """Store the durable state, unless nothing was written since the last snapshot; and how long it is kept."""
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
        identities, kept = self._identities_after(events), self._retention.kept_after(events)
        encoded = [pending.data for pending in batch]
        await self._append(batch[0].entry.seq - 1, encoded, identities, kept)
        if kept != self._retention.kept:
            self._retention.upkeep_due.set()
        for pending in batch:
            self.durable.apply(pending.entry)
            self._pending.popleft()
        size = sum(map(len, encoded))
        self._pending_bytes -= size
        self._journal_bytes += size
        self._recent.extend(encoded)  # in step with `durable`: reads show its position
        if identities is not None:
            self.listing.note_participants()
        if self.durable.forgotten_seq >= batch[0].entry.seq:
            await self._forget_past()  # before anybody is answered
        self.gate.open_to(self.durable.seq)
        # One turn of the loop later: those who are being answered now take the entries along, and then
        # their own parked polls need not be woken for them.
        asyncio.get_running_loop().call_soon(self._watchers.notify, self.durable.seq)

    def _identities_after(self, events: Sequence[Event]) -> tuple[str, ...] | None:
        """Return the participants' identities after a batch's events, or None if the events do not change them."""
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

    async def _is_ours(self) -> bool:
        """Tell whether what is stored is what this claim has left; write nothing."""
        head = await self._store.head(self._claim.conversation_id)
        return head == Head(self._claim.epoch, self._claim.owner, self.durable.seq)

    async def _refresh(self) -> None:
        """Write nothing but the TTL; a fence, and a loss, are found by it as well."""
        await self._append(self.durable.seq, (), None, self._retention.kept)

    async def _append(
        self, expected_seq: int, entries: Sequence[bytes], identities: Sequence[str] | None, kept: timedelta
    ) -> None:
        """Write until the store has decided. Raises `FencedError`, or what no repeat can mend."""
        heals = 0
        while True:
            outcome = await self.patience.until_decided(
                lambda: self._store.append(
                    self._claim,
                    expected_seq=expected_seq,
                    entries=entries,
                    ttl=self._retention.left_of(kept),
                    kept=kept,
                    participants=identities,
                )
            )
            if outcome in {Outcome.OK, Outcome.DUPLICATE}:
                self._retention.note_touch()
                return
            self._raise_if_fenced(outcome)
            self._retention.raise_if_expired()
            heals += 1
            if heals > MAX_HEALS:
                message = f"the store stays behind seq {expected_seq}, whatever is written to it"
                raise CorruptStateError(message, key=self._claim.conversation_id, position=0)
            logger.warning(
                "the store lost acknowledged writes; restoring it from memory",
                extra={"epoch": self._claim.epoch, "seq": self.durable.seq},
            )
            await self._save_snapshot(restore=True)

    async def _save_snapshot(self, *, restore: bool = False) -> None:
        """Store the durable state; if the store has lost it, with `restore` or after having seen that."""
        if restore:
            await self._requeue()
        seq, snapshot, entries = self.durable.seq, encode_snapshot(self.durable), self._entries_to_keep
        outcome = await self.patience.until_decided(
            lambda: self._store.save_snapshot(
                self._claim,
                seq=seq,
                snapshot=snapshot,
                ttl=self._retention.left_of(self._retention.kept),
                kept=self._retention.kept,
                participants=tuple(self.durable.participants),
                keep=entries,
                restore=restore,
            )
        )
        self._raise_if_fenced(outcome)
        if outcome is Outcome.GAP and not restore:
            self._retention.raise_if_expired()
            await self._save_snapshot(restore=True)
            return
        if outcome is Outcome.GAP:
            message = f"what is stored is damaged, and ahead of seq {seq}"
            raise CorruptStateError(message, key=self._claim.conversation_id, position=0)
        self._snapshot_seq = seq
        self._journal_bytes = 0
        self._retention.note_touch()

    async def _requeue(self) -> None:
        """Let what the store may have lost wait for the archive again, as far as it is remembered.

        What was to be forgotten is not brought back: the archive may have forgotten it by now.
        """
        after = max(self._recent.first_available, self.durable.forgotten_seq - 1)
        entries = tuple(self._recent.following(after))
        self._raise_if_fenced(
            await self.patience.until_decided(lambda: self._store.requeue(self._claim, entries=entries))
        )

    async def _forget_past(self) -> None:
        """Leave nothing stored of what was before the latest request to forget it."""
        await self._save_snapshot()
        loop, forgotten = asyncio.get_running_loop(), self.durable.forgotten_seq
        loop.call_later(self._forget_seconds, self._recent.forget_before, forgotten)

    @property
    def _entries_to_keep(self) -> int:
        """Entries that stay beside a snapshot for watchers: none of a past that was to be forgotten.

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

    def _raise_if_fenced(self, outcome: Outcome) -> None:
        if outcome is Outcome.FENCED:
            message = f"epoch {self._claim.epoch} was fenced by another activation, or another life of the conversation"
            raise FencedError(message)
