"""A conversation that comes back from the archive, as several tests make it."""

from collections.abc import Sequence
from datetime import timedelta

from conversation_actors.store import Ancestor, Claim, Store

TTL = timedelta(minutes=10)


async def revived(store: Store, conversation_id: str = "c", *, seq: int = 9, lineage: Sequence[Ancestor] = ()) -> bool:
    """Revive a conversation as it may have been."""
    left_by = Claim(conversation_id, 5, "gone", "l", lineage=tuple(lineage), start=2)
    return await store.revive(left_by, seq=seq, snapshot=b"state", ttl=TTL, participants=["al"], kept=TTL)
