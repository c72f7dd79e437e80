"""What a client and an activation say to each other. Everything here pickles."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from conversation_actors.errors import ConversationError
from conversation_actors.items import StoredItem
from conversation_actors.state import AppendItems, Command, Guard, Lease, Participant

PROTOCOL = 3
"""Raised when the meaning of these messages changes; an owner refuses to be opened by a peer of another number."""


@dataclass(frozen=True, slots=True)
class Request:
    """A command, and the name under which a repeat of it is recognised.

    With `lease` it comes in the name of that lease: it is refused once that is lost.
    """

    request_id: str
    command: Command
    lease: Guard | None = None


class Requests(tuple[Request, ...]):
    """The requests of one call. They pickle as plain values: an object each would cost ten times as much."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Callable[..., "Requests"], tuple[Any, ...]]:
        """Appends as their items' columns, other commands as they are."""
        return _requests, ([(request.request_id, _columns(request.command), request.lease) for request in self],)


def _columns(command: Command) -> Any:
    if type(command) is not AppendItems:
        return command
    return [(item.id, item.type, item.role, item.call_id, item.data) for item in command.items]


def _requests(rows: Iterable[tuple[str, Any, Guard | None]]) -> Requests:
    return Requests([Request(request_id, _command(given), lease) for request_id, given, lease in rows])


def _command(given: Any) -> Command:
    if type(given) is not list:
        command: Command = given
        return command
    return AppendItems(tuple([StoredItem(*columns) for columns in given]))


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

    def __reduce__(self) -> tuple[Callable[..., "Executed"], tuple[Any, ...]]:
        """Positions as plain values, for the same reason as `Requests`; other replies as they are."""
        rows = [
            (reply.seq, reply.epoch) if type(reply) is Done and reply.result is None else reply
            for reply in self.replies
        ]
        return _executed, (rows, self.entries)


def _executed(rows: Iterable[Any], entries: tuple[bytes, ...]) -> Executed:
    return Executed(tuple([Done(*row) if type(row) is tuple else row for row in rows]), entries)


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
    the rebuilding took. `pending` counts commands not yet durable, `watchers` parked long polls. `is_forked`
    tells whether its process was forked (see `conversation-actors start`) or is an ordinary Ray worker.
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
    is_forked: bool = False
    history_items: int = 0
    history_bytes: int = 0
    pending: int = 0
    watchers: int = 0
    protocol: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class Opened:
    """The answer to an `open`. `was_ready`, for the first one only: whether the process had been started ahead."""

    info: ActivationInfo
    view: View
    was_ready: bool | None
