"""What a client and an activation say to each other. Everything here pickles."""

from dataclasses import dataclass

from conversation_actors.errors import ConversationError
from conversation_actors.state import Command, Guard, Lease, Participant

PROTOCOL = 2
"""Raised when the meaning of these messages changes; an owner refuses to be opened by a peer of another number."""


@dataclass(frozen=True, slots=True)
class Request:
    """A command, and the name under which a repeat of it is recognised.

    With `lease` it comes in the name of that lease: it is refused once that is lost.
    """

    request_id: str
    command: Command
    lease: Guard | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The command happened, at `seq`, written by `epoch`; or asked for what was the case at `seq`."""

    seq: int
    epoch: int
    result: Participant | Lease | None = None


Reply = Done | ConversationError


@dataclass(frozen=True, slots=True)
class Executed:
    """One reply for each request, in order, and entries that the caller has not seen.

    `entries` (encoded) follow the position the caller gave, without a gap; not all of them where there are
    many, and none where the caller's copy is of another `life` of the conversation.
    """

    replies: tuple[Reply, ...]
    entries: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class View:
    """The durable state at `seq`, encoded, without the request memory.

    `life` tells it from another conversation of the same id, before a deletion or a loss of everything.
    """

    seq: int
    epoch: int
    snapshot: bytes
    life: str = ""


@dataclass(frozen=True, slots=True)
class ActivationInfo:
    """Facts about one process-lifetime of a conversation's owner.

    `recovered_from` is the `seq` of the snapshot it was rebuilt from (0: none), `replayed` the number of
    journal entries after it. `activated_at` is in seconds since the epoch, `recovery_seconds` the time
    the rebuilding took. `pending` counts commands not yet durable, `watchers` parked long polls.
    """

    conversation_id: str
    epoch: int
    seq: int
    pid: int
    node_id: str
    activated_at: float
    recovered_from: int
    replayed: int
    recovery_seconds: float
    history_items: int = 0
    history_bytes: int = 0
    pending: int = 0
    watchers: int = 0
    protocol: int = PROTOCOL
