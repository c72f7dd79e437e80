"""What a handle hands out."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from conversation_actors.items import Item
from conversation_actors.state import Closing, Lease, Participant, Summary


@dataclass(frozen=True, slots=True)
class Receipt:
    """The durable position of what was appended, and the activation that wrote it."""

    seq: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A conversation at `seq`, all parts of the same moment."""

    conversation_id: str
    seq: int
    epoch: int
    items: tuple[Item, ...]
    participants: Mapping[str, Participant]
    attributes: Mapping[str, Any]
    leases: Mapping[str, Lease]
    summary: Summary | None
    closing: Closing | None
    retention: timedelta | None
