"""A conversation that comes back from the archive, as several tests make it."""

from collections.abc import Sequence
from datetime import timedelta

from conversation_actors.store import Ancestor, Store

TTL = timedelta(minutes=10)


async def revived(store: Store, conversation_id: str = "c", *, seq: int = 9, lineage: Sequence[Ancestor] = ()) -> bool:
    """Revive a conversation as it may have been."""
    return await store.revive(
        conversation_id,
        life="l",
        epoch=5,
        owner="gone",
        start=2,
        seq=seq,
        snapshot=b"state",
        lineage=lineage,
        participants=["al"],
        ttl=TTL,
        kept=TTL,
    )
