"""What the agent needs from a conversation: less than a handle offers, so that tests can stand in for it."""

from typing import Protocol

from conversation_actors.items import Item


class Conversation(Protocol):
    """The part of a conversation's handle that recording and restoring use."""

    @property
    def items(self) -> tuple[Item, ...]:
        """The local copy of the history, in the conversation's order. No I/O."""

    @property
    def seq(self) -> int:
        """The position the local copy has reached."""

    def record(self, item: Item, /) -> object:
        """Take an item for sending; never blocks. Raises `ConversationError` if it cannot take it."""

    async def flush(self) -> object:
        """Return when everything recorded so far is durable."""


class Forgetful(Conversation, Protocol):
    """A conversation out of which something can be taken."""

    def remove(self, *item_ids: str) -> object:
        """Take items out, after all that was recorded, and forget what was stored before; never blocks, nor raises."""
