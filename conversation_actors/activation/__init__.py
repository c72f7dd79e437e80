"""The owner of one conversation: a plain asyncio class, with no Ray in it."""

from conversation_actors.activation.activation import Activation
from conversation_actors.activation.messages import (
    PROTOCOL,
    ActivationInfo,
    Done,
    Executed,
    Opened,
    Reply,
    Request,
    Requests,
    View,
)

__all__ = [
    "PROTOCOL",
    "Activation",
    "ActivationInfo",
    "Done",
    "Executed",
    "Opened",
    "Reply",
    "Request",
    "Requests",
    "View",
]
