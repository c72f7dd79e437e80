"""The feed: it reads archived entries, and writes what they come to: happenings in the outbox, and records of calls.

A step reads on in some lives, and then writes in one transaction: where it has read to, the state of the calls, the
happenings and the records. So each is there exactly once, whoever dies, and however many do the same at once: a step
that began where somebody else has gone on since writes nothing.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

from conversation_actors.archive import feed_rows
from conversation_actors.archive.claims import OF_REDIS
from conversation_actors.archive.database import Database
from conversation_actors.archive.feed_forgetting import Forgotten
from conversation_actors.archive.feed_rows import Cursor, News, Step
from conversation_actors.archive.records import UNREADABLE, Row
from conversation_actors.calls import CallFold, Happening
from conversation_actors.codec import decode_entry
from conversation_actors.errors import CorruptStateError
from conversation_actors.failures import Failures
from conversation_actors.state import Entry, HistoryCleared, ItemsRemoved

FEED = "feed"
"""The name of the feed's failures."""
AT_ONCE = 500
_BREATH = 50
"""Entries that are folded before others have a turn."""
_LOOK = 1000
"""Lives of a look at most."""

Waiting = Callable[[], Awaitable[Collection[str]]]


@dataclass(frozen=True, slots=True)
class Fed:
    """What a step came to: `entries` that were read, conversations that have more (`again`) or are `told` of.

    `failed` conversations could not be read on, and nothing was written of them.
    """

    entries: int = 0
    again: frozenset[str] = frozenset()
    told: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()


async def _nothing() -> Collection[str]:
    return ()


class Feed:
    """The feed of one tenant's archive. Any number of feeds may work at once. Methods raise as `Database` says."""

    def __init__(
        self,
        database: Database,
        tenant: str,
        *,
        idle: timedelta,
        waiting: Waiting = _nothing,
        failures: Failures | None = None,
        at_once: int = AT_ONCE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Count a call as lost of which nothing came for `idle`, unless entries of it are still on their way.

        `waiting` tells of which conversations they are. A step takes `at_once` entries, of all its lives together, and
        of each life at least a tenth of that.
        """
        self._database, self._tenant, self._idle = database, tenant, idle.total_seconds()
        self._waiting, self._clock = waiting, clock
        self._at_once, self._least = at_once, max(1, at_once // 10)
        self.failures = failures or Failures()
        self._after: tuple[int, float] = (0, 0.0)
        """Where the next look goes on."""

    async def look(self, *, most: int = _LOOK) -> list[str]:
        """Return conversations that have entries to be read, or something that is due; some at a time, in turn."""
        number, at = self._after
        now = self._clock()
        async with self._database.reading("looking for what is to be told") as connection:
            ahead = await feed_rows.ahead(connection, self._tenant, after=number, most=most)
            due = await feed_rows.due(connection, self._tenant, now=now, after=at, most=most)
        self._after = (ahead[-1][0] if len(ahead) == most else 0, due[-1][0] if len(due) == most else 0.0)
        names = list(dict.fromkeys(name for _, name in (*ahead, *due)))
        return names if names or not (number or at) else await self.look(most=most)

    async def step(self, conversations: Collection[str]) -> Fed:
        """Read on in the lives of conversations, and write what that comes to.

        A life that cannot be read on is counted as a failure, and the others go on.
        """
        now = self._clock()
        news = await self._read(conversations, now)
        timeless: Collection[str] = ()
        if any(one.cursor.is_due for one in news):
            # The backlogs are asked before the database: what waits there is then in the one or in the other.
            timeless = await self._coming(conversations)
            news = await self._read(conversations, now)
        steps, failed = list[Step](), set[str]()
        for one in news:
            is_timely = one.cursor.is_due and one.cursor.conversation_id not in timeless
            if not one.rows and one.cursor.fed == one.cursor.seq and not is_timely:
                continue
            try:
                steps.append(await self._follow(one, now=now if is_timely else None))
            except Exception as error:  # noqa: BLE001  # one life must not keep the others from being told of
                self.failures.note(FEED, error)
                failed.add(one.cursor.conversation_id)
        written = await self._write(steps)
        done = {id(step) for step in written}
        return Fed(
            entries=sum(len(one.rows) for one in news),
            again=frozenset(
                step.cursor.conversation_id for step in steps if id(step) not in done or step.fed < step.cursor.seq
            ),
            told=frozenset(step.cursor.conversation_id for step in written if step.told),
            failed=frozenset(failed),
        )

    async def _read(self, conversations: Collection[str], now: float) -> list[News]:
        async with self._database.reading("reading what is to be told") as connection:
            cursors = await feed_rows.find(connection, self._tenant, conversations, now=now)
            share = max(self._least, self._at_once // max(1, len(cursors)))
            return [await feed_rows.read_on(connection, cursor, most=share) for cursor in cursors]

    async def _coming(self, conversations: Collection[str]) -> Collection[str]:
        """Return those of the conversations of which entries may be on their way to the archive."""
        try:
            return await self._waiting()
        except OF_REDIS:
            return conversations

    async def _write(self, steps: Sequence[Step]) -> list[Step]:
        if not steps:
            return []
        async with self._database.writing("writing what is to be told") as connection:
            return await feed_rows.write(connection, self._tenant, steps)

    async def _follow(self, news: News, *, now: float | None) -> Step:
        """Return what news come to, and if nothing follows them, also what is due by `now`."""
        cursor = news.cursor
        fold, fed = self._fold(cursor), cursor.fed
        told, forgotten = list[Happening](), list[Forgotten]()
        for number, row in enumerate(news.rows, 1):
            entry = _entry(row)
            if entry is not None:
                _skip(fold, fed + 1, row.seq - 1)
                told += fold.take(entry)
                forgotten += _forgotten(entry)
                fed = row.seq
            if number % _BREATH == 0:
                await asyncio.sleep(0)
        end = cursor.seq if news.is_whole else news.rows[-1].seq
        _skip(fold, fed + 1, end)
        if news.is_whole and now is not None:
            told += fold.pass_time(now)
        return Step(cursor, end, fold.to_json(), fold.due, told, forgotten)

    def _fold(self, cursor: Cursor) -> CallFold:
        name, life = cursor.conversation_id, cursor.life
        if cursor.state is None:
            return CallFold(name, life, idle=self._idle)
        fold = CallFold.from_json(cursor.state, name, life, idle=self._idle)
        if fold.seq > cursor.fed:
            fold.rewind(cursor.fed)
        return fold


def _skip(fold: CallFold, first: int, last: int) -> None:
    if first <= last:
        fold.skip(first, last)


def _entry(row: Row) -> Entry | None:
    """Read an entry; None if nobody can. Raises `IncompatibleVersionError` if a newer version can."""
    if row.event == UNREADABLE:
        return None
    try:
        return decode_entry(row.data)
    except CorruptStateError:
        return None


def _forgotten(entry: Entry) -> list[Forgotten]:
    match entry.event:
        case ItemsRemoved(identities):
            return [Forgotten(entry.seq, frozenset(identities))]
        case HistoryCleared():
            return [Forgotten(entry.seq, None)]
        case _:
            return []
