"""A client's pictures and an archive that hangs: the archive ends the wait itself, and is not cancelled meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from conversation_actors.client.pictures import ConversationPictures
from conversation_actors.errors import ArchiveUnavailableError
from conversation_actors.failures import Failures
from conversation_actors.pictures import Picture
from conversation_actors.settings import ArchiveSettings, Settings

SECONDS = 0.05
PICTURE = Picture("image/jpeg", bytes(range(256)) * 20)


class Hanging:
    """Stands in for an archive and its database: each block ends by its own time-out, with the grace that it takes."""

    is_configured = True

    def __init__(self) -> None:
        """Nobody has waited."""
        self.ended: list[str] = []

    async def database(self) -> "Hanging":
        """Return the database, which is connected to."""
        return self

    @asynccontextmanager
    async def _block(self, doing: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(2 * SECONDS):
                await asyncio.Event().wait()
        except TimeoutError:
            self.ended.append("by itself")
            raise ArchiveUnavailableError(doing) from None
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        yield

    reading = writing = _block


def pictures_in(archive: Any) -> ConversationPictures:
    """Return the pictures of a conversation in this archive."""
    settings = Settings(archive=ArchiveSettings(timeout=timedelta(seconds=SECONDS), picture_bytes=4096))
    return ConversationPictures("c", archive, settings, Failures(), seen_at=lambda: 1.0)


async def test_a_database_that_hangs_is_not_cancelled() -> None:
    """Cancelling a statement takes psycopg seconds more, in which the caller's message would wait."""
    archive = Hanging()
    assert await pictures_in(archive).keep([PICTURE.address]) == {}
    with pytest.raises(ArchiveUnavailableError):
        await pictures_in(archive).find([PICTURE.reference.address])
    assert archive.ended == ["by itself", "by itself"]
