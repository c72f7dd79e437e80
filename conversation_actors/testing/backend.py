"""The double of a back end: a real HTTP server in this process that keeps what it is sent in memory."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from json import JSONDecodeError
from typing import Any, get_args

from aiohttp import web
from pydantic import SecretStr, ValidationError

from conversation_actors.backend.models import (
    CONTEXT_PATH,
    CONVERSATIONS_PATH,
    DELIVERIES,
    MESSAGES_PATH,
    MOMENT,
    MOST_ANSWER_BYTES,
    Context,
    ContextAsked,
    Delivery,
    Message,
    Messages,
    MessagesRemoved,
    MessageStored,
    Transcription,
    WireModel,
)
from conversation_actors.items import Item
from conversation_actors.settings import DEFAULT_TENANT, BackendSettings
from conversation_actors.values import decode

_MOST_BYTES = 64 << 20
_TYPES = {kind for model in DELIVERIES.values() for kind in get_args(model.model_fields["type"].annotation)}
"""All that is sent today."""
_KEY = "Idempotency-Key"
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class BackendRequest:
    """One request that has come, and the `status` that it was answered with. `body` is its JSON, or None."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any
    status: int


@dataclass(slots=True)
class _Kept:
    """What is known of one conversation."""

    messages: dict[str, Message] = field(default_factory=dict)
    deliveries: list[Delivery] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    told: dict[str, Delivery] = field(default_factory=dict)
    """By which delivery a message came last."""


class BackendDouble:
    """A back end in this process. What it is told, it keeps as docs/backend.md asks for: each delivery counts once."""

    def __init__(self, token: str = "") -> None:
        """Demand this `token`, if it is not empty."""
        self._token = token
        self._status: int | None = None
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._deleted: set[tuple[str, str, str]] = set()
        self._deletions: dict[tuple[str, str], str] = {}
        self.url = ""
        """Its base, for ``CONVERSATION_BACKEND_URL``."""
        self.context: list[str] = []
        """What it answers when it is asked for context."""
        self.requests: list[BackendRequest] = []
        """All requests, in the order of their answers."""
        self.faults: list[str] = []
        """What did not fit the OpenAPI document, and was answered with 400."""

    @property
    def settings(self) -> BackendSettings:
        """Settings that lead to it; `model_copy` changes the others."""
        token = SecretStr(self._token) if self._token else None
        return BackendSettings(url=SecretStr(self.url), token=token, private_networks=True)

    def messages(self, conversation_id: str, *, tenant: str = DEFAULT_TENANT) -> list[Message]:
        """Return what it has of a conversation's history, in order."""
        return list(self._of(tenant, conversation_id).messages.values())

    def deliveries(self, conversation_id: str, *, tenant: str = DEFAULT_TENANT) -> list[Delivery]:
        """Return everything that it was sent of a conversation, in order, without repeats; interim ones too.

        As it was sent: also what has been removed since. What the double still has of that is in `messages`.
        """
        return list(self._of(tenant, conversation_id).deliveries)

    def remember(self, conversation_id: str, *items: Item, tenant: str = DEFAULT_TENANT) -> None:
        """Have it know these items of a conversation, as if it had been sent them earlier."""
        kept = self._of(tenant, conversation_id).messages
        for item in items:
            stored, fields = item.to_stored(), item.to_dict()
            kept[item.id] = Message(
                id=item.id, item_type=item.type, role=stored.role or None, text=item.text, created_at=item.created_at,
                interrupted=fields.get("interrupted") is True, item=decode(stored.data),
            )  # fmt: skip

    def fail_with(self, status: int | None) -> None:
        """Answer every request with this status from now on; None: as usual again."""
        self._status = status

    def application(self) -> web.Application:
        """Return the application with all routes of the document."""
        application = web.Application(client_max_size=_MOST_BYTES, middlewares=[self._note])
        for path in DELIVERIES:
            application.router.add_post(path, self._take)
        application.router.add_get(MESSAGES_PATH, self._recent)
        application.router.add_post(CONTEXT_PATH, self._answer_context)
        application.router.add_delete(CONVERSATIONS_PATH, self._delete)
        application.router.add_route("*", "/v1/{tomorrow:.+}", self._ignore)
        return application

    def _of(self, tenant: str, conversation_id: str) -> _Kept:
        return self._kept.setdefault((tenant, conversation_id), _Kept())

    @web.middleware
    async def _note(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Answer, and note the request with its answer."""
        body = await _json(request)
        try:
            answer = await self._admit(request, handler)
        except web.HTTPException as error:  # no such path, or no such method of it
            answer = self._misfit(request, error.reason, error.status)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            answer = self._misfit(request, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        told = BackendRequest(
            request.method, request.path, dict(request.query), dict(request.headers), body, answer.status
        )
        self.requests.append(told)
        return answer

    async def _admit(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        if self._status is not None:
            return _refused(self._status, "told to fail")
        if self._token and request.headers.get("Authorization") != f"Bearer {self._token}":
            return _refused(HTTPStatus.UNAUTHORIZED, "the token is missing or wrong")
        return await handler(request)

    def _misfit(self, request: web.Request, reason: str, status: int = HTTPStatus.BAD_REQUEST) -> web.Response:
        self.faults.append(f"{request.method} {request.path}: {reason}")
        return _refused(status, reason)

    async def _take(self, request: web.Request) -> web.StreamResponse:
        """Keep a delivery, unless it is known already or of a conversation that was deleted meanwhile."""
        if await _is_of_tomorrow(request):
            return web.Response(status=HTTPStatus.NO_CONTENT)
        delivery = DELIVERIES[request.path].model_validate_json(await request.read())
        key = request.headers.get(_KEY)
        is_interim = isinstance(delivery, Transcription) and not delivery.final
        if not key and not is_interim:
            return self._misfit(request, f"{_KEY}: it is missing")
        whose = (delivery.tenant, delivery.conversation_id)
        kept = self._of(*whose)
        is_late = (*whose, delivery.life) in self._deleted or delivery.at <= self._deletions.get(whose, "")
        if key in kept.keys or is_late:
            return web.Response(status=HTTPStatus.NO_CONTENT)
        if key:
            kept.keys.add(key)
        kept.deliveries.append(delivery)
        match delivery:
            case MessageStored(message=message):
                kept.messages[message.id] = message
                kept.told[message.id] = delivery
            case MessagesRemoved(ids=ids):
                for gone in list(kept.messages) if ids is None else ids:
                    kept.messages.pop(gone, None)
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _ignore(self, request: web.Request) -> web.StreamResponse:
        """Take what a newer version sends to a path of its own."""
        if request.method == "POST" and await _is_of_tomorrow(request):
            return web.Response(status=HTTPStatus.NO_CONTENT)
        raise web.HTTPNotFound

    async def _recent(self, request: web.Request) -> web.StreamResponse:
        whose, limit = _whose(request), request.query.get("limit", "")
        if whose is None or not limit.isdecimal():
            return self._misfit(request, "conversation_id, tenant or limit is missing or wrong")
        known = self._kept[whose].messages.values() if whose in self._kept else ()
        newest = list(known)[-int(limit) :] if int(limit) else []
        return _written(Messages(messages=_fitting(newest)))

    async def _answer_context(self, request: web.Request) -> web.StreamResponse:
        ContextAsked.model_validate_json(await request.read())
        return _written(Context(context=self.context))

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        whose, before = _whose(request), request.query.get("before", "")
        if whose is None or not re.fullmatch(MOMENT, before, re.ASCII):
            return self._misfit(request, "conversation_id, tenant or before is missing or wrong")
        lives = request.query.getall("life", [])
        self._deleted |= {(*whose, life) for life in lives}
        self._deletions[whose] = max(before, self._deletions.get(whose, ""))
        if (kept := self._kept.get(whose)) is not None:

            def stays(one: Delivery | None) -> bool:
                return one is not None and one.life not in lives and one.at > before

            kept.messages = {id_: one for id_, one in kept.messages.items() if stays(kept.told.get(id_))}
            kept.deliveries = [one for one in kept.deliveries if stays(one)]
        return web.Response(status=HTTPStatus.NO_CONTENT)


async def _json(request: web.Request) -> Any:
    try:
        return await request.json()
    except (JSONDecodeError, UnicodeDecodeError, RecursionError):
        return None


async def _is_of_tomorrow(request: web.Request) -> bool:
    """Tell whether this is a delivery of a type that there is not yet, as a newer version may send."""
    try:
        delivery = Delivery.model_validate_json(await request.read())
    except ValidationError:
        return False
    return delivery.type not in _TYPES


def _fitting(messages: list[Message]) -> list[Message]:
    """Return the newest of them, as many as are read."""
    left = MOST_ANSWER_BYTES - len(Messages(messages=[]).model_dump_json())
    for number, message in enumerate(reversed(messages)):
        left -= len(message.model_dump_json().encode()) + 1
        if left < 0:
            return messages[len(messages) - number :]
    return messages


def _whose(request: web.Request) -> tuple[str, str] | None:
    """Return tenant and id of the conversation that is asked for."""
    tenant, conversation_id = request.query.get("tenant"), request.query.get("conversation_id")
    return (tenant, conversation_id) if tenant and conversation_id else None


def _written(answer: WireModel) -> web.Response:
    return web.json_response(text=answer.model_dump_json())


def _refused(status: int, reason: str) -> web.Response:
    return web.json_response({"error": reason}, status=status)


@asynccontextmanager
async def serving(token: str = "") -> AsyncIterator[BackendDouble]:
    """Run a double on a port of 127.0.0.1; see `conversation_actors.testing.backend_double`."""
    double = BackendDouble(token)
    runner = web.AppRunner(double.application(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        double.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield double
    finally:
        await runner.cleanup()
    if double.faults:
        message = f"requests did not fit the back end's document: {'; '.join(double.faults)}"
        raise AssertionError(message)
