"""A backup of Redis and the archive while both are at work: each conversation as it was at one moment.

The archive is read first and Redis after it, with the conversation's backlog claimed, so that what moves from one to
the other in between is in the backup once or twice, and never not at all: what comes twice, the archive knows. Whether
that has held is seen in what was read, and otherwise the conversation is read again. Nothing but conversations is
copied: no signs of life, no listings (they are made anew), and no key or password, as none is kept with conversations.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from conversation_actors.archive.copying import Chosen, Copies
from conversation_actors.archive.rows import LIFE, Row
from conversation_actors.backoff import Backoff
from conversation_actors.codec.lines import split_lines
from conversation_actors.errors import ArchiveUnavailableError, ConversationError, InvalidInputError
from conversation_actors.store import Store
from conversation_actors.store.backlog import Record, decode_record
from conversation_actors.store.redis_copies import RedisCopies, RedisCopy
from conversation_actors.transfer.backup_rows import BACKUP, rows_of
from conversation_actors.transfer.export_file import ExportWriter
from conversation_actors.transfer.exporting import Exported
from conversation_actors.transfer.files import NewFile

logger = logging.getLogger(__name__)

FILE = "conversations.backup"
"""The name of a backup's one file in its directory."""
_CLAIM = timedelta(seconds=60)
_TRIES = 20
_PAUSES = (0.02, 1.0)
_WITH_DELETED = Chosen(deleted=True)


class _MovedError(Exception):
    """Something has left the backlog after the archive was read."""


class Backup:
    """Writes one backup of a tenant's conversations."""

    def __init__(self, store: Store, redis: RedisCopies, copies: Copies) -> None:
        """Read from these, which others close."""
        self._store, self._redis, self._copies = store, redis, copies
        self._archiver = f"backup-{secrets.token_hex(8)}"

    async def write(self, directory: Path) -> Exported:
        """Write the backup into a directory, made if it is missing. Raises `InvalidInputError` if one is there."""
        path = _new_file(directory)
        with NewFile(path) as file:
            export = ExportWriter(file, BACKUP)
            async for conversation_id in self._ids():
                await self._one(export, conversation_id)
            export.finish()
        return Exported(export.conversations, 1, file.size)

    async def _ids(self) -> AsyncIterator[str]:
        """Yield the ids of both, each once, in the order of their bytes. Redis's are as many as fit into its memory."""
        waiting = sorted(await self._redis.ids(), key=str.encode, reverse=True)
        async for archived in self._copies.ids(with_deleted=True):
            while waiting and waiting[-1].encode() < archived.encode():
                yield waiting.pop()
            if waiting and waiting[-1] == archived:
                waiting.pop()
            yield archived
        while waiting:
            yield waiting.pop()

    async def _one(self, export: ExportWriter, conversation_id: str) -> None:
        backoff = Backoff(_PAUSES)
        for _ in range(_TRIES):
            try:
                async with self._claimed(conversation_id):
                    await export.add(conversation_id, self._rows(conversation_id))
            except _MovedError:
                await backoff.wait()
            else:
                await self._store.backlog().release(conversation_id, archiver=self._archiver)
                return
        message = f"backing up {conversation_id!r}: it was archived faster than it could be copied, {_TRIES} times"
        raise ArchiveUnavailableError(message)

    async def _rows(self, conversation_id: str) -> AsyncIterator[Row]:
        archived: dict[str, int] = {}
        async for row in self._copies.rows(conversation_id, _WITH_DELETED):
            if row.kind == LIFE and row.values["deleted_at"] is None:
                archived[row.values["life"]] = row.values["seq"]
            yield row
        copy = await self._redis.read(conversation_id)
        if not is_whole(archived, copy):
            raise _MovedError
        for row in rows_of(copy):
            yield row

    @asynccontextmanager
    async def _claimed(self, conversation_id: str) -> AsyncIterator[None]:
        """Claim the backlog from before the archive is read until Redis has been read.

        Another task renews the claim, so that no transaction of the archive is kept open by a Redis that hangs.
        """
        await self._claim(conversation_id)
        renewing = asyncio.create_task(self._renew(conversation_id))
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.wait({renewing})

    async def _renew(self, conversation_id: str) -> None:
        while True:
            await asyncio.sleep(_CLAIM.total_seconds() / 4)
            try:
                await self._claim(conversation_id)
            except ConversationError as error:  # Redis is read next, which says so or finds out what was missed
                logger.warning("the claim of a backup was not renewed", extra={"reason": str(error)})

    async def _claim(self, conversation_id: str) -> None:
        """Keep archivers away for a while. If one is at work, what it does in between is seen by `is_whole`."""
        await self._store.backlog().take(conversation_id, archiver=self._archiver, ttl=_CLAIM, most_bytes=1)


def is_whole(archived: dict[str, int], copy: RedisCopy) -> bool:
    """Tell whether what Redis had goes on where the archive ended, or before that.

    `archived` has the last position of each life that was not deleted, as it was before Redis was read.
    """
    if not copy.meta or int(copy.archive.get(b"given_up", b"0")):
        return True
    life, seq = copy.meta[b"life"].decode(), int(copy.meta[b"seq"])
    records = [record for record in _records(copy.backlog) if record.life == life]
    if copy.meta.get(b"deleted") == b"1":
        return life not in archived or any(record.data is None for record in records)
    waiting = min((position for record in records if (position := _position(record)) is not None), default=None)
    if life not in archived and not copy.archive:
        return True  # it came about without an archive
    known = archived.get(life, int(copy.meta.get(b"start", copy.meta[b"base"])))
    return known >= seq if waiting is None else waiting <= known + 1


def _records(backlog: Collection[bytes]) -> list[Record]:
    records = []
    for stored in backlog:
        try:
            records.append(decode_record(stored))
        except ValueError:
            continue  # it is copied as it is, and the archive keeps it as it is
    return records


def _position(record: Record) -> int | None:
    try:
        header, _ = split_lines(record.data or b"")
    except ConversationError:
        return None
    seq = header.get("seq")
    return seq if isinstance(seq, int) else None


def _new_file(directory: Path) -> Path:
    path = directory / FILE
    if path.exists():
        message = f"directory: {directory} has a backup already; name another one"
        raise InvalidInputError(message, field="directory")
    return path
