"""What waits in Redis for the archive, of one life of a conversation."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from conversation_actors.codec import decode_entry
from conversation_actors.errors import CorruptStateError
from conversation_actors.state import Entry
from conversation_actors.store.backlog import Record, decode_record


@dataclass(frozen=True, slots=True)
class WaitingEntries:
    """The entries of one life that wait, in the order in which they were written. Some may be archived already.

    `is_deleted` tells that the life's deletion waits too. `start` is the position at which the life began; None if no
    entry waits.
    """

    entries: Sequence[Entry]
    start: int | None = None
    is_deleted: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether every entry of the life waits, from its first one on."""
        if self.start is None:
            return False
        reached = self.start
        for entry in self.entries:
            if entry.seq > reached + 1:
                return False
            reached = max(reached, entry.seq)
        return True


def entries_waiting(stored: Iterable[bytes], life: str, *, key: str) -> WaitingEntries:
    """Read the records of a backlog, which is kept under `key`.

    Raises `CorruptStateError` or `IncompatibleVersionError` for an entry of this life that cannot be read.
    """
    start: int | None = None
    entries: list[Entry] = []
    is_deleted = False
    for index, data in enumerate(stored):
        name = f"{key}[{index}]"
        record = _record(data, name)
        if record.life != life:
            continue
        if record.data is None:
            entries.clear()
            start, is_deleted = None, True
            continue
        start = record.start
        try:
            entries.append(decode_entry(record.data))
        except CorruptStateError as error:
            raise error.at(name) from error
    return WaitingEntries(entries, start, is_deleted)


def _record(data: bytes, key: str) -> Record:
    try:
        return decode_record(data)
    except (ValueError, TypeError) as error:
        message = f"{key}: {error}"
        raise CorruptStateError(message, key=key, position=0) from error
