"""What a `MemoryStore` keeps of one conversation."""

from dataclasses import dataclass, field
from datetime import timedelta

from conversation_actors.store.base import Ancestor, Claim, Recovered


@dataclass(slots=True)
class MemoryConversation:
    """One conversation, or its tombstone."""

    epoch: int
    owner: str
    seq: int
    born: int
    """The epoch that created this life of it."""
    life: str = ""
    base: int = 0
    first: int = 0
    """The journal holds the entries after this position, which is `base` or before."""
    snapshot: bytes | None = None
    journal: list[bytes] = field(default_factory=list)
    participants: tuple[str, ...] = ()
    active_at: float = 0.0
    expires_at: float = 0.0
    deleted: bool = False
    lineage: tuple[Ancestor, ...] = ()
    kept: timedelta = timedelta(0)
    start: int = 0
    """The position at which this life began."""

    @property
    def left(self) -> Ancestor:
        """What the claim that wrote it last has left."""
        return Ancestor(self.life, self.epoch, self.owner, self.seq)

    def is_own(self, claim: Claim) -> bool:
        """Tell whether it was left by this very claim."""
        return not self.deleted and self.left[:3] == (claim.life, claim.epoch, claim.owner)

    def recovered(self, conversation_id: str, *, tenant: str, now: float) -> Recovered:
        """Return all that is stored, as its next owner gets it."""
        return Recovered(
            claim=Claim(conversation_id, self.epoch, self.owner, self.life, tenant, self.lineage, self.start),
            seq=self.seq,
            snapshot_seq=self.base,
            snapshot=self.snapshot,
            journal=tuple(self.journal),
            created=self.born == self.epoch,
            left=timedelta(seconds=self.expires_at - now),
            at=now,
        )

    def keep(self, ttl: timedelta, kept: timedelta, *, now: float) -> None:
        """Refresh the TTL; a longer one stays, unless the conversation is to be kept for another time."""
        longest = self.expires_at if self.kept == kept else 0.0
        self.kept = kept
        self.refresh(ttl, now=now)
        self.expires_at = max(self.expires_at, longest)

    def refresh(self, ttl: timedelta, *, now: float) -> None:
        """Let it expire `ttl` from now."""
        self.expires_at = now + ttl.total_seconds()
