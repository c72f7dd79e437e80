"""Connections to what is not ours: to addresses that were checked, by no proxy, without cookies and redirects."""

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from conversation_actors.destinations import is_numeric
from conversation_actors.webhooks.addresses import is_public
from conversation_actors.webhooks.resolver import CheckedResolver

SUCCESS = range(200, 300)
UNREAD = 64 << 10
"""Bytes of an answer in which nothing means anything: they are read to learn whether it is whole."""
_AGENT = {"User-Agent": "conversation-actors"}


def is_refused(url: str, *, allow_private: bool) -> bool:
    """Tell whether a URL has an address that is not allowed; that of a name is checked when it is looked up."""
    host = urlsplit(url).hostname or ""
    return is_numeric(host) and not allow_private and not is_public(host)


def open_session(
    resolver: CheckedResolver,
    trusted: ssl.SSLContext,
    *,
    headers: Mapping[str, str],
    seconds: float | None,
    kept: float | None = None,
) -> aiohttp.ClientSession:
    """Return a session that sends these headers, and bounds each request by `seconds`.

    Each request has a connection of its own, unless one is `kept` so many seconds for the next one.
    """
    keeping: dict[str, Any] = {"force_close": True} if kept is None else {"keepalive_timeout": kept}
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, limit=0, ssl=trusted, **keeping),
        timeout=aiohttp.ClientTimeout(total=seconds),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={**_AGENT, **headers},
        auto_decompress=False,
        trust_env=False,
    )
