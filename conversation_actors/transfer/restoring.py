"""A backup into an empty Redis and an empty archive."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from conversation_actors.archive.copying import Chosen, Copies
from conversation_actors.archive.rows import COLUMNS, Row
from conversation_actors.errors import ConflictError, CorruptStateError
from conversation_actors.store import Store
from conversation_actors.store.redis_copies import RedisCopies
from conversation_actors.transfer.backing_up import FILE
from conversation_actors.transfer.backup_rows import BACKUP, copy_of
from conversation_actors.transfer.export_file import Begun, Ended, Part, digest_of, read_export, tally_of
from conversation_actors.transfer.lines import row_line

_WITH_DELETED = Chosen(deleted=True)


class Restoration:
    """Restores one backup. Nothing may use the pair before that has ended."""

    def __init__(self, store: Store, redis: RedisCopies, copies: Copies) -> None:
        """Write into these, which others close."""
        self._store, self._redis, self._copies = store, redis, copies

    async def run(self, directory: Path) -> int:
        """Check the whole backup, restore it, and make the listings; return the number of conversations.

        Raises `ConflictError`, before anything is written, if Redis or the archive has anything of the tenant.
        """
        path = directory / FILE
        for _ in read_export(path, BACKUP):
            pass
        await self._require_empty()
        conversations = 0
        parts = read_export(path, BACKUP)
        for part in parts:
            if isinstance(part, Begun):
                await self._one(part.conversation_id, parts)
                conversations += 1
        await self._store.reindex()
        await self._store.backlog().relist()
        return conversations

    async def _require_empty(self) -> None:
        places = [
            name
            for name, is_empty in (
                ("Redis", await self._redis.is_empty()),
                ("the archive", await self._copies.is_empty()),
            )
            if not is_empty
        ]
        if places:
            message = f"nothing was restored: {' and '.join(places)} must be empty, and has something of this tenant"
            raise ConflictError(message)

    async def _one(self, conversation_id: str, parts: Iterator[Part]) -> None:
        """Restore a conversation: the archive's part first, as Redis's goes on from there."""
        rows = _Rows(conversation_id, parts)
        if rows.has_archived:

            async def check(added: AsyncIterator[Row]) -> None:
                if await digest_of(conversation_id, added) != rows.archived.sha256:
                    message = f"{conversation_id!r}: the archive gave back other rows than it was given"
                    raise CorruptStateError(message, key=conversation_id, position=0)

            await self._copies.add(conversation_id, rows, check, _WITH_DELETED)
        copy = copy_of(rows.of_redis())
        if copy is not None and not await self._redis.add(conversation_id, copy):
            message = f"{conversation_id!r} came into Redis while it was restored; empty both, and begin again"
            raise ConflictError(message)


class _Rows:
    """The rows of one conversation of a backup: the archive's, when this is iterated over, and then Redis's."""

    def __init__(self, conversation_id: str, parts: Iterator[Part]) -> None:
        self._parts = parts
        self.archived = tally_of(conversation_id)
        self._next = next(parts)
        self.has_archived = isinstance(self._next, Row) and self._next.kind in COLUMNS

    def __iter__(self) -> Iterator[Row]:
        while isinstance(self._next, Row) and self._next.kind in COLUMNS:
            self.archived.add(row_line(self._next, COLUMNS))
            yield self._next
            self._next = next(self._parts)

    def of_redis(self) -> Iterator[Row]:
        """Yield what comes after."""
        while not isinstance(self._next, Ended):
            assert isinstance(self._next, Row)
            yield self._next
            self._next = next(self._parts)
