"""What a state knows of a gap: items that came while nothing was archived, and that are in the window still."""

from itertools import takewhile

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.items import insert_below, storable
from conversation_actors.archive.lives import Life
from conversation_actors.archive.tables import items
from conversation_actors.state import ConversationState


async def fill_last_gap(connection: AsyncConnection, life: Life, state: ConversationState) -> int:
    """Add the window's items that the archive lacks, at the end of the life's last gap; return how many.

    Only those before the first one whose own entry came after the gap: what follows it may still be on its way.
    """
    end = life.last_gap
    if end is None:
        return 0
    window = tuple(state.window)
    names = [storable(item.id) for item in window]
    query = select(items.c.item_id, items.c.seq).where(items.c.life_id == life.id, items.c.item_id.in_(names))
    known = {row.item_id: row.seq for row in await connection.execute(query)}
    before = list(takewhile(lambda item: known.get(storable(item.id), 0) <= end, window))
    if len(before) == len(window):
        return 0
    lacking = [item for item in before if storable(item.id) not in known]
    await insert_below(connection, life, end, lacking)
    return len(lacking)
