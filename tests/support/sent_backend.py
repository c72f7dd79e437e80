"""A back end on 127.0.0.1 to which things are sent from an outbox, over real sockets: what arrives is checked."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from aiohttp import web
from pydantic import SecretStr

from conversation_actors.backend.delivery import recipients_of
from conversation_actors.backend.models import DELIVERIES, MESSAGES_PATH
from conversation_actors.settings import BackendSettings
from conversation_actors.webhooks.recipient import Recipient
from tests.support.outboxes import TENANT

TOKEN = "token-that-nobody-may-see"


@dataclass(frozen=True)
class Arrival:
    """One request that fits its path's model."""

    path: str
    key: str
    headers: dict[str, str]
    said: dict[str, Any]


Answer = Callable[[Arrival], Awaitable[web.StreamResponse]]


@dataclass
class SentBackend:
    """What has arrived, in order: `tried` has everything, and `taken` what was answered with 204."""

    url: str = ""
    answer: Answer | None = None
    tried: list[Arrival] = field(default_factory=list)
    taken: list[Arrival] = field(default_factory=list)

    @property
    def keys(self) -> list[str]:
        """The keys of what was taken, in order, without repeats."""
        return list(dict.fromkeys(one.key for one in self.taken))

    async def take(self, request: web.Request) -> web.StreamResponse:
        """Check a request, and answer it."""
        path = request.path.removeprefix("/base")
        body = await request.read()
        DELIVERIES[path].model_validate_json(body)
        arrival = Arrival(path, request.headers["Idempotency-Key"], dict(request.headers), json.loads(body))
        self.tried.append(arrival)
        answered = web.Response(status=204) if self.answer is None else await self.answer(arrival)
        if answered.status == 204:
            self.taken.append(arrival)
        return answered

    def texts(self, conversation_id: str) -> list[str]:
        """What was taken of a conversation's messages, in order, without repeats."""
        found = [one.said for one in self.taken if one.path == MESSAGES_PATH]
        return list(dict.fromkeys(one["message"]["text"] for one in found if one["conversation_id"] == conversation_id))

    def settings(self, **values: Any) -> BackendSettings:
        """Return settings with this back end."""
        chosen = {"timeout": timedelta(seconds=30), "private_networks": True, **values}
        return BackendSettings(url=SecretStr(self.url), token=SecretStr(TOKEN), **chosen)

    def recipients(self, **values: Any) -> tuple[Recipient, ...]:
        """Return this back end as a destination of the tests' tenant."""
        return recipients_of(self.settings(**values), tenant=TENANT)


@asynccontextmanager
async def sent_backend(answer: Answer | None = None) -> AsyncIterator[SentBackend]:
    """Run a back end on a port of its own, below a path."""
    made = SentBackend(answer=answer)
    application = web.Application(client_max_size=32 << 20)
    application.router.add_post("/base/{rest:.*}", made.take)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/base"
    try:
        yield made
    finally:
        await runner.cleanup()
