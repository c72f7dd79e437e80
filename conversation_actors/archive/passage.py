"""The way of one life's records into the archive, within one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive import apart, checkpoints, entries, gaps, items, late
from conversation_actors.archive.gaps import GIVEN_UP, Gap
from conversation_actors.archive.items import ItemChanges
from conversation_actors.archive.lives import Life, have_not_told, rewind, save
from conversation_actors.archive.records import UNREADABLE, Arrived, Row
from conversation_actors.archive.scrubbing import Forgetting
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
    is_lacking: bool = False
    gaps: list[Gap] = field(default_factory=list)


class Gathered:
    """What is to be written of many lives in a few statements: at the end, and before anything that looks at it."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self.items = ItemChanges()
        self.entries: list[tuple[int, Row]] = []
        self.gaps: list[tuple[int, Gap]] = []
        self.lives: dict[int, Life] = {}

    async def flush(self) -> None:
        """Write it, and begin anew."""
        await gaps.note(self.connection, self.gaps)
        await entries.add(self.connection, self.entries)
        self.gaps, self.entries = [], []
        await self.items.write(self.connection)
        await save(self.connection, self.lives.values())
        self.lives = {}


class Passage:
    """Takes records of one life in the order in which they come."""

    def __init__(self, gathered: Gathered, life: Life, tally: Tally) -> None:
        """Go on with a life whose row is locked; what its records lead to is `gathered`."""
        self._gathered = gathered
        self._connection = gathered.connection
        self._life = life
        self._tally = tally
        self._known: dict[int, Row] = {}
        """Entries at positions that were archived before, as far as they matter, and those taken since."""
        self._late: dict[int, Event] = {}
        """Entries that fill gaps, by position, and that `late` has not settled yet."""
        self._forgetting = Forgetting(self._connection, life.id)

    async def take(self, arrived: Sequence[Arrived]) -> None:
        """Take records, none of which is a deletion."""
        seen = {one.row.seq for one in arrived if one.row is not None and one.row.seq <= self._life.seq}
        if seen:
            await self._gathered.flush()
            self._known = await entries.at_positions(self._connection, self._life.id, seen)
        for one in arrived:
            await self._take(one)
        await self._settle_late()
        await self._finish_forgetting()
        self._gathered.lives[self._life.id] = self._life
        self._tally.is_lacking = self._life.is_lacking

    async def _take(self, one: Arrived) -> None:
        row = await self._placed(one)
        if row is None:
            self._tally.repeated += 1
            return
        claim = one.record or self._life  # the claim that sent it, which may not be the one that wrote it
        if row.seq > self._life.seq:
            if claim.epoch < self._life.epoch and self._life.seq > self._life.start:
                await self._keep_apart(row, one.event)
            else:
                await self._accept(row, one.event, claim)
            return
        known = self._known.get(row.seq)
        if known is None:
            if await self._is_outdated(row):
                await self._keep_apart(row, one.event)
            else:
                await self._accept_late(row, one.event)
        elif row.is_same(known):
            self._tally.repeated += 1
        elif (claim.epoch < self._life.epoch) if known.event == UNREADABLE else (row.epoch < known.epoch):
            await self._keep_apart(row, one.event)
        elif await self._supersedes(row, known):
            await self._set_aside(row.seq)
            await self._accept(row, one.event, claim)
        else:
            self._tally.repeated += 1

    async def _placed(self, one: Arrived) -> Row | None:
        """Return the row with its position; None for unreadable bytes that are stored already.

        Bytes of which not even the claim can be read count as the present claim's.
        """
        row = one.row
        assert row is not None
        if row.event != UNREADABLE:
            return row
        await self._gathered.flush()
        if await entries.has_unreadable(self._connection, self._life.id, row.data):
            return None
        epoch = row.epoch if one.record is not None else self._life.epoch
        return row._replace(seq=self._life.seq + 1, epoch=epoch, at=row.at or self._life.active_at)

    async def _is_outdated(self, row: Row) -> bool:
        """Tell whether an entry at a position that is missing is of an older claim than one before it."""
        if row.epoch >= self._life.epoch:
            return False
        await self._gathered.flush()
        return row.epoch < await entries.epoch_before(self._connection, self._life.id, row.seq)

    async def _supersedes(self, row: Row, known: Row) -> bool:
        """Tell whether an entry takes the place of another one that is stored, which Redis has lost.

        The newer claim wins. Of two claims of one epoch (which only a loss in Redis makes possible) the one that comes
        to the archive later does, but only once.
        """
        if known.event == UNREADABLE or row.epoch > known.epoch:
            return True
        await self._gathered.flush()
        return not await entries.was_set_aside(self._connection, self._life.id, row)

    async def _set_aside(self, seq: int) -> None:
        """Let other entries come from `seq` on. The items that the present ones brought stay."""
        await self._settle_late()
        await self._finish_forgetting()
        await self._gathered.flush()
        moved = await entries.set_aside(self._connection, self._life.id, seq)
        await checkpoints.drop(self._connection, self._life, since=seq)
        self._life.is_lacking = (
            self._life.last_gap is not None
        )  # what came in a gap, that checkpoint alone may have had
        await rewind(self._connection, self._life, seq)
        await gaps.cut(self._connection, self._life.id, seq)
        await items.lower(self._connection, self._life, seq)
        returned = [item.id for row in moved if row.event == _EVICTED for item in _leaving(row)]
        if returned:
            await items.bring_back(self._connection, self._life, seq, returned)
        self._known = {known: row for known, row in self._known.items() if known < seq}
        self._life.seq = seq - 1
        self._tally.superseded += len(moved)

    async def _keep_apart(self, row: Row, event: Event | None) -> None:
        """Keep an entry of an older claim, which Redis has lost, beside the history that has gone on without it."""
        await self._settle_late()
        await self._finish_forgetting()
        await self._gathered.flush()
        if await apart.keep(self._connection, self._life, row, event):
            self._tally.superseded += 1
        else:
            self._tally.repeated += 1

    async def _accept(self, row: Row, event: Event | None, claim: Record | Life) -> None:
        await self._settle_late()
        life = self._life
        if row.seq > life.seq + 1:
            self._note_gap(Gap(life.seq + 1, row.seq - 1, GIVEN_UP))
        life.followed_by(claim.owner, claim.epoch)
        life.seq = row.seq
        life.active_at = max(life.active_at, row.at)
        self._add(row, event)
        await self._change_items(row, event)

    async def _accept_late(self, row: Row, event: Event | None) -> None:
        """Take an entry that fills a gap; what it does to items depends on those that came before it."""
        await self._finish_forgetting()
        self._add(row, event)
        assert event is not None  # bytes that cannot be read come last
        self._late[row.seq] = event

    async def _settle_late(self) -> None:
        if self._late:
            await self._gathered.flush()
            settled, self._late = self._late, {}
            await late.settle(self._connection, self._life, settled)
            await gaps.fill(self._connection, self._life.id, settled)
            await have_not_told(self._connection, self._life, min(settled))

    def _add(self, row: Row, event: Event | None) -> None:
        self._known[row.seq] = row
        self._gathered.entries.append((self._life.id, row))
        self._tally.entries += 1
        if isinstance(event, ItemsAppended):
            self._tally.items += len(event.items)

    async def _change_items(self, row: Row, event: Event | None) -> None:
        seq = row.seq
        match event:
            case ItemsAppended(arriving):
                self._gathered.items.put(self._life, seq, arriving)
            case ItemsEvicted(leaving):
                self._gathered.items.evict(self._life, seq, leaving)
            case ItemsRemoved(identities):
                await self._forget(row, identities)
            case HistoryCleared():
                await self._forget(row, None)
            case _:
                pass

    async def _forget(self, row: Row, removed: Sequence[str] | None) -> None:
        await self._gathered.flush()
        await self._forgetting.remove(row.seq, removed, at=row.at)

    async def _finish_forgetting(self) -> None:
        if self._forgetting.is_begun:
            await self._gathered.flush()
            await checkpoints.follow(self._connection, self._life)  # first: the entries lose what the state counts
            await self._forgetting.finish()

    def _note_gap(self, gap: Gap) -> None:
        self._gathered.gaps.append((self._life.id, gap))
        self._tally.gaps.append(gap)
        self._life.last_gap, self._life.is_lacking = gap.to_seq, True


def _leaving(row: Row) -> tuple[StoredItem, ...]:
    event = decode_entry(row.data).event
    return event.items if isinstance(event, ItemsEvicted) else ()
