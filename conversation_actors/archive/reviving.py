"""What a conversation is that Redis has no more: its newest archived life, and what still waits for the archive.

Redis is asked first and the database after it: what an archiver moves meanwhile is seen in one of them, or in both.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.checkpoints import state_at
from conversation_actors.archive.database import Database
from conversation_actors.archive.newest import ArchivedLife, lives_of, newest_of
from conversation_actors.archive.replaying import ArchivedEntry, replay, succeeded
from conversation_actors.archive.tables import entries
from conversation_actors.archive.waiting import beside
from conversation_actors.codec import decode_entry
from conversation_actors.errors import CorruptStateError
from conversation_actors.state import ConversationState, Limits
from conversation_actors.store.backlog import Batch, Record, decode_record
from conversation_actors.store.base import Ancestor

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Asleep:
    """A conversation as it goes on when it is opened again: its state, and the last claim that wrote it."""

    state: ConversationState
    start: int
    epoch: int
    owner: str
    lineage: tuple[Ancestor, ...]


@dataclass(frozen=True, slots=True)
class _Late:
    """An entry that is not archived yet, with whose it is."""

    entry: ArchivedEntry
    epoch: int
    owner: str


async def state_of(
    database: Database, tenant: str, conversation_id: str, *, limits: Limits, waiting: Batch
) -> Asleep | None:
    """Return the conversation as it was acknowledged last; None if there is none, or it was deleted.

    `waiting` is what `Backlog.peek` has returned before this is called. Nobody holds a lease any more; participants
    are as the last entry has left them. Raises `ArchiveUnavailableError`, `ArchiveMisconfiguredError`, and for what
    cannot be read `CorruptStateError`, which names table and key, or `IncompatibleVersionError`.
    """
    records = await beside(waiting.stored, _readable, waiting)
    async with database.reading("open a conversation") as connection:
        life, own = newest_of(await lives_of(connection, tenant, conversation_id), records)
        if life is None:
            return None
        placed = await beside(waiting.stored, _placed, own)
        through, late = _following(life, await _epochs(connection, life, placed), placed)
        if life.number is None:
            state = ConversationState(limits, seq=life.start)
            state.life = life.life
        else:
            state = await state_at(connection, life, limits, through=through)
    return await beside(waiting.stored, _woken, life, state, late)


async def was_deleted(database: Database, tenant: str, conversation_id: str) -> bool:
    """Tell whether the archive remembers that the conversation was deleted."""
    async with database.reading("look for a deletion") as connection:
        return any(life.is_deleted for life in await lives_of(connection, tenant, conversation_id))


def _woken(life: ArchivedLife, state: ConversationState, late: Sequence[_Late]) -> Asleep:
    """Bring the archived state up to date."""
    epoch, owner, lineage = life.epoch, life.owner, life.lineage
    for one in late:
        if one.owner != owner:
            lineage = succeeded(lineage, Ancestor(life.life, epoch, owner, one.entry.seq - 1))
        epoch, owner = one.epoch, one.owner
    replay(state, [one.entry for one in late])
    state.leases = {}
    return Asleep(state, life.start, epoch, owner, lineage)


def _readable(waiting: Batch) -> list[Record]:
    """Return the records, without those of which nobody can say whose they are: they are archived as they are."""
    records = []
    for stored in waiting.stored:
        try:
            records.append(decode_record(stored))
        except ValueError as error:
            logger.warning("a record that waits for the archive cannot be read", extra={"reason": repr(error)})
    return records


def _placed(own: Sequence[Record]) -> list[tuple[int, Record]]:
    """Return each record with the position of its entry, without those whose entry cannot be read."""
    return [(seq, record) for record in own if (seq := _seq_of(record)) is not None]


async def _epochs(
    connection: AsyncConnection, life: ArchivedLife, own: Sequence[tuple[int, Record]]
) -> Mapping[int, int]:
    """Return the epochs of the archived entries at the positions of which records wait as well."""
    if life.number is None or not own:
        return {}
    wanted = (entries.c.life_id == life.number) & (entries.c.seq >= min(seq for seq, _ in own))
    rows = await connection.execute(select(entries.c.seq, entries.c.epoch).where(wanted))
    return {row.seq: row.epoch for row in rows}


def _following(
    life: ArchivedLife, archived: Mapping[int, int], own: Sequence[tuple[int, Record]]
) -> tuple[int, list[_Late]]:
    """Return up to which position the archive's entries count, and the entries that follow.

    A copy of what is known changes nothing. Another entry, of a later claim, at a known position means that Redis had
    lost what was acknowledged from there on, and that the conversation went on without it.
    """
    through, late = life.seq, list[_Late]()
    for seq, record in own:
        last = late[-1].entry.seq if late else through
        if seq <= last:
            known = next((one.epoch for one in late if one.entry.seq == seq), archived.get(seq))
            if known is None or record.epoch <= known:
                continue
            through = min(through, seq - 1)
            late = [one for one in late if one.entry.seq < seq]
        name = f"the backlog's entry {seq} of life {life.life}"
        late.append(_Late(ArchivedEntry(name, seq, "", record.data or b""), record.epoch, record.owner))
    return through, late


def _seq_of(record: Record) -> int | None:
    """Return a record's position; None if its entry cannot be read."""
    try:
        return None if record.data is None else decode_entry(record.data).seq
    except CorruptStateError as error:
        logger.warning("an entry that waits for the archive cannot be read", extra={"reason": str(error)})
        return None
