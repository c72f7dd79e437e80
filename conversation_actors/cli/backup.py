"""Backups of Redis and the archive together, and what is made of them again."""

from pathlib import Path

from conversation_actors.archive.extra import require_extra
from conversation_actors.settings import Settings


async def back_up(directory: Path) -> str:
    """Write a backup, and return what was done in one sentence."""
    require_extra()
    from conversation_actors.transfer.backing_up import FILE, Backup  # noqa: PLC0415  # SQLAlchemy
    from conversation_actors.transfer.pair import open_pair  # noqa: PLC0415  # same

    async with open_pair(Settings(), program="conversation-actors backup") as pair:
        done = await Backup(pair.store, pair.redis, pair.copies).write(directory)
    return f"backed up: {done.conversations} conversations, {done.bytes} bytes: {directory / FILE}"


async def restore(directory: Path) -> str:
    """Restore a backup, and return what was done in one sentence."""
    require_extra()
    from conversation_actors.transfer.pair import open_pair  # noqa: PLC0415  # SQLAlchemy
    from conversation_actors.transfer.restoring import Restoration  # noqa: PLC0415  # same

    async with open_pair(Settings(), program="conversation-actors restore") as pair:
        conversations = await Restoration(pair.store, pair.redis, pair.copies).run(directory)
    return f"restored: {conversations} conversations"
