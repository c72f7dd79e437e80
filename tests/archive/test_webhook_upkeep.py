"""What operators do, and what the outbox keeps: replays, status, forgetting, purging, deleting."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from aiohttp import web
from sqlalchemy import update

from conversation_actors.archive.database import Database
from conversation_actors.archive.lives import erase
from conversation_actors.archive.outbox import Outbox
from conversation_actors.archive.outbox_purge import OutboxPurge
from conversation_actors.archive.redelivery import Redelivery
from conversation_actors.archive.settling import Settlement, Settling
from conversation_actors.archive.tables import dead_letters, deliveries, happenings, lives, replays
from conversation_actors.archive.writer import Writer
from tests.support.archiving import PATIENCE
from tests.support.outboxes import BEGAN, QUICK, TENANT, Business, add_life, count, cursors, dead, delivering
from tests.support.receivers import Event, Receiver, destination, fail, receiving, webhooks
from tests.support.waiting import wait_until as wait_for_so_long

NAMES = ["default"]
wait_until = partial(wait_for_so_long, patience=PATIENCE)


async def delivered(database: Database, business: Business, **more: object) -> Receiver:
    """Deliver everything, and return the receiver."""
    async with receiving() as receiver, delivering(database, webhooks(destination(receiver.url), **more)):
        await wait_until(lambda: passed(database, business), "everything")
    return receiver


async def passed(database: Database, business: Business) -> bool:
    """Whether every cursor is at the end, and nothing is to be sent once more."""
    found = await cursors(database)
    is_at_the_end = all(found.get(name, (0,))[0] >= numbers[-1] for name, numbers in business.happened.items())
    return is_at_the_end and await count(database, replays) == 0


async def test_dead_letters_are_delivered_once_more(database: Database) -> None:
    """With the same ids; then they are none any longer."""
    business = Business(database)
    await business.happen("c", 3)
    await business.happen("d", 1)
    async with receiving(fail) as receiver, delivering(database, webhooks(destination(receiver.url), attempts=1)):
        await wait_until(lambda: passed(database, business), "everything to be dead")
    assert len(await dead(database)) == 4
    redelivery = Redelivery(database, TENANT)
    chosen = {"only_dead": True, "since": None, "conversation_id": "c"}
    assert await redelivery.replay(NAMES, **chosen) == 3  # type: ignore[arg-type]
    assert await redelivery.replay(NAMES, **chosen) == 0  # type: ignore[arg-type]
    assert (await delivered(database, business)).ids == ["evt_1", "evt_2", "evt_3"]
    assert [row[1] for row in await dead(database)] == ["evt_4"]


async def test_what_was_delivered_is_delivered_once_more(database: Database) -> None:
    """Since a time, and before what is new."""
    business = Business(database)
    await business.happen("c", 5)
    await delivered(database, business)
    count_of = await Redelivery(database, TENANT).replay(NAMES, only_dead=False, since=BEGAN + 4, conversation_id=None)
    await business.happen("c", 1)
    assert count_of == 2
    assert (await delivered(database, business)).ids == ["evt_4", "evt_5", "evt_6"]


async def test_a_replay_that_is_refused_keeps_nothing_else_waiting(database: Database) -> None:
    """After five tries it is a dead letter again."""
    business = Business(database)
    await business.happen("c", 2)
    await delivered(database, business)
    await Redelivery(database, TENANT).replay(NAMES, only_dead=False, since=0, conversation_id="c")

    async def refuse_the_first(event: Event, receiver: Receiver) -> web.StreamResponse:
        if event["id"] == "evt_1":
            return web.Response(status=500)
        receiver.told.append(event)
        return web.Response()

    await business.happen("c", 1)
    async with receiving(refuse_the_first) as receiver, delivering(database, webhooks(destination(receiver.url))):
        await wait_until(lambda: passed(database, business), "everything")
    assert receiver.ids == ["evt_2", "evt_3"]
    assert [one["id"] for one in receiver.tried].count("evt_1") == 5
    assert await dead(database) == [("default", "evt_1", 5, "answered 500")]


async def test_a_replay_amid_a_delivery_is_sent(database: Database) -> None:
    """Also if whoever has the conversation notes that it is done while the replay is not committed yet."""
    business = Business(database)
    await business.happen("c", 1)
    async with database.writing("testing") as connection:
        row = {"destination": "default", "tenant": TENANT, "conversation_id": "c", "delivered_id": 1, "next_at": BEGAN}
        await connection.execute(deliveries.insert().values(**row))
        letter = {"destination": "default", "happening_id": 1, "attempts": 9, "last_error": "no", "dead_at": 1.0}
        await connection.execute(dead_letters.insert().values(**letter))
    outbox, settling = Outbox(database, TENANT, claim=600.0), Settling(database, TENANT)
    (taken,) = await outbox.take({"default": 1})
    redelivery, chosen = Redelivery(database, TENANT), [happenings.c.tenant == TENANT]
    async with database.writing("testing") as connection:
        assert await redelivery._replay(connection, "default", chosen, only_dead=True) == 1
        settled = asyncio.create_task(settling.settle([Settlement(taken, delivered_id=1)]))
        await asyncio.wait({settled}, timeout=0.5)  # it has to wait; if it does not, it is over by then
    assert await settled == 1
    (again,) = await outbox.take({"default": 1})
    assert [one.event_id for one in again.queue] == ["evt_1"]


async def test_a_replay_takes_no_claim_away(database: Database) -> None:
    """The conversation is due when whoever has it is done."""
    business = Business(database)
    await business.happen("c", 2)
    async with database.writing("testing") as connection:
        row = {"destination": "default", "tenant": TENANT, "conversation_id": "c", "delivered_id": 1, "next_at": BEGAN}
        await connection.execute(deliveries.insert().values(**row))
    outbox = Outbox(database, TENANT, claim=600.0)
    (taken,) = await outbox.take({"default": 1})
    redelivery = Redelivery(database, TENANT)
    assert await redelivery.replay(NAMES, only_dead=False, since=None, conversation_id="c") == 1
    assert await outbox.take({"default": 1}) == []
    assert await Settling(database, TENANT).settle([Settlement(taken, delivered_id=2)]) == 1
    (again,) = await outbox.take({"default": 1})
    assert [one.event_id for one in again.queue] == ["evt_1"]


async def test_the_status_tells_what_waits_and_why(database: Database) -> None:
    """By endpoint, also one of which nothing is known yet."""
    business = Business(database)
    await business.happen("c", 2)
    await business.happen("d", 1)
    patient = replace(QUICK, webhook_again=(3600.0, 3600.0))
    async with receiving(fail) as receiver, delivering(database, webhooks(destination(receiver.url)), timing=patient):
        await wait_until(lambda: refused(database, 2), "both to be refused")
    one, other = await Redelivery(database, TENANT, clock=lambda: BEGAN + 101).status(["default", "new"])
    assert (one.conversations, one.waiting, one.refusing, one.reasons) == (2, 3, 2, ("answered 500",))
    assert (one.seconds, one.dead, one.replays) == (100.0, 0, 0)
    assert (other.name, other.conversations, other.waiting, other.refusing) == ("new", 2, 3, 0)


async def refused(database: Database, number: int) -> bool:
    """Whether so many conversations were tried in vain."""
    return sum(one[1] > 0 for one in (await cursors(database)).values()) == number


def purge(database: Database, *names: str, age: float = 50.0) -> OutboxPurge:
    """Return a purge for which happenings up to the fiftieth are old."""
    return OutboxPurge(database, TENANT, names, timedelta(seconds=age), clock=lambda: BEGAN + 50.5 + age)


async def test_what_is_old_and_delivered_goes(database: Database) -> None:
    """With the cursors of conversations of which nothing is left; what comes then is delivered."""
    business = Business(database)
    await business.happen("c", 2)
    await business.happen("d", 50)
    await delivered(database, business)
    assert await purge(database, "default").purge() == 50
    assert await count(database, happenings) == 2
    assert set(await cursors(database)) == {"d"}
    await business.happen("c", 1)
    assert (await delivered(database, business)).numbers("c") == [53]


async def test_what_one_endpoint_does_not_have_stays(database: Database) -> None:
    """Also one that only another process has in its settings; and dead letters stay."""
    business = Business(database)
    await business.happen("c", 3)
    assert await purge(database, "default").purge() == 0
    await delivered(database, business)
    assert await purge(database, "default", "new").purge() == 0
    async with database.writing("testing") as connection:
        row = {"destination": "elsewhere", "tenant": TENANT, "conversation_id": "c", "delivered_id": 2}
        await connection.execute(deliveries.insert().values(**row))
        letter = {"destination": "default", "happening_id": 1, "attempts": 9, "last_error": "no", "dead_at": 1.0}
        await connection.execute(dead_letters.insert().values(**letter))
    assert await purge(database, "default").purge() == 1
    assert await Redelivery(database, TENANT).forget("elsewhere") == 1
    assert await purge(database, "default").purge() == 1
    assert await count(database, happenings) == 1


async def test_without_endpoints_only_what_is_old_goes(database: Database) -> None:
    """Nobody will ask for it."""
    await Business(database).happen("c", 60)
    assert await purge(database).purge() == 50


async def test_a_deleted_conversation_leaves_nothing_to_deliver(database: Database) -> None:
    """Its dead letters and replays go with it, also amid a delivery."""
    business = Business(database)
    await business.happen("c", 3)
    async with receiving(fail) as receiver, delivering(database, webhooks(destination(receiver.url), attempts=2)):
        await wait_until(lambda: has_dead(database), "a dead letter")
        async with database.writing("testing") as connection:
            await erase(connection, [await add_life(connection, "c")], at=1.0)
        await wait_until(lambda: idle(database), "nothing to be due")
        assert await count(database, dead_letters) == 0
        await connection_free(database)
        receiver.reply = None
        await business.happen("d", 1)
        await wait_until(lambda: has(receiver, "d"), "the next one")


async def put_off(database: Database, name: str, delivered_id: int) -> None:
    """Let a conversation be where so much was taken, and the next one was refused nine times."""
    async with database.writing("testing") as connection:
        row = {"destination": "default", "tenant": TENANT, "conversation_id": name, "delivered_id": delivered_id}
        refused = {"attempts": 9, "next_at": 9e9, "last_error": "no"}
        await connection.execute(deliveries.insert().values(**row, **refused))


async def test_the_next_conversation_of_an_id_starts_anew(database: Database) -> None:
    """No pause and no attempt of the deleted one falls on it."""
    business = Business(database)
    for name in ("c", "d"):
        await business.happen(name, 2)
        await put_off(database, name, 1)
    async with database.writing("testing") as connection:
        await erase(connection, [await add_life(connection, "c")], at=BEGAN)
    assert await cursors(database) == {"d": (1, 9, 9e9)}


async def test_the_life_that_is_left_waits_for_no_pause_of_a_deleted_one(database: Database) -> None:
    """The endpoint keeps what it has."""
    business = Business(database)
    await business.happen("c", 2)
    await put_off(database, "c", 1)
    async with database.writing("testing") as connection:
        first = await add_life(connection, "c")
        lives_of = {"tenant": TENANT, "conversation_id": "c", "life": "later", "start": 0, "seq": 0, "epoch": 1}
        rest = {"owner": "owner", "lineage": "[]", "created_at": BEGAN, "active_at": BEGAN}
        await connection.execute(lives.insert().values(**lives_of, **rest))
        await erase(connection, [first], at=BEGAN)
    assert await cursors(database) == {"c": (1, 0, BEGAN)}


async def test_retention_tells_what_no_endpoint_will_get(
    database: Database, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    """It wins over what waits in the outbox, and over dead letters; it takes nothing of other conversations."""
    business = Business(database)
    await business.happen("done", 1)
    await business.happen("c", 3)
    await business.happen("young", 1)
    await put_off(database, "done", 1)
    await put_off(database, "c", 3)
    await put_off(database, "young", 4)
    async with database.writing("testing") as connection:
        letter = {"destination": "default", "happening_id": 2, "attempts": 9, "last_error": "no", "dead_at": 1.0}
        await connection.execute(dead_letters.insert().values(**letter))
        await connection.execute(update(lives).where(lives.c.conversation_id == "done").values(active_at=BEGAN - 5))
        await connection.execute(update(lives).where(lives.c.conversation_id == "young").values(active_at=BEGAN + 5))
    assert await writer.purge(BEGAN - 1, most=9) == 1
    assert caplog.records == []
    assert await writer.purge(BEGAN + 1, most=9) == 1
    (told,) = [vars(one) for one in caplog.records]
    assert (told["levelname"], told["happenings"], told["dead_letters"]) == ("WARNING", 1, 1)
    assert set(await cursors(database)) == {"young"}


async def has_dead(database: Database) -> bool:
    """Whether there is a dead letter."""
    return bool(await dead(database))


async def idle(database: Database) -> bool:
    """Whether nothing is due."""
    return all(one[2] is None for one in (await cursors(database)).values())


async def has(receiver: Receiver, name: str) -> bool:
    """Whether the receiver was told of a conversation."""
    return bool(receiver.numbers(name))


async def connection_free(database: Database) -> None:
    """Write something, as anybody may."""
    async with database.writing("testing") as connection:
        await connection.execute(update(deliveries).values(last_error=None))
