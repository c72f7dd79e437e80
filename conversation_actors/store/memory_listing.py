"""Listings across conversations, in memory."""

from dataclasses import dataclass, field

_AT_ONCE = 100
"""Entries of a listing that are dropped at a time, as in `index.lua`."""


@dataclass(slots=True)
class MemoryListing:
    """One listing: times of last activity, and when each entry leaves, by conversation."""

    active_at: dict[str, float] = field(default_factory=dict)
    expiries: dict[str, float] = field(default_factory=dict)

    def enter(self, conversation_id: str, *, active_at: float, expires_at: float, now: float) -> None:
        """Enter one, and drop a few of those whose own time is up."""
        self.active_at[conversation_id] = max(active_at, self.active_at.get(conversation_id, active_at))
        self.expiries[conversation_id] = expires_at
        for old in [member for member, until in self.expiries.items() if until <= now][:_AT_ONCE]:
            self.drop(old)

    def drop(self, conversation_id: str) -> None:
        """Take one out."""
        self.active_at.pop(conversation_id, None)
        self.expiries.pop(conversation_id, None)
