"""What waits in Redis for the archive: per conversation, every entry since the last one that was archived.

An owner that archives adds each entry to its conversation's backlog in the same step that writes the journal
(`store/lua/append.lua`). Archivers take records from the front and settle them when the database has them. A backlog
outlives its conversation: its time to live, its deletion, and its later lives.

How an archiver learns of it: a conversation with a backlog is in one listing (`Backlog.waiting`). It enters the
listing before the first record is added, and leaves it only while it has none.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from typing import Protocol

_WRITTEN_AT = re.compile(rb'[^\n]*\n\{[^\n]*?"at":([0-9.]+)')

_FORGETS = re.compile(
    rb'[^\n]*\n(\Z|\{"v":[0-9]+,"seq":[0-9]+,"epoch":[0-9]+,"at":[^,\n]+,"event":"(items_removed|history_cleared)")'
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What waits at most: `size` bytes of one conversation, for `age` after the last of it came.

    Beyond `size` the oldest records are given up, but never the last one, nor those that say what to forget.
    """

    size: int
    age: timedelta


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a backlog: an entry as the journal has it, and whose it is.

    `start` is the position at which the life began: its first entry is ``start + 1``. `epoch` and `owner` are those of
    the claim that wrote it. `data` is the encoded entry; None says that this life was deleted, and all before it, at
    `deleted_at` by the store's clock, in seconds since the epoch.
    """

    life: str
    start: int
    epoch: int
    owner: str
    data: bytes | None
    deleted_at: float | None = None

    @property
    def header(self) -> bytes:
        """What is stored in front of the data, with the line break that parts them."""
        told = [self.life, self.start, self.epoch, self.owner]
        deleted_at = [] if self.deleted_at is None else [self.deleted_at]
        return json.dumps([*told, *deleted_at], ensure_ascii=False).encode() + b"\n"

    def encode(self) -> bytes:
        """Return the stored form; a deletion has no data."""
        return self.header + (self.data or b"")


def decode_record(stored: bytes) -> Record:
    """Read what `Record.encode` made. Raises `ValueError` for anything else."""
    header, _, data = stored.partition(b"\n")
    return replace(_decode_header(header), data=data or None)


@lru_cache(256)  # one writer's are the same
def _decode_header(header: bytes) -> Record:
    match json.loads(header):
        case [str(life), int(start), int(epoch), str(owner)]:
            return Record(life, start, epoch, owner, None)
        case [str(life), int(start), int(epoch), str(owner), (int() | float()) as deleted_at]:
            return Record(life, start, epoch, owner, None, deleted_at)
    message = f"not a record's header: {header[:80]!r}"
    raise ValueError(message)


def is_deletion(stored: bytes) -> bool:
    """Tell whether a record says that a life was deleted."""
    return stored.partition(b"\n")[1:] == (b"\n", b"")


def written_at(stored: bytes) -> float | None:
    """Read when a record's entry was decided, in seconds since the epoch; None if it does not say.

    Nothing else of an entry is read by a store, and only to tell how far the archive is behind.
    """
    found = _WRITTEN_AT.match(stored)
    return float(found[1]) if found else None


def forgets(stored: bytes) -> bool:
    """Tell whether something is to be forgotten because of a record: a deletion, or an entry that takes out items.

    The beginning of an entry is fixed (`codec.encode_entry`), and no text in it can look like it.
    """
    return _FORGETS.match(stored) is not None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A conversation in the listing. `mark` tells this stay in it from an earlier one; `records` is what waits now."""

    conversation_id: str
    mark: int
    records: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Records from the front of a backlog, in order.

    `backlog` names the backlog, which is another one after Redis has lost it. `first` counts: it is the number of
    records that were ever taken out of this backlog before `records`. `stored` are the bytes of each record, as they
    are kept; `left` records wait behind them. `given_up` is the number of records that the bound has cost.
    """

    backlog: str
    first: int
    stored: tuple[bytes, ...]
    left: int = 0
    given_up: int = 0

    @property
    def through(self) -> int:
        """The number to settle when the whole batch is archived."""
        return self.first + len(self.stored)


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the archive is behind: `records` and `bytes` wait, the oldest of them for `seconds`.

    `given_up` records were dropped because of the bound. `conversations` is how many have something waiting.
    """

    conversations: int = 0
    records: int = 0
    bytes: int = 0
    seconds: float = 0.0
    given_up: int = 0

    def __add__(self, other: "Lag") -> "Lag":
        """Return the lag of both together: the sums, and the longer wait."""
        return Lag(
            self.conversations + other.conversations,
            self.records + other.records,
            self.bytes + other.bytes,
            max(self.seconds, other.seconds),
            self.given_up + other.given_up,
        )


class Backlog(Protocol):
    """The backlogs of one tenant. Methods raise as those of `Store` do, and may be repeated."""

    async def waiting(self) -> Sequence[Waiting]:
        """Return the conversations in the listing, those that entered it first before the others."""

    async def take(self, conversation_id: str, *, archiver: str, ttl: timedelta, most_bytes: int) -> Batch | None:
        """Claim a backlog for `archiver`, for `ttl`, and return its first records, of `most_bytes` but at least one.

        None if another archiver has it. A claim only spares double work: what two archivers write is the same.
        """

    async def settle(self, conversation_id: str, *, backlog: str, through: int) -> None:
        """Drop the records up to the number `through` of this very backlog; those that are gone already, once."""

    async def release(self, conversation_id: str, *, archiver: str) -> None:
        """Let other archivers take the backlog."""

    async def unlist(self, waiting: Waiting) -> bool:
        """Take a conversation out of the listing if it has nothing waiting, and did not enter anew; tell whether."""

    async def peek(self, conversation_id: str) -> Batch:
        """Return all records that wait, without a claim; an empty batch if none do."""

    async def lag(self, conversation_id: str | None = None) -> Lag:
        """Return how far the archive is behind, for one conversation or for all."""

    async def relist(self) -> int:
        """Find every backlog by a scan of the keys, and enter in the listing those that it lacks; return how many."""
