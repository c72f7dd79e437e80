"""Writes into the archive: records of backlogs, states, deletions. Each call is one transaction.

What is written twice is there once, whoever writes it, and whatever has happened to the first of them.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive import pictures
from conversation_actors.archive.adoption import adopt
from conversation_actors.archive.database import Database
from conversation_actors.archive.filling import fill_gaps
from conversation_actors.archive.gaps import Gap
from conversation_actors.archive.outbox_forgetting import drop_cursors, is_lacked_by, unsent
from conversation_actors.archive.passage import Tally
from conversation_actors.archive.records import read
from conversation_actors.archive.succession import locked_lives
from conversation_actors.archive.tables import lives
from conversation_actors.state import ConversationState
from conversation_actors.store.backlog import Record
from conversation_actors.store.base import Stored

__all__ = ["Gap", "Writer", "Written"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Written:
    """What a batch came to: `entries` are new, `repeated` were there or belong to what was deleted.

    `items` arrived in new entries. `superseded` entries gave way to others, `deleted` lives were deleted.
    `is_lacking` tells of a life with gaps of which Redis may know something: see `Writer.fill`.
    """

    entries: int = 0
    repeated: int = 0
    items: int = 0
    gaps: tuple[Gap, ...] = ()
    superseded: int = 0
    deleted: int = 0
    is_lacking: bool = False


class Writer:
    """Writes what belongs to one tenant. Methods raise as `Database` says, and then nothing is written.

    They also raise `CorruptStateError`, with table and row, if what is stored cannot be read.
    """

    def __init__(self, database: Database, tenant: str) -> None:
        self._database = database
        self._tenant = tenant

    async def write(self, conversation_id: str, records: Sequence[bytes], *, quietly: bool = False) -> Written:
        """Write records of a backlog, in order, all or none. Repeats are recognised; gaps are noted.

        If `quietly`, nobody is told of what they come to: they are of calls that are long over.

        Bytes that cannot be read are kept as they are, as an entry "unreadable". Raises `IncompatibleVersionError`, and
        writes nothing, if an entry is of a newer version: it waits for an archiver that can read it.
        """
        return (await self.write_all({conversation_id: records}, quietly=quietly))[conversation_id]

    async def write_all(self, batches: Mapping[str, Sequence[bytes]], *, quietly: bool = False) -> dict[str, Written]:
        """Write records of many conversations, all or none; as `write`, and much cheaper than each by itself.

        If one of them cannot be written, none is: write each by itself then.
        """
        arrived = {name: [read(record) for record in records] for name, records in batches.items()}
        tallies = {name: Tally() for name in arrived}
        if any(arrived.values()):
            async with self._database.writing("archiving entries") as connection:
                gathered, here = await locked_lives(connection, self._tenant, arrived)
                for name in sorted(arrived):
                    await here[name].take(arrived[name], tallies[name])
                await gathered.flush()
                if quietly:
                    mine = (lives.c.tenant == self._tenant, lives.c.conversation_id.in_(list(arrived)))
                    await connection.execute(update(lives).where(*mine).values(quiet=lives.c.seq))
        return {name: _written(tally) for name, tally in tallies.items()}

    async def adopt(self, conversation_id: str, stored: Stored, state: ConversationState) -> bool:
        """Take over a conversation of which only the state is known, at its position; tell whether that was news.

        The entries up to it are noted as a gap. They are still taken if they come.
        """
        async with self._database.writing("archiving a state") as connection:
            _, found = await locked_lives(connection, self._tenant, {conversation_id: ()})
            life = await found[conversation_id].get(
                Record(stored.life, 0, stored.epoch, stored.owner, b""), at=state.changed_at
            )
            if life.deleted_at is not None or life.seq >= state.seq:
                return False
            await adopt(connection, life, stored, state)
        return True

    async def fill(self, conversation_id: str, stored: Stored, state: ConversationState) -> int:
        """Take from a state what the archive lacks of the gaps before it; return how many items that were.

        Does nothing unless the state is the one after the last archived entry: then the life is `lacking` no more.
        Positions stay as they are, and so do the gaps, whose entries nobody has.
        """
        async with self._database.writing("filling a gap") as connection:
            _, found = await locked_lives(connection, self._tenant, {conversation_id: ()})
            life = next((one for one in found[conversation_id].living if one.life == stored.life), None)
            return 0 if life is None else await fill_gaps(connection, life, stored, state)

    async def forsake(self, identities: Collection[int]) -> None:
        """Note of lives, by the numbers of their rows, that nothing is known of what they lack."""
        async with self._database.writing("leaving gaps as they are") as connection:
            await connection.execute(update(lives).where(lives.c.id.in_(identities)).values(is_lacking=False))

    async def delete(self, conversation_id: str, *, only: Collection[str] | None = None) -> int:
        """Delete all lives of a conversation, or `only` those of these names; return how many there were.

        Pictures go when no life is left. The names of lives stay, so that records which come late are not archived.
        """
        async with self._database.writing("deleting a conversation") as connection:
            _, found = await locked_lives(connection, self._tenant, {conversation_id: ()})
            here = found[conversation_id]
            chosen = [life for life in here.living if only is None or life.life in only]
            await here.erase(chosen)
            if not here.living:
                await pictures.drop_all(connection, self._tenant, [conversation_id])
        return len(chosen)

    async def lives(self, conversation_id: str, *, with_deleted: bool = False) -> tuple[str, ...]:
        """Return the names of a conversation's lives, the oldest first; without those that were deleted, or with."""
        mine = (lives.c.tenant == self._tenant, lives.c.conversation_id == conversation_id)
        query = select(lives.c.life).where(*mine).order_by(lives.c.id)
        async with self._database.reading("looking for a conversation") as connection:
            found = await connection.execute(query if with_deleted else query.where(lives.c.deleted_at.is_(None)))
            return tuple(found.scalars())

    async def purge(self, before: float, *, most: int, kept_for: str | None = None) -> int:
        """Drop the lives whose last entry, or deletion, was `before`, at most so many; return how many there were.

        What the outbox has of them goes too, sent or not; a warning tells how much no endpoint will get. Lives of which
        the destination `kept_for` lacks something stay until it has everything.
        """
        last = func.coalesce(lives.c.deleted_at, lives.c.active_at)
        old = select(lives.c.id, lives.c.conversation_id).where(
            lives.c.tenant == self._tenant, lives.c.active_at < before, last < before
        )
        if kept_for is not None:
            old = old.where(~is_lacked_by(kept_for))
        async with self._database.writing("dropping what is too old") as connection:
            found = (await connection.execute(old.order_by(lives.c.active_at).limit(most).with_for_update())).all()
            if not found:
                return 0
            identities, names = [identity for identity, _ in found], {name for _, name in found}
            gone = names - await self._there_without(connection, names, identities)
            lost = await unsent(connection, identities)
            await drop_cursors(connection, self._tenant, gone)
            await connection.execute(delete(lives).where(lives.c.id.in_(identities)))
            await pictures.drop_all(connection, self._tenant, gone)
        if lost.happenings or lost.dead_letters:
            told = {"happenings": lost.happenings, "dead_letters": lost.dead_letters}
            logger.warning("retention has dropped what an endpoint did not take", extra=told)
        return len(found)

    async def lacked(self, before: float, destination: str) -> int:
        """Return how many lives `purge` keeps for a destination, which lacks something of them."""
        old = (lives.c.tenant == self._tenant, lives.c.active_at < before, lives.c.deleted_at.is_(None))
        query = select(func.count()).select_from(lives).where(*old, is_lacked_by(destination))
        async with self._database.reading("counting what is kept") as connection:
            return int((await connection.execute(query)).scalar_one())

    async def _there_without(
        self, connection: AsyncConnection, names: Collection[str], identities: Collection[int]
    ) -> set[str]:
        """Return those of the conversations that have a life besides these."""
        of = lives.c
        mine = (of.tenant == self._tenant, of.conversation_id.in_(names), of.deleted_at.is_(None))
        query = select(of.conversation_id).where(*mine, of.id.not_in(identities))
        return set((await connection.execute(query)).scalars())


def _written(tally: Tally) -> Written:
    return Written(
        tally.entries, tally.repeated, tally.items, tuple(tally.gaps), tally.superseded, tally.deleted, tally.is_lacking
    )
