"""Webhooks in the foreground, and what an operator does to them."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from conversation_actors.archive.extra import require_extra
from conversation_actors.cli.archiving import stop_at_signals
from conversation_actors.errors import InvalidInputError
from conversation_actors.log_lines import harmless
from conversation_actors.settings import Settings, WebhookSettings
from conversation_actors.values import check_id

if TYPE_CHECKING:
    from conversation_actors.archive.redelivery import DestinationStatus, Redelivery

_PATIENCE = timedelta(seconds=10)


async def deliver_until_stopped() -> None:
    """Deliver until SIGINT or SIGTERM; a second one breaks off what is under way. Raises `ConversationError`."""
    chosen, settings = _configured(), Settings()
    require_extra()
    from conversation_actors.archive.service import open_database  # noqa: PLC0415  # SQLAlchemy takes its time
    from conversation_actors.webhooks.service import run  # noqa: PLC0415  # same

    stop = asyncio.Event()
    stop_at_signals(stop)
    database = open_database(settings)
    try:
        await database.check()
        await run(database, chosen, stop, tenant=settings.tenant)
    finally:
        await database.aclose()


async def tell_status(*, as_json: bool) -> None:
    """Print how far each endpoint is. Raises `ConversationError`."""
    chosen = WebhookSettings()
    async with _redelivery() as deliveries:
        found = await deliveries.status([one.name for one in chosen.all])
    if as_json:
        print(json.dumps([asdict(one) for one in found], ensure_ascii=False))  # noqa: T201  # the interface
        return
    shown = {one.name: one.shown for one in chosen.all}
    lines = [line for one in found for line in _lines(one, shown.get(one.name, "not in the settings"))]
    print(harmless("\n".join(lines or ["no endpoint is configured"])))  # noqa: T201  # the interface


async def replay(*, only_dead: bool, since: str | None, conversation: str | None, destination: str | None) -> None:
    """Have happenings sent once more, and tell how many. Raises `ConversationError`."""
    if not only_dead and since is None and conversation is None:
        message = "since: choose what to send: --dead, --since or --conversation"
        raise InvalidInputError(message, field="since")
    names = [one.name for one in _configured().all if destination in {None, one.name}]
    if not names:
        message = "destination: no endpoint in the settings has this name"
        raise InvalidInputError(message, field="destination")
    name = None if conversation is None else check_id(conversation, "conversation")
    async with _redelivery() as deliveries:
        count = await deliveries.replay(
            names, only_dead=only_dead, since=None if since is None else _moment(since), conversation_id=name
        )
    print(f"To be sent once more: {count}.")  # noqa: T201  # the interface


async def forget(destination: str) -> None:
    """Forget an endpoint, and tell what was known of it. Raises `ConversationError`."""
    if destination in {one.name for one in WebhookSettings().all}:
        message = "destination: this endpoint is in the settings; take it out first"
        raise InvalidInputError(message, field="destination")
    async with _redelivery() as deliveries:
        count = await deliveries.forget(destination)
    print(f"Forgotten: how far it was in {count} conversations.")  # noqa: T201  # the interface


def _configured() -> WebhookSettings:
    chosen = WebhookSettings()
    if not chosen.all:
        message = "url: no endpoint is configured; set CONVERSATION_WEBHOOK_URL and CONVERSATION_WEBHOOK_SECRET"
        raise InvalidInputError(message, field="url")
    return chosen


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
