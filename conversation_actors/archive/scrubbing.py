"""Forgetting: nothing of an item that was removed stays in the archive, nor an older text of one that is there.

Entries stay, without the lines of such items. What cannot be read loses all its bytes: nobody can tell what it holds.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from sqlalchemy import Column, ColumnElement, bindparam, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.items import storable
from conversation_actors.archive.pictures import drop_unused, named_in
from conversation_actors.archive.records import UNREADABLE, header_of
from conversation_actors.archive.tables import checkpoints, entries, items, superseded
from conversation_actors.codec import decode_snapshot, stored_snapshot
from conversation_actors.errors import CorruptStateError, IncompatibleVersionError
from conversation_actors.items import StoredItem
from conversation_actors.state import EVENT_NAMES, ItemsAppended, ItemsEvicted, SummaryChanged
from conversation_actors.values import encode

_AT_ONCE = 500
_SUMMARY = EVENT_NAMES[SummaryChanged]
_WITH_WORDS = (EVENT_NAMES[ItemsAppended], EVENT_NAMES[ItemsEvicted], _SUMMARY, UNREADABLE)


class Forgetting:
    """Forgets what entries of one life take out: items at once, and their words, wherever they are, in `finish`.

    So a batch with many such entries reads the life once.
    """

    def __init__(self, connection: AsyncConnection, life_id: int) -> None:
        """Forget nothing yet."""
        self._connection, self._life_id = connection, life_id
        self._removed: dict[str, int] = {}
        """By name: the last entry that took an item out."""
        self._cleared = self._before = -1
        """The last entry that took everything out, and the last one of either kind."""
        self._named: list[tuple[frozenset[str], float]] = []
        """Pictures that were named in what went, and when it did."""

    @property
    def is_begun(self) -> bool:
        """Whether anything was taken out that `finish` has not looked for."""
        return self._before >= 0

    async def remove(self, before: int, removed: Collection[str] | None, *, at: float) -> None:
        """Forget what came before the entry `before`: `removed` items, and older texts of all others.

        None stands for everything: all items, and all summaries. `at` is when that was: pictures that only forgotten
        texts name go too, unless they were kept anew since.
        """
        self.note(before, removed, at=at, named=await delete_items(self._connection, self._life_id, removed))

    def note(self, before: int, removed: Collection[str] | None, *, at: float, named: frozenset[str]) -> None:
        """Do as `remove` does, for items that are deleted already: `named` are the digests of pictures in them."""
        self._named.append((named, at))
        self._before = before
        if removed is None:
            self._cleared = before
        else:
            self._removed.update((storable(name), before) for name in removed)

    async def finish(self) -> None:
        """Rewrite what holds such words; what is written later is not looked at."""
        connection, life_id, before = self._connection, self._life_id, self._before
        summary = await _last_summary(connection, life_id, before, after=self._cleared)
        here = [entries.c.seq < before]
        named = await _scrub(connection, entries.c.seq, life_id, here, self._is_gone, kept_summary=summary)
        named |= await _scrub(connection, superseded.c.id, life_id, [], self._was_ever_gone, kept_summary=None)
        await _scrub_checkpoint(connection, life_id, self._is_gone, before=before, is_all=self._cleared >= 0)
        for pictures, at in [*self._named, (named, self._named[-1][1])]:
            await drop_unused(connection, life_id, pictures, before=at)
        self._removed, self._cleared, self._before, self._named = {}, -1, -1, []

    def _is_gone(self, name: str, seq: int) -> bool:
        """Tell whether an item was taken out after the entry `seq`; it may have come again since."""
        return seq < self._cleared or seq < self._removed.get(name, -1)

    def _was_ever_gone(self, name: str, _: int) -> bool:
        return self._cleared >= 0 or name in self._removed


async def forget_superseded(connection: AsyncConnection, life_id: int) -> None:
    """Take out of superseded entries what is no item any more, and their summaries."""
    await _scrub(connection, superseded.c.id, life_id, [], lambda _, __: False, kept_summary=None)


async def delete_items(connection: AsyncConnection, life_id: int, removed: Collection[str] | None) -> frozenset[str]:
    """Delete items, None: all; return the digests of pictures that are named in them."""
    named: frozenset[str] = frozenset()
    if removed is None:
        here = [items.c.life_id == life_id]
        named = await _pictures_in(connection, here)
        await connection.execute(delete(items).where(*here))
        return named
    names = [storable(name) for name in removed]
    for first in range(0, len(names), _AT_ONCE):
        here = [items.c.life_id == life_id, items.c.item_id.in_(names[first : first + _AT_ONCE])]
        named |= await _pictures_in(connection, here)
        await connection.execute(delete(items).where(*here))
    return named


async def _pictures_in(connection: AsyncConnection, here: Sequence[ColumnElement[bool]]) -> frozenset[str]:
    found: set[str] = set()
    for data in (await connection.execute(select(items.c.data).where(*here))).scalars():
        found |= named_in(data)
    return frozenset(found)


async def _last_summary(connection: AsyncConnection, life_id: int, before: int, *, after: int = -1) -> int | None:
    between = (entries.c.seq > after, entries.c.seq < before)
    query = (
        select(entries.c.seq)
        .where(entries.c.life_id == life_id, *between, entries.c.event == _SUMMARY)
        .order_by(entries.c.seq.desc())
        .limit(1)
    )
    return (await connection.execute(query)).scalar()


async def _scrub(
    connection: AsyncConnection,
    key: Column[int],
    life_id: int,
    here: Sequence[ColumnElement[bool]],
    is_gone: Callable[[str, int], bool],
    *,
    kept_summary: int | None,
) -> frozenset[str]:
    """Rewrite the rows of one table, some at once, in the order of its column `key`.

    Return the digests of pictures that were named in what has changed.
    """
    table = key.table
    rewrite = (
        update(table).where(table.c.life_id == life_id, key == bindparam("of")).values(data=bindparam("rewritten"))
    )
    last, named = -1, set[str]()
    while True:
        query = (
            select(key, table.c.event, table.c.data)
            .where(table.c.life_id == life_id, *here, key > last, table.c.event.in_(_WITH_WORDS))
            .order_by(key)
            .limit(_AT_ONCE)
        )
        rows = (await connection.execute(query)).all()
        if not rows:
            return frozenset(named)
        last = rows[-1][0]
        present = await _present(connection, life_id, [data for _, event, data in rows if event != UNREADABLE])
        changed = [
            {"of": number, "rewritten": rewritten}
            for number, event, data in rows
            if (event != _SUMMARY or number != kept_summary)
            and (rewritten := _rewritten(event, data, present, number, is_gone)) != data
        ]
        if changed:
            numbers = {change["of"] for change in changed}
            named.update(*(named_in(data) for number, _, data in rows if number in numbers))
            await connection.execute(rewrite, changed)


async def _present(connection: AsyncConnection, life_id: int, data: Sequence[bytes]) -> Mapping[str, bytes]:
    """Return the present lines of the items that entries name; those that are gone are missing."""
    names = list({name for one in data for line in one.split(b"\n")[1:] if (name := _name_in(line)) is not None})
    present: dict[str, bytes] = {}
    for first in range(0, len(names), _AT_ONCE):
        some = [storable(name) for name in names[first : first + _AT_ONCE]]
        query = select(items.c.item_id, items.c.data).where(items.c.life_id == life_id, items.c.item_id.in_(some))
        present.update((name, line) for name, line in (await connection.execute(query)).all())
    return present


def _name_in(line: bytes) -> str | None:
    try:
        return StoredItem.parse(line).id
    except ValueError:
        return None


def _rewritten(
    event: str, data: bytes, present: Mapping[str, bytes], seq: int, is_gone: Callable[[str, int], bool]
) -> bytes:
    """Return an entry with the present lines of its items, and without those that are gone."""
    header = dict(header_of(data))
    if event == UNREADABLE or not header:
        return b""
    if event == _SUMMARY:
        return encode({**header, "text": ""}, "summary") if header.get("text") else data
    named = [_name_in(line) for line in data.split(b"\n")[1:]]
    names = [storable(name) for name in named if name is not None]
    lines = [present[name] for name in names if name in present and not is_gone(name, seq)]
    header.pop("items", None)
    if lines:
        header["items"] = len(lines)
    return b"\n".join([encode(header, "entry"), *lines])


async def _scrub_checkpoint(
    connection: AsyncConnection, life_id: int, is_gone: Callable[[str, int], bool], *, before: int, is_all: bool
) -> None:
    """Take out of a state from `before` what is forgotten; drop one that cannot be read. A later one has forgotten."""
    here = (checkpoints.c.life_id == life_id) & (checkpoints.c.seq < before)
    data = (await connection.execute(select(checkpoints.c.data).where(here))).scalar()
    if data is None:
        return
    try:
        state = decode_snapshot(data)
    except (CorruptStateError, IncompatibleVersionError):
        await connection.execute(delete(checkpoints).where(here))
        return
    present = await _present(connection, life_id, [b"\n".join([b"", *(item.data for item in state.window)])])
    names = {item: storable(item.id) for item in state.window}
    gone = [item for item, name in names.items() if name not in present or is_gone(name, state.seq)]
    state.window.remove(gone, orphans_kept=state.limits.items)
    state.window.put([StoredItem.parse(present[storable(item.id)]) for item in state.window])
    if is_all:
        state.summary = None
    state.requests.clear()
    await connection.execute(update(checkpoints).where(here).values(data=stored_snapshot(state)))
