"""Conversations of which the archive has no entries: they are older than the archive, or it has missed a part of them.

Of such a conversation the archive takes the state that Redis has. What had left the window before is lost to it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any, Protocol

from sqlalchemy import Row, func, select

from conversation_actors.activation.recovery import restate
from conversation_actors.archive.database import Database
from conversation_actors.archive.filling import lacking
from conversation_actors.archive.tables import lives
from conversation_actors.errors import ConversationNotFoundError, OperatorError
from conversation_actors.failures import Failures
from conversation_actors.state import ConversationState, Limits
from conversation_actors.store import Found, Store, Stored

_PAGE = 200
_HOPE = timedelta(days=1)
"""After so long an owner that lives has restored what Redis has lost, or nobody will."""


class AdoptingWriter(Protocol):
    """What adoption needs of a `Writer`."""

    async def adopt(self, conversation_id: str, stored: Stored, state: ConversationState) -> bool:
        """Write a state that is ahead of what is archived; tell whether it was."""

    async def fill(self, conversation_id: str, stored: Stored, state: ConversationState) -> int:
        """Write what the state knows of the gaps before it; return how many items that were."""

    async def forsake(self, identities: Collection[int]) -> None:
        """Note of lives, by the numbers of their rows, that nothing is known of what they lack."""


class UnknownConversations:
    """Finds living conversations that the archive does not know up to their end, and writes their states."""

    def __init__(
        self, store: Store, database: Database, writer: AdoptingWriter, *, tenant: str, limits: Limits,
        retention: timedelta | None = None, failures: Failures,
    ) -> None:  # fmt: skip
        """Leave alone what was active longer ago than `retention`: it would be removed from the archive again."""
        self._store, self._database, self._writer = store, database, writer
        self._tenant, self._limits, self._failures = tenant, limits, failures
        self._retention = retention

    async def adopt(self, conversation_id: str) -> bool:
        """Write the state of a conversation of which nothing waits; tell whether the archive lacked anything of it.

        Raises `CorruptStateError` if what Redis has cannot be read.
        """
        found = await self._read(conversation_id)
        return found is not None and await self._writer.adopt(conversation_id, *found)

    async def fill(self, conversation_id: str) -> int:
        """Write what is still known of entries that the archive has missed; return how many items that were.

        Reads no state that could not be used. Raises `CorruptStateError` if what Redis has cannot be read.
        """
        query = lacking(self._tenant).where(lives.c.conversation_id == conversation_id)
        async with self._database.reading("look for a gap") as connection:
            seqs = {row.seq for row in await connection.execute(query)}
        head = await self._store.head(conversation_id) if seqs else None
        return await self._fill(conversation_id) if head is not None and head.seq in seqs else 0

    async def _fill(self, conversation_id: str) -> int:
        found = await self._read(conversation_id)
        return 0 if found is None else await self._writer.fill(conversation_id, *found)

    async def fill_all(self) -> int:
        """Do as `fill` for every conversation that lacks something; return how many items were written.

        One that Redis does not have any more is asked for a while, and then never again.
        """
        count, hopeless = 0, list[int]()
        async for life in self._lacking():
            try:
                head = await self._store.head(life.conversation_id)
                if head is not None and head.seq == life.seq:
                    count += await self._fill(life.conversation_id)
                elif head is None and life.active_at < time.time() - _HOPE.total_seconds():
                    hopeless.append(life.id)
            except OperatorError as error:
                self._failures.note("archive filling", error)
        if hopeless:
            await self._writer.forsake(hopeless)
        return count

    async def _lacking(self) -> AsyncIterator[Row[Any]]:
        """Yield the lives that lack something, some at a time."""
        last = 0
        while True:
            async with self._database.reading("look for gaps") as connection:
                query = lacking(self._tenant).where(lives.c.id > last).limit(_PAGE)
                page = (await connection.execute(query)).all()
            for life in page:
                yield life
            if len(page) < _PAGE:
                return
            last = page[-1].id

    async def _read(self, conversation_id: str) -> tuple[Stored, ConversationState] | None:
        try:
            stored = await self._store.read(conversation_id)
        except ConversationNotFoundError:
            return None
        return stored, restate(stored, self._limits)[0]

    async def adopt_all(self) -> int:
        """Write the state of every conversation that needs it, and return how many those were.

        One whose stored state cannot be read is counted as a failure, and the others go on.
        """
        count = 0
        oldest = time.time() - self._retention.total_seconds() if self._retention is not None else 0.0
        async for page in self._pages():
            for conversation_id in await self._unknown([one for one in page if one.last_active_at > oldest]):
                try:
                    count += await self.adopt(conversation_id)
                except OperatorError as error:
                    self._failures.note("archive adoption", error)
            await asyncio.sleep(0)
        return count

    async def _unknown(self, page: list[Found]) -> list[str]:
        """Return those of which the archive lacks something, and nothing waits either.

        The order matters: what was in no backlog after it was listed is in the archive by the time that this is asked.
        """
        coming = {one.conversation_id for one in await self._store.backlog().waiting()}
        rest = [one for one in page if one.conversation_id not in coming]
        known = await self._known(one.conversation_id for one in rest) if rest else {}
        return [one.conversation_id for one in rest if known.get(one.conversation_id, 0) < one.seq]

    async def _known(self, conversation_ids: Iterable[str]) -> Mapping[str, int]:
        """Return the last archived position of each conversation that the archive knows."""
        names = list(conversation_ids)
        query = (
            select(lives.c.conversation_id, func.max(lives.c.seq))
            .where(lives.c.tenant == self._tenant, lives.c.conversation_id.in_(names), lives.c.deleted_at.is_(None))
            .group_by(lives.c.conversation_id)
        )
        async with self._database.reading("look for unknown conversations") as connection:
            return {row[0]: row[1] for row in await connection.execute(query)}

    async def _pages(self) -> AsyncIterator[list[Found]]:
        """Yield all listed conversations, some at a time."""
        page: list[Found] = []
        async for one in self._store.list():
            page.append(one)
            if len(page) == _PAGE:
                yield page
                page = []
        if page:
            yield page
