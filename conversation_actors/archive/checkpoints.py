"""States to begin from: a conversation comes back from the last checkpoint and the entries after it.

Archivers make a checkpoint after every `CHECKPOINT_ENTRIES` entries of a conversation, and when it falls idle.
"""

import asyncio
import logging
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.database import Database
from conversation_actors.archive.lives import Life
from conversation_actors.archive.newest import ArchivedLife, lives_of, locked_life
from conversation_actors.archive.replaying import ArchivedEntry, replay
from conversation_actors.archive.tables import checkpoints, entries, gaps
from conversation_actors.codec import decode_snapshot, stored_snapshot
from conversation_actors.errors import CorruptStateError, IncompatibleVersionError
from conversation_actors.state import ConversationState, Limits

if TYPE_CHECKING:
    from conversation_actors.archive.writer import Written  # the writer makes checkpoints too

logger = logging.getLogger(__name__)

CHECKPOINT_ENTRIES = 200
"""Entries of one conversation between two checkpoints: replaying so many takes as long as reading a full window."""
_PAGE_ENTRIES = 2_000
"""Entries that are read at a time, and that one transaction of an archiver replays at most."""
_REMEMBERED = 10_000
"""Conversations whose entries since the last checkpoint are counted: those that had some last."""


class Checkpoints:
    """Makes the checkpoints of one tenant. Belongs to one event loop."""

    def __init__(
        self,
        database: Database,
        tenant: str,
        *,
        limits: Limits,
        every: int = CHECKPOINT_ENTRIES,
        remembered: int = _REMEMBERED,
    ) -> None:
        """Make one after `every` so many entries. `limits` are those that the conversations' owners have."""
        self._database, self._tenant, self._limits = database, tenant, limits
        self._every, self._remembered = every, remembered
        self._fresh: dict[str, int] = {}
        """Entries by conversation that this process has seen archived, and that no checkpoint has yet."""

    async def note(self, conversation_id: str, written: "Written") -> None:
        """Count what was archived just now, and make a checkpoint if it is time for one."""
        await self.count(conversation_id, written.entries)

    async def count(self, conversation_id: str, entries_archived: int) -> None:
        """See `note`."""
        self._fresh[conversation_id] = self._fresh.pop(conversation_id, 0) + entries_archived  # the last one now
        if self._fresh[conversation_id] >= self._every:
            await self.make(conversation_id)
        elif len(self._fresh) > self._remembered:
            del self._fresh[next(iter(self._fresh))]  # idle, perhaps, where another archiver has noticed it

    async def idle(self, conversation_id: str) -> None:
        """Make a checkpoint of a conversation of which nothing came for a while, unless it has an up-to-date one."""
        await self.make(conversation_id)

    async def make(self, conversation_id: str) -> None:
        """Bring the checkpoint of the conversation's newest life up to its last entry.

        Long conversations take several transactions, so that nobody who writes waits for long.
        """
        self._fresh.pop(conversation_id, None)  # first: what cannot be replayed is not tried again with every entry
        while not await self._advance(conversation_id):  # noqa: ASYNC110  # between two pages others have a turn
            await asyncio.sleep(0)

    async def _advance(self, conversation_id: str) -> bool:
        """Replay a page of entries on the checkpoint; return whether it is up to date."""
        async with self._database.writing("make a checkpoint") as connection:
            found = [one for one in await lives_of(connection, self._tenant, conversation_id) if not one.is_deleted]
            life = await locked_life(connection, found[-1].number) if found and found[-1].number is not None else None
            return life is None or await advance(connection, life, self._limits, most=_PAGE_ENTRIES)


async def follow(connection: AsyncConnection, life: Life) -> None:
    """Bring the checkpoint of a life that is being written up to its present position, if its entries can be read."""
    here = ArchivedLife(life.id, life.life, life.start, life.seq, life.epoch, life.owner)
    try:
        await advance(connection, here, Limits())
    except (CorruptStateError, IncompatibleVersionError) as error:
        logger.warning("a checkpoint was not made", extra={"life": life.life, "reason": str(error)})


async def drop(connection: AsyncConnection, life: Life, *, since: int) -> None:
    """Drop a life's checkpoint if it knows the entry `since` or later ones, in whose place others come."""
    late = (checkpoints.c.life_id == life.id) & (checkpoints.c.seq >= since)
    await connection.execute(delete(checkpoints).where(late))


async def replace(connection: AsyncConnection, life: Life, state: ConversationState) -> None:
    """Make a state that somebody else has kept the checkpoint of a life."""
    await connection.execute(delete(checkpoints).where(checkpoints.c.life_id == life.id))
    snapshot = {"life_id": life.id, "seq": state.seq, "data": stored_snapshot(state)}
    await connection.execute(insert(checkpoints), snapshot)


async def advance(connection: AsyncConnection, life: ArchivedLife, limits: Limits, *, most: int | None = None) -> bool:
    """Bring a locked life's checkpoint forward, by `most` entries at most; return whether it is at its last entry."""
    kept = select(checkpoints.c.seq).where(checkpoints.c.life_id == life.number)
    if (await connection.execute(kept)).scalar_one_or_none() == life.seq:
        return True
    begun = await _begin(connection, life, limits, through=life.seq)
    before = begun.seq
    through = life.seq if most is None else min(life.seq, before + most)
    state = await _continue(connection, life, begun, through=through)
    values = {"seq": state.seq, "data": stored_snapshot(state)}
    changed = await connection.execute(update(checkpoints).where(checkpoints.c.life_id == life.number).values(values))
    if not changed.rowcount:
        await connection.execute(insert(checkpoints).values(life_id=life.number, **values))
    return state.seq >= life.seq


async def state_at(
    connection: AsyncConnection, life: ArchivedLife, limits: Limits, *, through: int
) -> ConversationState:
    """Return the state of a life at a position that is archived: the checkpoint before it, and the entries after that.

    What the archive knows to have missed is left out. Raises `CorruptStateError`, with table and key, for entries that
    are missing without the archive's knowing, or cannot be read; `IncompatibleVersionError`.
    """
    return await _continue(connection, life, await _begin(connection, life, limits, through=through), through=through)


async def _begin(connection: AsyncConnection, life: ArchivedLife, limits: Limits, *, through: int) -> ConversationState:
    """Return the state that the checkpoint has, or that the life began with if the checkpoint is later."""
    wanted = (checkpoints.c.life_id == life.number) & (checkpoints.c.seq <= through)
    data = (await connection.execute(select(checkpoints.c.data).where(wanted))).scalar_one_or_none()
    if data is None:
        state = ConversationState(limits, seq=life.start)
    else:
        try:
            state = decode_snapshot(data, limits)
        except CorruptStateError as error:
            raise error.at(life.name("archive_checkpoints")) from error
    state.life = life.life
    return state


async def _continue(
    connection: AsyncConnection, life: ArchivedLife, state: ConversationState, *, through: int
) -> ConversationState:
    """Apply the archived entries after the state's position."""
    read = select(entries.c.seq, entries.c.event, entries.c.data).where(entries.c.life_id == life.number)
    while state.seq < through:
        here = (entries.c.seq > state.seq) & (entries.c.seq <= through)
        page = (await connection.execute(read.where(here).order_by(entries.c.seq).limit(_PAGE_ENTRIES))).all()
        found = [ArchivedEntry(f"{life.name('archive_entries')}[{seq}]", seq, event, data) for seq, event, data in page]
        ends = [one.seq for one in found] if len(found) == _PAGE_ENTRIES else [*(one.seq for one in found), through + 1]
        await _check_missing(connection, life, [state.seq, *ends])
        replay(state, found)
        if len(found) < _PAGE_ENTRIES and state.seq < through:
            state.seq, state.has_counted_all = through, False
    return state


async def _check_missing(connection: AsyncConnection, life: ArchivedLife, seqs: Sequence[int]) -> None:
    """Raise `CorruptStateError` if entries are missing between these positions and no gap was noted for them."""
    missing = [(one + 1, other - 1) for one, other in pairwise(seqs) if other > one + 1]
    if not missing:
        return
    rows = await connection.execute(select(gaps.c.from_seq, gaps.c.to_seq).where(gaps.c.life_id == life.number))
    noted = [(first, last) for first, last in rows]
    for first, last in missing:
        while first <= last:
            ends = [last if end is None else end for begin, end in noted if begin <= first and (end or last) >= first]
            if not ends:
                key = f"{life.name('archive_entries')}[{first}]"
                message = f"{key}: is missing, and no gap was noted"
                raise CorruptStateError(message, key=key, position=0)
            first = max(ends) + 1  # noqa: PLW2901  # goes on behind the gap
