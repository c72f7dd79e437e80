"""What a conversation's owner needs of durable storage; MemoryStore and RedisStore provide it.

The store knows bytes, positions and owners. It does not know what an entry means.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple, Protocol

from conversation_actors.settings import DEFAULT_TENANT
from conversation_actors.store.backlog import Backlog
from conversation_actors.store.expectations import ExpectationStore
from conversation_actors.store.heartbeats import HeartbeatStore


class Outcome(StrEnum):
    """What became of a write. Anything else is an error: the write's fate is unknown, repeat it."""

    OK = "OK"
    DUPLICATE = "DUPLICATE"
    """The very same write had landed before (a repeat after an unknown outcome). As good as OK."""
    FENCED = "FENCED"
    """Another life of the conversation is stored, another claim owns it, or it was deleted. Nothing was written."""
    GAP = "GAP"
    """The store is behind this owner: it forgot acknowledged writes (a failover to a replica that
    lagged, a restart without persistence). Nothing was written; `Store.save_snapshot` heals it. What is stored, if
    anything, was left by this claim or by one that it followed."""


MAX_ANCESTORS = 16
"""Claims that a lineage remembers. A reader who slept through more of them starts anew from a snapshot."""


class Ancestor(NamedTuple):
    """A claim before the present one, and the position at which the next one took over."""

    life: str
    epoch: int
    owner: str
    seq: int


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to write a conversation, as `Store.activate` gave it.

    `life` comes first: epochs are those of one life, and begin again with the next. `epoch` orders the claims of a
    life; `owner` is unique to one activation, so that two claims of the same epoch (possible only after a failover
    that lost the taking of the first) still exclude each other. `lineage` has the claims before this one, the oldest
    first; before the first of a life, what its deletion has left. `start` is the position at which the life began.
    """

    conversation_id: str
    epoch: int
    owner: str
    life: str = ""
    """Tells a conversation from a later one of the same id, made after a deletion or a loss of everything."""
    tenant: str = field(default=DEFAULT_TENANT, compare=False)
    lineage: tuple[Ancestor, ...] = field(default=(), compare=False)
    start: int = field(default=0, compare=False)

    def follows(self, left: Ancestor) -> bool:
        """Tell whether something stored was left by a claim before this one, which this one may replace.

        Within a life that is so whatever the other one has written since: it was deposed, and the newest claim wins.
        Of another life only what was read, and nothing added to it.
        """
        return any(
            known[:3] == left[:3] and (left.life == self.life or left.seq <= known.seq) for known in self.lineage
        )

    def end_of(self, owner: str) -> int | None:
        """Return the last position of a claim before this one, of this life; None if it is not known."""
        ends = [known.seq for known in self.lineage if (known.life, known.owner) == (self.life, owner)]
        return ends[-1] if ends else None


@dataclass(frozen=True, slots=True)
class Stored:
    """All that is stored of a conversation, at one moment, as whoever only reads gets it: with no right to write.

    `life`, `epoch` and `owner` are those of the last claim. `seq`, `snapshot_seq`, `snapshot`, `journal` and `left`
    are as in `Recovered`. `active_at` is when it was last written or activated, in seconds since the epoch, by the
    store's clock. `lag` is how far the server that was asked may be behind what was acknowledged; None if it does
    not say.
    """

    conversation_id: str
    life: str
    epoch: int
    owner: str
    seq: int
    snapshot_seq: int
    snapshot: bytes | None
    journal: tuple[bytes, ...]
    left: timedelta = field(compare=False)
    active_at: float = field(compare=False)
    lag: timedelta | None = field(default=timedelta(0), compare=False)
    tenant: str = field(default=DEFAULT_TENANT, compare=False)


@dataclass(frozen=True, slots=True)
class Recovered:
    """All that is stored of a conversation, read in the same step that took the epoch.

    `seq` is the last stored position. `snapshot` (if any) is the state at `snapshot_seq`. `journal` ends
    at `seq` and has no gap; it begins at `snapshot_seq + 1` or earlier, with entries kept for watchers. `left` is
    how long it would be kept without further use; `at` the store's time, in seconds since the epoch.
    """

    claim: Claim
    seq: int
    snapshot_seq: int
    snapshot: bytes | None
    journal: tuple[bytes, ...]
    created: bool
    left: timedelta = field(compare=False)
    at: float = field(compare=False)

    @property
    def stored(self) -> Stored:
        """The same without the right to write."""
        claim = self.claim
        return Stored(
            conversation_id=claim.conversation_id,
            life=claim.life,
            epoch=claim.epoch,
            owner=claim.owner,
            seq=self.seq,
            snapshot_seq=self.snapshot_seq,
            snapshot=self.snapshot,
            journal=self.journal,
            left=self.left,
            active_at=self.at,
            tenant=claim.tenant,
        )


@dataclass(frozen=True, slots=True)
class Head:
    """Where a stored conversation stands."""

    epoch: int
    owner: str
    seq: int


@dataclass(frozen=True, slots=True)
class Found:
    """One line of a listing. `last_active_at` is in seconds since the epoch, by the store's clock."""

    conversation_id: str
    last_active_at: float
    participants: tuple[str, ...]
    seq: int
    tenant: str = DEFAULT_TENANT


class Store(Protocol):
    """Durable storage of conversations.

    Every method raises `StoreUnavailableError` when the store does not answer in time or refuses for
    now, `StoreMisconfiguredError` when a person has to change something, `CorruptStateError` when what
    is stored contradicts itself. Every method may be repeated, and may be cancelled at any await.
    """

    async def check(self) -> None:
        """Raise `StoreMisconfiguredError` unless the server can do what the settings ask for."""

    async def activate(self, conversation_id: str, *, owner: str, create: bool, ttl: timedelta) -> Recovered:
        """Take the next epoch for `owner` and read everything, in one atomic step.

        `ttl` is that of a conversation this creates; one that exists keeps its own: being activated is no use.

        Repeated with the same `owner` it takes no second epoch. Raises `ConversationNotFoundError`
        (and takes nothing) if the conversation does not exist and `create` is false.
        """

    async def append(
        self,
        claim: Claim,
        *,
        expected_seq: int,
        entries: Sequence[bytes],
        ttl: timedelta,
        kept: timedelta | None = None,
        participants: Sequence[str] | None = None,
    ) -> Outcome:
        """Write `entries` at `expected_seq + 1 …`, all or none, and refresh every TTL.

        `ttl` is what is left of `kept` (None: the same), the time it is kept after its last use. A TTL that is longer,
        because somebody has used it since (`keep`), stays, unless `kept` has changed.
        With no entries it only refreshes, and still tells FENCED. `participants`, if given, replaces
        the identities kept beside the conversation for listings. After OK or DUPLICATE the entries are as
        durable as the settings ask. GAP also if the stored journal or snapshot is damaged.
        """

    async def save_snapshot(
        self,
        claim: Claim,
        *,
        seq: int,
        snapshot: bytes,
        ttl: timedelta,
        participants: Sequence[str],
        kept: timedelta | None = None,
        keep: int = 0,
        restore: bool = True,
    ) -> Outcome:
        """Store the state at `seq` and drop the journal up to `keep` entries before it (compaction).

        If the store is behind `seq`, has lost the conversation, or holds what a claim before this one has left,
        this restores it (with no entries kept): the snapshot is acknowledged state, and this claim the newest one
        known. Unless `restore` is false: then it is GAP. `ttl` and `kept` as of `append`. DUPLICATE if a snapshot at
        or after `seq` is there already; GAP also if what is stored is damaged and ahead of `seq`.
        """

    async def keep(self, conversation_id: str, *, ttl: timedelta) -> timedelta | None:
        """Count as use: keep the conversation from now on for as long as its retention says; return that.

        Needs no owner. None if there is no such conversation. `ttl` is for one that says nothing.
        """

    async def head(self, conversation_id: str) -> Head | None:
        """If the stored conversation stands; None if there is none."""

    async def read(self, conversation_id: str) -> Stored:
        """Read everything, at one moment, and change nothing: no epoch is taken, no TTL refreshed.

        All that was acknowledged before is in it, and nothing that is not yet as durable as the settings ask. Raises
        `ConversationNotFoundError` if there is no such conversation, or its time is up.
        """

    async def index(self, conversation_id: str, *, participants: Sequence[str], ttl: timedelta) -> None:
        """Enter the conversation in the listings that span conversations, as active now.

        The entry leaves them by itself `ttl` from now, whatever others are entered for, unless it is entered again.
        Not atomic with the conversation (it may live on another shard), and repairable from it.
        """

    def list(self, *, participant: str | None = None) -> AsyncIterator[Found]:
        """Yield conversations, the most recently active first; with `participant`, those it took part in.

        Pages through an index, never a key scan. Entries of vanished conversations are dropped from the index.
        """

    async def reindex(self) -> int:
        """Rebuild the listings from the conversations themselves; returns how many there are."""

    def heartbeats(self, lease: str, *, ttl: timedelta) -> HeartbeatStore:
        """Return the signs of life of the holders of one lease; forgotten when nothing is written to them for `ttl`."""

    def expectations(self, lease: str) -> ExpectationStore:
        """Return who was called to take this lease, by the place that they were called to."""

    async def delete(self, conversation_id: str, *, ttl: timedelta) -> bool:
        """Forget everything but a tombstone that keeps `epoch` and `seq` growing; False if not there.

        Every activation alive is fenced by it. The tombstone takes one position for itself, so that no
        position of the old life is one of a new life. It lives for `ttl`.

        Where conversations are archived, one deletion record takes the place of all that waits in the backlog. A
        conversation that is not there gets a tombstone too, so that nobody revives it; it counts as there if
        something of it waited.
        """

    async def remembers_deletion(self, conversation_id: str) -> bool:
        """Tell whether there is a tombstone of the conversation, or a deletion of it waits in the backlog."""

    def backlog(self) -> Backlog:
        """Return what waits for the archive."""

    async def requeue(self, claim: Claim, *, entries: Sequence[bytes]) -> Outcome:
        """Add entries of this claim's life to the backlog again: the store has lost acknowledged writes.

        OK or FENCED, as `save_snapshot` with `restore` would say. Does nothing where conversations are not archived.
        """

    async def revive(
        self,
        left_by: Claim,
        *,
        seq: int,
        snapshot: bytes,
        ttl: timedelta,
        participants: Sequence[str],
        kept: timedelta,
    ) -> bool:
        """Store a conversation as a claim that is gone would have left it, with its state at `seq`.

        Return False, and write nothing, if anything is stored of the conversation, if only a tombstone, or if a
        deletion of it waits in the backlog. The next `activate` takes the epoch after that claim's. `ttl` and `kept`
        as of `append`.
        """

    async def aclose(self) -> None:
        """Close connections. Idempotent."""
