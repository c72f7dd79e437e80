"""What the archive has of a conversation: its rows, read by a connection of the test's own."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, select

from conversation_actors.archive import tables


@dataclass(frozen=True, slots=True)
class Archived:
    """The rows of one conversation, of all its lives; those of entries and items in order."""

    lives: list[Any]
    entries: list[Any]
    items: list[Any]
    gaps: list[Any]
    superseded: list[Any]
    checkpoints: list[Any]


def archived(connection: Connection, conversation_id: str) -> Archived:
    """Read all rows of a conversation of the default tenant."""

    def rows(table: Table, *order: Any) -> list[Any]:
        of_life = table.join(tables.lives, tables.lives.c.id == table.c.life_id)
        query = select(table).select_from(of_life).where(tables.lives.c.conversation_id == conversation_id)
        return list(connection.execute(query.order_by(table.c.life_id, *order)))

    entries, items = tables.entries, tables.items
    lives = select(tables.lives).where(tables.lives.c.conversation_id == conversation_id).order_by(tables.lives.c.id)
    return Archived(
        lives=list(connection.execute(lives)),
        entries=rows(entries, entries.c.seq),
        items=rows(items, items.c.seq, items.c.place),
        gaps=rows(tables.gaps),
        superseded=rows(tables.superseded),
        checkpoints=rows(tables.checkpoints),
    )
