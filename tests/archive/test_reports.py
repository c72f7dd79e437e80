"""What only a back end is told, on each kind of database: once, in order, and without what is forgotten."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import update

from conversation_actors.archive import service
from conversation_actors.archive.database import Database
from conversation_actors.archive.feed import Feed
from conversation_actors.archive.retention import Retention
from conversation_actors.archive.tables import (
    dead_letters,
    deliveries,
    feeds,
    gaps,
    happenings,
    lives,
    pictures,
    replays,
    superseded,
)
from conversation_actors.archive.writer import Writer
from conversation_actors.calls import REPORTS
from conversation_actors.calls.happenings import (
    MESSAGE_STORED,
    MESSAGES_REMOVED,
    SESSION_RECORDED,
    TRANSCRIPTION_FINAL,
)
from conversation_actors.settings import BackendSettings
from conversation_actors.state import Event, HistoryCleared, ItemsRemoved
from conversation_actors.store import Store
from tests.archive.conftest import TENANT, make_database
from tests.support.archive_contents import everything, rows
from tests.support.archive_records import BEGAN, Author, state_of, stored
from tests.support.archived_calls import (
    IDLE,
    call_events,
    feed_all,
    folded,
    identified,
    outbox,
    recorded,
    says,
    told_data,
)
from tests.support.archiving import Author as Owner
from tests.support.archiving import archive_settings

HERE, BACKEND = "room-1", "backend"
LATER = BEGAN + 1e7
SECRET, PLAIN = "4111-1111-1111-1111", "plainly spoken"
MakeFeed = Callable[..., Feed]


@pytest.fixture
async def make_feed(database_url: str) -> AsyncIterator[MakeFeed]:
    """Make feeds that tell a back end, with connections of their own."""
    made: list[Database] = []

    def make(*, now: float = LATER, at_once: int = 500, reports: bool = True) -> Feed:
        made.append(make_database(database_url))
        idle = timedelta(seconds=IDLE)
        return Feed(made[-1], TENANT, idle=idle, clock=lambda: now, at_once=at_once, reports=reports)

    yield make
    for database in made:
        await database.aclose()


async def write(writer: Writer, *events: Event, first: int = 1, name: str = HERE) -> None:
    """Archive events, at the positions from `first` on."""
    await writer.write(name, recorded(Author(), events, first=first))


async def test_a_back_end_is_told_once_and_in_order_of_everything(
    database: Database, writer: Writer, make_feed: MakeFeed
) -> None:
    """However it was archived and read: the same as a fold makes of it in one go."""
    events = [*call_events(1), ItemsRemoved(("older",)), *call_events(2), HistoryCleared()]
    records = recorded(Author(), events)
    for first in range(0, len(records) - 1, 5):
        await writer.write(HERE, records[first:-1][:5])
        await make_feed(at_once=3, now=BEGAN).step([HERE])
    await feed_all(make_feed(at_once=3, now=BEGAN))
    await writer.write(HERE, records[-1:])  # what is cleared before anybody has read it is not told
    await feed_all(make_feed())

    assert await outbox(database) == identified(folded(HERE, records, now=LATER, reports=True))
    assert [one["ids"] for one in await told_data(database, MESSAGES_REMOVED)] == [["older"], None]


async def test_a_back_end_that_comes_later_is_told_from_then_on(
    database: Database, writer: Writer, make_feed: MakeFeed
) -> None:
    """In the middle of a call, and no more once it has gone; the calls are the same."""
    await write(writer, *call_events()[:4])
    await feed_all(make_feed(now=BEGAN, reports=False))
    await write(writer, says("user", "u1"), says("assistant", "a1"), first=5)
    await feed_all(make_feed(now=BEGAN))
    await write(writer, says("user", "u2"), says("assistant", "a2"), first=7)
    await feed_all(make_feed(reports=False))

    assert [one["message"]["id"] for one in await told_data(database, MESSAGE_STORED)] == ["u1", "a1"]
    assert [one["turns"] for one in await told_data(database, SESSION_RECORDED)] == [3]


async def test_nothing_of_a_removed_item_is_left_for_a_back_end(
    database: Database, writer: Writer, make_feed: MakeFeed
) -> None:
    """Others keep their words, and that the item is gone is told after it."""
    await write(writer, says("user", "u1", SECRET), says("assistant", "a1", PLAIN))
    await feed_all(make_feed(now=BEGAN))
    await write(writer, ItemsRemoved(("u1",)), first=3)
    await feed_all(make_feed(now=BEGAN))

    assert SECRET.encode() not in await everything(database)
    first, second = [one["message"] for one in await told_data(database, MESSAGE_STORED)]
    assert (first["id"], first["text"], first["item"]) == ("u1", None, None)
    assert (second["text"], second["item"]["content"]) == (PLAIN, PLAIN)
    assert [(one["item_id"], one["text"]) for one in await told_data(database, TRANSCRIPTION_FINAL)] == [("u1", None)]
    assert [one["ids"] for one in await told_data(database, MESSAGES_REMOVED)] == [["u1"]]


async def test_no_older_text_of_a_message_is_left_for_a_back_end(
    database: Database, writer: Writer, make_feed: MakeFeed
) -> None:
    """When the past is forgotten; the item has its new text, and what nobody has changed stays."""
    await write(writer, says("user", "u1", SECRET), says("user", "u2", PLAIN), says("user", "u1", "a card"))
    await feed_all(make_feed(now=BEGAN))
    await write(writer, ItemsRemoved(()), first=4)
    await feed_all(make_feed(now=BEGAN))

    assert SECRET not in str(await rows(database, happenings, "data"))
    assert [one["message"]["text"] for one in await told_data(database, MESSAGE_STORED)] == [None, PLAIN, "a card"]
    assert [one["text"] for one in await told_data(database, TRANSCRIPTION_FINAL)] == [None, PLAIN]
    assert await told_data(database, MESSAGES_REMOVED) == []


async def test_nothing_of_a_cleared_history_is_left_for_a_back_end(
    database: Database, writer: Writer, make_feed: MakeFeed
) -> None:
    """What is said afterwards has its words."""
    await write(writer, says("user", "u1", SECRET), says("user", "u2", SECRET))
    await feed_all(make_feed(now=BEGAN))
    await write(writer, HistoryCleared(), says("user", "u1", PLAIN), first=3)
    await feed_all(make_feed(now=BEGAN))

    assert SECRET.encode() not in await everything(database)
    told = [(one["message"]["id"], one["message"]["text"]) for one in await told_data(database, MESSAGE_STORED)]
    assert told == [("u1", None), ("u2", None), ("u1", PLAIN)]


async def deliver(database: Database, destination: str = BACKEND, *, all_but: int = 0) -> None:
    """Note that a destination has everything that the outbox has now, but for the last ones."""
    found = await rows(database, happenings, "id", "tenant", "conversation_id")
    last = {(tenant, name): number for number, tenant, name in found[: len(found) - all_but]}
    async with database.writing("testing") as connection:
        await connection.execute(deliveries.delete().where(deliveries.c.destination == destination))
        for (tenant, name), number in last.items():
            row = {"destination": destination, "tenant": tenant, "conversation_id": name, "delivered_id": number}
            await connection.execute(deliveries.insert().values(**row))


async def set_apart(database: Database, table: Any, **values: Any) -> None:
    """Note something of the first happening, for the back end."""
    number = (await rows(database, happenings, "id"))[0][0]
    async with database.writing("testing") as connection:
        await connection.execute(table.insert().values(destination=BACKEND, happening_id=number, **values))


def kept_for(writer: Writer, destination: str | None = BACKEND) -> Callable[[], Any]:
    """Return what removes everything that is old and that the destination has."""
    return Retention(writer, timedelta(seconds=1), kept_for=destination, clock=lambda: LATER).purge


async def test_retention_leaves_a_life_until_the_back_end_has_all_of_it(
    database: Database, writer: Writer, make_feed: MakeFeed
) -> None:
    """Also what is to be told yet: entries that nobody has read, and the record of a call that is not over."""
    purge = kept_for(writer)
    await write(writer, *call_events())
    assert await purge() == 0
    await feed_all(make_feed(now=BEGAN))
    await deliver(database)
    assert await purge() == 0
    await feed_all(make_feed())
    assert await purge() == 0
    await deliver(database, all_but=1)
    await deliver(database, "default")
    assert await purge() == 0

    await deliver(database)
    assert await purge() == 1
    for table in (lives, happenings, feeds):
        assert await rows(database, table, table.c[0].name) == []


async def fed_and_delivered(database: Database, make_feed: MakeFeed, *, reports: bool = True) -> None:
    """Read all, and note that the back end has what that came to."""
    await feed_all(make_feed(reports=reports))
    await deliver(database)


@pytest.mark.parametrize("first", [0, 4])
async def test_retention_leaves_what_was_read_before_there_was_a_back_end(
    database: Database, writer: Writer, make_feed: MakeFeed, first: int
) -> None:
    """All of it, or what a while without one has left out; another life that it was told from the beginning goes."""
    await write(writer, *call_events()[:first])
    await fed_and_delivered(database, make_feed)
    await write(writer, *call_events()[first:6], first=first + 1)
    await fed_and_delivered(database, make_feed, reports=False)
    assert await kept_for(writer)() == 0
    await write(writer, *call_events()[6:], first=7)
    await write(writer, *call_events(), name="room-2")
    await fed_and_delivered(database, make_feed)

    assert await kept_for(writer)() == 1
    assert await rows(database, lives, "conversation_id") == [(HERE,)]


async def test_retention_leaves_what_was_archived_quietly(
    database: Database, writer: Writer, make_feed: MakeFeed
) -> None:
    """As a migration and an import do: nobody is told of it."""
    await writer.write(HERE, recorded(Author(), call_events()), quietly=True)
    await fed_and_delivered(database, make_feed)

    assert await kept_for(writer)() == 0


async def test_retention_leaves_what_no_entry_has_brought(
    database: Database, writer: Writer, make_feed: MakeFeed
) -> None:
    """A state that was taken over, and what came late into a gap that the feed had passed."""
    author = Author()
    records = recorded(author, [says("user", f"u{number}") for number in range(6)])
    state = state_of(records, window=10)
    assert await writer.adopt("adopted", stored(author, state), state)
    await writer.write("late", [records[0], *records[2:]])
    await fed_and_delivered(database, make_feed)
    assert await kept_for(writer)() == 0
    await writer.write("late", [records[1]])
    await fed_and_delivered(database, make_feed)
    assert len(await rows(database, gaps, "id")) == 1

    assert await kept_for(writer)() == 0


async def test_retention_leaves_a_life_with_pictures(
    database: Database, writer: Writer, make_feed: MakeFeed, caplog: pytest.LogCaptureFixture
) -> None:
    """The back end has references to them; how many lives are kept is told once."""
    await write(writer, *call_events())
    await write(writer, *call_events(), name="room-2")
    await fed_and_delivered(database, make_feed)
    row = {
        "tenant": TENANT,
        "conversation_id": HERE,
        "digest": "d",
        "media_type": "image/png",
        "data": b"",
        "kept_at": 1,
    }
    async with database.writing("testing") as connection:
        await connection.execute(pictures.insert().values(**row))

    with caplog.at_level("INFO"):
        assert await kept_for(writer)() == 1
    assert await rows(database, lives, "conversation_id") == [(HERE,)]
    assert [one.lives for one in caplog.records if hasattr(one, "lives")] == [1]


async def test_retention_leaves_what_is_to_be_sent_once_more(
    database: Database, writer: Writer, make_feed: MakeFeed
) -> None:
    """Dead letters, replays, and entries that were set aside and that the feed has not read."""
    purge = kept_for(writer)
    await write(writer, *call_events())
    await feed_all(make_feed())
    await deliver(database)
    for table, values in (
        (dead_letters, {"attempts": 9, "last_error": "no", "dead_at": 1.0}),
        (replays, {"attempts": 0}),
    ):
        await set_apart(database, table, **values)
        assert await purge() == 0
        async with database.writing("testing") as connection:
            await connection.execute(table.delete())
    aside = {"life_id": (await rows(database, lives, "id"))[0][0], "seq": 1, "epoch": 1, "at": BEGAN, "event": "e"}
    async with database.writing("testing") as connection:
        await connection.execute(superseded.insert().values(**aside, data=b"", noted_at=BEGAN, is_unread=True))
    assert await purge() == 0
    async with database.writing("testing") as connection:
        await connection.execute(update(superseded).values(is_unread=False))

    assert await purge() == 1


async def test_what_the_back_end_lacks_keeps_no_other_life(
    database: Database, writer: Writer, make_feed: MakeFeed
) -> None:
    """Nor does it keep what is not its own: another tenant's, and a life of which there is only the name."""
    names = [f"room-{number}" for number in range(5)]
    for name in names:
        await write(writer, *call_events(), name=name)
    await feed_all(make_feed())
    await deliver(database)
    async with database.writing("testing") as connection:
        await connection.execute(deliveries.delete().where(deliveries.c.conversation_id.in_(names[:2])))
    await writer.delete(names[1])
    async with database.writing("testing") as connection:
        await connection.execute(update(lives).where(lives.c.deleted_at.is_not(None)).values(deleted_at=BEGAN))

    assert await kept_for(writer)() == 4
    assert await rows(database, lives, "conversation_id") == [(names[0],)]


async def test_without_such_a_back_end_retention_waits_for_nobody(
    database: Database, writer: Writer, make_feed: MakeFeed
) -> None:
    """How long what people said is kept is bounded."""
    await write(writer, *call_events())
    await feed_all(make_feed())

    assert await kept_for(writer, None)() == 1
    assert await rows(database, happenings, "id") == []


@pytest.mark.parametrize("instead", [True, False])
async def test_an_archiver_tells_a_back_end_if_there_is_one_and_keeps_for_it_what_it_lacks(
    store: Store, database: Database, redis_url: str, database_url: str, *, instead: bool
) -> None:
    """If the back end is the record; else retention waits for nobody."""
    archiving = archive_settings(redis_url, database_url, retention=timedelta(milliseconds=1))
    url = SecretStr("https://backend.example")
    settings = archiving.model_copy(update={"backend": BackendSettings(url=url, instead=instead)})
    quiet, told = await Owner.of(store, "quiet"), await Owner.of(store, "told")
    await quiet.say(1)
    await service.run_once(archiving, program="tests")
    await told.say(1)
    await service.run_once(settings, program="tests")
    names = [name for kind, name in await rows(database, happenings, "type", "conversation_id") if kind in REPORTS]
    assert set(names) == {"told"}

    await service.run_once(settings, program="tests")
    assert [name for (name,) in await rows(database, lives, "conversation_id") if name == "told"] == ["told"] * instead
