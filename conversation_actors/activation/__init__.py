"""The owner of one conversation: a plain asyncio class, with no Ray in it."""

from conversation_actors.activation.activation import Activation

__all__ = ["Activation"]
