"""What a conversation knows besides its history: participants, leases, summary, closing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one conversation. Bytes are of the stored form (UTF-8 JSON); ages are seconds."""

    items: int = 200
    bytes: int = 1 << 20
    item_bytes: int = 128 << 10
    attributes_bytes: int = 256 << 10
    participant_bytes: int = 16 << 10
    participants: int = 100
    leases: int = 32
    requests: int = 1000
    request_age: float = 900.0

    @property
    def pinned_items(self) -> int:
        """System messages allowed in the window: half of it, so that there is room to talk."""
        return self.items // 2

    @property
    def pinned_bytes(self) -> int:
        """Bytes of system messages allowed in the window."""
        return self.bytes // 2


MAX_ITEMS = 1000
"""Items of one append at most, which is one write to the store."""
MIN_REQUESTS = 500
"""The smallest request memory, and the most requests of one call, so that a repeated call is recognised as a whole."""
LONGEST_LEASE = 86_400.0
"""Seconds."""
SHORTEST_RETENTION, LONGEST_RETENTION = 1.0, 366 * 86_400.0
"""Seconds."""
LONGEST_STRETCH = 300.0
"""Seconds without an entry that count at most as time with somebody there; nobody knows who was there for longer."""
MAX_DEVICES = 16
"""Devices that one participant can be connected with at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """One person (or agent, or phone line) in a conversation, connected or not.

    `joined_at` is the first join, `last_seen` the latest join, leave or update; seconds since the
    epoch, by the store's clock. `reconnect_count` counts joins after having been gone
    from every device. `devices` are those connected now.
    """

    identity: str
    name: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    connected: bool = False
    joined_at: float = 0.0
    last_seen: float = 0.0
    reconnect_count: int = 0
    devices: tuple[str, ...] = ()
    language: str | None = None
    context: Mapping[str, Any] = field(default_factory=dict)
    unknown: Mapping[str, Any] = field(default_factory=dict)
    """Fields that a newer version stored, kept for it."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A right that expires by the store's clock, which the conversation's owner reads when it starts and carries on.

    `token` is the `seq` of the acquisition, so that it grows with every new holder. It stays the same when the holder
    renews the lease, even after the lease has expired, as long as nobody else had it in between: hand it to whatever
    must tell an old holder from the present one. The clock only says when others may take the lease. Tokens begin anew
    if the conversation was gone and is made again; `life` tells which of these conversations the lease belongs to.
    """

    name: str
    holder: str
    token: int
    expires_at: float
    life: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a summariser wrote about the history up to `through_seq`."""

    text: str
    through_seq: int


@dataclass(frozen=True, slots=True)
class Closing:
    """The end of the conversation, on purpose."""

    reason: str
    at: float
