"""The way of records into the archive, within one transaction: conversation by conversation, life by life."""

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive import entries, gaps, items, pictures
from conversation_actors.archive.gaps import GIVEN_UP, Gap
from conversation_actors.archive.items import ItemChanges
from conversation_actors.archive.lives import Life, begun, erase, locked, save
from conversation_actors.archive.records import UNREADABLE, Arrived, Row
from conversation_actors.archive.scrubbing import forget
from conversation_actors.codec import decode_entry
from conversation_actors.items import StoredItem
from conversation_actors.state import EVENT_NAMES, Event, HistoryCleared, ItemsAppended, ItemsEvicted, ItemsRemoved
from conversation_actors.store.backlog import Record

_EVICTED = EVENT_NAMES[ItemsEvicted]


@dataclass(slots=True)
class Tally:
    """What a batch has come to so far; see `Written`."""

    entries: int = 0
    repeated: int = 0
    items: int = 0
    superseded: int = 0
    deleted: int = 0
    gaps: list[Gap] = field(default_factory=list)


class Lives:
    """The lives of one conversation, whose rows are locked. Nobody else writes them until the transaction ends."""

    def __init__(self, connection: AsyncConnection, tenant: str, conversation_id: str) -> None:
        self._connection = connection
        self._tenant = tenant
        self._conversation_id = conversation_id
        self._lives: dict[str, Life] = {}

    @classmethod
    async def locked(cls, connection: AsyncConnection, tenant: str, conversation_id: str) -> Self:
        """Lock the rows that there are."""
        here = cls(connection, tenant, conversation_id)
        here._lives = await locked(connection, tenant, conversation_id)
        return here

    @property
    def living(self) -> list[Life]:
        """Those that were not deleted, the oldest first."""
        return [life for life in self._lives.values() if life.deleted_at is None]

    async def get(self, record: Record, *, at: float) -> Life:
        """Return the life that a record is of; begin it, `at` this time, if it is not known."""
        if record.life not in self._lives:
            values = {"life": record.life, "start": record.start, "seq": record.start}
            values |= {"epoch": record.epoch, "owner": record.owner, "created_at": at, "active_at": at}
            self._lives = await begun(self._connection, self._tenant, self._conversation_id, values)
        return self._lives[record.life]

    async def take(self, arrived: Sequence[Arrived], tally: Tally) -> None:
        """Take records, in order."""
        for record, some in self._runs(arrived):
            at = next((one.row.at for one in some if one.row is not None), time.time())
            life = await self.get(record, at=at)
            if life.deleted_at is not None:
                tally.repeated += len(some)
            elif some[0].is_deletion:
                chosen = [one for one in self.living if one.id <= life.id]
                await pictures.drop_of_lives(self._connection, self._tenant, self._conversation_id, chosen)
                await self.erase(chosen)
                tally.deleted += len(chosen)
            else:
                await Passage(self._connection, life, tally).take(some)

    async def erase(self, chosen: Sequence[Life]) -> None:
        """Delete all that lives have; their names stay."""
        if chosen:
            now = time.time()
            await erase(self._connection, [life.id for life in chosen], at=now)
            for life in chosen:
                life.deleted_at = now

    def _runs(self, arrived: Sequence[Arrived]) -> Iterator[tuple[Record, list[Arrived]]]:
        """Yield runs of records of one life, each deletion by itself, with the first record of each run.

        What cannot be read belongs to the life before it, or to the last one that is known.
        """
        last = Record(list(self._lives)[-1] if self._lives else "", 0, 0, "", b"")
        whose: list[tuple[Record, Arrived]] = []
        for one in arrived:
            last = one.record or last
            whose.append((last, one))
        for _, group in itertools.groupby(whose, key=lambda pair: (pair[0].life, pair[1].is_deletion)):
            run = list(group)
            yield run[0][0], [one for _, one in run]


class Passage:
    """Takes records of one life in the order in which they come.

    Entries and items are gathered, and written by `flush`: at the end, and before anything that looks at them.
    """

    def __init__(self, connection: AsyncConnection, life: Life, tally: Tally) -> None:
        """Go on with a life whose row is locked."""
        self._connection = connection
        self._life = life
        self._tally = tally
        self._known: dict[int, Row] = {}
        """Entries at positions that were archived before, as far as they matter, and those written since."""
        self._pending: dict[int, Row] = {}
        self._items = ItemChanges()
        self._gaps: list[Gap] = []
        self._late: list[int] = []

    async def take(self, arrived: Sequence[Arrived]) -> None:
        """Take records, none of which is a deletion, and write all that they lead to."""
        seen = {one.row.seq for one in arrived if one.row is not None and one.row.seq <= self._life.seq}
        self._known = await entries.at_positions(self._connection, self._life.id, seen)
        for one in arrived:
            await self._take(one)
        await self.flush()
        await gaps.fill(self._connection, self._life.id, self._late)
        await save(self._connection, self._life)

    async def flush(self) -> None:
        """Write what was gathered."""
        await gaps.note(self._connection, self._life.id, self._gaps)
        await entries.add(self._connection, self._life.id, self._pending.values())
        self._known |= self._pending
        self._gaps, self._pending = [], {}
        await self._items.write(self._connection, self._life)

    async def _take(self, one: Arrived) -> None:
        row = await self._placed(one)
        if row is None:
            self._tally.repeated += 1
            return
        owner = one.record.owner if one.record is not None else self._life.owner
        if row.seq > self._life.seq:
            await self._accept(row, one.event, owner)
            return
        known = self._pending.get(row.seq) or self._known.get(row.seq)
        if known is None:
            await self._accept(row, one.event, owner, is_late=True)
        elif await self._supersedes(row, known):
            await self._set_aside(row.seq)
            await self._accept(row, one.event, owner)
        else:
            self._tally.repeated += 1

    async def _placed(self, one: Arrived) -> Row | None:
        """Return the row with its position; None for unreadable bytes that are stored already."""
        row = one.row
        assert row is not None
        if row.event != UNREADABLE:
            return row
        await self.flush()
        if await entries.has_unreadable(self._connection, self._life.id, row.data):
            return None
        return row._replace(seq=self._life.seq + 1, at=row.at or self._life.active_at)

    async def _supersedes(self, row: Row, known: Row) -> bool:
        """Tell whether an entry takes the place of the one that is stored, which Redis has lost.

        The newer claim wins. Of two claims of one epoch (which only a loss in Redis makes possible) the one that comes
        to the archive later does, but only once.
        """
        if row.is_same(known) or row.event == UNREADABLE:
            return False
        if known.event == UNREADABLE:
            return True
        if row.epoch != known.epoch:
            return row.epoch > known.epoch
        await self.flush()
        return not await entries.was_set_aside(self._connection, self._life.id, row)

    async def _set_aside(self, seq: int) -> None:
        """Let other entries come from `seq` on. The items that the present ones brought stay."""
        await self.flush()
        moved = await entries.set_aside(self._connection, self._life.id, seq)
        await gaps.cut(self._connection, self._life.id, seq)
        await items.lower(self._connection, self._life, seq)
        returned = [item.id for row in moved if row.event == _EVICTED for item in _leaving(row)]
        if returned:
            await items.bring_back(self._connection, self._life, seq, returned)
        self._known = {known: row for known, row in self._known.items() if known < seq}
        self._life.seq = seq - 1
        self._tally.superseded += len(moved)

    async def _accept(self, row: Row, event: Event | None, owner: str, *, is_late: bool = False) -> None:
        life = self._life
        if is_late:
            self._late.append(row.seq)
        else:
            if row.seq > life.seq + 1:
                self._note_gap(Gap(life.seq + 1, row.seq - 1, GIVEN_UP))
            life.followed_by(owner, row.epoch)
            life.seq = row.seq
            life.active_at = max(life.active_at, row.at)
        self._pending[row.seq] = row
        self._tally.entries += 1
        await self._change_items(row.seq, event, is_late=is_late)

    async def _change_items(self, seq: int, event: Event | None, *, is_late: bool) -> None:
        match event:
            case ItemsAppended(arriving):
                self._items.put(seq, arriving)
                self._tally.items += len(arriving)
            case ItemsEvicted(leaving):
                self._items.evict(seq, leaving)
            case ItemsRemoved(identities):
                await self.flush()
                await forget(self._connection, self._life.id, before=seq, removed=identities, is_late=is_late)
            case HistoryCleared():
                await self.flush()
                await forget(self._connection, self._life.id, before=seq, removed=None, is_late=is_late)
            case _:
                pass

    def _note_gap(self, gap: Gap) -> None:
        self._gaps.append(gap)
        self._tally.gaps.append(gap)
        self._life.last_gap = gap.to_seq


def _leaving(row: Row) -> tuple[StoredItem, ...]:
    event = decode_entry(row.data).event
    return event.items if isinstance(event, ItemsEvicted) else ()
