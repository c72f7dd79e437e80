"""Checkpoints that have what came in gaps, if Redis has it still."""

from collections.abc import Awaitable, Callable

from conversation_actors.archive.archiver import Checkpoints
from conversation_actors.archive.writer import Written


class FilledCheckpoints:
    """Fills the gaps of conversations before others make checkpoints of them.

    An archiver tries that as it notes a gap. This tries it again after each batch and when a conversation falls quiet.
    """

    def __init__(self, checkpoints: Checkpoints, fill: Callable[[str], Awaitable[object]]) -> None:
        """Let `checkpoints` do what is to be done besides."""
        self._checkpoints, self._fill = checkpoints, fill

    async def note(self, conversation_id: str, written: Written) -> None:
        """Learn what was written of a conversation just now."""
        try:
            if written.is_lacking and not written.gaps:
                await self._fill(conversation_id)
        finally:
            await self._checkpoints.note(conversation_id, written)

    async def idle(self, conversation_id: str) -> None:
        """Learn that nothing has been written of a conversation for a while."""
        try:
            await self._fill(conversation_id)
        finally:
            await self._checkpoints.idle(conversation_id)
