"""What applications use: `ConversationClient`, and the `ConversationHandle` it opens."""

from conversation_actors.client.client import ConversationClient
from conversation_actors.client.handle import ConversationHandle
from conversation_actors.client.views import Receipt, Snapshot

__all__ = ["ConversationClient", "ConversationHandle", "Receipt", "Snapshot"]
