"""What waits in Redis for the archive, of one life of a conversation."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from conversation_actors.codec import decode_entry
from conversation_actors.errors import CorruptStateError
from conversation_actors.state import Entry
from conversation_actors.store.backlog import decode_record

logger = logging.getLogger(__name__)

_BYTES_AT_ONCE = 256 << 10
"""What is read of a backlog between two turns of the event loop; more than that waits only while an archive is away."""
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


async def beside(
    stored: Iterable[bytes], function: Callable[_Arguments, _Result], *args: _Arguments.args, **named: _Arguments.kwargs
) -> _Result:
    """Call a function that reads these records: beside the event loop, unless they are few."""
    if sum(map(len, stored)) <= _BYTES_AT_ONCE:
        return function(*args, **named)
    return await asyncio.to_thread(function, *args, **named)


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


def entries_waiting(stored: Iterable[bytes], life: str) -> WaitingEntries:
    """Read the records of a backlog.

    What cannot be read is left out, with a warning: the archive keeps it as bytes that nobody can read either. Raises
    `IncompatibleVersionError` for an entry that a newer version has written.
    """
    start: int | None = None
    entries: list[Entry] = []
    is_deleted = False
    for data in stored:
        try:
            record = decode_record(data)
            if record.life != life:
                continue
            if record.data is None:
                entries.clear()
                start, is_deleted = None, True
                continue
            entries.append(decode_entry(record.data))
            start = record.start
        except (ValueError, CorruptStateError) as error:
            logger.warning("a record that waits for the archive cannot be read", extra={"reason": repr(error)})
    return WaitingEntries(entries, start, is_deleted)
