"""Sends to one destination, a request at a time: what became of a request is a value, and has no secret in it."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Self

import aiohttp
from pydantic import SecretStr

from conversation_actors.webhooks.connections import SUCCESS, UNREAD, is_refused, open_session
from conversation_actors.webhooks.resolver import AddressRefusedError, CheckedResolver, Lookup, look_up

MOST_PAUSE = 3600.0
"""Seconds for which a receiver is left alone at most, whatever it says."""
_REDIRECTS = range(300, 400)
_BUSY = {429, 503}
"""Answers that may say when to come again."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request was not taken, for people.

    `pause`: seconds for which the receiver wants to be left alone. `is_final`: whether another try is of no use.
    """

    reason: str
    pause: float = 0.0
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class Parcel:
    """What one request is to send, and where to. Its ``repr`` has neither secrets nor content."""

    url: SecretStr
    headers: Mapping[str, str] = field(repr=False)
    body: str = field(repr=False)


class Sender:
    """The way to one destination. Each request has a connection of its own, to an address that was checked for it.

    A connection that is used again could bring a second answer to the request before, which would count as the answer
    to this one: this one would be lost.
    """

    def __init__(
        self,
        *,
        timeout: timedelta,
        allow_private: bool,
        trusted: ssl.SSLContext | None = None,
        lookup: Lookup = look_up,
    ) -> None:
        """Wait `timeout` for each answer. `trusted` has the authorities of certificates; by default the system's."""
        self._timeout, self._allow_private = timeout.total_seconds(), allow_private
        self._trusted, self._lookup = trusted or ssl.create_default_context(), lookup
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._resolver = CheckedResolver(allow_private=self._allow_private, lookup=self._lookup)
        headers = {"Content-Type": "application/json"}
        self._session = open_session(self._resolver, self._trusted, headers=headers, seconds=self._timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()
        await self._resolver.close()

    async def send(self, parcel: Parcel) -> Refusal | None:
        """Send one request, and return why it was not taken; None if it was."""
        assert self._session is not None
        url, headers, body = parcel.url.get_secret_value(), parcel.headers, parcel.body.encode()
        if is_refused(url, allow_private=self._allow_private):
            return REFUSED_ADDRESS
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                return await _judged(answer)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            return explained(error, self._timeout)


async def _judged(answer: aiohttp.ClientResponse) -> Refusal | None:
    if answer.status in _REDIRECTS:
        return Refusal(f"answered {answer.status}: redirects are not followed")
    if answer.status not in SUCCESS:
        return Refusal(f"answered {answer.status}", _pause(answer) if answer.status in _BUSY else 0.0)
    read = 0
    async for piece in answer.content.iter_any():
        read += len(piece)
        if read > UNREAD:
            break
    return None


def _pause(answer: aiohttp.ClientResponse) -> float:
    told = answer.headers.get("Retry-After", "")
    return min(float(told), MOST_PAUSE) if told.isascii() and told.isdigit() and len(told) < len("1000000") else 0.0


REFUSED_ADDRESS = Refusal("not tried: the address is not of the public internet")
_MEANINGS: tuple[tuple[type[BaseException], str], ...] = (
    (aiohttp.ClientConnectorDNSError, "the name was not found"),
    (aiohttp.ClientConnectorError, "cannot be reached ({cause})"),
    (TimeoutError, "no whole answer within {timeout:g} s"),
    (aiohttp.ClientPayloadError, "closed before the answer was whole"),
    (aiohttp.ServerDisconnectedError, "closed before the answer was whole"),
    (aiohttp.ClientResponseError, "answered with what is not HTTP"),
    (ConnectionError, "closed before the answer was whole"),
    (BaseException, "failed ({kind})"),
)
"""What errors mean; the first that fits counts."""


def explained(error: BaseException, timeout: float) -> Refusal:
    """Return what an error means. Its own text may have the URL in it."""
    cause = getattr(error, "os_error", None)
    if isinstance(cause, AddressRefusedError):
        return REFUSED_ADDRESS
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        told = getattr(error.certificate_error, "verify_message", "") or "it is not for this host"
        return Refusal(f"the certificate does not hold: {told}")
    told = next(text for kind, text in _MEANINGS if isinstance(error, kind))
    return Refusal(told.format(cause=type(cause).__name__, kind=type(error).__name__, timeout=timeout))
