"""What a handle hands out."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from conversation_actors.client.copy import history_of, retention_of
from conversation_actors.items import Item
from conversation_actors.state import Closing, ConversationState, Lease, Participant, Summary


@dataclass(frozen=True, slots=True)
class Receipt:
    """The durable position of what was appended, and the activation that wrote it."""

    seq: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a history, in the order that was asked for. `next_cursor` asks for what follows; None: nothing does."""

    items: tuple[Item, ...]
    next_cursor: str | None


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
    lag: timedelta | None = timedelta(0)
    """How far it may be behind what was acknowledged: zero, unless a replica was read (`read(…, stale_ok=True)`).

    Then it is how long ago the replica last heard from its primary, in whole seconds. A primary that has nothing to say
    pings every ten seconds (``repl-ping-replica-period``), so that it may be that much and nothing be missing. None
    where the replica has never heard from one, or does not say.
    """


def snapshot_of(
    conversation_id: str, state: ConversationState, *, epoch: int, lag: timedelta | None = timedelta(0)
) -> Snapshot:
    """Return the state, as it is handed out."""
    return Snapshot(
        conversation_id=conversation_id,
        seq=state.seq,
        epoch=epoch,
        items=history_of(state),
        participants=state.participants,
        attributes=state.attributes,
        leases=state.leases,
        summary=state.summary,
        closing=state.closing,
        retention=retention_of(state),
        lag=lag,
    )
