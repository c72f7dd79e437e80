"""How long the archive keeps conversations: a time of its own, which may be years where Redis keeps minutes."""

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

from conversation_actors.errors import ArchiveUnavailableError
from conversation_actors.settings import Settings

logger = logging.getLogger(__name__)

_AT_ONCE = 100
"""Lives that are removed in one transaction at most: archivers wait for it."""


def kept_by(settings: Settings) -> timedelta | None:
    """Return how long the archive keeps a conversation after its last entry; None is for ever.

    Where the archive is the outbox alone, not shorter than Redis: a life that went on there after the archive has
    forgotten it would number its calls anew.
    """
    kept = settings.archive.retention
    return max(kept, settings.ttl) if kept is not None and settings.backend.is_record else kept


class PurgingWriter(Protocol):
    """What retention needs of a `Writer`."""

    async def purge(self, before: float, *, most: int, kept_for: str | None = None) -> int:
        """Remove lives whose last entry is older than `before`, `most` at most; return how many.

        Those stay of which the destination `kept_for` lacks something.
        """

    async def lacked(self, before: float, destination: str) -> int:
        """Return how many lives those are."""
        ...


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
        if self._kept_for is not None and (left := await self._writer.lacked(self._before(), self._kept_for)):
            told = {"lives": left, "destination": self._kept_for}
            logger.info("lives are kept for longer: the back end does not have all of them", extra=told)
        return count

    def _before(self) -> float:
        return self._clock() - self._kept

    async def _remove_some(self) -> int:
        while True:
            try:
                return await self._writer.purge(self._before(), most=self._most, kept_for=self._kept_for)
            except ArchiveUnavailableError:
                if self._most == 1:
                    raise
                self._most //= 2
