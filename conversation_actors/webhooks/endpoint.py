"""Endpoints of webhooks: what is sent to one, signed as Standard Webhooks says."""

import time
from collections.abc import Callable
from datetime import timedelta

from conversation_actors.archive.outbox import Queued
from conversation_actors.destinations import Destination
from conversation_actors.settings import WebhookSettings
from conversation_actors.webhooks.payload import payload
from conversation_actors.webhooks.sender import Parcel
from conversation_actors.webhooks.signing import Signer


class Endpoint:
    """One endpoint, as its lane delivers to it."""

    def __init__(
        self,
        destination: Destination,
        settings: WebhookSettings,
        *,
        tenant: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._destination, self._tenant, self._clock = destination, tenant, clock
        self._most_bytes, self._signer = settings.bytes, Signer(destination.secret)
        self.name, self.shown = destination.name, destination.shown
        self.timeout: timedelta = settings.timeout
        self.attempts, self.allows_private = settings.attempts, settings.private_networks

    def wants(self, event: str) -> bool:
        """Tell whether happenings of this type are sent."""
        return self._destination.wants(event)

    def parcel(self, queued: Queued, conversation_id: str) -> Parcel:
        """Return one try. Raises `UnsendableError` if nothing of the happening can be sent."""
        body = payload(queued, tenant=self._tenant, conversation_id=conversation_id, most_bytes=self._most_bytes)
        return self.signed(queued.event_id, body)

    def signed(self, event_id: str, body: str) -> Parcel:
        """Return this body, signed now with every secret; `event_id` is the same for every try."""
        return Parcel(self._destination.url, self._signer.headers(event_id, body, at=self._clock()), body)
