"""A back end on 127.0.0.1 of which only the questions are answered, over real sockets, and badly if a test says so."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import trustme
from aiohttp import web
from pydantic import SecretStr

from conversation_actors.settings import BackendSettings

TOKEN = "token-that-nobody-may-see"

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Request:
    """One request as it arrived. `connection` is the port that it came from."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    connection: int


@dataclass
class AskedBackend:
    """What is answered, and what was asked. `answer`, if it is set, is all that is answered."""

    url: str = ""
    messages: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    context: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    answer: Answer | None = None

    def asked(self, method: str, path: str) -> list[Request]:
        """Requests of a kind."""
        return [one for one in self.requests if (one.method, one.path) == (method, path)]

    async def take(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        assert request.transport is not None
        self.requests.append(
            Request(
                request.method, request.path, dict(request.query), dict(request.headers), await request.read(),
                request.transport.get_extra_info("peername")[1],
            )
        )  # fmt: skip
        if self.answer is not None:
            return await self.answer(request)
        match request.method, request.path.removeprefix("/base"):
            case "GET", "/v1/messages":
                found = self.messages.get(request.query["conversation_id"], [])
                return web.json_response({"messages": found[-int(request.query["limit"]) :]})
            case "DELETE", "/v1/conversations":
                self.messages.pop(request.query["conversation_id"], None)
                return web.Response(status=204)
            case "POST", "/v1/context":
                return web.json_response({"context": self.context})
            case "POST", "/v1/transcriptions":
                return web.Response(status=202)
            case _:
                return web.Response(status=404)


@asynccontextmanager
async def asked_backend(
    answer: Answer | None = None, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[AskedBackend]:
    """Run a back end on a port of its own."""
    made = AskedBackend(answer=answer)
    application = web.Application(client_max_size=32 << 20)
    application.router.add_route("*", "/{rest:.*}", made.take)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    made.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}/base"
    try:
        yield made
    finally:
        await runner.cleanup()


def backend_settings(url: str, **values: Any) -> BackendSettings:
    """Return settings that let this back end be reached, and wait for it for long."""
    patient = timedelta(seconds=120)
    chosen = {
        "private_networks": True, "timeout": patient, "recall_timeout": patient, "context_budget": patient,
        "token": SecretStr(TOKEN), **values,
    }  # fmt: skip
    return BackendSettings(url=SecretStr(url), **chosen)


def answers(status: int = 200, body: str = "", **headers: str) -> Answer:
    """Always answer so."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body.encode(), headers=headers, content_type="application/json")

    return answer


def certificates() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return who trusts an authority, and its certificate for localhost."""
    authority = trustme.CA()
    server, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(trusting)
    return trusting, server


async def hang(_: web.Request) -> web.StreamResponse:
    """Answer nothing, ever."""
    await asyncio.Event().wait()
    raise AssertionError


def said(number: int, **values: Any) -> dict[str, Any]:
    """Return one message as a back end has it, with its item."""
    item = {
        "type": "message",
        "id": f"u{number}",
        "created_at": 1000.0 + number,
        "role": "user",
        "content": f"text {number}",
    }
    known = {
        "id": f"u{number}", "item_type": "message", "role": "user", "text": f"text {number}",
        "created_at": 1000.0 + number, "interrupted": False, "identity": None, "agent_role": None, "item": item,
    }  # fmt: skip
    return {**known, **values}


def called(number: int, *, is_output: bool = False) -> dict[str, Any]:
    """Return a call of a tool as a back end has it, or its output."""
    kind, identity = ("function_call_output", f"o{number}") if is_output else ("function_call", f"f{number}")
    rest = {"output": "found"} if is_output else {"name": "look_up", "arguments": "{}"}
    item = {"type": kind, "id": identity, "created_at": 1000.0, "call_id": f"call{number}", **rest}
    return said(number, id=identity, item_type=kind, role=None, text="look_up({})", item=item)
