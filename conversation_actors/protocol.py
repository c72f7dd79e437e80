"""The messages between a client and an activation. All of them pickle; the most frequent ones also pack."""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple, Self

from conversation_actors.errors import ConversationError, IncompatibleVersionError
from conversation_actors.items import StoredItem
from conversation_actors.settings import DEFAULT_TENANT
from conversation_actors.state import AppendItems, Command, Guard, Lease, Participant

PROTOCOL = 9
"""The number of this protocol. Raise it when these messages or their meaning change, and when a command or an event is
added: an owner that does not know it loses everything in the same call. Owner and client refuse a peer with another
number."""
_PICKLE = 5
"""The number of pickle's protocol, which every Python from 3.8 on reads."""


@dataclass(frozen=True, slots=True)
class Request:
    """A command, and the id by which a repeat of it is recognised.

    A command with a `lease` comes in the name of that lease, and is refused once the lease is lost. A group is several
    commands in one. If a group is refused, no request after it is decided, so that its sender can go through the group
    one command at a time. A command that names a position carries the history that the position belongs to (`seen`).
    `digest` tells the command's content from any other, if a caller chose the `request_id`: a repeat must have the same
    digest.
    """

    request_id: str
    command: Command
    lease: Guard | None = None
    is_group: bool = False
    seen: "Seen | None" = None
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """A reply: the command happened at `seq`, written by `epoch`, or asked for what was the case already at `seq`."""

    seq: int
    epoch: int
    result: Participant | Lease | None = None


Reply = Done | ConversationError


class Seen(NamedTuple):
    """The history that a reader's position belongs to: a `life` of the conversation, as the activation `owner` told it.

    If the store has lost acknowledged entries together with their owner, a later owner has written others in their
    place. The later owner knows the owners before it (`Claim.lineage`). `owner` is None if the reader has only a
    number.
    """

    life: str
    owner: str | None


@dataclass(frozen=True, slots=True)
class Execute:
    """Requests to be decided in order; the copy of `watcher` stands at `after_seq` of the history `seen`.

    `turn` tells which of its sender's batches it is. An owner that has not decided what must come before it decides
    nothing, and answers without replies.
    """

    requests: Sequence[Request]
    watcher: str
    after_seq: int
    seen: Seen | None = None
    turn: "Turn | None" = None

    def pack(self) -> bytes:
        """Return the message as bytes, which Ray passes on as they are; its pickling takes several times as long."""
        rows = [
            (
                request.request_id,
                _columns(request.command),
                request.lease and tuple(request.lease),
                request.is_group,
                request.seen,
                request.digest,
            )
            for request in self.requests
        ]
        return _pack((rows, self.watcher, self.after_seq, self.seen, self.turn))

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read what `pack` made. Raises `IncompatibleVersionError` if another protocol made it."""
        rows, watcher, after_seq, seen, turn = _unpack(data)
        requests = [
            Request(name, _command(given), lease and Guard(*lease), *rest) for name, given, lease, *rest in rows
        ]
        return cls(requests, watcher, after_seq, seen, turn)


class Turn(NamedTuple):
    """The place of a batch among those of its sender: its `number`, and the number of the one that must come before it.

    `after` is 0 if nothing must: all that was sent before is answered.
    """

    sender: str
    number: int
    after: int


class Echo(NamedTuple):
    """An entry about items that the caller has, without their bytes.

    The items of request number `appended` came, except those that were there already. If `appended` is None, the items
    with the ids `evicted` left.
    """

    seq: int
    epoch: int
    at: float
    appended: int | None
    evicted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Executed:
    """One reply for each request that was decided, in order, and entries that the caller has not seen.

    `entries` follow the position that the caller gave, without a gap. They are not all of them if there are many, and
    none if the caller's copy has seen another history. Each is encoded, or an `Echo` if it is about items of these
    requests that came, or items that left for those.
    """

    replies: tuple[Reply, ...]
    entries: tuple[bytes | Echo, ...]
    owner: str = ""
    """The activation that answers; see `Seen`."""

    def pack(self) -> bytes:
        """Return the message as bytes, for the same reason as `Execute.pack`; most replies are only a position."""
        rows = [
            (reply.seq, reply.epoch) if type(reply) is Done and reply.result is None else reply
            for reply in self.replies
        ]
        return _pack((rows, self.entries, self.owner))

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read what `pack` made. Raises `IncompatibleVersionError` if another protocol made it."""
        rows, entries, owner = _unpack(data)
        return cls(tuple([Done(*row) if type(row) is tuple else row for row in rows]), entries, owner)


class Polled(NamedTuple):
    """Entries after the position of a poll, encoded and in order; empty if none came. `owner` is as in `Seen`."""

    entries: tuple[bytes, ...]
    owner: str


def _columns(command: Command) -> Any:
    """Return an append as columns, one for each field of its items, and any other command as it is.

    An object for each item would cost ten times as much.
    """
    if type(command) is not AppendItems:
        return command
    return list(zip(*[(item.id, item.type, item.role, item.call_id, item.data) for item in command.items], strict=True))


def _command(given: Any) -> Command:
    if type(given) is not list:
        command: Command = given
        return command
    return AppendItems(tuple(map(StoredItem, *given)) if given else ())


def _pack(values: Any) -> bytes:
    return bytes((PROTOCOL,)) + pickle.dumps(values, _PICKLE)


def _unpack(data: bytes) -> Any:
    if data[:1] != bytes((PROTOCOL,)):
        raise incompatible(data[0])
    return pickle.loads(memoryview(data)[1:])  # noqa: S301  # from a process of the same cluster, as all that Ray hands on


def incompatible(protocol: int) -> IncompatibleVersionError:
    """Return the error for a peer that speaks another `protocol`."""
    message = f"the other side speaks protocol {protocol}, this one {PROTOCOL}; update the older one"
    return IncompatibleVersionError(message)


@dataclass(frozen=True, slots=True)
class View:
    """The durable state at `seq`, encoded, without the request memory.

    `life` tells it from another conversation of the same id, before a deletion or a loss of all data.
    """

    seq: int
    epoch: int
    snapshot: bytes
    life: str = ""
    owner: str = ""

    @property
    def seen(self) -> Seen:
        """The history that this state belongs to."""
        return Seen(self.life, self.owner)


@dataclass(frozen=True, slots=True)
class ActivationInfo:
    """Facts about one process-lifetime of a conversation's owner.

    `recovered_from` is the `seq` of the snapshot that the conversation was rebuilt from (0: none), and `replayed` the
    number of journal entries after it. `activated_at` is in seconds since the epoch. `recovery_seconds` is the time
    that the rebuilding took. `pending` counts commands that are not yet durable, `watchers` parked long polls.
    `is_forked` tells whether the owner's process was forked (see `conversation-actors start`) or is an ordinary Ray
    worker. `life` tells the conversation from an earlier or later one of the same id; epochs are those of one life.
    `failures` counts, by task, what went wrong in the background and was survived; the owner's log tells of it.

    `total_items` counts all items that ever came, including those that have left the window. `talked_for` is the time
    in which somebody was connected, up to now, over all calls: the sum of the times from entry to entry, each of which
    counts for five minutes at most. If `has_counted_all` is false, an older version has written a part of the
    conversation, and both totals are lower bounds.

    `reached_by` tells by which way the handle that asked sends its commands now: ``unix`` or ``tcp`` (a line of its own
    to the owner), ``ray`` (calls of Ray's), or ``memory`` (an owner in this process).
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
    tenant: str = DEFAULT_TENANT
    life: str = ""
    failures: Mapping[str, int] = field(default_factory=dict)
    total_items: int = 0
    talked_for: timedelta = timedelta(0)
    has_counted_all: bool = False
    reached_by: str = "ray"


@dataclass(frozen=True, slots=True)
class LineAddress:
    """Where an owner's process listens for a line of its own, and the secret by which both sides prove themselves.

    `process` tells the process from any other. `unix` is the path of a socket that clients of the same node reach, and
    `tcp` a host and a port; None where the owner does not listen so. `is_encrypted` tells whether TCP is TLS, with the
    files that Ray uses. The `secret` is 32 bytes made by this process, and is told by Ray alone.
    """

    process: str
    secret: bytes = field(repr=False)
    unix: str | None = None
    tcp: tuple[str, int] | None = None
    is_encrypted: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    """The answer to an `open`.

    `was_ready` tells whether the owner's process had been started ahead of time. Only the first answer of a process
    tells that; in later ones it is None. `line` tells where the owner listens. It is None
    if the owner does not listen, and in an answer too large to carry a secret: then the owner is asked for it alone.
    """

    info: ActivationInfo
    view: View
    was_ready: bool | None
    line: LineAddress | None = None
