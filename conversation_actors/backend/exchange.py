"""One request to a back end and its answer, by HTTP: to addresses that were checked, and never more than is read."""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiohttp

from conversation_actors.backend.access import address, headers
from conversation_actors.errors import BackendUnavailableError
from conversation_actors.settings import BackendSettings
from conversation_actors.webhooks.connections import SUCCESS, UNREAD, is_refused, open_session
from conversation_actors.webhooks.resolver import CheckedResolver, Lookup, look_up
from conversation_actors.webhooks.sender import REFUSED_ADDRESS, explained

_KEPT = 60.0
"""Seconds for which a connection waits for the next urgent request."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request. Of the answer's body `most_bytes` are read; without that, nothing in it means anything.

    An urgent one uses a connection that is there, and is asked twice if the back end had closed that meanwhile.
    """

    method: str
    path: str
    query: Mapping[str, str | Sequence[str]] | None = None
    body: bytes | None = None
    most_bytes: int | None = None
    is_urgent: bool = False


class AnswerTooLargeError(BackendUnavailableError):
    """The back end answered with more bytes than the question allows."""


class Exchange:
    """The way to a back end. Whoever asks bounds the time; what is broken off leaves nothing behind.

    What is not urgent has a connection of its own: on a used one, a second answer to an earlier request would count as
    the answer to this one.
    """

    def __init__(
        self, settings: BackendSettings, *, trusted: ssl.SSLContext | None = None, lookup: Lookup = look_up
    ) -> None:
        """Connect to nothing yet. `trusted` has the authorities of certificates; by default the system's."""
        self._base, self._shown = address(settings, "").get_secret_value(), settings.shown
        self._allow_private, self._trusted, self._lookup = settings.private_networks, trusted, lookup
        self._headers = {"Accept": "application/json", "Accept-Encoding": "identity", **headers(settings)}
        self._resolver: CheckedResolver | None = None
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def prepare(self) -> None:
        """Read what connections need from this machine."""
        if self._trusted is None:
            self._trusted = await asyncio.to_thread(ssl.create_default_context)  # reads all authorities of the system

    async def aclose(self) -> None:
        """Close connections. Idempotent; a later request connects again."""
        sessions, self._sessions = self._sessions, {}
        resolver, self._resolver = self._resolver, None
        for session in sessions.values():
            await session.close()
        if resolver is not None:
            await resolver.close()

    async def ask(self, question: Question) -> bytes:
        """Return the body of the answer; nothing unless it means something, after it was seen to be whole.

        Raises `BackendUnavailableError`; `AnswerTooLargeError` for an answer that is longer than the question allows.
        """
        if is_refused(self._base, allow_private=self._allow_private):
            raise self._error(REFUSED_ADDRESS.reason)
        await self.prepare()
        try:
            return await self._tried(question)
        except TimeoutError:  # of whoever asks
            raise
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._error(explained(error, 0.0).reason) from None

    async def _tried(self, question: Question) -> bytes:
        """Ask once more if the connection was one that the back end has closed."""
        try:
            return await self._once(question)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            if not question.is_urgent:
                raise
        return await self._once(question)

    async def _once(self, question: Question) -> bytes:
        session = self._session(is_urgent=question.is_urgent)
        content_type = {} if question.body is None else {"Content-Type": "application/json"}
        async with session.request(
            question.method, self._base + question.path,
            params=question.query, data=question.body, headers=content_type, allow_redirects=False,
        ) as answer:  # fmt: skip
            if answer.status not in SUCCESS:
                reason = f"answered {answer.status}"
                raise self._error(reason)
            if answer.headers.get("Content-Encoding", "identity") != "identity":
                reason = "answered with what is compressed"
                raise self._error(reason)
            return await self._whole(answer, question.most_bytes)

    async def _whole(self, answer: aiohttp.ClientResponse, most_bytes: int | None) -> bytes:
        bound = UNREAD if most_bytes is None else most_bytes
        read = bytearray()
        async for piece in answer.content.iter_any():
            read += piece
            if len(read) > bound:
                if most_bytes is None:
                    break
                message = f"the back end at {self._shown}: answered with more than {most_bytes} bytes"
                raise AnswerTooLargeError(message)
        return b"" if most_bytes is None else bytes(read)

    def _session(self, *, is_urgent: bool) -> aiohttp.ClientSession:
        if is_urgent not in self._sessions:
            assert self._trusted is not None
            if self._resolver is None:
                self._resolver = CheckedResolver(allow_private=self._allow_private, lookup=self._lookup)
            self._sessions[is_urgent] = open_session(
                self._resolver, self._trusted, headers=self._headers, seconds=None, kept=_KEPT if is_urgent else None
            )
        return self._sessions[is_urgent]

    def _error(self, reason: str) -> BackendUnavailableError:
        return BackendUnavailableError(f"the back end at {self._shown}: {reason}")
