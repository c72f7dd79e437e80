"""Stored items as LiveKit's own."""

import logging

from livekit.agents.llm import ChatItem
from pydantic import TypeAdapter, ValidationError

from conversation_actors.items import Item

logger = logging.getLogger(__name__)

_adapter: TypeAdapter[ChatItem] = TypeAdapter(ChatItem)


def to_livekit(stored: Item) -> ChatItem | None:
    """Return the item as LiveKit's own class, or None, with a line in the log, if LiveKit cannot read it."""
    fields = stored.to_dict()
    if isinstance(fields.get("content"), str):
        fields["content"] = [fields["content"]]
    if stored.type == "function_call_output":
        fields.setdefault("is_error", False)
    try:
        return _adapter.validate_python(fields)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors(include_url=False, include_input=False)[0]["loc"])
        reason = f"{where}: {error.error_count()} errors"
    except Exception as error:  # noqa: BLE001  # media of a foreign writer go through decoders that raise anything
        reason = type(error).__name__
    logger.warning(
        "an item cannot be restored", extra={"item_id": stored.id, "item_type": stored.type, "reason": reason}
    )
    return None


def known_as(item_id: str) -> str:
    """Return the id that a session gives an item whose own LiveKit would take for that of another one's reply."""
    return item_id.replace("/", "_")
