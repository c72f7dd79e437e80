"""Entries of an older claim that come when a newer one has gone on without them: Redis had lost them."""

from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive import entries, items
from conversation_actors.archive.items import storable
from conversation_actors.archive.lives import Life
from conversation_actors.archive.records import Row
from conversation_actors.archive.scrubbing import forget_superseded
from conversation_actors.codec import decode_entry
from conversation_actors.state import EVENT_NAMES, Event, HistoryCleared, ItemsAppended, ItemsRemoved

_REMOVALS = (EVENT_NAMES[ItemsRemoved], EVENT_NAMES[HistoryCleared])


async def keep(connection: AsyncConnection, life: Life, row: Row, event: Event | None) -> bool:
    """Add an entry to those that were superseded, unless it is there; tell whether that was news.

    Its items are kept as those of other superseded entries are: before those of the newer claim, out of the window.
    Those that are known stay as they are, and what a newer claim has removed is not kept.
    """
    if await entries.was_set_aside(connection, life.id, row):
        return False
    await entries.add_superseded(connection, life.id, row)
    removals = await entries.of_kinds(connection, life.id, _REMOVALS, after_epoch=row.epoch)
    match event:
        case ItemsAppended(arriving):
            gone = [_removed(one) for one in removals]
            left = [item for item in arriving if not any(some is None or storable(item.id) in some for some in gone)]
            await items.put_apart(connection, life, row.seq, left)
        case ItemsRemoved(identities):
            await items.drop_apart(connection, life, row.seq, identities)
        case HistoryCleared():
            await items.drop_apart(connection, life, row.seq, None)
        case _:
            pass
    if removals or isinstance(event, ItemsRemoved | HistoryCleared):
        await forget_superseded(connection, life.id)
    return True


def _removed(row: Row) -> frozenset[str] | None:
    """Return what an entry has removed; None stands for everything."""
    event = decode_entry(row.data).event
    return frozenset(map(storable, event.identities)) if isinstance(event, ItemsRemoved) else None
