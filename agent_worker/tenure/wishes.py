"""What successors ask of the agent: to give the call over, or to let another room have the conversation."""

import asyncio

from agent_worker.failures import Failures
from agent_worker.tenure.role import attribute_name
from agent_worker.tenure.standing import Standing
from agent_worker.tenure.succession import HANDOVER, REFUSED, wish_of
from agent_worker.tenure.telling import SETTLE_SECONDS
from conversation_actors import ConversationHandle


class Wishes:
    """What is asked of one agent, as its local copy shows it."""

    def __init__(self, standing: Standing, failures: Failures) -> None:
        """Begin with nothing asked."""
        self.handover_asked = asyncio.Event()
        """Set when a successor waits for this agent to finish its sentence and to release the lease."""
        self.redialled = asyncio.Event()
        """Set while an agent in another room asks for the conversation, and has no answer."""
        self._standing, self._failures = standing, failures

    def look(self, handle: ConversationHandle) -> None:
        """Note what is asked now. No I/O."""
        wish = wish_of(handle, self._standing.role)
        if wish.get("from") == self._standing.holder and REFUSED not in wish:
            is_here = wish.get("room", self._standing.post.room) == self._standing.post.room
            (self.handover_asked if is_here else self.redialled).set()

    async def refuse_redial(self) -> None:
        """Tell the agent in another room that the call goes on here; never raises. It may ask again."""
        handle, standing = self._standing.handle, self._standing
        wish = {} if handle is None else wish_of(handle, standing.role)
        if handle is not None and wish.get("from") == standing.holder:
            try:
                # now or never: an answer that waited could take the place of another one's wish
                async with asyncio.timeout(SETTLE_SECONDS):
                    refused = {attribute_name(HANDOVER, standing.role): {**wish, REFUSED: True}}
                    await handle.set_attributes(refused, lease=standing.lease)
            except Exception as error:  # noqa: BLE001  # see the docstring
                conversation_id = standing.conversation_id
                self._failures.count("redial", error, "no answer to another room", conversation_id=conversation_id)
        self.redialled.clear()
