"""Who may join what: the wish of a caller's page, and the token that grants it."""

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from livekit import api

from conversation_actors.values import forbidden_character

MAX_NAME_CHARACTERS = 128
TOKEN_LIFE = timedelta(minutes=10)
"""How long a token lets somebody in; the page asks for a new one each time it joins."""


class Refusal(Exception):  # noqa: N818  # an answer, not a failure
    """A request that gets a sentence instead of what it asked for; `code` is the same for the page's script."""

    def __init__(self, status: int, code: str, sentence: str) -> None:
        """Take the answer's HTTP status, its code, and its sentence."""
        super().__init__(sentence)
        self.status = status
        self.body = {"error": sentence, "code": code}


@dataclass(frozen=True, slots=True)
class Wish:
    """Who wants to join what: the body of a request, checked."""

    room: str
    identity: str | None
    identity_proof: str
    name: str

    @classmethod
    def read(cls, body: bytes) -> Self:
        """Check a request's body. Raises `Refusal` with status 400."""
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            raise Refusal(400, "body", "The body is not a JSON object.")
        identity, name = fields.get("identity"), fields.get("name")
        return cls(
            room=_named("room", fields.get("room")),
            identity=None if identity is None else _named("identity", identity),
            identity_proof=str(fields.get("identity_proof", "")),
            name="" if name is None else _named("name", name),
        )


def _named(field: str, value: object) -> str:
    if isinstance(value, str) and 1 <= len(value) <= MAX_NAME_CHARACTERS and forbidden_character(value) is None:
        return value
    reason = f"must be text of 1 to {MAX_NAME_CHARACTERS} characters, none of them a control character"
    raise Refusal(400, field, f"{field}: {reason}.")


class Tickets:
    """Makes tokens, and knows whose identity is whose without keeping a list."""

    def __init__(self, livekit_url: str, api_key: str, api_secret: str, agent_name: str) -> None:
        """Take LiveKit's server as the browser reaches it, its key and secret, and the agent that tokens ask for."""
        self._url = livekit_url
        self._api_key = api_key
        self._api_secret = api_secret
        self.agent_name = agent_name

    def grant(self, wish: Wish) -> dict[str, str]:
        """Let one identity into one room. Raises `Refusal` with status 403 if the identity is not proved."""
        identity = self.proved(wish) or f"caller-{secrets.token_hex(8)}"
        return {
            "url": self._url,
            "token": self._token(identity, wish),
            "identity": identity,
            "identity_proof": self._proof(identity),
            "room": wish.room,
        }

    def proved(self, wish: Wish) -> str | None:
        """Return who it is; None for somebody new. Raises `Refusal` with status 403 if the identity is not proved."""
        if wish.identity is not None and not same(wish.identity_proof, self._proof(wish.identity)):
            raise Refusal(403, "identity", "This identity was given to somebody else, or by another server.")
        return wish.identity

    def _proof(self, identity: str) -> str:
        # The secret also signs tokens: the prefix keeps a proof from ever being the signature of one.
        return hmac.new(self._api_secret.encode(), b"identity:" + identity.encode(), hashlib.sha256).hexdigest()

    def _token(self, identity: str, wish: Wish) -> str:
        grants = api.VideoGrants(
            room_join=True, room=wish.room, can_publish_sources=["microphone"], can_update_own_metadata=False
        )
        token = api.AccessToken(self._api_key, self._api_secret).with_identity(identity).with_name(wish.name)
        token = token.with_ttl(TOKEN_LIFE).with_grants(grants)
        if self.agent_name:  # an agent without a name comes unasked
            metadata = json.dumps({"conversation_id": wish.room})
            agent = api.RoomAgentDispatch(agent_name=self.agent_name, metadata=metadata)
            token = token.with_room_config(api.RoomConfiguration(agents=[agent]))
        return token.to_jwt()


def same(given: str, expected: str) -> bool:
    """Compare in a time that tells nothing about where they differ."""
    return hmac.compare_digest(given.encode(errors="surrogatepass"), expected.encode())
