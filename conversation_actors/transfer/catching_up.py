"""What Redis has and the archive does not yet, written there before an export: what was acknowledged a moment ago.

It is what an archiver does, and may be done beside one: the archive knows what it has.
"""

from conversation_actors.activation.recovery import restate
from conversation_actors.archive.copying import Copies
from conversation_actors.archive.writer import Writer
from conversation_actors.errors import ConversationNotFoundError
from conversation_actors.state import Limits
from conversation_actors.store import Store


class CatchingUp:
    """Brings the archive of one tenant up to what Redis has."""

    def __init__(self, store: Store, writer: Writer, copies: Copies, limits: Limits) -> None:
        """Read from `store`, and write by `writer`; `limits` are those of a state that is adopted."""
        self._store, self._writer, self._copies, self._limits = store, writer, copies, limits

    async def everything(self) -> None:
        """Archive what waits of every conversation, and adopt living ones that the archive does not know."""
        backlog = self._store.backlog()
        for waiting in await backlog.waiting():
            await self._waiting(waiting.conversation_id)
        async for found in self._store.list():
            await self._adopted(found.conversation_id)

    async def one(self, conversation_id: str) -> None:
        """Do the same for one conversation."""
        await self._waiting(conversation_id)
        await self._adopted(conversation_id)

    async def _waiting(self, conversation_id: str) -> None:
        batch = await self._store.backlog().peek(conversation_id)
        if batch.stored:
            await self._writer.write(conversation_id, batch.stored)

    async def _adopted(self, conversation_id: str) -> None:
        """Take over a state that came about while there was no archive."""
        if await self._copies.knows(conversation_id):
            return
        try:
            stored = await self._store.read(conversation_id)
        except ConversationNotFoundError:
            return
        state, _ = restate(stored, self._limits)
        await self._writer.adopt(conversation_id, stored, state)
