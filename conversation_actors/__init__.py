"""One durable owner per conversation, reachable from any process by its id.

See `ConversationClient`, and the README for what is guaranteed.
"""

from conversation_actors.activation import ActivationInfo
from conversation_actors.client import ConversationClient, ConversationHandle, Receipt, Snapshot
from conversation_actors.errors import (
    ClusterUnavailableError,
    ConflictError,
    ConversationClosedError,
    ConversationError,
    ConversationNotFoundError,
    CorruptStateError,
    IncompatibleVersionError,
    InvalidInputError,
    ItemTooLargeError,
    LeaseHeldError,
    OperatorError,
    OutcomeUnknownError,
    OverloadedError,
    OwnerFailedError,
    PositionLostError,
    RefusedError,
    RetryableError,
    StoreMisconfiguredError,
    StoreUnavailableError,
)
from conversation_actors.items import (
    AgentHandoff,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OtherItem,
    item_from_dict,
)
from conversation_actors.settings import HistoryLimits, Settings, Timeouts
from conversation_actors.state import Entry, Lease, Participant

__all__ = [
    "ActivationInfo",
    "AgentHandoff",
    "ClusterUnavailableError",
    "ConflictError",
    "ConversationClient",
    "ConversationClosedError",
    "ConversationError",
    "ConversationHandle",
    "ConversationNotFoundError",
    "CorruptStateError",
    "Entry",
    "FunctionCall",
    "FunctionCallOutput",
    "HistoryLimits",
    "IncompatibleVersionError",
    "InvalidInputError",
    "Item",
    "ItemTooLargeError",
    "Lease",
    "LeaseHeldError",
    "Message",
    "OperatorError",
    "OtherItem",
    "OutcomeUnknownError",
    "OverloadedError",
    "OwnerFailedError",
    "Participant",
    "PositionLostError",
    "Receipt",
    "RefusedError",
    "RetryableError",
    "Settings",
    "Snapshot",
    "StoreMisconfiguredError",
    "StoreUnavailableError",
    "Timeouts",
    "item_from_dict",
]
