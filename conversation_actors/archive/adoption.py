"""Taking over a conversation, or a gap in one, of which only the state is known."""

from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive import checkpoints, gaps, items
from conversation_actors.archive.gaps import BEFORE_THE_ARCHIVE, Gap
from conversation_actors.archive.lives import Life, save
from conversation_actors.state import ConversationState
from conversation_actors.store.base import Stored


async def adopt(connection: AsyncConnection, life: Life, stored: Stored, state: ConversationState) -> None:
    """Write a state that is ahead of the life: its items, a gap up to its position, and the state as a checkpoint."""
    await gaps.note(connection, [(life.id, Gap(life.seq + 1, state.seq, BEFORE_THE_ARCHIVE))])
    await items.insert_below(connection, life, state.seq, tuple(state.window))
    await items.keep_in_window(connection, life, [item.id for item in state.window])
    await checkpoints.replace(connection, life, state)
    life.followed_by(stored.owner, stored.epoch)
    life.is_lacking = False
    life.seq, life.active_at = state.seq, max(life.active_at, state.changed_at)
    await save(connection, [life])
