"""Delivery from a real outbox to real receivers: everything, at least once, and in order within a conversation."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import web
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.database import Database
from conversation_actors.archive.outbox import Outbox
from conversation_actors.archive.outbox_news import News
from conversation_actors.archive.settling import Settlement, Settling
from conversation_actors.archive.tables import deliveries, happenings
from conversation_actors.errors import ArchiveUnavailableError
from tests.support.archiving import PATIENCE
from tests.support.outboxes import QUICK, TENANT, Business, count, cursors, dead, delivering, start_deliverer
from tests.support.receivers import Event, Receiver, Reply, destination, fail, hang, receiving, webhooks
from tests.support.waiting import wait_until as wait_for_so_long

wait_until = partial(wait_for_so_long, patience=PATIENCE)
LASTING = replace(QUICK, webhook_claim=600.0)
"""Claims do not end before their work does, however busy the machine is."""


def told(receiver: Receiver, business: Business) -> Callable[[], "asyncio.Future[bool]"]:
    """Return a condition: the receiver was told all that happened."""

    async def is_told() -> bool:
        return all(len(receiver.numbers(name)) == len(numbers) for name, numbers in business.happened.items())

    return lambda: asyncio.ensure_future(is_told())


async def test_everything_is_delivered_in_order(database: Database) -> None:
    """What is there at the start, what comes while others are delivered, and of more conversations than places."""
    business = Business(database)
    for number in range(50):
        await business.happen(f"c{number}", 3)
    async with receiving() as receiver, delivering(database, webhooks(destination(receiver.url)), timing=LASTING):
        await business.happen("c1", 45)
        for number in range(60):
            await business.happen(f"c{number}", 1)
        await wait_until(told(receiver, business), "everything")
        assert {name: receiver.numbers(name) for name in business.happened} == business.happened
        await wait_until(lambda: settled(database), "nothing to be due")
    assert len(receiver.told) == len(receiver.ids)  # nobody died: nothing came twice
    event = next(one for one in receiver.told if one["id"] == "evt_1")
    assert event["timestamp"] == "2023-11-14T22:13:21.000Z"
    assert event["data"] == {"conversation_id": "c0", "call_id": "life-c0.1", "tenant": "tenant", "seq": 1}


async def settled(database: Database) -> bool:
    """Whether nothing is due, now or later."""
    return all(row[2] is None for row in (await cursors(database)).values())


async def test_an_idle_outbox_is_not_written(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking is reading; what is delivered is not taken again."""
    business, looks, look = Business(database), 0, News.look

    async def counted(news: News) -> int:
        nonlocal looks
        looks += 1
        return await look(news)

    monkeypatch.setattr(News, "look", counted)
    await business.happen("c", 2)
    async with receiving() as receiver, delivering(database, webhooks(destination(receiver.url))):
        await wait_until(told(receiver, business), "everything")
        await wait_until(lambda: settled(database), "nothing to be due")
        before = await written(database)
        several = looks + 10
        await wait_until(lambda: asyncio.sleep(0, looks > several), "several looks")
        assert await written(database) == before


async def written(database: Database) -> object:
    """Return what changes when anybody writes the cursors."""
    async with database.reading("looking") as connection:
        return (await connection.execute(deliveries.select())).all()


async def test_only_the_types_that_are_wanted_are_sent(database: Database) -> None:
    """The cursor passes over the others."""
    business = Business(database)
    await business.happen("c", 30)
    await business.happen("c", 1, type="call.ended")
    await business.happen("c", 30)
    async with receiving() as receiver:
        chosen = destination(receiver.url, events=("call.ended", "call.started"))
        async with delivering(database, webhooks(chosen)):
            await wait_until(lambda: passed(database, 61), "the cursor at the end")
    assert receiver.numbers("c") == [31]


async def passed(database: Database, position: int, destination_name: str = "default") -> bool:
    """Whether all cursors are at this position or behind it."""
    found = await cursors(database, destination_name)
    return bool(found) and all(one[0] >= position for one in found.values())


async def test_a_refusal_is_tried_again_and_keeps_the_order(database: Database) -> None:
    """What follows waits, in this conversation; others go on. Each try has the same id."""
    business = Business(database)
    refusals: Counter[str] = Counter()

    async def sometimes(event: Event, receiver: Receiver) -> web.StreamResponse:
        if event["data"]["seq"] == 2 and refusals["evt_2"] < 4:
            refusals[event["id"]] += 1
            return web.Response(status=500)
        receiver.told.append(event)
        return web.Response()

    await business.happen("bad", 4)
    await business.happen("good", 4)
    async with receiving(sometimes) as receiver, delivering(database, webhooks(destination(receiver.url))):
        await wait_until(told(receiver, business), "everything")
    assert refusals == {"evt_2": 4}
    assert receiver.numbers("bad") == [1, 2, 3, 4]
    assert [one["id"] for one in receiver.tried].count("evt_1") == 1


@pytest.mark.parametrize("misbehaviour", [fail, hang])
async def test_one_destination_keeps_no_other_waiting(misbehaviour: Reply, database: Database) -> None:
    """Neither one that refuses everything nor one that never answers, with more conversations than it has places."""
    business = Business(database)
    for number in range(80):
        await business.happen(f"c{number}", 2)
    async with receiving(misbehaviour) as bad, receiving() as good:
        chosen = webhooks(destination(bad.url, "bad"), destination(good.url, "good"), timeout=timedelta(minutes=1))
        async with delivering(database, chosen, timing=replace(QUICK, webhook_again=(1.0, 2.0))):
            await wait_until(lambda: tried(bad), "the bad one to be busy")
            await business.happen("late", 2)
            await wait_until(told(good, business), "everything at the good one")
    assert {name: good.numbers(name) for name in business.happened} == business.happened
    assert bad.told == []
    assert {one[0] for one in (await cursors(database, "bad")).values()} <= {0}


async def tried(receiver: Receiver) -> bool:
    """Whether anything has arrived."""
    return bool(receiver.tried)


async def test_a_conversation_whose_request_hangs_keeps_no_other_waiting(database: Database) -> None:
    """At the same receiver."""
    business = Business(database)
    await business.happen("stuck", 2)

    async def hang_for_one(event: Event, receiver: Receiver) -> web.StreamResponse:
        if event["data"]["conversation_id"] == "stuck":
            return await hang(event, receiver)
        receiver.told.append(event)
        return web.Response()

    chosen = timedelta(minutes=1)
    async with (
        receiving(hang_for_one) as receiver,
        delivering(database, webhooks(destination(receiver.url), timeout=chosen)),
    ):
        await wait_until(lambda: tried(receiver), "it to be stuck")
        for number in range(40):
            await business.happen(f"c{number}", 2)
        free = {name: numbers for name, numbers in business.happened.items() if name != "stuck"}
        await wait_until(lambda: all_of(receiver, free), "the others")
    assert receiver.numbers("stuck") == []


async def all_of(receiver: Receiver, expected: dict[str, list[int]]) -> bool:
    """Whether the receiver was told these."""
    return all(receiver.numbers(name) == numbers for name, numbers in expected.items())


async def test_after_the_bound_it_is_a_dead_letter_and_the_next_one_goes_on(database: Database) -> None:
    """It is kept, with how often it was tried and why it was not taken."""
    business = Business(database)
    await business.happen("c", 3)

    async def never_the_second(event: Event, receiver: Receiver) -> web.StreamResponse:
        if event["data"]["seq"] == 2:
            return web.Response(status=410)
        receiver.told.append(event)
        return web.Response()

    async with (
        receiving(never_the_second) as receiver,
        delivering(database, webhooks(destination(receiver.url), attempts=3)),
    ):
        await wait_until(lambda: passed(database, 3), "the cursor at the end")
    assert receiver.numbers("c") == [1, 3]
    assert [one["id"] for one in receiver.tried] == ["evt_1", "evt_2", "evt_2", "evt_2", "evt_3"]
    assert await dead(database) == [("default", "evt_2", 3, "answered 410")]


async def test_what_cannot_be_read_is_a_dead_letter_at_once(database: Database) -> None:
    """No further try would help, and what follows goes on."""
    business = Business(database)
    await business.happen("c", 3)
    async with database.writing("testing") as connection:
        await connection.execute(update(happenings).where(happenings.c.event_id == "evt_2").values(data="{"))
    async with receiving() as receiver, delivering(database, webhooks(destination(receiver.url))):
        await wait_until(lambda: passed(database, 3), "the cursor at the end")
    assert receiver.numbers("c") == [1, 3]
    assert [row[:3] for row in await dead(database)] == [("default", "evt_2", 1)]


async def test_a_receiver_that_comes_back_gets_what_waits_at_once(database: Database) -> None:
    """Although each conversation is put off for an hour by now."""
    business = Business(database)
    for number in range(20):
        await business.happen(f"c{number}", 2)
    patient = replace(QUICK, webhook_again=(3600.0, 3600.0))
    async with receiving(fail) as receiver, delivering(database, webhooks(destination(receiver.url)), timing=patient):
        await wait_until(lambda: asyncio.sleep(0, len(receiver.tried) >= 20), "one try of each")
        receiver.reply = None
        await business.happen("news", 1)
        await wait_until(told(receiver, business), "everything")
    assert {name: receiver.numbers(name) for name in business.happened} == business.happened


async def test_a_receiver_that_refuses_some_for_ever_gets_the_others_and_no_storm(database: Database) -> None:
    """What it refuses is tried as the back-off says, however often it takes something else meanwhile."""
    business = Business(database)
    refused = [f"bad{number}" for number in range(12)]
    for name in refused:
        await business.happen(name, 2)

    async def refuse_some(event: Event, receiver: Receiver) -> web.StreamResponse:
        if event["data"]["conversation_id"] in refused:
            return web.Response(status=500)
        receiver.told.append(event)
        return web.Response()

    patient = replace(LASTING, webhook_again=(3600.0, 3600.0), webhook_quiet=3600.0)
    async with (
        receiving(refuse_some) as receiver,
        delivering(database, webhooks(destination(receiver.url)), timing=patient),
    ):
        await wait_until(lambda: asyncio.sleep(0, len(receiver.tried) >= len(refused)), "one try of each")
        for number in range(30):
            await business.happen("good", 1)
            await wait_until(partial(has_so_many, receiver, number + 1), "a good one")
    tries = Counter(one["data"]["conversation_id"] for one in receiver.tried)
    assert max(tries[name] for name in refused) <= 2  # by its turn, and when the receiver took something at last
    assert await dead(database) == []


async def has_so_many(receiver: Receiver, number: int) -> bool:
    """Whether so many were taken."""
    return len(receiver.told) >= number


async def test_what_was_refused_does_not_crowd_out_what_is_new(database: Database) -> None:
    """Of few places each has its turn: what was tried in vain, though due for longer, and what was not tried yet."""
    business = Business(database)
    for number in range(30):
        await business.happen(f"bad{number}", 1)
    now = 1000.0
    await marked(database, now)
    async with database.writing("testing") as connection:
        await connection.execute(update(deliveries).values(attempts=5))
    now += 1.0
    for number in range(3):
        await business.happen(f"good{number}", 1)
    await marked(database, now)
    outbox = Outbox(database, TENANT, claim=600.0, clock=lambda: now)
    takes = [await outbox.take({"default": 2}) for _ in range(4)]
    names = [one.conversation_id for taken in takes for one in taken]
    assert {"good0", "good1", "good2"} <= set(names)
    assert sum(name.startswith("bad") for name in names) >= 4


@pytest.mark.processes
async def test_deliverers_share_the_work_and_survive_each_other(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    """Two are killed amid their requests, before they note what was taken: everything arrives, and in order."""
    business = Business(database)
    for number in range(20):
        await business.happen(f"c{number}", 10)
    async with receiving() as receiver:
        doomed = [start_deliverer(tmp_path / f"{name}.log", database_url, receiver.url) for name in ("one", "two")]
        deaths = {20: doomed[0], 60: doomed[1]}

        async def kill(event: Event, receiver: Receiver) -> web.StreamResponse:
            if (dying := deaths.pop(len(receiver.tried), None)) is not None:
                dying.kill()
            receiver.told.append(event)
            return web.Response()

        receiver.reply = kill
        try:
            await wait_until(lambda: asyncio.sleep(0, len(deaths) < 2), "a death")
            quick = replace(QUICK, webhook_claim=0.2)
            chosen = webhooks(destination(receiver.url), timeout=timedelta(seconds=2))
            async with delivering(database, chosen, timing=quick):
                await wait_until(told(receiver, business), "everything")
        finally:
            for one in doomed:
                one.kill()
                one.wait()
    assert {name: receiver.numbers(name) for name in business.happened} == business.happened
    assert deaths == {}


async def test_who_has_lost_the_claim_moves_no_cursor(database: Database) -> None:
    """What another deliverer has done since stays."""
    business = Business(database)
    await business.happen("c", 5)
    now = 1000.0
    outbox = Outbox(database, TENANT, claim=10.0, clock=lambda: now)
    settling = Settling(database, TENANT, clock=lambda: now)
    await marked(database, now)
    (first,) = await outbox.take({"default": 9})
    assert await outbox.take({"default": 9}) == []
    now += 11.0
    (second,) = await outbox.take({"default": 9})
    assert await settling.settle([Settlement(second, delivered_id=5)]) == 1
    assert await settling.settle([Settlement(first, delivered_id=2)]) == 0
    assert await cursors(database) == {"c": (5, 0, None)}


async def test_a_claim_counts_from_when_it_is_made(database: Database) -> None:
    """Not from when somebody began to wait for others who write."""
    business = Business(database)
    await business.happen("c", 1)
    now = 1000.0
    await marked(database, now)
    outbox = Outbox(database, TENANT, claim=10.0, clock=lambda: now)

    @asynccontextmanager
    async def writing_late(doing: str) -> AsyncIterator[AsyncConnection]:
        nonlocal now
        now += 100.0
        async with database.writing(doing) as connection:
            yield connection

    outbox._database = SimpleNamespace(writing=writing_late)  # type: ignore[assignment]  # it waits as long as it likes
    assert len(await outbox.take({"default": 1})) == 1
    assert (await cursors(database))["c"][2] == now + 10.0


async def marked(database: Database, now: float) -> None:
    """Let a look have found what happened."""
    news = News(database, TENANT, ["default"], recent=60.0, furthest=3600.0, clock=lambda: now)
    await news.sweep()


async def test_what_happens_while_a_conversation_is_claimed_is_due_when_it_is_settled(database: Database) -> None:
    """Whoever looked meanwhile has found the conversation claimed, and does not look again."""
    business = Business(database)
    await business.happen("c", 1)
    now = 1000.0
    await marked(database, now)
    outbox = Outbox(database, TENANT, claim=10.0, clock=lambda: now)
    (taken,) = await outbox.take({"default": 9})
    await business.happen("c", 1)
    await Settling(database, TENANT, clock=lambda: now).settle([Settlement(taken, delivered_id=1)])
    (again,) = await outbox.take({"default": 9})
    assert [one.event_id for one in again.queue] == ["evt_2"]


async def test_a_clock_that_was_ahead_keeps_nothing_back(database: Database) -> None:
    """What it has put off for a year is due at the next sweep."""
    business = Business(database)
    await business.happen("c", 1)
    await marked(database, 1000.0)
    async with database.writing("testing") as connection:
        await connection.execute(update(deliveries).values(next_at=1000.0 + 365 * 86_400, attempts=3))
    await marked(database, 1000.0)
    assert len(await Outbox(database, TENANT, claim=1.0, clock=lambda: 1000.0).take({"default": 9})) == 1


async def test_it_goes_on_when_the_database_was_away(database: Database) -> None:
    """Everything arrives, and in order."""
    business = Business(database)
    await business.happen("c", 3)
    async with receiving() as receiver, delivering(database, webhooks(destination(receiver.url))) as deliverer:
        await wait_until(told(receiver, business), "the first ones")
        working = deliverer._outbox._database
        deliverer._outbox._database = Gone()  # type: ignore[assignment]  # the one server that a test can take away
        await business.happen("c", 3)
        await wait_until(lambda: asyncio.sleep(0, deliverer.failures.counts.get("webhooks")), "a failure")
        deliverer._outbox._database = working
        await wait_until(told(receiver, business), "everything")
    assert receiver.numbers("c") == [1, 2, 3, 4, 5, 6]


class Gone:
    """A database that does not answer."""

    def reading(self, doing: str) -> object:
        """Raise."""
        raise ArchiveUnavailableError(doing)

    writing = reading


async def test_stopping_lets_requests_come_to_their_end(database: Database) -> None:
    """What was answered is settled: nobody sends it again."""
    business = Business(database)
    gate = asyncio.Event()

    async def late(event: Event, receiver: Receiver) -> web.StreamResponse:
        await gate.wait()
        receiver.told.append(event)
        return web.Response()

    await business.happen("c", 1)
    async with receiving(late) as receiver:
        async with delivering(database, webhooks(destination(receiver.url))):
            await wait_until(lambda: tried(receiver), "a request")
            asyncio.get_running_loop().call_later(0.05, gate.set)
        assert (await cursors(database))["c"] == (1, 0, None)
    assert await count(database, deliveries) == 1
