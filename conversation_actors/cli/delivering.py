"""Webhooks, and what a back end is sent, in the foreground; and what an operator does to both."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from conversation_actors.archive.extra import require_extra
from conversation_actors.cli.archiving import stop_at_signals
from conversation_actors.destinations import BACKEND_NAME
from conversation_actors.errors import InvalidInputError
from conversation_actors.log_lines import harmless
from conversation_actors.settings import BackendSettings, Settings, WebhookSettings
from conversation_actors.values import check_id

if TYPE_CHECKING:
    from conversation_actors.archive.redelivery import DestinationStatus, Redelivery

_PATIENCE = timedelta(seconds=10)


async def deliver_until_stopped() -> None:
    """Deliver until SIGINT or SIGTERM; a second one breaks off what is under way. Raises `ConversationError`."""
    _configured()
    chosen, settings = WebhookSettings(), Settings()
    require_extra()
    from conversation_actors.archive.service import open_database  # noqa: PLC0415  # SQLAlchemy takes its time
    from conversation_actors.backend.delivery import recipients_of  # noqa: PLC0415  # same
    from conversation_actors.webhooks.service import run  # noqa: PLC0415  # same

    stop = asyncio.Event()
    stop_at_signals(stop)
    database = open_database(settings)
    try:
        await database.check()
        backend = recipients_of(settings.backend, tenant=settings.tenant)
        await run(database, chosen, stop, tenant=settings.tenant, also=backend)
    finally:
        await database.aclose()


async def tell_status(*, as_json: bool) -> None:
    """Print how far each destination is. Raises `ConversationError`."""
    shown = _destinations()
    async with _redelivery() as deliveries:
        found = await deliveries.status(list(shown))
    if as_json:
        print(json.dumps([asdict(one) for one in found], ensure_ascii=False))  # noqa: T201  # the interface
        return
    lines = [line for one in found for line in _lines(one, shown.get(one.name, "not in the settings"))]
    print(harmless("\n".join(lines or ["no endpoint and no back end is configured"])))  # noqa: T201  # the interface


async def replay(*, only_dead: bool, since: str | None, conversation: str | None, destination: str | None) -> None:
    """Have happenings sent once more, and tell how many. Raises `ConversationError`."""
    if not only_dead and since is None and conversation is None:
        message = "since: choose what to send: --dead, --since or --conversation"
        raise InvalidInputError(message, field="since")
    names = [name for name in _configured() if destination in {None, name}]
    if not names:
        message = "destination: nothing in the settings has this name"
        raise InvalidInputError(message, field="destination")
    name = None if conversation is None else check_id(conversation, "conversation")
    async with _redelivery() as deliveries:
        count = await deliveries.replay(
            names, only_dead=only_dead, since=None if since is None else _moment(since), conversation_id=name
        )
    print(f"To be sent once more: {count}.")  # noqa: T201  # the interface


async def forget(destination: str) -> None:
    """Forget a destination, and tell what was known of it. Raises `ConversationError`."""
    if destination in _destinations():
        message = "destination: it is in the settings; take it out first"
        raise InvalidInputError(message, field="destination")
    async with _redelivery() as deliveries:
        count = await deliveries.forget(destination)
    print(f"Forgotten: how far it was in {count} conversations.")  # noqa: T201  # the interface


def _destinations() -> dict[str, str]:
    """Return where things are sent to, by the name of each destination."""
    endpoints, backend = WebhookSettings(), BackendSettings()
    shown = {one.name: one.shown for one in endpoints.all}
    return shown if backend.url is None else {**shown, BACKEND_NAME: backend.shown}


def _configured() -> dict[str, str]:
    """Return the same, if there are any."""
    if found := _destinations():
        return found
    message = (
        "url: nothing is configured to send to; set CONVERSATION_WEBHOOK_URL and CONVERSATION_WEBHOOK_SECRET, "
        "or CONVERSATION_BACKEND_URL"
    )
    raise InvalidInputError(message, field="url")


def _moment(text: str) -> float:
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError, OSError):
        message = "since: must be a time such as 2026-11-28 or 2026-11-28T09:30+01:00"
        raise InvalidInputError(message, field="since") from None


@asynccontextmanager
async def _redelivery() -> "AsyncIterator[Redelivery]":
    require_extra()
    from conversation_actors.archive.redelivery import Redelivery  # noqa: PLC0415  # SQLAlchemy takes its time
    from conversation_actors.archive.service import open_database  # noqa: PLC0415  # same

    settings = Settings()
    database = open_database(settings, patience=_PATIENCE)
    try:
        await database.check()
        yield Redelivery(database, settings.tenant)
    finally:
        await database.aclose()


def _lines(status: "DestinationStatus", shown: str) -> Iterator[str]:
    yield f"{status.name}  {shown}"
    yield f"  waiting   {status.waiting} of {status.conversations} conversations, the oldest for {status.seconds:.0f} s"
    if status.refusing:
        yield f"  refused   in {status.refusing} conversations: {'; '.join(status.reasons[:5])}"
    yield f"  dead      {status.dead}" + (f", and {status.replays} to be sent once more" if status.replays else "")
