"""What a state knows of the gaps before it: items that came while nothing was archived, and what else changed then.

A life with such a gap is *lacking* until Redis has told what it knows. It can do so only while its state is the one
after the last archived entry: so archivers ask again, until it was, or Redis has the conversation no more.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive import checkpoints, entries, items
from conversation_actors.archive.items import storable
from conversation_actors.archive.lives import Life, save
from conversation_actors.archive.tables import gaps, lives
from conversation_actors.archive.tables import items as here
from conversation_actors.items import StoredItem
from conversation_actors.state import ConversationState
from conversation_actors.store.base import Stored


def lacking(tenant: str) -> Select[Any]:
    """Return the query for the lives that Redis may know more of, in the order of their rows."""
    columns = (lives.c.id, lives.c.conversation_id, lives.c.seq, lives.c.active_at)
    return select(*columns).where(lives.c.tenant == tenant, lives.c.is_lacking).order_by(lives.c.id)


async def fill_gaps(connection: AsyncConnection, life: Life, stored: Stored, state: ConversationState) -> int:
    """Write what the archive lacks of a state, and the state as the checkpoint; return how many items that were.

    Does nothing if the life lacks nothing, or if the state is not the one after the life's last entry: what follows
    that entry, or what the state does not know yet, may have forgotten some of it.
    """
    if not life.is_lacking or not await _is_at_last_entry(connection, life, stored, state):
        return 0
    window = tuple(state.window)
    names = [storable(item.id) for item in window]
    query = select(here.c.item_id, here.c.seq, here.c.data).where(
        here.c.life_id == life.id, here.c.item_id.in_(names), here.c.is_evicted.is_(False)
    )
    known = {row.item_id: (row.seq, row.data) for row in await connection.execute(query)}
    ends = (await connection.execute(select(gaps.c.to_seq).where(gaps.c.life_id == life.id))).scalars()
    missing = list(
        _missing(window, {name: seq for name, (seq, _) in known.items()}, [end for end in ends if end], last=life.seq)
    )
    for seq, run in missing:
        await items.insert_below(connection, life, seq, run)
    changed = [one for one in window if storable(one.id) in known and known[storable(one.id)][1] != one.data]
    await items.correct(connection, life, changed)
    await items.keep_in_window(connection, life, [item.id for item in window])
    await checkpoints.replace(connection, life, state)
    life.is_lacking = False
    await save(connection, [life])
    return sum(len(run) for _, run in missing)


async def _is_at_last_entry(connection: AsyncConnection, life: Life, stored: Stored, state: ConversationState) -> bool:
    """Tell whether a state is the one after the life's last archived entry, and after no other one of its position."""
    if state.seq != life.seq:
        return False
    if not stored.journal:
        return (stored.epoch, stored.owner) == (life.epoch, life.owner)
    last = (await entries.at_positions(connection, life.id, [life.seq])).get(life.seq)
    return last is not None and last.data == stored.journal[-1]


def _missing(
    window: Sequence[StoredItem], known: Mapping[str, int], ends: Collection[int], *, last: int
) -> Iterator[tuple[int, Sequence[StoredItem]]]:
    """Yield runs of items that are not known, with the position that each stands at.

    That is the end of the last gap between the known items around it. Where no gap is, it is the position of the next
    known item, or the `last` one.
    """
    run: list[StoredItem] = []
    before = 0
    for item in window:
        seq = known.get(storable(item.id))
        if seq is None:
            run.append(item)
            continue
        if run:
            yield max((end for end in ends if before <= end < seq), default=seq), run
            run = []
        before = seq
    if run:
        yield max((end for end in ends if end >= before), default=last), run
