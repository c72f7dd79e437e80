"""The feed: it reads archived entries, and writes what they come to: happenings in the outbox, and records of calls.

A step reads on in some lives, and then writes in one transaction: where it has read to, the state of the calls, the
happenings and the records. So each is there exactly once, whoever dies, and however many do the same at once: a step
that began where somebody else has gone on since writes nothing.
"""

import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

from conversation_actors.archive import feed_rows
from conversation_actors.archive.claims import OF_REDIS
from conversation_actors.archive.database import Database
from conversation_actors.archive.feed_course import Course
from conversation_actors.archive.feed_rows import News, Step
from conversation_actors.calls import CallFold
from conversation_actors.failures import Failures

FEED = "feed"
"""The name of the feed's failures."""
AT_ONCE = 500
"""Entries of a step: an archiver may have to wait for so many to be written."""
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
        reports: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Count a call as lost of which nothing came for `idle`, unless entries of it are still on their way.

        `waiting` tells of which conversations they are. A step takes `at_once` entries, of all its lives together.
        `reports`: tell also what only a back end is told of.
        """
        self._database, self._tenant, self._idle = database, tenant, idle.total_seconds()
        self._waiting, self._clock = waiting, clock
        self._at_once, self._reports = at_once, reports
        self.failures = failures or Failures()
        self._after_life, self._after_time = 0, 0.0
        """Where the next looks go on."""

    async def look(self, *, most: int = _LOOK) -> list[str]:
        """Return conversations that have entries to be read, or something that is due; some at a time, in turn."""
        return list(dict.fromkeys([*await self.ahead(most=most), *await self.due(most=most)]))

    async def ahead(self, *, most: int = _LOOK) -> list[str]:
        """Return conversations that have entries to be read; some at a time, in turn."""
        after = self._after_life
        async with self._database.reading("looking for what is to be told") as connection:
            found = await feed_rows.ahead(connection, self._tenant, after=after, most=most)
        self._after_life = found[-1][0] if len(found) == most else 0
        return [name for _, name in found] if found or not after else await self.ahead(most=most)

    async def due(self, *, most: int = _LOOK) -> list[str]:
        """Return conversations of which something is due; some at a time, in turn."""
        after = self._after_time
        async with self._database.reading("looking for what is due") as connection:
            found = await feed_rows.due(connection, self._tenant, now=self._clock(), after=after, most=most)
        self._after_time = found[-1][0] if len(found) == most else 0.0
        return [name for _, name in found] if found or not after else await self.due(most=most)

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
            if one.is_empty and not is_timely:
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
            share = max(1, self._at_once // max(1, len(cursors)))
            return await feed_rows.read_on(connection, cursors, most=share) if cursors else []

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
        cursor, idle = news.cursor, self._idle
        name, life, state = cursor.conversation_id, cursor.life, cursor.state
        if state is None:
            fold = CallFold(name, life, idle=idle, reports=self._reports)
        else:
            fold = CallFold.from_json(state, name, life, idle=idle, reports=self._reports)
        course = Course(fold, news)
        await course.run()
        told = course.told
        if course.is_whole and now is not None:
            told += fold.pass_time(now)
        return Step(cursor, course.fed, course.aside, fold.to_json(), fold.due, told, course.forgotten, self._reports)
