"""Webhooks of an archiver: from an owner's entry to a receiver, and nothing of them keeps archiving waiting."""

import asyncio
from functools import partial

from conversation_actors.archive import service
from conversation_actors.archive.database import Database
from conversation_actors.state import ConversationClosed, Participant, ParticipantJoined
from conversation_actors.store import Store
from conversation_actors.webhooks.service import beside_archiver
from tests.support.archiving import PATIENCE, Author, archive_settings, archived
from tests.support.outboxes import QUICK
from tests.support.receivers import destination, hang, receiving, webhooks
from tests.support.waiting import wait_until as wait_for_so_long

wait_until = partial(wait_for_so_long, patience=PATIENCE)
PROGRAM = "tests"
PERSON = Participant(identity="alice", connected=True, joined_at=1.0, devices=("phone",))


async def test_what_an_owner_writes_arrives_at_a_receiver(
    store: Store, database: Database, redis_url: str, database_url: str
) -> None:
    """In order; a receiver that never answers keeps neither that nor archiving waiting."""
    settings = archive_settings(redis_url, database_url)
    async with receiving() as receiver, receiving(hang) as bad:
        chosen = webhooks(destination(receiver.url), destination(bad.url, "bad"))
        stop = asyncio.Event()
        beside = beside_archiver(chosen, tenant=settings.tenant, timing=QUICK)
        running = asyncio.create_task(service.run(settings, stop, program=PROGRAM, beside=beside, timing=QUICK))
        author = await Author.of(store, "room")
        await author.write(ParticipantJoined(PERSON, "phone"), ConversationClosed("over"))
        await wait_until(lambda: asyncio.sleep(0, "call.ended" in [one["type"] for one in receiver.told]), "the end")
        await author.say(3)
        await wait_until(lambda: has_all(database, author), "everything to be archived")
        stop.set()
        await running
    told = [one["type"] for one in receiver.told]
    assert told[0] == "call.started"
    assert told.index("participant.joined") < told.index("call.ended")
    assert {one["data"]["conversation_id"] for one in receiver.told} == {"room"}


async def has_all(database: Database, author: Author) -> bool:
    """Whether everything is archived."""
    return await archived(database, "room") == author.written


async def test_what_fails_beside_keeps_nothing_from_being_archived(
    store: Store, database: Database, redis_url: str, database_url: str
) -> None:
    """It is begun again."""
    settings, stop, begun = archive_settings(redis_url, database_url), asyncio.Event(), 0

    async def fail(_: Database, __: asyncio.Event) -> None:
        nonlocal begun
        begun += 1
        raise ValueError

    running = asyncio.create_task(service.run(settings, stop, program=PROGRAM, beside=fail, timing=QUICK))
    author = await Author.of(store, "room")
    await author.say(3)
    await wait_until(lambda: has_all(database, author), "everything to be archived")
    await wait_until(lambda: asyncio.sleep(0, begun > 1), "it to be begun again")
    stop.set()
    await running
