"""The course of a life's entries as the feed takes them: those that are archived, and those that were set aside."""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence

from conversation_actors.archive.feed_forgetting import Forgotten
from conversation_actors.archive.feed_rows import News
from conversation_actors.archive.records import UNREADABLE, Row
from conversation_actors.calls import CallFold, Happening
from conversation_actors.codec import decode_entry
from conversation_actors.errors import CorruptStateError
from conversation_actors.state import Entry, HistoryCleared, ItemsRemoved

_BREATH = 50
"""Entries that are folded before others have a turn."""


class Course:
    """Takes the news of one life, each entry once, in the order in which they came about."""

    def __init__(self, fold: CallFold, news: News) -> None:
        """Begin at the news' cursor, where the `fold` stands."""
        self._fold, self._news = fold, news
        self._rows = deque(news.rows)
        self._taken = 0
        self.told: list[Happening] = []
        self.forgotten: list[Forgotten] = []
        self.fed = news.cursor.fed
        """The position up to which the life was read."""
        self.aside = 0
        """The number of the last entry that was set aside and is read."""
        self.is_whole = False
        """Whether everything was read that is there."""

    async def run(self) -> None:
        """Take all, or so much that the rest has its turn in another step."""
        for group in _groups(self._news.aside):
            _, first = group[0]
            if not await self._take_before(first):
                return
            before = first.seq - 1
            for number, row in group:
                await self._take(row, before)
                before, self.aside = row.seq, number
        if self._news.is_cut:
            return
        while self._rows:
            await self._take_next()
        if self._news.is_whole:
            self._go_to(self.fed, self._news.cursor.seq)
            self.fed = self._news.cursor.seq
            self.is_whole = True

    async def _take_before(self, aside: Row) -> bool:
        """Take what came before an entry that was set aside; tell whether that is all here."""
        while self._rows and self._rows[0].seq < aside.seq and self._rows[0].epoch <= aside.epoch:
            await self._take_next()
        return bool(self._rows) or self._news.is_whole or self.fed >= aside.seq - 1

    async def _take_next(self) -> None:
        row = self._rows.popleft()
        await self._take(row, self.fed)
        self.fed = row.seq

    async def _take(self, row: Row, before: int) -> None:
        """Take an entry that follows on the position `before`, whatever the fold has taken in between."""
        self._go_to(before, row.seq - 1)
        entry = _entry(row)
        if entry is None:
            self._fold.skip(row.seq, row.seq)
        else:
            self.told += self._fold.take(entry)
            self.forgotten += _forgotten(entry)
        self._taken += 1
        if self._taken % _BREATH == 0:
            await asyncio.sleep(0)

    def _go_to(self, before: int, seq: int) -> None:
        """Be at `seq`; what is between is missing."""
        if self._fold.seq > before:
            self._fold.rewind(before)
        self._fold.skip(before + 1, seq)


def _groups(aside: Sequence[tuple[int, Row]]) -> Iterator[list[tuple[int, Row]]]:
    """Yield runs of entries that were set aside at once: their positions rise."""
    group: list[tuple[int, Row]] = []
    for one in aside:
        if group and one[1].seq <= group[-1][1].seq:
            yield group
            group = []
        group.append(one)
    if group:
        yield group


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
