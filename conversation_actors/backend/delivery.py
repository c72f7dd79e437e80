"""The back end as a destination of the outbox: it has the outbox's cursors, order, repeats and dead letters."""

from datetime import timedelta

from conversation_actors.archive.outbox import Queued
from conversation_actors.backend.access import address, headers
from conversation_actors.backend.routes import ROUTES, body
from conversation_actors.destinations import BACKEND_NAME
from conversation_actors.settings import BackendSettings
from conversation_actors.webhooks.recipient import Recipient
from conversation_actors.webhooks.sender import Parcel


class BackendRecipient:
    """The back end of one tenant, as its lane delivers to it."""

    name = BACKEND_NAME

    def __init__(self, settings: BackendSettings, *, tenant: str) -> None:
        """Take the settings of a back end, with its URL."""
        self._tenant, self._most_bytes = tenant, settings.bytes
        self._headers = headers(settings)
        self._addresses = {event: address(settings, path) for event, path in ROUTES.items()}
        self.timeout: timedelta = settings.timeout
        self.shown, self.attempts = settings.shown, settings.attempts
        self.allows_private = settings.private_networks

    def wants(self, event: str) -> bool:
        """Tell whether there is a path for happenings of this type."""
        return event in self._addresses

    def parcel(self, queued: Queued, conversation_id: str) -> Parcel:
        """Return one try. Raises `UnsendableError` if the happening cannot be read."""
        told = body(queued, tenant=self._tenant, conversation_id=conversation_id, most_bytes=self._most_bytes)
        return Parcel(self._addresses[queued.type], {**self._headers, "Idempotency-Key": queued.event_id}, told)


def recipients_of(settings: BackendSettings, *, tenant: str) -> tuple[Recipient, ...]:
    """Return the back end of the settings; nothing if there is none."""
    return () if settings.url is None else (BackendRecipient(settings, tenant=tenant),)
