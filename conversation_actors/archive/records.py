"""Records of a backlog as rows of the archive. Bytes that cannot be read become rows, too."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from conversation_actors.codec import decode_entry
from conversation_actors.errors import CorruptStateError
from conversation_actors.state import EVENT_NAMES, Event
from conversation_actors.store.backlog import Record, decode_record
from conversation_actors.values import decode

UNREADABLE = "unreadable"
"""The `event` of an entry that could not be read when it came. Its data are the record's, whatever they are."""

_POSITIONS = range(1 << 62)
_TELLING = ("seq", "epoch", "at", "event", "request")


class Row(NamedTuple):
    """An entry as the archive keeps it."""

    seq: int
    epoch: int
    at: float
    event: str
    data: bytes

    def is_same(self, other: "Row") -> bool:
        """Tell whether both are one entry; what was to be forgotten may be gone from one of them."""
        if self.data == other.data:
            return True
        if self.event != other.event or self.event == UNREADABLE:
            return False
        mine, theirs = header_of(self.data), header_of(other.data)
        return bool(mine) and all(mine.get(name) == theirs.get(name) for name in _TELLING)


@dataclass(frozen=True, slots=True)
class Arrived:
    """A record that was read: whose it is, and its entry.

    `record` is None if not even that can be read. If the entry cannot, `event` is None, and `row` has no position yet:
    what damaged bytes say of it is not believed. A deletion has neither.
    """

    record: Record | None
    row: Row | None
    event: Event | None

    @property
    def is_deletion(self) -> bool:
        """Whether the record says that a life was deleted."""
        return self.row is None


def read(stored: bytes) -> Arrived:
    """Read a record. Raises `IncompatibleVersionError` for an entry of a newer version, which must wait for one."""
    try:
        record = decode_record(stored)
    except (ValueError, RecursionError):
        return Arrived(None, _unreadable(0, stored), None)
    if not _is_storable(record):
        return Arrived(None, _unreadable(0, stored), None)
    if record.data is None:
        return Arrived(record, None, None)
    try:
        entry = decode_entry(record.data)
    except CorruptStateError:
        return Arrived(record, _unreadable(record.epoch, record.data), None)
    if entry.seq not in _POSITIONS or entry.epoch not in _POSITIONS:
        return Arrived(record, _unreadable(record.epoch, record.data), None)
    row = Row(entry.seq, entry.epoch, entry.at, EVENT_NAMES[type(entry.event)], record.data)
    return Arrived(record, row, entry.event)


def _is_storable(record: Record) -> bool:
    """Tell whether databases take what a record says of itself: numbers of 64 bits, and text with no character 0."""
    numbers, texts = (record.start, record.epoch), (record.life, record.owner)
    if not all(type(number) is int and number in _POSITIONS for number in numbers):
        return False
    try:
        return not any(b"\0" in text.encode() for text in texts)
    except UnicodeEncodeError:  # a surrogate by itself
        return False


def _unreadable(epoch: int, data: bytes) -> Row:
    at = header_of(data).get("at")
    return Row(0, epoch if epoch in _POSITIONS else 0, at if type(at) is float else 0.0, UNREADABLE, data)


def header_of(data: bytes) -> Mapping[str, Any]:
    """Return the header of an entry; nothing if it cannot be read."""
    try:
        header = decode(data.partition(b"\n")[0])
    except ValueError:
        return {}
    return header if isinstance(header, dict) else {}
