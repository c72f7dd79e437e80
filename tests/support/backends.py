"""A back end on 127.0.0.1, over real sockets, that answers as a test tells it to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from aiohttp import web
from pydantic import SecretStr

from conversation_actors.settings import BackendSettings

Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Backend:
    """What was asked of it, in order: by path, the bodies."""

    url: str = ""
    replies: dict[str, Reply] = field(default_factory=dict)
    """What answers a path; nothing of others is taken but that they came."""
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.StreamResponse:
        """Note a request, and answer it."""
        self.asked.append((request.path, await request.json()))
        reply = self.replies.get(request.path)
        return web.json_response({}) if reply is None else await reply(request)

    def bodies(self, path: str) -> list[dict[str, Any]]:
        """What was asked at one path."""
        return [body for asked, body in self.asked if asked == path]


@asynccontextmanager
async def serving(**replies: Reply) -> AsyncIterator[Backend]:
    """Run one on a port of its own. `replies`: by the last part of the path, such as ``context``."""
    backend = Backend(replies={f"/v1/{name}": reply for name, reply in replies.items()})
    application = web.Application()
    application.router.add_route("*", "/{rest:.*}", backend.take)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    backend.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield backend
    finally:
        await runner.cleanup()


def knowing(*texts: str) -> Reply:
    """Answer what is to be known."""

    async def reply(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"context": list(texts)})

    return reply


async def broken(_request: web.Request) -> web.StreamResponse:
    """Answer 500, with what a stack trace might have in it."""
    return web.Response(status=500, text="secret words")


async def hanging(_request: web.Request) -> web.StreamResponse:
    """Answer nothing, ever."""
    await asyncio.Event().wait()
    raise AssertionError


async def dripping(request: web.Request) -> web.StreamResponse:
    """Begin an answer, and go on with it for ever."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.005)


async def misfit(_request: web.Request) -> web.StreamResponse:
    """Answer with what is not in the document."""
    return web.json_response({"context": [{"secret": "words"}]})


def settings_of(url: str, *, budget: float = 20.0, **given: Any) -> BackendSettings:
    """Return settings of a back end that may be at a private address; `budget` in seconds."""
    return BackendSettings(url=SecretStr(url), private_networks=True, context_budget=timedelta(seconds=budget), **given)
