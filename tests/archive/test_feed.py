"""The feed on each kind of database: what is archived is told of and recorded once, whatever dies or comes between."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event

from conversation_actors.archive.database import Database
from conversation_actors.archive.feed import Feed, Waiting
from conversation_actors.archive.feed_rows import Step
from conversation_actors.archive.tables import feeds, happenings, lives, session_people, sessions, superseded
from conversation_actors.archive.writer import Writer
from conversation_actors.errors import StoreUnavailableError
from conversation_actors.failures import Failures
from conversation_actors.state import HistoryCleared, ItemsRemoved, SummaryChanged
from tests.archive.conftest import TENANT, make_database
from tests.support.archive_contents import change, everything, rows
from tests.support.archive_records import BEGAN, Author
from tests.support.archived_calls import (
    IDLE,
    ROLES,
    WORDS,
    call_events,
    feed_all,
    folded,
    identified,
    outbox,
    recorded,
    says,
    session_records,
    told_data,
)

HERE = "room-1"
LATER = BEGAN + 1e7
MakeFeed = Callable[..., Any]


@pytest.fixture
async def make_feed(database_url: str) -> AsyncIterator[MakeFeed]:
    """Make feeds with connections of their own, as other processes have; by their clock every call is over."""
    made: list[Database] = []

    def make(kind: type[Feed] = Feed, *, now: float = LATER, at_once: int = 500, **options: Any) -> Feed:
        made.append(make_database(database_url))
        idle = timedelta(seconds=IDLE)
        return kind(made[-1], TENANT, idle=idle, clock=lambda: now, at_once=at_once, **options)

    yield make
    for database in made:
        await database.aclose()


def calls(count: int = 3) -> list[bytes]:
    """Return records of several whole calls of one life."""
    events = [one for number in range(1, count + 1) for one in call_events(number)]
    return recorded(Author(), events)


async def test_what_is_archived_is_told_once_and_in_order(
    database: Database, writer: Writer, make_feed: MakeFeed
) -> None:
    """The same as a fold makes of it in one go, however it was archived and read; and a record for each call."""
    records = calls()
    for first in range(0, len(records), 4):
        await writer.write(HERE, records[first : first + 4])
        await make_feed(at_once=3, now=BEGAN).step([HERE])
    await feed_all(make_feed(at_once=3))

    expected = folded(HERE, records, now=LATER)
    assert await outbox(database) == identified(expected)
    assert await session_records(database) == [one.data for one in expected if one.type == "session.recorded"]
    assert [one["number"] for one in await session_records(database)] == [1, 2, 3]
    assert [who for _, who in await rows(database, session_people, "session_id", "identity")] == ["alice"] * 3
    assert await make_feed().look() == []
    assert await make_feed().step([HERE]) == type(await make_feed().step([]))()


class Killed(BaseException):
    """A process's death."""


@contextmanager
def killed_before(statement: int) -> Iterator[list[str]]:
    """Let whoever executes statements die before this one; give the statements that were executed."""
    seen: list[str] = []

    def die(_: Any, __: Any, text: str, ___: Any, ____: Any, _____: Any) -> None:
        if len(seen) == statement:
            raise Killed
        seen.append(text)

    event.listen(Engine, "before_cursor_execute", die)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", die)


async def test_a_kill_before_any_statement_loses_and_repeats_nothing(
    database: Database, writer: Writer, make_feed: MakeFeed
) -> None:
    """Of a step that moves the cursor, tells, records and forgets: another feed does it again, or goes on."""
    records = calls(2)
    records += recorded(Author(), [ItemsRemoved(("user-1.0",)), says("user", "last")], first=len(records) + 1)
    await writer.write(HERE, records[:6])
    await make_feed(now=BEGAN).step([HERE])
    await writer.write(HERE, records[6:])
    before = await outbox(database)
    seen: list[str] = []
    for statement in range(1000):
        feed = make_feed()
        try:
            with killed_before(statement) as seen:
                await feed.step([HERE])
        except Killed:
            assert await outbox(database) == before
            assert await session_records(database) == []
            continue
        break
    assert len([text for text in seen if text.startswith(("UPDATE", "INSERT"))]) >= 6

    await feed_all(make_feed())

    assert await outbox(database) == identified(folded(HERE, records, now=LATER))
    assert [one["call_id"] for one in await session_records(database)] == [f"life-1.{number}" for number in (1, 2)]


async def test_many_feeds_at_once_tell_everything_once(database: Database, writer: Writer, make_feed: MakeFeed) -> None:
    """While it is archived."""
    names = [f"room-{number}" for number in range(4)]
    records = calls(2)

    async def archive() -> None:
        for first in range(0, len(records), 5):
            await writer.write_all(dict.fromkeys(names, records[first : first + 5]))

    async def feed_on(feed: Feed) -> None:
        for _ in range(12):
            await feed.step(names)

    await asyncio.gather(archive(), *(feed_on(make_feed(at_once=8, now=BEGAN)) for _ in range(3)))
    await asyncio.gather(*(feed_all(make_feed(at_once=8)) for _ in range(3)))

    for name in names:
        assert await outbox(database, name) == identified(folded(name, records, now=LATER))
    assert len(await session_records(database)) == 2 * len(names)


class Interrupted(Feed):
    """A feed in which something happens after it has read, and before it writes."""

    meanwhile: Callable[[], Awaitable[object]]

    async def _write(self, steps: Sequence[Step]) -> list[Step]:
        await self.meanwhile()
        return await super()._write(steps)


async def test_a_step_that_others_have_overtaken_writes_nothing(
    database: Database, writer: Writer, make_feed: MakeFeed
) -> None:
    """One that goes on, and one that only lets time pass: the older state does not replace the newer one."""
    records = calls(1)
    await writer.write(HERE, records)
    other = make_feed(now=BEGAN)
    slow = make_feed(Interrupted, now=BEGAN, at_once=4)
    slow.meanwhile = lambda: other.step([HERE])

    assert (await slow.step([HERE])).again == {HERE}
    assert await outbox(database) == identified(folded(HERE, records))
    before = await rows(database, feeds, "state")

    slow = make_feed(Interrupted)
    slow.meanwhile = lambda: make_feed(now=LATER + 1).step([HERE])
    assert (await slow.step([HERE])).told == frozenset()
    assert await rows(database, feeds, "state") != before
    assert await outbox(database) == identified(folded(HERE, records, now=LATER))
    assert len(await session_records(database)) == 1


LOST = [*call_events()[:4], says("user", "u1"), says("assistant", "a1"), says("user", "u2"), says("assistant", "a2")]
ANEW = [says("user", "u1"), says("assistant", "b1"), says("user", "v2"), says("assistant", "c2")]
"""What comes in the place of what was said from position 5 on; a client sends again what was not acknowledged."""
TURNS = [["user-1.0", "assistant-1.0"], ["u1", "a1"], ["u2", "a2"], ["v2", "c2"]]


@pytest.mark.parametrize("read", ["nothing", "before", "half", "everything", "meanwhile"])
async def test_entries_in_the_place_of_others_are_told_and_so_are_the_others(
    database: Database, writer: Writer, make_feed: MakeFeed, read: str
) -> None:
    """Each once: it makes no difference how far a feed was when Redis lost the others."""
    newer = recorded(Author(epoch=2, owner="owner-2"), ANEW, first=5)
    await writer.write(HERE, recorded(Author(), LOST))
    if read == "meanwhile":
        feed = make_feed(Interrupted, now=BEGAN)
        feed.meanwhile = lambda: writer.write(HERE, newer)
        assert (await feed.step([HERE])).told == frozenset()
    else:
        at_once = {"nothing": 0, "before": 4, "half": 6, "everything": 500}[read]
        if at_once:
            await make_feed(now=BEGAN, at_once=at_once).step([HERE])
        await writer.write(HERE, newer)
    await feed_all(make_feed(now=BEGAN, at_once=3))
    await feed_all(make_feed())

    events = [name for name, _ in await outbox(database)]
    assert len(set(events)) == len(events)
    turns = await told_data(database, "turn.completed")
    assert [[*one["user"]["item_ids"], one["agent"]["item_id"]] for one in turns] == TURNS
    assert [(one["turns"], one["gaps"]) for one in await session_records(database)] == [(4, [])]
    assert await rows(database, lives, "fed", "seq") == [(8, 8)]
    assert await rows(database, superseded, "seq", "is_unread") == [(seq, False) for seq in range(5, 9)]


async def test_entries_that_are_set_aside_again_and_again_are_told(
    database: Database, writer: Writer, make_feed: MakeFeed
) -> None:
    """Before any feed comes: in the order in which they came about."""
    await writer.write(HERE, recorded(Author(), LOST[:6]))
    for epoch in range(2, 5):
        said = [says(role, f"{role}.{epoch}") for role in ROLES]
        await writer.write(HERE, recorded(Author(epoch=epoch, owner=f"owner-{epoch}"), said, first=7 - epoch % 2))
    await feed_all(make_feed(at_once=2))

    turns = [one["agent"]["item_id"] for one in await told_data(database, "turn.completed")]
    assert turns == ["assistant-1.0", "a1", "assistant.2", "assistant.3", "assistant.4"]
    events = [name for name, _ in await outbox(database)]
    assert len(set(events)) == len(events)


async def test_a_new_life_is_told_after_the_old_one(database: Database, writer: Writer, make_feed: MakeFeed) -> None:
    """The ids of the outbox rise within a conversation, also if its lives are read by different feeds."""
    events = call_events()
    first, second = recorded(Author("life-1"), events), recorded(Author("life-2"), events)
    await writer.write(HERE, first)
    await make_feed(now=BEGAN, at_once=3).step([HERE])
    await writer.write(HERE, second)
    await feed_all(make_feed(at_once=4, now=BEGAN))

    told = {
        life: identified(folded(HERE, records, life=life)) for life, records in (("life-1", first), ("life-2", second))
    }
    found = await outbox(database)
    assert [one for one in found if one in told["life-1"]] == told["life-1"]
    assert [one for one in found if one in told["life-2"]] == told["life-2"]
    assert len(found) == len(told["life-1"]) + len(told["life-2"])


async def test_what_is_missing_is_a_gap_in_the_record(database: Database, writer: Writer, make_feed: MakeFeed) -> None:
    """Entries that were given up, and bytes that nobody can read; also at the end of what is read at once."""
    records = recorded(Author(), call_events(turns=4))
    await writer.write(HERE, [*records[:4], *records[6:8], b"no record at all"])
    await make_feed(now=BEGAN, at_once=1).step([HERE])
    await feed_all(make_feed(now=BEGAN, at_once=1))
    await writer.write(HERE, records[9:])
    await feed_all(make_feed())

    (record,) = await session_records(database)
    assert record["gaps"] == [[5, 6], [9, 9]]
    assert record["end_reason"] == "completed"


async def test_a_life_that_begins_behind_another_has_no_gap(
    database: Database, writer: Writer, make_feed: MakeFeed
) -> None:
    """Its positions go on from those of the one that was deleted; what it lacks itself is a gap."""
    records = recorded(Author("life-2", start=4), call_events(), first=5)
    await writer.write(HERE, records)
    await writer.write("lacking", [*records[:2], *records[3:]])
    await feed_all(make_feed())

    assert [record["gaps"] for record in await session_records(database)] == [[], [[7, 7]]]


async def test_deletion_takes_everything_along(database: Database, writer: Writer, make_feed: MakeFeed) -> None:
    """By a client, by a record, by retention; also while a feed is between reading and writing."""
    records = calls(2)
    ends: dict[str, Callable[[str], Awaitable[object]]] = {
        "client": writer.delete,
        "record": lambda name: writer.write(name, [Author().deletes()]),
        "retention": lambda _: writer.purge(LATER, most=10),
    }
    for name, end in ends.items():
        await writer.write(name, records)
        await make_feed(at_once=12).step([name])
        assert await outbox(database)
        slow = make_feed(Interrupted)
        slow.meanwhile = lambda name=name, end=end: end(name)
        assert (await slow.step([name])).told == frozenset()

        for table in (happenings, sessions, session_people, feeds):
            assert await rows(database, table, table.c[0].name) == [], (name, table.name)
        assert await feed_all(make_feed()) == 0


async def test_nothing_of_a_removed_item_is_left(database: Database, writer: Writer, make_feed: MakeFeed) -> None:
    """Others keep their words. What was removed before it was told of is not told of."""
    events = [*call_events()[:5], says("user", "u9", "secret"), says("assistant", "a9", "secret too")]
    removal = ItemsRemoved(("u9", "a9"))
    await writer.write(HERE, recorded(Author(), events))
    await make_feed(now=BEGAN).step([HERE])
    await writer.write(HERE, [Author().record(8, removal)])
    await feed_all(make_feed(now=BEGAN))
    await writer.write("at once", recorded(Author(), [*events, removal]))
    await feed_all(make_feed(now=BEGAN))

    assert b"secret" not in await everything(database)
    assert [one["user"]["text"] is None for one in await told_data(database, "turn.completed")] == [False, True, False]
    assert WORDS in json.dumps(await told_data(database, "turn.completed"))


async def test_nothing_of_a_cleared_history_is_left(database: Database, writer: Writer, make_feed: MakeFeed) -> None:
    """Nor a summary, in records of calls that are over; what is said afterwards has its words and its summary."""
    call = call_events()
    call.insert(5, SummaryChanged(f"about {WORDS}", 5))
    after = [says("user", "u9", "later"), says("assistant", "a9", "later"), SummaryChanged("later", 1)]
    await writer.write(HERE, recorded(Author(), call))
    await feed_all(make_feed())
    await writer.write(HERE, recorded(Author(), [HistoryCleared(), *after], first=len(call) + 1))
    await feed_all(make_feed())

    assert WORDS.encode() not in await everything(database)
    assert [one["summary"] for one in await session_records(database)] == [None, "later"]
    assert [one["summary"] for one in await told_data(database, "session.recorded")] == [None, "later"]
    assert [one["user"]["text"] for one in await told_data(database, "turn.completed")] == [None, None, "later"]


async def _redis_is_away() -> tuple[str, ...]:
    message = "Redis is away"
    raise StoreUnavailableError(message)


async def _waits_here() -> tuple[str, ...]:
    return (HERE,)


@pytest.mark.parametrize("waiting", [_waits_here, _redis_is_away])
async def test_a_call_of_which_entries_are_on_their_way_is_not_lost(
    database: Database, writer: Writer, make_feed: MakeFeed, waiting: Waiting
) -> None:
    """Or of which nobody knows: the archive may be hours behind. What is here already is told of all the same."""
    records = recorded(Author(), call_events())
    await writer.write(HERE, records[:4])
    feed = make_feed(waiting=waiting)
    for _ in range(2):
        await feed.step([HERE])
    assert await outbox(database) == identified(folded(HERE, records[:4]))

    await writer.write(HERE, records[4:])
    await feed_all(make_feed())

    assert [one["end_reason"] for one in await session_records(database)] == ["completed"]


async def test_a_life_that_cannot_be_read_on_keeps_nobody_waiting(
    database: Database, writer: Writer, make_feed: MakeFeed
) -> None:
    """It is counted, and read on when it can be."""
    await writer.write_all({"bad": calls(1), "good": calls(1)})
    await make_feed(at_once=6, now=BEGAN).step(["bad"])
    await change(database, "UPDATE archive_feeds SET state = '!' || state")
    failures = Failures()

    fed = await make_feed(failures=failures).step(["bad", "good"])

    assert (set(fed.failed), set(fed.told), dict(failures.counts)) == ({"bad"}, {"good"}, {"feed": 1})
    await change(database, "UPDATE archive_feeds SET state = substr(state, 2) WHERE conversation_id = 'bad'")
    await feed_all(make_feed())
    assert await outbox(database, "bad") == identified(folded("bad", calls(1), now=LATER))


async def test_looks_reach_everything_in_turn(database: Database, writer: Writer, make_feed: MakeFeed) -> None:
    """Some lives at a time; what is due comes too, and what has nothing to say does not."""
    names = {f"room-{number}" for number in range(5)}
    await writer.write_all({name: calls(1) for name in names})
    feed = make_feed()
    looks = [await feed.look(most=2) for _ in range(4)]
    assert [len(look) for look in looks] == [2, 2, 1, 2]
    assert {name for look in looks[:3] for name in look} == names

    await make_feed(now=BEGAN).step(names)
    assert await make_feed(now=BEGAN).look() == []
    assert set(await feed.look()) == names
    assert len(await session_records(database)) == 0
