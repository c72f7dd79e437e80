"""How long the archive keeps conversations: a time of its own, which may be years where Redis keeps minutes."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

from conversation_actors.errors import ArchiveUnavailableError

_AT_ONCE = 100
"""Lives that are removed in one transaction at most: archivers wait for it."""


class PurgingWriter(Protocol):
    """What retention needs of a `Writer`."""

    async def purge(self, before: float, *, most: int, kept_for: str | None = None) -> int:
        """Remove lives whose last entry is older than `before`, `most` at most; return how many.

        Those stay of which the destination `kept_for` lacks something.
        """


class Retention:
    """Removes what the archive has kept for long enough."""

    def __init__(
        self, writer: PurgingWriter, kept: timedelta, *,
        kept_for: str | None = None, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        """Keep a conversation for `kept` after its last entry, and until the destination `kept_for` has all of it."""
        self._writer, self._kept, self._clock = writer, kept.total_seconds(), clock
        self._kept_for = kept_for
        self._most = _AT_ONCE

    async def purge(self) -> int:
        """Remove everything that is due, and return how many lives those were.

        Where the database does not remove so many in time, fewer are tried, down to one.
        """
        count, self._most = 0, min(_AT_ONCE, self._most * 2)
        while removed := await self._remove_some():
            count += removed
        return count

    async def _remove_some(self) -> int:
        while True:
            try:
                return await self._writer.purge(self._clock() - self._kept, most=self._most, kept_for=self._kept_for)
            except ArchiveUnavailableError:
                if self._most == 1:
                    raise
                self._most //= 2
