"""What applications use: `ConversationClient` and the `ConversationHandle` it opens, and `Heartbeats`."""

from conversation_actors.client.client import ConversationClient
from conversation_actors.client.handle import ConversationHandle
from conversation_actors.client.heartbeats import Heartbeats
from conversation_actors.client.opening import check_cluster
from conversation_actors.client.sessions import SessionPage
from conversation_actors.client.views import Page, Receipt, Snapshot

__all__ = [
    "ConversationClient",
    "ConversationHandle",
    "Heartbeats",
    "Page",
    "Receipt",
    "SessionPage",
    "Snapshot",
    "check_cluster",
]
