"""The rows of lives: one for each time that a conversation began under an id."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.tables import checkpoints, entries, gaps, items, lives, superseded
from conversation_actors.errors import CorruptStateError
from conversation_actors.store.base import MAX_ANCESTORS, Ancestor

_OF_A_LIFE = (items, entries, gaps, superseded, checkpoints)
_ADDS = {
    "sqlite": sqlite.insert(lives).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(lives).on_conflict_do_nothing(),
}
_SAVE = (
    update(lives)
    .where(lives.c.id == bindparam("of"))
    .values({name: bindparam(f"new_{name}") for name in ("start", "seq", "epoch", "owner", "lineage", "active_at")})
)


@dataclass(slots=True)
class Life:
    """A life's row. `last_gap` is the end of the last gap that is noted in it; None if it has no gap."""

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


async def locked(connection: AsyncConnection, tenant: str, conversation_id: str) -> dict[str, Life]:
    """Return all lives of a conversation, the oldest first, by name; nobody else writes them in the meantime."""
    last_gap = select(func.max(gaps.c.to_seq)).where(gaps.c.life_id == lives.c.id).scalar_subquery()
    query = (
        select(
            lives.c.id, lives.c.life, lives.c.start, lives.c.seq, lives.c.epoch, lives.c.owner, lives.c.lineage,
            lives.c.created_at, lives.c.active_at, lives.c.deleted_at, last_gap,
        )
        .where(lives.c.tenant == tenant, lives.c.conversation_id == conversation_id)
        .order_by(lives.c.id)
        .with_for_update(of=lives)
    )  # fmt: skip
    rows = (await connection.execute(query)).all()
    return {row[1]: Life(*row[:6], lineage_of(row[6], row[0]), *row[7:]) for row in rows}


async def begun(
    connection: AsyncConnection, tenant: str, conversation_id: str, values: dict[str, Any]
) -> dict[str, Life]:
    """Add a life unless somebody else has just added it; return all lives of the conversation, as `locked` does."""
    row = {"tenant": tenant, "conversation_id": conversation_id, "lineage": "[]", "deleted_at": None, **values}
    await connection.execute(_ADDS[connection.dialect.name], row)
    return await locked(connection, tenant, conversation_id)


async def save(connection: AsyncConnection, life: Life) -> None:
    """Write a life's row back."""
    values = {
        "of": life.id,
        "new_start": life.start,
        "new_seq": life.seq,
        "new_epoch": life.epoch,
        "new_owner": life.owner,
        "new_lineage": lineage_text(life.lineage),
        "new_active_at": life.active_at,
    }
    await connection.execute(_SAVE, values)


async def erase(connection: AsyncConnection, identities: Collection[int], *, at: float) -> None:
    """Delete all that lives have, and mark them as deleted `at`: their rows stay, to keep late records out."""
    for table in _OF_A_LIFE:
        await connection.execute(delete(table).where(table.c.life_id.in_(identities)))
    await connection.execute(update(lives).where(lives.c.id.in_(identities)).values(deleted_at=at, lineage="[]"))
