"""Whom a lane delivers to: an endpoint of webhooks, or another destination of the outbox."""

from datetime import timedelta
from typing import Protocol

from conversation_actors.archive.outbox import Queued
from conversation_actors.webhooks.sender import Parcel


class Recipient(Protocol):
    """A destination of the outbox: which happenings it wants, what is sent of each, and what it may take for it."""

    @property
    def name(self) -> str:
        """The name by which the outbox knows how far it is."""

    @property
    def shown(self) -> str:
        """Where it is, for people; nothing secret."""

    @property
    def timeout(self) -> timedelta:
        """What it may take to answer."""

    @property
    def attempts(self) -> int:
        """After so many a happening is a dead letter."""

    @property
    def allows_private(self) -> bool:
        """Whether it may be at a private address."""

    def wants(self, event: str) -> bool:
        """Tell whether happenings of this type are sent."""

    def parcel(self, queued: Queued, conversation_id: str) -> Parcel:
        """Return what one try sends of a happening. Raises `UnsendableError` if nothing of it can be sent."""
