"""The owner of one conversation: a plain asyncio class, with no Ray in it."""

from conversation_actors.activation.activation import Activation
from conversation_actors.activation.messages import (
    PROTOCOL,
    ActivationInfo,
    Done,
    Echo,
    Execute,
    Executed,
    Opened,
    Polled,
    Reply,
    Request,
    Seen,
    View,
    incompatible,
)

__all__ = [
    "PROTOCOL",
    "Activation",
    "ActivationInfo",
    "Done",
    "Echo",
    "Execute",
    "Executed",
    "Opened",
    "Polled",
    "Reply",
    "Request",
    "Seen",
    "View",
    "incompatible",
]
