"""Plain lists in Redis into the archive, each as a conversation; once, or for as long as another program adds to them.

Elements become entries in the way in which an owner would have written them, the window's bounds included. Each batch
of entries is one transaction, and how far a list is imported is in the same transaction (see `list_cursors`): whatever
ends an import, and wherever it is begun again, each element comes once. What cannot be read as a message is kept as an
item of another kind, and reported.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from conversation_actors.archive.copying import Copies
from conversation_actors.archive.writer import Writer
from conversation_actors.codec import encode_entry
from conversation_actors.errors import ConflictError, InvalidInputError, RefusedError, RetryableError
from conversation_actors.items import Item
from conversation_actors.state import AppendItems, ConversationState, Entry, Limits, decide
from conversation_actors.store import Store
from conversation_actors.store.backlog import Record
from conversation_actors.store.redis_lists import ListPattern, RedisLists
from conversation_actors.transfer.list_cursors import OWNER, Cursor, Elsewhere, life_of, read_cursor
from conversation_actors.transfer.list_elements import Element, digest_of, element, missing, too_large
from conversation_actors.transfer.list_positions import REMEMBERED, find_place
from conversation_actors.values import check_id

AT_ONCE = 200
"""Elements of one transaction."""
_CURSORS = 256
"""Cursors that are kept between two looks; others are read from the archive again."""

Tell = Callable[[str], None]


@dataclass(slots=True)
class ListsImported:
    """What was done, or would be: `unreadable` elements are among the `elements`."""

    lists: int = 0
    elements: int = 0
    unreadable: int = 0
    broken: int = 0
    """Lists that lost elements before these were read."""
    left_out: int = 0
    """Lists that cannot be imported, or not any further."""
    conflicts: list[str] = field(default_factory=list)
    """Why lists cannot be imported at all."""

    def add(self, later: "ListsImported") -> None:
        """Add what another look at the same lists has come to."""
        self.lists, self.left_out = max(self.lists, later.lists), later.left_out
        self.elements += later.elements
        self.unreadable += later.unreadable
        self.broken += later.broken


class ListImporter:
    """Imports the lists of one pattern. `tell` is told each thing that somebody should look at, in one sentence."""

    def __init__(
        self,
        lists: RedisLists,
        pattern: ListPattern,
        *,
        store: Store,
        copies: Copies,
        writer: Writer,
        limits: Limits,
        tell: Tell,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Read from `lists`; what `store` has is another conversation of the same id."""
        self._lists, self._pattern = lists, pattern
        self._store, self._copies, self._writer, self._limits = store, copies, writer, limits
        self._tell, self._clock = tell, clock
        self._cursors: OrderedDict[str, Cursor] = OrderedDict()
        self._told: set[tuple[str, str]] = set()

    async def plan(self) -> ListsImported:
        """Look at all lists, and write nothing."""
        return await self._pass(is_dry=True)

    async def once(self) -> ListsImported:
        """Import what is there now. Raises `ConflictError` before anything is written if a list cannot be imported."""
        plan = await self._pass(is_dry=True, is_quiet=True)
        if plan.conflicts:
            more = f" (and {len(plan.conflicts) - 1} more)" if len(plan.conflicts) > 1 else ""
            message = f"nothing was imported: {plan.conflicts[0]}{more}"
            raise ConflictError(message)
        return await self._pass(is_dry=False)

    async def follow(self, stop: asyncio.Event, *, interval: float) -> ListsImported:
        """Go on importing until `stop` is set; return what was done in all.

        While Redis or the archive does not answer, this tries again; each time that begins is told.
        """
        total = await self.once()
        is_away = False
        while not await _is_set(stop, interval):
            try:
                seen = await self._pass(is_dry=False)
            except RetryableError as error:
                if not is_away:
                    self._tell(f"{error}; trying again")
                is_away = True
                continue
            is_away = False
            total.add(seen)
        return total

    async def _pass(self, *, is_dry: bool, is_quiet: bool = False) -> ListsImported:
        done = ListsImported()
        tell = self._silent if is_quiet else self._tell_once
        async for key, conversation_id in self._found(tell):
            done.lists += 1
            await self._one(key, conversation_id, done, tell, is_dry=is_dry)
        return done

    async def _found(self, tell: Callable[[str, str], None]) -> AsyncIterator[tuple[str, str]]:
        seen: set[bytes] = set()
        async for raw in self._lists.keys(self._pattern):
            if raw in seen:
                continue
            seen.add(raw)
            try:
                key = raw.decode()
                conversation_id = check_id(self._pattern.id_in(key), "id")
            except (UnicodeDecodeError, InvalidInputError) as error:
                tell(repr(raw), f"the key {raw!r} has no conversation's id: {error}")
            else:
                yield key, conversation_id

    async def _one(
        self, key: str, conversation_id: str, done: ListsImported, tell: Callable[[str, str], None], *, is_dry: bool
    ) -> None:
        cursor = await self._cursor(key, conversation_id)
        while isinstance(cursor, Cursor):
            if await self._advance(key, conversation_id, cursor, done, tell, is_dry=is_dry):
                self._keep(key, cursor, is_dry=is_dry)
                return
            cursor = await self._cursor(key, conversation_id)  # somebody else has written the same, or opened it
        tell(key, f"{key}: {cursor.reason}; its list is not imported{'' if cursor.is_conflict else ' any further'}")
        done.left_out += 1
        if cursor.is_conflict:
            done.conflicts.append(f"{key}: {cursor.reason}")

    async def _advance(
        self,
        key: str,
        conversation_id: str,
        cursor: Cursor,
        done: ListsImported,
        tell: Callable[[str, str], None],
        *,
        is_dry: bool,
    ) -> bool:
        """Import a list's new elements; False if the archive knew a part of them, and the cursor is good no more."""
        is_broken = await self._find(key, cursor)
        while stored := await self._lists.read(key, cursor.index, AT_ONCE):
            records, read = self._read(key, cursor, stored, is_broken=is_broken)
            if not is_dry:
                written = await self._writer.write(conversation_id, records, quietly=True)
                if written.entries != len(records):
                    return False
            if is_broken:
                done.broken += 1
                tell(key, f"{key}: elements before [{cursor.index}] were dropped or changed before they were read")
            for place, one in enumerate(read, cursor.index):
                done.elements += 1
                if one.problem is not None:
                    done.unreadable += 1
                    tell(key, f"{key}[{place}]: {one.problem}; kept as it is, as no message")
            is_broken = False
            cursor.index += len(stored)
            if len(stored) < AT_ONCE:
                break
        return True

    def _read(
        self, key: str, cursor: Cursor, stored: Sequence[bytes], *, is_broken: bool
    ) -> tuple[list[bytes], list[Element]]:
        """Move the cursor over these elements; return what is to be archived of them, and what they are."""
        life, state = life_of(key), cursor.state
        records: list[bytes] = []
        elements: list[Element] = []
        if is_broken:
            records += _appended(state, missing(cursor.elements + 1, before=state.changed_at), state.changed_at, life)
        for data in stored:
            number = cursor.elements + 1
            before = state.changed_at if state.seq else self._clock()
            one = element(number, data, before=before)
            try:
                entries = _appended(state, one.item, one.at, life)
            except RefusedError as error:
                one = too_large(number, data, before=before, reason=str(error))
                entries = _appended(state, one.item, one.at, life)
            cursor.note(one.item.id)
            records += entries
            elements.append(one)
        return records, elements

    async def _cursor(self, key: str, conversation_id: str) -> Cursor | Elsewhere:
        # taken out, and kept again when all that it has moved over is in the archive
        cursor: Cursor | Elsewhere | None = self._cursors.pop(key, None)
        if cursor is None:
            cursor = await read_cursor(self._copies, conversation_id, key, self._limits)
        if not isinstance(cursor, Cursor):
            return cursor
        is_conflict = cursor.state.seq == 0
        if await self._store.head(conversation_id) is not None:
            return Elsewhere(
                f"{conversation_id!r} {'is in Redis already' if is_conflict else 'has been opened here'}", is_conflict
            )
        if await self._store.remembers_deletion(conversation_id):
            return Elsewhere(f"{conversation_id!r} was deleted, and Redis remembers that", is_conflict)
        return cursor

    async def _find(self, key: str, cursor: Cursor) -> bool:
        """Set the cursor's index to where new elements begin; tell whether some were lost before that."""
        if not cursor.digests:
            cursor.index = 0
            return False
        first = max(0, cursor.index - REMEMBERED)
        if cursor.index:
            there = [digest_of(one) for one in await self._lists.read(key, first, cursor.index - first)]
            if there == list(cursor.digests)[-len(there) :] and len(there) == cursor.index - first:
                return False
        digests: list[str] = []
        while stored := await self._lists.read(key, len(digests), AT_ONCE):
            digests += [digest_of(one) for one in stored]
        place = find_place(digests, list(cursor.digests))
        cursor.index = place.index
        return place.is_broken

    def _keep(self, key: str, cursor: Cursor, *, is_dry: bool) -> None:
        if is_dry:
            return  # it has moved over what is not in the archive
        self._cursors[key] = cursor
        if len(self._cursors) > _CURSORS:
            self._cursors.popitem(last=False)

    def _tell_once(self, about: str, sentence: str) -> None:
        if (about, sentence) not in self._told:
            self._told.add((about, sentence))
            self._tell(sentence)

    def _silent(self, about: str, sentence: str) -> None:
        pass


async def _is_set(stop: asyncio.Event, seconds: float) -> bool:
    """Tell whether `stop` is set, within so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
    return stop.is_set()


def _appended(state: ConversationState, item: Item, at: float, life: str) -> list[bytes]:
    """Append an item to the state as an owner would, and return the records of it. Raises as `decide` does."""
    at = max(at, state.changed_at)
    records = []
    for event in decide(state, AppendItems((item.to_stored(),)), now=at):
        entry = Entry(state.seq + 1, 1, at, event)
        state.apply(entry)
        records.append(Record(life, 0, 1, OWNER, encode_entry(entry)).encode())
    return records
