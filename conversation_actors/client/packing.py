"""From queued commands to requests: which commands go alone, and which go together as one."""

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from conversation_actors.client.refusals import Task
from conversation_actors.items import StoredItem, bytes_of
from conversation_actors.protocol import Done, Request, Seen
from conversation_actors.settings import Settings
from conversation_actors.state import (
    AppendItems,
    Command,
    Guard,
    JoinParticipant,
    SetAttributes,
    SetSummary,
    UpdateParticipant,
)
from conversation_actors.state.facts import MAX_ITEMS
from conversation_actors.values import encode_checked

GROUP_LEAST = 8
"""Fewer appends go each by itself: one entry for each is easier to follow, and costs little."""
GROUP_BYTES = 128 << 10
"""Bound of one group, beside the window's own: what is appended at once must not be more than is kept."""


@dataclass(slots=True, eq=False)
class Queued:
    """A command in the outbox: who waits for it, until when, and what became of it."""

    number: int
    command: Command
    request_id: str | None
    lease: Guard | None
    size: int
    deadline: float | None
    answer: asyncio.Future[Done] | None
    seen: Seen | None = None
    owner: Task | None = None
    digest: str | None = None
    sent: bool = False
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Parcel:
    """One request, and the commands it stands for: one, or a group of appends."""

    request: Request
    queued: Sequence[Queued]


def queued_in(parcels: Sequence[Parcel]) -> list[Queued]:
    """Return the commands that parcels stand for, in order."""
    return [queued for parcel in parcels for queued in parcel.queued]


class AppendRun:
    """A run of neighbours that may go as one append: nobody waits for them, and no item is in it twice.

    Whoever watches is to see an item twice that is appended twice in a row.
    """

    def __init__(self, most_items: int, most_bytes: int) -> None:
        """Begin with none, and take no more than these bounds."""
        self.members: list[Queued] = []
        self.items: list[StoredItem] = []
        self._most_items, self._most_bytes = most_items, most_bytes
        self._size = 0
        self._ids: set[str] = set()

    def take(self, queued: Queued) -> bool:
        """Take a command in, if it may go with those that are in; return whether it was taken."""
        command = queued.command
        if queued.answer is not None or not isinstance(command, AppendItems):
            return False
        if self.members and queued.lease != self.members[0].lease:
            return False
        ids = {item.id for item in command.items}
        size = self._size + queued.size
        if size > self._most_bytes or len(self._ids) + len(ids) > self._most_items or not self._ids.isdisjoint(ids):
            return False
        self.members.append(queued)
        self.items += command.items
        self._size = size
        self._ids |= ids
        return True


class Packer:
    """Makes requests of commands, and names those whose caller has not."""

    def __init__(self, settings: Settings) -> None:
        """Make no group that is more than the window of these `settings` keeps."""
        self._group_items = min(settings.history.items, MAX_ITEMS)
        self._group_bytes = min(settings.history.bytes, GROUP_BYTES)
        self.name = secrets.token_hex(6)
        """Tells this packer's requests from those of all others."""

    def run(self) -> AppendRun:
        """Begin a run."""
        return AppendRun(self._group_items, self._group_bytes)

    def parcels(self, run: AppendRun) -> list[Parcel]:
        """Return a run as one request, or one for each of its commands if they are few."""
        members = run.members
        if len(members) < GROUP_LEAST:
            return [self.single(queued) for queued in members]
        name = f"{self.name}.{members[0].number}-{members[-1].number}"
        return [Parcel(Request(name, AppendItems(tuple(run.items)), members[0].lease, is_group=True), members)]

    def single(self, queued: Queued) -> Parcel:
        """Return one command as a request of its own."""
        name = queued.request_id or f"{self.name}.{queued.number}"
        return Parcel(Request(name, queued.command, queued.lease, seen=queued.seen, digest=queued.digest), (queued,))


def size_of(command: Command) -> int:
    """Return the bytes of what may be large in a command."""
    if isinstance(command, AppendItems):  # first: nearly all commands are this one
        return bytes_of(command.items)
    match command:
        case SetAttributes(changes):
            return len(encode_checked(dict(changes)))
        case JoinParticipant(metadata=metadata):
            return len(encode_checked(metadata and dict(metadata)))
        case UpdateParticipant(metadata=metadata, context=context):
            return len(encode_checked([metadata and dict(metadata), context and dict(context)]))
        case SetSummary(text):
            return len(text.encode())
        case _:
            return 0
