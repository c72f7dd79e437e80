"""Receivers of webhooks on 127.0.0.1, over real sockets, that do what a test tells them to."""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from aiohttp import web
from pydantic import SecretStr
from standardwebhooks import Webhook

from conversation_actors.destinations import Destination
from conversation_actors.settings import WebhookSettings
from conversation_actors.webhooks.endpoint import Endpoint
from conversation_actors.webhooks.sender import Parcel

SECRET = "whsec_" + base64.b64encode(b"a key of thirty-two bytes, no less").decode()
OTHER_SECRET = "whsec_" + base64.b64encode(b"another key of thirty-two bytes!!").decode()

Event = dict[str, Any]
Reply = Callable[[Event, "Receiver"], Awaitable[web.StreamResponse]]


@dataclass
class Receiver:
    """What has arrived, and what is answered. `told` are the events that were answered with 200, in order."""

    url: str = ""
    reply: Reply | None = None
    tried: list[Event] = field(default_factory=list)
    told: list[Event] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.StreamResponse:
        """Verify a request as a receiver does, and answer it."""
        body = await request.read()
        event: Event = Webhook(SECRET).verify(body, dict(request.headers))
        event["id"] = request.headers["webhook-id"]
        self.tried.append(event)
        self.headers.append(dict(request.headers))
        if self.reply is not None:
            return await self.reply(event, self)
        self.told.append(event)
        return web.Response()

    @property
    def ids(self) -> list[str]:
        """The ids of what was told, in order, without repeats."""
        return list(dict.fromkeys(one["id"] for one in self.told))

    def numbers(self, conversation_id: str) -> list[int]:
        """The numbers of what was told of a conversation, in order of their first arrival."""
        found = [one["data"]["seq"] for one in self.told if one["data"]["conversation_id"] == conversation_id]
        return list(dict.fromkeys(found))


@asynccontextmanager
async def receiving(reply: Reply | None = None, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """Run a receiver on a port of its own."""
    receiver = Receiver(reply=reply)
    application = web.Application(client_max_size=32 << 20)
    application.router.add_route("*", "/{rest:.*}", receiver.take)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    receiver.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/hook"
    try:
        yield receiver
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw(answer: Callable[[asyncio.StreamWriter], Awaitable[None]], *, keeps: bool = False) -> AsyncIterator[str]:
    """Run a server that reads a request and then writes what it likes; it yields its URL.

    With `keeps`, it reads further requests of the same connection.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _read(reader)
            await answer(writer)
            while keeps:
                await _read(reader)
                await answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"


async def _read(reader: asyncio.StreamReader) -> None:
    """Read a request."""
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = (int(line[15:]) for line in head.decode().split("\r\n") if line.lower().startswith("content-le"))
    length = next(lengths, 0)
    await reader.readexactly(length)


def destination(url: str, name: str = "default", **values: Any) -> Destination:
    """Return a destination with the tests' secret."""
    return Destination(name=name, url=SecretStr(url), **{"secret": (SecretStr(SECRET),), **values})


def webhooks(*destinations: Destination, **values: Any) -> WebhookSettings:
    """Return settings that let these be reached."""
    chosen = {"timeout": timedelta(seconds=30), "private_networks": True, **values}
    return WebhookSettings(destinations=destinations, **chosen)


async def fail(_: Event, __: Receiver) -> web.StreamResponse:
    """Answer 500."""
    return web.Response(status=500)


async def hang(_: Event, __: Receiver) -> web.StreamResponse:
    """Answer nothing, ever."""
    await asyncio.Event().wait()
    raise AssertionError


def signed(url: str, event_id: str = "evt_1", **values: Any) -> Parcel:
    """Return a request to an endpoint, with any body."""
    told = {"type": "call.started", "timestamp": "2026-01-01T00:00:00Z", "data": {"seq": 1}}
    return Endpoint(destination(url, **values), webhooks(), tenant="tenant").signed(event_id, json.dumps(told))
