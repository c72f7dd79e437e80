"""The rows of lives: one for each time that a conversation began under an id."""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, case, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.bulk import BulkInsert
from conversation_actors.archive.outbox_forgetting import forget_attempts
from conversation_actors.archive.tables import (
    checkpoints,
    entries,
    feeds,
    gaps,
    happenings,
    items,
    lives,
    sessions,
    superseded,
)
from conversation_actors.errors import CorruptStateError
from conversation_actors.store.backlog import Record
from conversation_actors.store.base import MAX_ANCESTORS, Ancestor

_OF_A_LIFE = (items, entries, gaps, superseded, checkpoints, feeds, happenings, sessions)
_COLUMNS = (
    "tenant", "conversation_id", "life", "start", "seq", "epoch", "owner", "lineage", "created_at", "active_at",
)  # fmt: skip
_ADD = BulkInsert(lives, _COLUMNS, lambda statement: statement.on_conflict_do_nothing())
_AT_ONCE = 500
_LOCK = (
    select(
        lives.c.conversation_id,
        lives.c.id, lives.c.life, lives.c.start, lives.c.seq, lives.c.epoch, lives.c.owner, lives.c.lineage,
        lives.c.created_at, lives.c.active_at, lives.c.deleted_at, lives.c.is_lacking,
        select(func.max(gaps.c.to_seq)).where(gaps.c.life_id == lives.c.id).scalar_subquery(),
    )
    .where(lives.c.tenant == bindparam("tenant"))
    .where(lives.c.conversation_id.in_(bindparam("conversations", expanding=True)))
    .order_by(lives.c.id)
    .with_for_update(of=lives)
)  # fmt: skip
_CHANGING = ("start", "seq", "epoch", "owner", "lineage", "active_at", "is_lacking")
_SAVE = (
    update(lives).where(lives.c.id == bindparam("of")).values({name: bindparam(f"new_{name}") for name in _CHANGING})
)


@dataclass(slots=True)
class Life:
    """A life's row. `last_gap` is the end of the last gap that is noted in it; None if it has no gap.

    `is_lacking` tells that Redis may know what came in a gap, and that it has not been asked yet, or in vain.
    """

    id: int
    life: str
    start: int
    seq: int
    epoch: int
    owner: str
    lineage: tuple[Ancestor, ...]
    created_at: float
    active_at: float
    deleted_at: float | None
    is_lacking: bool = False
    last_gap: int | None = None

    def followed_by(self, owner: str, epoch: int) -> None:
        """Note that another claim goes on from `seq`, if it is another one; the first one of a life follows nobody."""
        if owner != self.owner and self.seq > self.start:
            self.lineage = (*self.lineage, Ancestor(self.life, self.epoch, self.owner, self.seq))[-MAX_ANCESTORS:]
        self.owner, self.epoch = owner, epoch


def lineage_of(text: str, life: int) -> tuple[Ancestor, ...]:
    """Read a stored lineage. Raises `CorruptStateError` that names table and row."""
    try:
        return tuple(
            Ancestor(str(name), int(epoch), str(owner), int(seq)) for name, epoch, owner, seq in json.loads(text)
        )
    except (ValueError, TypeError) as error:
        key = f"archive_lives.lineage of id {life}"
        message = f"{key}: not a lineage: {type(error).__name__}"
        raise CorruptStateError(message, key=key, position=0) from None


def lineage_text(lineage: Sequence[Ancestor]) -> str:
    """Return the stored form of a lineage."""
    return json.dumps(lineage, separators=(",", ":"))


async def locked(
    connection: AsyncConnection, tenant: str, conversations: Collection[str]
) -> dict[str, dict[str, Life]]:
    """Return all lives of conversations, the oldest first, by conversation and name.

    Nobody else writes them until the transaction ends.
    """
    found: dict[str, dict[str, Life]] = {name: {} for name in conversations}
    names = sorted(conversations)
    for first in range(0, len(names), _AT_ONCE):
        some = {"tenant": tenant, "conversations": names[first : first + _AT_ONCE]}
        for row in (await connection.execute(_LOCK, some)).all():
            found[row[0]][row[2]] = Life(*row[1:7], lineage_of(row[7], row[1]), *row[8:])
    return found


async def begin(connection: AsyncConnection, tenant: str, beginnings: Iterable[tuple[str, Record, float]]) -> None:
    """Add the lives that records of these conversations are of, which began at these times, unless they are there."""
    rows = [
        (tenant, name, record.life, record.start, record.start, record.epoch, record.owner, "[]", at, at)
        for name, record, at in beginnings
    ]
    await _ADD.execute(connection, rows)


async def save(connection: AsyncConnection, changed: Collection[Life]) -> None:
    """Write rows of lives back."""
    rows = [
        {
            "of": life.id,
            "new_start": life.start,
            "new_seq": life.seq,
            "new_epoch": life.epoch,
            "new_owner": life.owner,
            "new_lineage": lineage_text(life.lineage),
            "new_active_at": life.active_at,
            "new_is_lacking": life.is_lacking,
        }
        for life in changed
    ]
    if rows:
        await connection.execute(_SAVE, rows)


async def rewind(connection: AsyncConnection, life: Life, seq: int) -> None:
    """Let the feed read what comes at `seq` and later positions, also if it has read others there."""
    cursors = {
        name: case((column >= seq, seq - 1), else_=column)
        for name, column in (("fed", lives.c.fed), ("quiet", lives.c.quiet))
    }
    statement = update(lives).where(lives.c.id == life.id).values(ticks=lives.c.ticks + 1, **cursors)
    await connection.execute(statement)


async def have_not_told(connection: AsyncConnection, life: Life, seq: int) -> None:
    """Note that a back end is not told of the entry at `seq`, if the feed has passed it."""
    statement = update(lives).where(lives.c.id == life.id, lives.c.fed >= seq)
    await connection.execute(statement.values(ticks=lives.c.ticks + 1, reported_from=None))


async def erase(connection: AsyncConnection, identities: Collection[int], *, at: float) -> None:
    """Delete all that lives have, and mark them as deleted `at`: their rows stay, to keep late records out."""
    await forget_attempts(connection, identities, at=at)
    for table in _OF_A_LIFE:
        await connection.execute(delete(table).where(table.c.life_id.in_(identities)))
    left = {"deleted_at": at, "lineage": "[]", "is_lacking": False, "fed": lives.c.seq}
    await connection.execute(update(lives).where(lives.c.id.in_(identities)).values(left))
