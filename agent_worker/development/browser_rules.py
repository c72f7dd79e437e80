"""What a browser may do with the caller's page, and under which names the page's server answers."""

import ipaddress
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from agent_worker.development.tickets import Refusal
from conversation_actors.errors import InvalidInputError

_LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
_WEBSOCKET_SCHEMES = {"ws": "ws", "http": "ws", "wss": "wss", "https": "wss"}


def check_host(request: web.Request, host: str) -> None:
    """Refuse names that are not ours: a foreign one that resolves to this machine would share the page's origin."""
    if _hostname(request.headers.get("Host", "")) not in _LOOPBACK_NAMES | {host.lower()}:
        raise Refusal(403, "host", "This server does not answer under that name.")


def check_origin(request: web.Request) -> None:
    """Refuse what another site's page sends. No Origin at all is a program, which a browser's rules don't concern."""
    origin = request.headers.get("Origin")
    if request.method not in {"GET", "HEAD"} and origin is not None and _netloc(origin) != request.host:
        raise Refusal(403, "origin", "Only this server's own page may ask.")


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


def reached(livekit_url: str) -> tuple[str, str]:
    """Return the URL the client connects to, and the origins it then talks to, as the page's policy names them."""
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


def headers(livekit_origins: str) -> dict[str, str]:
    """Return what every answer says of what the page may load, and whom it may talk to."""
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


def written(host: str) -> str:
    """Return the host as a URL writes it; a browser cannot open "every interface"."""
    try:
        address: Any = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "localhost"
    return f"[{host}]" if address.version == 6 else host  # noqa: PLR2004  # IPv6
