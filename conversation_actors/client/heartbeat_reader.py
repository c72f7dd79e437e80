"""Who is silent, and may be claimed: one reader of one lease's heartbeats, by its own clock."""

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

from conversation_actors.client.silence import Read, Silence
from conversation_actors.store import Damaged, FoundHeartbeat, HeartbeatRecord, HeartbeatStore

logger = logging.getLogger(__name__)

_PAGE = 500
"""Records that one script reads, or drops."""
_REMEMBERED = 10_000
"""Damaged records that are known to have been told."""
_TOLD_IDS = 10
"""Ids in one line about damaged records."""
_DAMAGED_SECONDS = 60.0
"""A record that cannot be read is dropped when it was seen unchanged for so long: no living holder's is."""

T = TypeVar("T")


class HeartbeatReader:
    """Reads, and claims of what it reads only what it has seen silent for long enough."""

    def __init__(self, records: HeartbeatStore, clock: Callable[[], float]) -> None:
        """`clock` gives seconds, and never steps: it is this process's own."""
        self._records, self._clock = records, clock
        self._silence = Silence()
        self._damaged: dict[str, Damaged] = {}
        self._untold: list[str] = []
        self.damaged = 0
        """Records that could not be read, each counted once as it stood."""

    @property
    def gaps(self) -> int:
        """See `Silence.gaps`."""
        return self._silence.gaps

    async def find(self, conversation_id: str) -> HeartbeatRecord | None:
        """Return the record of one conversation, with how long this reader has seen it unchanged."""
        with self._telling():
            return await self._find(conversation_id)

    async def _find(self, conversation_id: str) -> HeartbeatRecord | None:
        found, read = await self._answered(self._records.find(conversation_id))
        return None if found is None else self._seen(found, read)

    async def claim(
        self, conversation_id: str, claimant: str, *, hold: timedelta, holder: str | None
    ) -> HeartbeatRecord | None:
        """See `Heartbeats.claim`."""
        record = await self.find(conversation_id)
        if record is None or not (record.is_silent or holder):
            return None
        seen = record.beat if record.is_silent else None
        claimed = await self._records.claim(conversation_id, claimant, hold=hold, holder=holder, seen=seen)
        with self._telling():
            return None if claimed is None else next(iter(self._readable([claimed])), None)

    async def claim_expired(
        self, claimant: str, *, hold: timedelta, limit: int, forget: timedelta
    ) -> list[HeartbeatRecord]:
        """See `Heartbeats.claim_expired`."""
        with self._telling():
            return await self._claim_expired(claimant, hold=hold, limit=limit, forget=forget)

    async def _claim_expired(
        self, claimant: str, *, hold: timedelta, limit: int, forget: timedelta
    ) -> list[HeartbeatRecord]:
        silent = await self._silent()
        old = [record for record in silent if record.silent_for > forget]
        left = [record for record in silent if record.silent_for <= forget]
        await self._records.drop(old[:_PAGE])
        claimed: list[HeartbeatRecord] = []
        while left and len(claimed) < limit:
            # those that others have got meanwhile are no reason to leave out the ones after them
            part, left = left[: limit - len(claimed)], left[limit - len(claimed) :]
            claimed += self._readable(await self._records.claim_silent(part, claimant, hold=hold))
        return claimed

    async def claim_group(self, group: str, claimant: str, *, hold: timedelta) -> list[HeartbeatRecord]:
        """See `Heartbeats.claim_group`."""
        found = await self._records.claim_group(group, claimant, hold=hold)
        with self._telling():
            return self._readable(found)

    async def _silent(self) -> list[HeartbeatRecord]:
        """All records that were seen silent for as long as they are valid, the oldest first; drops damaged ones."""
        silent: list[HeartbeatRecord] = []
        damaged: list[Damaged] = []
        after, until, is_last = 0, self._silence.until(self._clock()), False
        incarnation = ""
        while not is_last:
            page, read = await self._answered(self._records.silent(after=after, until=until, limit=_PAGE))
            self._silence.mark(read, page.last)
            incarnation = page.last.incarnation
            for one in page.found:
                if isinstance(one, Damaged):
                    damaged += self._seen_damaged(one, read)
                else:
                    silent += [seen for seen in [self._seen_record(one, read)] if seen.is_silent]
            highest = max((one.beat.number for one in page.found), default=0)
            is_last = len(page.found) < _PAGE or highest <= after
            after = highest
        await self._records.drop(_of(incarnation, damaged)[:_PAGE])
        return _of(incarnation, silent)

    async def _answered(self, question: Awaitable[T]) -> tuple[T, Read]:
        """Return the answer, and when it was asked for and there. Without one, silence is counted anew."""
        sent = self._clock()
        try:
            answer = await question
        except Exception:
            self._silence.interrupt()
            raise
        return answer, Read(sent, self._clock())

    def _seen(self, found: FoundHeartbeat, read: Read) -> HeartbeatRecord | None:
        if isinstance(found, Damaged):
            self._note(found)
            return None
        return self._seen_record(found, read)

    def _seen_record(self, record: HeartbeatRecord, read: Read) -> HeartbeatRecord:
        seconds = self._silence.see(read, record.name, record.beat, valid_for=record.valid_for.total_seconds())
        return replace(record, silent_for=timedelta(seconds=seconds))

    def _seen_damaged(self, damaged: Damaged, read: Read) -> list[Damaged]:
        """Return what is to be dropped: this one, or nothing yet."""
        self._note(damaged)
        seconds = self._silence.see(read, damaged.conversation_id, damaged.beat, valid_for=_DAMAGED_SECONDS)
        return [damaged] if seconds >= _DAMAGED_SECONDS else []

    def _readable(self, found: Iterable[FoundHeartbeat]) -> list[HeartbeatRecord]:
        """Those that can be read; the others are noted, and hold up nobody."""
        readable: list[HeartbeatRecord] = []
        for one in found:
            if isinstance(one, Damaged):
                self._note(one)
            else:
                readable.append(one)
        return readable

    def _note(self, damaged: Damaged) -> None:
        """Count a damaged record once, as it stands; `_telling` logs it."""
        if self._damaged.get(damaged.conversation_id) == damaged:
            return
        self._damaged.pop(damaged.conversation_id, None)
        self._damaged[damaged.conversation_id] = damaged
        if len(self._damaged) > _REMEMBERED:
            del self._damaged[next(iter(self._damaged))]
        self.damaged += 1
        self._untold.append(damaged.conversation_id)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Log what was noted meanwhile, in one line however many records it is."""
        try:
            yield
        finally:
            if self._untold:
                ids = [ascii(conversation_id) for conversation_id in self._untold[:_TOLD_IDS]]
                fields = {"conversation_id": ids[0], "conversation_ids": ids, "records": len(self._untold)}
                self._untold = []
                logger.error("records of heartbeats cannot be read", extra=fields)


S = TypeVar("S", HeartbeatRecord, Damaged)


def _of(incarnation: str, found: Sequence[S]) -> list[S]:
    """Those of one incarnation of the beats: what was read before another one began is nothing to go by."""
    return [one for one in found if one.beat.incarnation == incarnation]
