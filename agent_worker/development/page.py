"""The page on which a caller talks to the agent during development, and the tokens with which it joins a room.

    async with PageServer(url, api_key, api_secret, "support", key=secrets.token_urlsafe()) as page:
        print(page.url)    # open it in a browser

The page's own files are in ``web/``; LiveKit's client library is in ``web/vendor``, as npm has it.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from aiohttp import web

from agent_worker.development.agent_calls import Waiting
from agent_worker.development.browser_rules import check_host, check_origin, headers, reached, written
from agent_worker.development.stored_lines import stored_lines
from agent_worker.development.tickets import Refusal, Tickets, Wish, same
from agent_worker.failures import Failures
from agent_worker.listening import Listening
from agent_worker.timing import TIMING, Timing
from conversation_actors import Snapshot
from conversation_actors.errors import ConversationError, InvalidInputError

logger = logging.getLogger(__name__)

WEB = Path(__file__).parents[1] / "web"
LIBRARY = Path("vendor/livekit-client.umd.js")
LIBRARY_MISSING = (
    "LiveKit's client library is missing from this installation: "
    "install conversation-actors again, then reload this page."
)

MAX_BODY_BYTES = 4 << 10

_SCRIPT = "text/javascript; charset=utf-8"
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/main.js": ("main.js", _SCRIPT),
    "/call.js": ("call.js", _SCRIPT),
    "/captions.js": ("captions.js", _SCRIPT),
    "/visitor.js": ("visitor.js", _SCRIPT),
    "/memory.js": ("memory.js", _SCRIPT),
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
OnJoin = Callable[[str], Awaitable[None]]
OnMissing = Callable[[str], Awaitable[Waiting]]
Read = Callable[[str], Awaitable[Snapshot | None]]


class PageServer:
    """The page's server, from ``async with`` to its end.

    A token lets anybody who has it speak in a room at the owner's cost, so none is given out unless the request
    carries the key that is part of `url`, or `open_tokens` says that everybody who reaches the port may have one.
    What was said in a room is told to those only who have been there: to an identity with its proof.
    """

    def __init__(
        self,
        livekit_url: str,
        api_key: str,
        api_secret: str,
        agent_name: str,
        *,
        key: str | None,
        open_tokens: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
        on_join: OnJoin | None = None,
        on_missing: OnMissing | None = None,
        read: Read | None = None,
        web_root: Path = WEB,
        timing: Timing = TIMING,
    ) -> None:
        """`livekit_url`: as the browser reaches it. `agent_name`: empty where LiveKit dispatches the agent by itself.

        `port` 0 takes a free one.

        A token brings the agent only to a room that does not exist yet. `on_join` is awaited with the room's name
        before each token, to bring it to one that does; what it raises is logged, and it is cancelled after 5 s.
        `on_missing` is awaited, as long, while the page is in a room without an agent, and tells what is waited for.
        `read` gives what a conversation holds, None where there is none; without it nothing is shown after a refresh.
        """
        _require(api_key=api_key, api_secret=api_secret, key=key)
        signal_url, origins = reached(livekit_url)
        self._tickets = Tickets(signal_url, api_key, api_secret, agent_name)
        self._key = key
        self._open_tokens = open_tokens
        self._host = host
        self._on_join = on_join
        self._on_missing = on_missing
        self._read = read
        self.failures = Failures()
        """What this server went on without, as its log tells."""
        self._web_root, self._timing = web_root, timing
        self._headers = headers(origins)
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._guard])
        app.on_response_prepare.append(self._add_headers)
        for path in _FILES:
            app.router.add_get(path, self._file)
        app.router.add_get("/livekit-client.mjs", self._library)
        app.router.add_post("/token", self._token)
        app.router.add_post("/agent", self._agent)
        app.router.add_post("/conversation", self._conversation)
        self._listening = Listening(app, host=host, port=port, patience=1.0)

    @property
    def agent_name(self) -> str:
        """The agent that tokens ask for; empty: none, LiveKit dispatches it by itself."""
        return self._tickets.agent_name

    @agent_name.setter
    def agent_name(self, name: str) -> None:
        self._tickets.agent_name = name

    @property
    def url(self) -> str:
        """What to open. It carries the key, in the part that browsers keep to themselves.

        Raises `RuntimeError` before the server listens.
        """
        address = f"http://{written(self._host)}:{self._listening.port}/"
        return address if self._key is None or self._open_tokens else f"{address}#key={quote(self._key, safe='')}"

    async def __aenter__(self) -> Self:
        """Listen. Raises `OSError` if the port is taken."""
        await self._listening.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening; answers under way get one second. Calls go on: they are the LiveKit server's."""
        await self._listening.__aexit__(kind, error, trace)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name, kind = _FILES[request.path]
        return web.FileResponse(self._web_root / name, headers={"Content-Type": kind})

    async def _library(self, _request: web.Request) -> web.StreamResponse:
        path = self._web_root / LIBRARY
        if not path.is_file():
            raise Refusal(404, "library", LIBRARY_MISSING)
        return web.FileResponse(path, headers={"Content-Type": _SCRIPT})

    async def _token(self, request: web.Request) -> web.StreamResponse:
        wish = await self._wish(request)
        ticket = self._tickets.grant(wish)
        await self._tell_of_join(wish.room)
        return _answer(ticket)

    async def _agent(self, request: web.Request) -> web.StreamResponse:
        wish = await self._wish(request)
        self._tickets.proved(wish)
        if self._on_missing is None:
            return _answer({"waiting": Waiting.AGENT})
        try:
            async with asyncio.timeout(self._timing.page_join):
                return _answer({"waiting": await self._on_missing(wish.room)})
        except TimeoutError as error:
            self.failures.count("on_missing", error, "an agent could not be called to the room", room=wish.room)
            return _answer({"waiting": Waiting.UNANSWERED})

    async def _conversation(self, request: web.Request) -> web.StreamResponse:
        wish = await self._wish(request)
        identity = self._tickets.proved(wish)
        if identity is None or self._read is None:
            return _answer({"lines": []})
        try:
            async with asyncio.timeout(self._timing.page_read):
                snapshot = await self._read(wish.room)
        except (ConversationError, TimeoutError) as error:
            self.failures.count("read", error, "a conversation could not be shown again", room=wish.room)
            raise Refusal(503, "read", "What was said before cannot be read just now.") from error
        return _answer({"lines": stored_lines(snapshot, identity)})

    async def _wish(self, request: web.Request) -> Wish:
        """What is asked for, by somebody who may ask. Raises `Refusal`."""
        self._authorise(request)
        if request.content_type != "application/json":
            raise Refusal(415, "body", "The body is not JSON by its Content-Type.")
        return Wish.read(await request.read())

    def _authorise(self, request: web.Request) -> None:
        if self._open_tokens:
            return
        if self._key is None:
            raise Refusal(403, "closed", "This server gives out no tokens: it has no key, and they are not open.")
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not same(given, self._key):
            raise Refusal(403, "key", "The page's key is missing or wrong: open the address its server printed.")

    async def _tell_of_join(self, room: str) -> None:
        if self._on_join is None:
            return
        try:
            async with asyncio.timeout(self._timing.page_join):
                await self._on_join(room)
        except Exception:
            fields = {"room": room, "count": self.failures.add("on_join")}
            logger.exception("an agent could not be called to the room", extra=fields)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            check_host(request, self._host)
            check_origin(request)
            return await handler(request)
        except Refusal as refusal:
            return web.json_response(refusal.body, status=refusal.status)
        except web.HTTPException as error:
            return web.json_response({"error": f"{error.reason}.", "code": "http"}, status=error.status)
        except Exception:
            logger.exception("the page's server failed", extra={"count": self.failures.add("requests")})
            return web.json_response({"error": "The page's server failed.", "code": "server"}, status=500)

    async def _add_headers(self, _request: web.Request, response: web.StreamResponse) -> None:
        for name, value in self._headers.items():
            response.headers.setdefault(name, value)


def _answer(body: Mapping[str, Any]) -> web.Response:
    return web.json_response(body, headers={"Cache-Control": "no-store"})


def _require(*, key: str | None, **values: str) -> None:
    for field, value in values.items():
        if not value:
            message = f"{field}: must not be empty"
            raise InvalidInputError(message, field=field)
    # A browser sends other characters in no header, or in another encoding.
    if key is not None and re.fullmatch(r"[!-~]+", key) is None:
        message = "key: must be ASCII characters without spaces, and not empty"
        raise InvalidInputError(message, field="key")
