"""The lives of one conversation, one after the other, while records of it are written."""

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive import pictures
from conversation_actors.archive.lives import Life, begin, erase, locked
from conversation_actors.archive.passage import Gathered, Passage, Tally
from conversation_actors.archive.records import Arrived
from conversation_actors.store.backlog import Record


class Lives:
    """The lives of one conversation, whose rows are locked. Nobody else writes them until the transaction ends."""

    def __init__(self, gathered: Gathered, tenant: str, conversation_id: str, *, known: dict[str, Life]) -> None:
        """Begin with the lives that are `known`; what records lead to is `gathered`."""
        self._gathered = gathered
        self._tenant = tenant
        self._conversation_id = conversation_id
        self._lives = known

    @property
    def living(self) -> list[Life]:
        """Those that were not deleted, the oldest first."""
        return [life for life in self._lives.values() if life.deleted_at is None]

    async def get(self, record: Record, *, at: float) -> Life:
        """Return the life that a record is of; begin it, `at` this time, if it is not known."""
        if record.life not in self._lives:
            connection = self._gathered.connection
            await begin(connection, self._tenant, [(self._conversation_id, record, at)])
            here = await locked(connection, self._tenant, [self._conversation_id])
            self._lives = {**here[self._conversation_id], **self._lives}
        return self._lives[record.life]

    async def take(self, arrived: Sequence[Arrived], tally: Tally) -> None:
        """Take records, in order."""
        for record, some in self._runs(arrived):
            life = await self.get(record, at=_time_of(some[0]))
            if life.deleted_at is not None:
                tally.repeated += len(some)
            elif some[0].is_deletion:
                tally.deleted += await self._end(life, at=record.deleted_at)
            else:
                await Passage(self._gathered, life, tally).take(some)

    async def erase(self, chosen: Sequence[Life]) -> None:
        """Delete all that lives have; their names stay."""
        if chosen:
            now = time.time()
            await erase(self._gathered.connection, [life.id for life in chosen], at=now)
            for life in chosen:
                life.deleted_at = now

    async def _end(self, last: Life, *, at: float | None) -> int:
        """Delete a life, and those before it, `at` this time if it is known."""
        await self._gathered.flush()
        chosen = [life for life in self.living if life.id <= last.id]
        connection = self._gathered.connection
        await pictures.drop_of_lives(connection, self._tenant, self._conversation_id, chosen, at=at)
        await self.erase(chosen)
        return len(chosen)

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


async def locked_lives(
    connection: AsyncConnection, tenant: str, arrived: Mapping[str, Sequence[Arrived]]
) -> tuple[Gathered, Mapping[str, Lives]]:
    """Lock all lives of conversations, and return them with what gathers their changes: to be flushed at the end.

    Those lives that have `arrived` and are not known begin.
    """
    gathered = Gathered(connection)
    found = await locked(connection, tenant, arrived)
    new = {
        (name, one.record.life): (name, one.record, _time_of(one))
        for name in sorted(arrived)
        for one in reversed(arrived[name])  # the first record of a life says when it began
        if one.record is not None and one.record.life not in found[name]
    }
    if new:
        await begin(connection, tenant, reversed(new.values()))
        found |= await locked(connection, tenant, {name for name, _ in new})
    return gathered, {name: Lives(gathered, tenant, name, known=known) for name, known in found.items()}


def _time_of(arrived: Arrived) -> float:
    """Return when a record was written, if it says so, and now if not."""
    if arrived.row is not None:
        return arrived.row.at
    return arrived.record.deleted_at if arrived.record is not None and arrived.record.deleted_at else time.time()
