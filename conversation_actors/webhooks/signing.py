"""Signatures of Standard Webhooks."""

from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import SecretStr
from standardwebhooks import Webhook


class Signer:
    """Signs with every secret that it has, so that a receiver may know the old one or the new one."""

    def __init__(self, secrets: Sequence[SecretStr]) -> None:
        self._keys = [Webhook(one.get_secret_value()) for one in secrets]

    def headers(self, event_id: str, body: str, *, at: float) -> dict[str, str]:
        """Return the headers of one try, made `at` this time; `event_id` is the same for every try."""
        moment = datetime.fromtimestamp(int(at), UTC)
        return {
            "webhook-id": event_id,
            "webhook-timestamp": str(int(at)),
            "webhook-signature": " ".join(key.sign(event_id, moment, body) for key in self._keys),
        }
