"""Pictures of a session's messages that are in the archive, and only named in the conversation."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from agent_worker.session.pictures import LEFT_OUT
from agent_worker.session.protocol import Conversation
from conversation_actors.errors import ConversationError
from conversation_actors.items import Item
from conversation_actors.pictures import reference_of, references_in, replaced

AWAY = LEFT_OUT.format("it is in the archive, which does not answer")
GONE = LEFT_OUT.format("the archive has it no more")


@runtime_checkable
class Archiving(Protocol):
    """A conversation whose large pictures are in an archive."""

    async def find_pictures(self, addresses: Iterable[str]) -> Mapping[str, str]:
        """Return the data (``data:…``) of the pictures that references name, by reference; of those that exist."""


async def pictures_of(conversation: Conversation) -> Mapping[str, str]:
    """Return what stands in a session for each reference of the history: the picture, or words if it cannot be had.

    Waits for the archive no longer than its timeout, and not at all for a history without references.
    """
    references = references_in(conversation.items)
    if not references:
        return {}
    if not isinstance(conversation, Archiving):
        return dict.fromkeys(references, AWAY)
    try:
        found = await conversation.find_pictures(references)
    except ConversationError:
        return dict.fromkeys(references, AWAY)
    return {address: found.get(address, GONE) for address in references}


def shown(item: Item, pictures: Mapping[str, str]) -> Item:
    """Return an item with its pictures as `pictures_of` has found them; one that came since is words."""

    def replace(part: Mapping[str, Any]) -> str | dict[str, Any]:
        if reference_of(part["image"]) is None:
            return dict(part)
        stands = pictures.get(part["image"], AWAY)
        return {**part, "image": stands} if stands.startswith("data:") else stands

    return replaced(item, replace)
