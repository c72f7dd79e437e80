"""The two ways to an owner that are compared: a line of the handle's own, and Ray's calls."""

import asyncio
from enum import StrEnum

from benchmarks.driver import Session, fill
from conversation_actors import ConversationHandle
from conversation_actors.settings import Direct

_PATIENCE_SECONDS = 20.0
_POLL_SECONDS = 0.01


class Way(StrEnum):
    """How a handle reaches its owner, as the rows call it."""

    LINE = "by line"
    CALLS = "by Ray's calls"

    @property
    def sockets(self) -> tuple[str, ...]:
        """What `ActivationInfo.reached_by` says of a handle that takes this way."""
        return ("unix", "tcp") if self is Way.LINE else ("ray",)

    @property
    def direct(self) -> Direct:
        """The setting that makes handles take this way."""
        return Direct.AUTO if self is Way.LINE else Direct.OFF

    def of(self, prefix: str) -> str:
        """Return the id of the conversation with this prefix that is reached this way."""
        return f"{prefix}-{self.name.lower()}"


async def open_both(session: Session, prefix: str, items: int) -> dict[Way, ConversationHandle]:
    """Open a conversation for each way, with so many items, and return when both ways are taken."""
    handles = {way: await session.open(way.of(prefix), direct=way.direct) for way in Way}
    for way, handle in handles.items():
        await fill(handle, items)
        await taken(handle, way)
    return handles


async def taken(handle: ConversationHandle, way: Way, *, patience: float = _PATIENCE_SECONDS) -> str:
    """Return by which socket the owner is reached, or `ray`, once the handle has taken this way.

    Raises `RuntimeError` if it does not within `patience` seconds: figures would carry the wrong name.
    """
    deadline = asyncio.get_running_loop().time() + patience
    while True:
        reached = (await handle.info()).reached_by
        if reached in way.sockets:
            return reached
        if asyncio.get_running_loop().time() > deadline:
            message = f"the owner of {handle.id!r} is reached by {reached!r}, not {way}"
            raise RuntimeError(message)
        await asyncio.sleep(_POLL_SECONDS)
