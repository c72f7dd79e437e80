"""A back end as a destination of a real outbox, beside webhooks: everything, at least once, in order, to its path."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from conversation_actors.archive.database import Database
from conversation_actors.archive.redelivery import Redelivery
from conversation_actors.archive.tables import replays
from conversation_actors.cli.archiving import archive_until_stopped
from conversation_actors.destinations import BACKEND_NAME
from conversation_actors.store import Store
from conversation_actors.timing import Timing
from conversation_actors.webhooks.deliverer import Deliverer
from tests.support.archiving import PATIENCE, Author, archive_settings
from tests.support.outboxes import QUICK, TENANT, Business, count, cursors, dead, delivering
from tests.support.receivers import destination, receiving, webhooks
from tests.support.sent_backend import TOKEN, Arrival, SentBackend, sent_backend
from tests.support.waiting import wait_until as wait_for_so_long

wait_until = partial(wait_for_so_long, patience=PATIENCE)
LASTING = replace(QUICK, webhook_claim=600.0)
"""Claims do not end before their work does, however busy the machine is."""
MESSAGE = {"id": "item_1", "item_type": "message", "role": "user", "text": "Hello", "created_at": 1.0}
REMOVED: dict[str, Any] = {"ids": ["item_1"]}


def is_true(condition: Callable[[], object]) -> Callable[[], "asyncio.Future[object]"]:
    """Return a condition to wait for."""

    async def ask() -> object:
        return condition()

    return lambda: asyncio.ensure_future(ask())


def delivering_to(
    database: Database, backend: SentBackend, *, timing: Timing = LASTING, **values: Any
) -> AbstractAsyncContextManager[Deliverer]:
    """Run a deliverer to a back end alone."""
    return delivering(database, webhooks(), timing=timing, also=backend.recipients(**values))


async def passed(database: Database, position: int, name: str = BACKEND_NAME) -> bool:
    """Whether the cursors are at this position or behind it, and nothing is to be sent once more."""
    found = await cursors(database, name)
    is_there = bool(found) and all(one[0] >= position for one in found.values())
    return is_there and await count(database, replays) == 0


async def talk(business: Business, name: str = "c") -> None:
    """Let a call begin, something be said and taken out again."""
    await business.happen(name, type="call.started", number=1, by="message")
    await business.happen(name, type="message.stored", message=MESSAGE)
    await business.happen(name, type="messages.removed", **REMOVED)
    await business.happen(name, type="participant.left", identity="ada", name="Ada", seconds=1.5)


async def test_each_happening_arrives_at_its_path_with_the_token_and_its_key(database: Database) -> None:
    """In order; what has no path is passed over. A webhook beside it is sent what businesses are told, and no more."""
    business = Business(database)
    await talk(business)
    async with sent_backend() as backend, receiving() as receiver:
        chosen = webhooks(destination(receiver.url))
        async with delivering(database, chosen, timing=LASTING, also=backend.recipients()):
            await wait_until(lambda: passed(database, 4), "everything at the back end")
            await wait_until(lambda: passed(database, 4, "default"), "everything at the endpoint")
    assert [(one.path, one.key) for one in backend.tried] == [
        ("/v1/messages", "evt_2"), ("/v1/messages/removed", "evt_3"), ("/v1/participants/left", "evt_4"),
    ]  # fmt: skip
    assert backend.tried[1].said == {
        **REMOVED, "type": "messages.removed", "at": "2023-11-14T22:13:23.000Z", "conversation_id": "c",
        "call_id": "life-c.1", "tenant": TENANT, "seq": 3,
    }  # fmt: skip
    for arrival in backend.tried:
        assert arrival.headers["Authorization"] == f"Bearer {TOKEN}"
        assert arrival.headers["Content-Type"] == "application/json"
    assert [one["type"] for one in receiver.told] == ["call.started", "participant.left"]
    assert "Authorization" not in receiver.headers[0]


async def test_what_is_refused_comes_again_with_the_same_key_before_what_follows(database: Database) -> None:
    """Other conversations go on."""
    business = Business(database)
    await talk(business, "bad")
    await talk(business, "good")

    async def sometimes(arrival: Arrival) -> web.StreamResponse:
        is_bad = arrival.said["seq"] == 2 and [one.key for one in backend.tried].count("evt_2") < 4
        return web.Response(status=503 if is_bad else 204)

    async with sent_backend(sometimes) as backend, delivering_to(database, backend):
        await wait_until(is_true(lambda: len(backend.taken) == 6), "everything")
    assert [one.key for one in backend.tried].count("evt_2") == 4
    for name, keys in {"bad": ["evt_2", "evt_3", "evt_4"], "good": ["evt_6", "evt_7", "evt_8"]}.items():
        assert [one.key for one in backend.taken if one.said["conversation_id"] == name] == keys


async def test_what_is_never_taken_is_a_dead_letter_that_can_be_replayed(database: Database) -> None:
    """By the name of the back end; the status has both, and no secret."""
    business = Business(database)
    await talk(business)

    async def refuse(_: Arrival) -> web.StreamResponse:
        return web.Response(status=422)

    async with sent_backend(refuse) as backend, delivering_to(database, backend, attempts=1):
        await wait_until(lambda: passed(database, 4), "the cursor at the end")
    assert [row[:2] for row in await dead(database)] == [(BACKEND_NAME, f"evt_{number}") for number in (2, 3, 4)]
    redelivery = Redelivery(database, TENANT)
    (status,) = await redelivery.status([BACKEND_NAME])
    assert (status.name, status.dead, status.waiting) == (BACKEND_NAME, 3, 0)
    await redelivery.replay([BACKEND_NAME], only_dead=True, since=None, conversation_id=None)
    async with sent_backend() as other, delivering_to(database, other):
        await wait_until(lambda: all_taken(database, other), "the dead letters")
    assert other.keys == ["evt_2", "evt_3", "evt_4"]
    assert await dead(database) == []


async def all_taken(database: Database, backend: SentBackend) -> bool:
    """Whether all that was dead has arrived, and that is noted."""
    return len(backend.keys) == 3 and await passed(database, 4)


async def test_an_address_inside_the_network_is_not_tried_unless_that_is_allowed(database: Database) -> None:
    """The reason is noted, and has no path."""
    business = Business(database)
    await talk(business)
    async with sent_backend() as backend:
        real, backend.url = backend.url, backend.url.replace("http:", "https:")
        brief = timedelta(seconds=1)  # what is claimed when the deliverer ends is due again soon
        async with delivering_to(database, backend, timing=QUICK, timeout=brief, private_networks=False):
            await wait_until(lambda: refused(database), "it to be refused")
        backend.url = real
        assert backend.tried == []
        async with delivering_to(database, backend):
            await wait_until(is_true(lambda: len(backend.taken) == 3), "everything")


async def refused(database: Database) -> bool:
    """Whether it is noted that the address may not be reached."""
    (status,) = await Redelivery(database, TENANT).status([BACKEND_NAME])
    return status.reasons == ("not tried: the address is not of the public internet",)


async def test_an_archiver_sends_what_an_owner_writes(
    store: Store, redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the command runs it, of its settings: messages arrive as they are stored."""
    monkeypatch.chdir(tmp_path)
    async with sent_backend() as backend:
        settings = archive_settings(redis_url, database_url).model_copy(update={"backend": backend.settings()})
        archiving = archive_until_stopped(is_to_migrate=False, settings=settings, timing=QUICK)
        running = asyncio.create_task(archiving)
        author = await Author.of(store, "room")
        await author.say(2)
        await wait_until(is_true(lambda: backend.texts("room") == ["word 1", "word 2"]), "both messages")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
