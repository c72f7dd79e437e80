"""Plain lists in Redis into the archive: each element once and in order, whoever dies, and nothing swallowed."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from conversation_actors.archive.copying import Copies
from conversation_actors.archive.database import Database
from conversation_actors.archive.reviving import state_of
from conversation_actors.archive.rows import ITEM, LIFE, Row
from conversation_actors.archive.writer import Writer, Written
from conversation_actors.codec import encode_snapshot
from conversation_actors.errors import ArchiveUnavailableError, ConflictError
from conversation_actors.settings import HistoryLimits, Settings
from conversation_actors.store import open_store
from conversation_actors.store.backlog import Batch
from conversation_actors.store.keys import Keys
from conversation_actors.store.redis_lists import ListPattern, RedisLists
from conversation_actors.transfer import from_redis_lists
from conversation_actors.transfer.from_redis_lists import ListImporter, ListsImported
from tests.support.servers import Server
from tests.support.waiting import wait_until

PATTERN = "conversation:*:history"
LIMITS = HistoryLimits(items=10)


class Legacy:
    """The other program, with what is imported of it."""

    def __init__(self, server: Server, database: Database) -> None:
        """Both are empty."""
        self.redis = server.client()
        self.redis.flushall()
        self.settings = Settings(redis_url=SecretStr(server.url), history=LIMITS)
        self.copies, self.writer = Copies(database, self.settings.tenant), Writer(database, self.settings.tenant)
        self.told: list[str] = []
        self.lists, self.store = RedisLists(self.settings), open_store(self.settings)

    def says(self, conversation_id: str, *contents: object, at: float = 100.0) -> None:
        """Add to a list, as home-made stores do."""
        for number, content in enumerate(contents):
            element = {"role": "user", "content": content, "timestamp": at + number}
            self.redis.rpush(f"conversation:{conversation_id}:history", json.dumps(element))

    def importer(self, writer: Any = None) -> ListImporter:
        """Return a new import, as if the command was started again."""
        parts: dict[str, Any] = {"store": self.store, "copies": self.copies, "writer": writer or self.writer}
        limits = self.settings.history.limits()
        return ListImporter(self.lists, ListPattern(PATTERN), **parts, limits=limits, tell=self.told.append)

    async def once(self, writer: Any = None) -> ListsImported:
        """Import what is there."""
        return await self.importer(writer).once()

    async def contents(self, conversation_id: str) -> list[Any]:
        """Return what the archive has of a conversation, in order."""
        rows = [row async for row in self.copies.rows(conversation_id)]
        items = [json.loads(row.values["data"]) for row in rows if row.kind == ITEM]
        return [item.get("content", item["type"]) for item in items]


@pytest.fixture
async def legacy(server: Server, database: Database) -> AsyncIterator[Legacy]:
    """A store of another program, and an empty archive."""
    made = Legacy(server, database)
    yield made
    await made.lists.aclose()
    await made.store.aclose()
    made.redis.close()


async def test_each_list_becomes_a_conversation(legacy: Legacy) -> None:
    """With all that was said; the window's bounds are kept as an owner would keep them. Nothing is in Redis."""
    legacy.says("a:b", *(str(number) for number in range(500)))
    legacy.says("c", "Hello")
    legacy.redis.rpush("unrelated:c:history", "x")
    legacy.redis.set("conversation:text:history", "no list")
    before = sorted(legacy.redis.keys())
    done = await legacy.once()
    assert (done.lists, done.elements, done.unreadable, done.broken, done.left_out) == (2, 501, 0, 0, 0)
    assert await legacy.contents("a:b") == [str(number) for number in range(500)]
    assert await legacy.contents("c") == ["Hello"]
    rows = [row async for row in legacy.copies.rows("a:b")]
    assert sum(not row.values["is_evicted"] for row in rows if row.kind == ITEM) == LIMITS.items
    assert (rows[0].kind, rows[0].values["created_at"], rows[0].values["active_at"]) == (LIFE, 100.0, 599.0)
    assert sorted(legacy.redis.keys()) == before
    assert legacy.told == []
    again = await legacy.once()
    assert (again.lists, again.elements) == (2, 0)


async def test_an_imported_conversation_wakes_as_if_it_had_been_held_here(legacy: Legacy, database: Database) -> None:
    """With the latest of what was said, at its position; an export of it, imported elsewhere, wakes alike."""
    legacy.says("a", *(str(number) for number in range(25)))
    await legacy.once()
    nothing, limits = Batch("", 0, ()), legacy.settings.history.limits()
    woken = await state_of(database, "default", "a", limits=limits, waiting=nothing)
    assert woken is not None
    assert [item.to_item().text for item in woken.state.window] == [str(number) for number in range(15, 25)]
    assert (woken.start, woken.epoch, woken.state.seq) == (0, 1, 40)
    assert woken.state.total_items == 25
    rows = [row async for row in legacy.copies.rows("a")]

    async def accepted(_: AsyncIterator[Row]) -> None:
        pass

    await Copies(database, "other").add("a", rows, accepted)
    twin = await state_of(database, "other", "a", limits=limits, waiting=nothing)
    assert twin is not None
    assert encode_snapshot(twin.state) == encode_snapshot(woken.state)


async def test_what_is_no_message_is_reported_with_its_place(legacy: Legacy) -> None:
    """And kept; a new import reports nothing twice, and a dry run writes nothing."""
    legacy.says("a", "one")
    legacy.redis.rpush("conversation:a:history", b"\xff", '{"role":"robot","content":"x"}')
    legacy.says("a", "two", "x" * (LIMITS.item_bytes + 1), "three", at=200.0)
    legacy.redis.rpush(b"conversation:\xff:history", "x")
    plan = await legacy.importer().plan()
    assert (plan.lists, plan.elements, plan.unreadable) == (1, 6, 3)
    assert await legacy.copies.is_empty()
    planned, legacy.told[:] = sorted(legacy.told), []
    done = await legacy.once()
    assert (done.elements, done.unreadable) == (6, 3)
    assert sorted(legacy.told) == planned
    assert [line.partition(": ")[0] for line in planned] == [
        "conversation:a:history[1]",
        "conversation:a:history[2]",
        "conversation:a:history[4]",
        "the key b'conversation:\\xff:history' has no conversation's id",
    ]
    assert await legacy.contents("a") == ["one", *["unreadable_element"] * 2, "two", "unreadable_element", "three"]


async def test_what_is_there_from_elsewhere_stops_everything(legacy: Legacy) -> None:
    """In Redis, in the archive, or deleted there: nothing is imported, not even of the others."""
    for name in ("a", "b", "c"):
        legacy.says(name, "x")
    await legacy.store.activate("b", owner="o", create=True, ttl=timedelta(minutes=1))
    with pytest.raises(ConflictError, match="nothing was imported: conversation:b:history: 'b' is in Redis already"):
        await legacy.once()
    assert await legacy.copies.is_empty()
    await legacy.store.delete("b", ttl=timedelta(minutes=1))
    with pytest.raises(ConflictError, match="conversation:b:history: 'b' was deleted, and Redis remembers that"):
        await legacy.once()
    legacy.redis.delete(Keys().conversation("b").meta)  # as when the tombstone's time is up
    assert await legacy.copies.is_empty()
    await legacy.once()
    await legacy.writer.delete("c")
    with pytest.raises(ConflictError, match="'c' was deleted in the archive"):
        await legacy.once()


async def test_a_conversation_that_was_opened_here_is_followed_no_more(legacy: Legacy) -> None:
    """It has an owner now, whose entries the list would contradict; that is said, and no error."""
    legacy.says("a", "one")
    legacy.says("b", "one")
    await legacy.once()
    await legacy.store.activate("a", owner="o", create=True, ttl=timedelta(minutes=1))
    legacy.says("a", "late")
    legacy.says("b", "two")
    done = await legacy.once()
    assert (done.elements, done.left_out, done.conflicts) == (1, 1, [])
    assert legacy.told == [
        "conversation:a:history: 'a' has been opened here; its list is not imported any further",
    ]
    assert await legacy.contents("a") == ["one"]


class Dying:
    """A writer whose process dies at a call: before it, or after its transaction."""

    def __init__(self, writer: Writer, *, at: int, is_after: bool) -> None:
        """The calls before that one are let through."""
        self._writer, self._left, self._is_after = writer, at, is_after

    async def write(self, conversation_id: str, records: list[bytes], *, quietly: bool = False) -> Written:
        """Write, or die."""
        self._left -= 1
        if self._left < 0 and not self._is_after:
            raise KeyboardInterrupt
        written = await self._writer.write(conversation_id, records, quietly=quietly)
        if self._left < 0:
            raise KeyboardInterrupt
        return written


async def test_every_element_comes_once_whenever_the_import_dies(
    legacy: Legacy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each transaction and after it; meanwhile elements come, and the front of the list goes."""
    monkeypatch.setattr(from_redis_lists, "AT_ONCE", 7)
    said: list[str] = []

    def say(count: int) -> None:
        words = [f"{len(said) + number}" for number in range(count)]
        legacy.says("a", *words, at=100.0 + len(said))
        said.extend(words)

    say(30)
    for turn in range(8):
        with pytest.raises(KeyboardInterrupt):
            await legacy.once(Dying(legacy.writer, at=turn % 3, is_after=turn % 2 == 0))
        say(23)
        known = len(await legacy.contents("a"))
        dropped = len(said) - legacy.redis.llen("conversation:a:history")
        if turn % 3 == 2 and known - 3 > dropped:
            legacy.redis.ltrim("conversation:a:history", known - 3 - dropped, -1)
    done = await legacy.once()
    assert (done.broken, done.unreadable) == (0, 0)
    assert await legacy.contents("a") == said


async def test_two_imports_at_once_write_each_element_once(legacy: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has to keep them apart."""
    monkeypatch.setattr(from_redis_lists, "AT_ONCE", 5)
    legacy.says("a", *(str(number) for number in range(60)))
    await asyncio.gather(*(legacy.once() for _ in range(3)))
    assert await legacy.contents("a") == [str(number) for number in range(60)]


async def test_a_list_is_followed_until_it_is_enough(legacy: Legacy) -> None:
    """What is added arrives, new lists too; a list that is kept short is followed as it is; the end is orderly."""
    legacy.says("a", *(str(number) for number in range(6)))
    stop = asyncio.Event()
    following = asyncio.create_task(legacy.importer().follow(stop, interval=0.02))

    async def arrived(count: int) -> None:
        async def is_there() -> bool:
            return len(await legacy.contents("a")) == count

        await wait_until(is_there, f"{count} items")

    await arrived(6)
    for number in range(6, 20):
        pipe = legacy.redis.pipeline()
        pipe.rpush("conversation:a:history", json.dumps({"role": "user", "content": str(number), "timestamp": number}))
        pipe.ltrim("conversation:a:history", -4, -1)
        pipe.execute()
        if number % 3 == 0:
            await arrived(number + 1)
    legacy.says("b", "new")
    await arrived(20)

    async def is_new_there() -> bool:
        return await legacy.contents("b") == ["new"]

    await wait_until(is_new_there, "the new list")
    stop.set()
    total = await following
    assert (total.lists, total.elements, total.broken) == (2, 21, 0)
    assert await legacy.contents("a") == [str(number) for number in range(20)]


class Away:
    """A writer whose database is away at every other call: before its transaction, or only for the answer."""

    def __init__(self, writer: Writer) -> None:
        """It is there at first."""
        self._writer, self.calls = writer, 0

    async def write(self, conversation_id: str, records: list[bytes], *, quietly: bool = False) -> Written:
        """Write, or be away."""
        self.calls += 1
        if self.calls % 4 == 2:
            message = "the database is away"
            raise ArchiveUnavailableError(message)
        written = await self._writer.write(conversation_id, records, quietly=quietly)
        if self.calls % 4 == 0:
            message = "the database has answered too late"
            raise ArchiveUnavailableError(message)
        return written


async def test_following_outlives_a_database_that_is_away(legacy: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost or doubled by a write whose outcome is not known; it is said once each time."""
    monkeypatch.setattr(from_redis_lists, "AT_ONCE", 3)
    legacy.says("a", "0")
    stop, away = asyncio.Event(), Away(legacy.writer)
    following = asyncio.create_task(legacy.importer(away).follow(stop, interval=0.01))

    async def is_there() -> bool:
        return len(await legacy.contents("a")) == 31

    await wait_until(lambda: asyncio.sleep(0, away.calls), "the first write")
    legacy.says("a", *(str(number) for number in range(1, 31)), at=200.0)
    await wait_until(is_there, "all elements")
    stop.set()
    await following
    assert await legacy.contents("a") == [str(number) for number in range(31)]
    assert "the database is away; trying again" in legacy.told


async def test_a_list_that_lost_elements_unread_says_so(legacy: Legacy) -> None:
    """In the report, and in the history, where they would have been."""
    legacy.says("a", "0", "1")
    await legacy.once()
    legacy.says("a", *(str(number) for number in range(2, 9)), at=200.0)
    legacy.redis.ltrim("conversation:a:history", -3, -1)
    done = await legacy.once()
    assert (done.broken, done.elements) == (1, 3)
    assert legacy.told == ["conversation:a:history: elements before [0] were dropped or changed before they were read"]
    assert await legacy.contents("a") == ["0", "1", "missing_elements", "6", "7", "8"]
    assert (await legacy.once()).broken == 0
