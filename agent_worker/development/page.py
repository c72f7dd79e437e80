"""The page on which a caller talks to the agent during development, and the tokens with which it joins a room.

    async with PageServer(url, api_key, api_secret, "support", key=secrets.token_urlsafe()) as page:
        print(page.url)    # open it in a browser

The page's own files are in ``web/``; LiveKit's client library is in ``web/vendor``, as npm has it.
"""

import asyncio
import hashlib
import hmac
import ipaddress
import json
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

from aiohttp import web
from livekit import api

from agent_worker.development.agent_calls import Waiting
from agent_worker.development.stored_lines import stored_lines
from agent_worker.failures import Failures
from conversation_actors import Snapshot
from conversation_actors.errors import ConversationError, InvalidInputError
from conversation_actors.values import forbidden_character

logger = logging.getLogger(__name__)

WEB = Path(__file__).parents[1] / "web"
LIBRARY = Path("vendor/livekit-client.umd.js")
LIBRARY_MISSING = (
    "LiveKit's client library is missing from this installation: "
    "install conversation-actors again, then reload this page."
)

MAX_BODY_BYTES = 4 << 10
MAX_NAME_CHARACTERS = 128
TOKEN_LIFE = timedelta(minutes=10)
"""How long a token lets somebody in; the page asks for a new one each time it joins."""
ON_JOIN_PATIENCE = timedelta(seconds=5)
"""How long a token waits for `on_join`: a caller alone in a room is better off than one with no room."""
READ_PATIENCE = timedelta(seconds=10)
"""How long what was said before is waited for; the call goes on meanwhile."""

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
_LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
_WEBSOCKET_SCHEMES = {"ws": "ws", "http": "ws", "wss": "wss", "https": "wss"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
OnJoin = Callable[[str], Awaitable[None]]
OnMissing = Callable[[str], Awaitable[Waiting]]
Read = Callable[[str], Awaitable[Snapshot | None]]


class _Refusal(Exception):  # noqa: N818  # an answer, not a failure
    """A request that gets a sentence instead of what it asked for; `code` is the same for the page's script."""

    def __init__(self, status: int, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.body = {"error": sentence, "code": code}


@dataclass(frozen=True, slots=True)
class _Wish:
    """Who wants to join what: the body of a request, checked."""

    room: str
    identity: str | None
    identity_proof: str
    name: str

    @classmethod
    def read(cls, body: bytes) -> Self:
        """Raises `_Refusal` with status 400."""
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            raise _Refusal(400, "body", "The body is not a JSON object.")
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
    raise _Refusal(400, field, f"{field}: {reason}.")


class _Tickets:
    """Makes tokens, and knows whose identity is whose without keeping a list."""

    def __init__(self, livekit_url: str, api_key: str, api_secret: str, agent_name: str) -> None:
        self._url = livekit_url
        self._api_key = api_key
        self._api_secret = api_secret
        self.agent_name = agent_name

    def grant(self, wish: _Wish) -> dict[str, str]:
        """Let one identity into one room. Raises `_Refusal` with status 403 if the identity is not proved."""
        identity = self.proved(wish) or f"caller-{secrets.token_hex(8)}"
        return {
            "url": self._url,
            "token": self._token(identity, wish),
            "identity": identity,
            "identity_proof": self._proof(identity),
            "room": wish.room,
        }

    def proved(self, wish: _Wish) -> str | None:
        """Who it is; None for somebody new. Raises `_Refusal` with status 403 if the identity is not proved."""
        if wish.identity is not None and not _same(wish.identity_proof, self._proof(wish.identity)):
            raise _Refusal(403, "identity", "This identity was given to somebody else, or by another server.")
        return wish.identity

    def _proof(self, identity: str) -> str:
        # The secret also signs tokens: the prefix keeps a proof from ever being the signature of one.
        return hmac.new(self._api_secret.encode(), b"identity:" + identity.encode(), hashlib.sha256).hexdigest()

    def _token(self, identity: str, wish: _Wish) -> str:
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
    ) -> None:
        """`livekit_url`: as the browser reaches it. `agent_name`: empty where LiveKit dispatches the agent by itself.

        `port` 0 takes a free one.

        A token brings the agent only to a room that does not exist yet. `on_join` is awaited with the room's name
        before each token, to bring it to one that does; what it raises is logged, and it is cancelled after 5 s.
        `on_missing` is awaited, as long, while the page is in a room without an agent, and tells what is waited for.
        `read` gives what a conversation holds, None where there is none; without it nothing is shown after a refresh.
        """
        _require(api_key=api_key, api_secret=api_secret, key=key)
        signal_url, origins = _reach(livekit_url)
        self._tickets = _Tickets(signal_url, api_key, api_secret, agent_name)
        self._key = key
        self._open_tokens = open_tokens
        self._host = host
        self._port = port
        self._on_join = on_join
        self._on_missing = on_missing
        self._read = read
        self.failures = Failures()
        """What this server went on without, as its log tells."""
        self._web_root = web_root
        self._headers = _headers(origins)
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._guard])
        app.on_response_prepare.append(self._add_headers)
        for path in _FILES:
            app.router.add_get(path, self._file)
        app.router.add_get("/livekit-client.mjs", self._library)
        app.router.add_post("/token", self._token)
        app.router.add_post("/agent", self._agent)
        app.router.add_post("/conversation", self._conversation)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)

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
        if not self._runner.addresses:
            message = "the server is not running"
            raise RuntimeError(message)
        address = f"http://{_spoken(self._host)}:{self._runner.addresses[0][1]}/"
        return address if self._key is None or self._open_tokens else f"{address}#key={quote(self._key, safe='')}"

    async def __aenter__(self) -> Self:
        """Listen. Raises `OSError` if the port is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening; answers under way get one second. Calls go on: they are the LiveKit server's."""
        await self._runner.cleanup()

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name, kind = _FILES[request.path]
        return web.FileResponse(self._web_root / name, headers={"Content-Type": kind})

    async def _library(self, _request: web.Request) -> web.StreamResponse:
        path = self._web_root / LIBRARY
        if not path.is_file():
            raise _Refusal(404, "library", LIBRARY_MISSING)
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
            async with asyncio.timeout(ON_JOIN_PATIENCE.total_seconds()):
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
            async with asyncio.timeout(READ_PATIENCE.total_seconds()):
                snapshot = await self._read(wish.room)
        except (ConversationError, TimeoutError) as error:
            self.failures.count("read", error, "a conversation could not be shown again", room=wish.room)
            raise _Refusal(503, "read", "What was said before cannot be read just now.") from error
        return _answer({"lines": stored_lines(snapshot, identity)})

    async def _wish(self, request: web.Request) -> _Wish:
        """What is asked for, by somebody who may ask. Raises `_Refusal`."""
        self._authorise(request)
        if request.content_type != "application/json":
            raise _Refusal(415, "body", "The body is not JSON by its Content-Type.")
        return _Wish.read(await request.read())

    def _authorise(self, request: web.Request) -> None:
        if self._open_tokens:
            return
        if self._key is None:
            raise _Refusal(403, "closed", "This server gives out no tokens: it has no key, and they are not open.")
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not _same(given, self._key):
            raise _Refusal(403, "key", "The page's key is missing or wrong: open the address its server printed.")

    async def _tell_of_join(self, room: str) -> None:
        if self._on_join is None:
            return
        try:
            async with asyncio.timeout(ON_JOIN_PATIENCE.total_seconds()):
                await self._on_join(room)
        except Exception:
            fields = {"room": room, "count": self.failures.add("on_join")}
            logger.exception("an agent could not be called to the room", extra=fields)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            _check_host(request, self._host)
            _check_origin(request)
            return await handler(request)
        except _Refusal as refusal:
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


def _check_host(request: web.Request, host: str) -> None:
    """Refuse names that are not ours: a foreign one that resolves to this machine would share the page's origin."""
    if _hostname(request.headers.get("Host", "")) not in _LOOPBACK_NAMES | {host.lower()}:
        raise _Refusal(403, "host", "This server does not answer under that name.")


def _check_origin(request: web.Request) -> None:
    """Refuse what another site's page sends. No Origin at all is a program, which a browser's rules don't concern."""
    origin = request.headers.get("Origin")
    if request.method not in {"GET", "HEAD"} and origin is not None and _netloc(origin) != request.host:
        raise _Refusal(403, "origin", "Only this server's own page may ask.")


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _same(given: str, expected: str) -> bool:
    """Compare in a time that tells nothing about where they differ."""
    return hmac.compare_digest(given.encode(errors="surrogatepass"), expected.encode())


def _require(*, key: str | None, **values: str) -> None:
    for field, value in values.items():
        if not value:
            message = f"{field}: must not be empty"
            raise InvalidInputError(message, field=field)
    # A browser sends other characters in no header, or in another encoding.
    if key is not None and re.fullmatch(r"[!-~]+", key) is None:
        message = "key: must be ASCII characters without spaces, and not empty"
        raise InvalidInputError(message, field="key")


def _reach(livekit_url: str) -> tuple[str, str]:
    """The URL the client connects to, and the origins it then talks to, as the page's policy names them."""
    parts = urlsplit(livekit_url)
    scheme = _WEBSOCKET_SCHEMES.get(parts.scheme)
    if scheme is None or not parts.hostname or parts.username is not None:
        message = "livekit_url: must be a URL such as ws://127.0.0.1:7880 or wss://example.livekit.cloud"
        raise InvalidInputError(message, field="livekit_url")
    hosts = [parts.netloc]
    if parts.hostname.endswith(".livekit.cloud"):
        hosts.append("*.livekit.cloud")  # the client is sent on to the nearest region
    # HTTP as well: the client asks there why a WebSocket was refused.
    origins = [f"{way}://{host}" for host in hosts for way in (scheme, scheme.replace("ws", "http"))]
    return parts._replace(scheme=scheme).geturl(), " ".join(origins)


def _headers(livekit_origins: str) -> dict[str, str]:
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "media-src": "'self' blob:",
        "connect-src": f"'self' {livekit_origins}",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
    }


def _spoken(host: str) -> str:
    """The host as a URL writes it; a browser cannot open "every interface"."""
    try:
        address: Any = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "localhost"
    return f"[{host}]" if address.version == 6 else host  # noqa: PLR2004  # IPv6
