"""Forgetting in what the feed has made: no word of a removed item stays in a happening, nor a summary that is gone.

What the feed has not read yet has lost such words already: they go with the transaction that archives the removal.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Integer, bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.tables import happenings, sessions
from conversation_actors.calls.happenings import SESSION_RECORDED, TURN_COMPLETED

_AT_ONCE = 500
_WITH_WORDS = (
    select(happenings.c.id, happenings.c.type, happenings.c.data)
    .where(happenings.c.life_id == bindparam("life_id"), happenings.c.id > bindparam("after"))
    .where(happenings.c.type.in_((TURN_COMPLETED, SESSION_RECORDED)))
    .order_by(happenings.c.id)
    .limit(bindparam("most", type_=Integer))
)
_REWRITE = update(happenings).where(happenings.c.id == bindparam("of")).values(data=bindparam("rewritten"))
_REWRITE_SESSION = update(sessions).where(sessions.c.id == bindparam("of")).values(data=bindparam("rewritten"))


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What the entry `seq` took out: items of these ids, or everything (None)."""

    seq: int
    removed: frozenset[str] | None


async def forget(connection: AsyncConnection, life_id: int, forgotten: Sequence[Forgotten]) -> None:
    """Take out of a life's happenings and records, all of which are older, what entries have taken out."""
    last = 0
    while True:
        rows = (await connection.execute(_WITH_WORDS, {"life_id": life_id, "after": last, "most": _AT_ONCE})).all()
        changed = [
            {"of": number, "rewritten": json.dumps(data)}
            for number, kind, text in rows
            if (data := _without(kind, json.loads(text), forgotten)) is not None
        ]
        if changed:
            await connection.execute(_REWRITE, changed)
        if len(rows) < _AT_ONCE:
            break
        last = rows[-1][0]
    if any(one.removed is None for one in forgotten):
        await _forget_summaries(connection, life_id)


def _without(kind: str, told: Mapping[str, Any], forgotten: Sequence[Forgotten]) -> dict[str, Any] | None:
    """Return a happening's data without what is forgotten; None if it has nothing of that."""
    if kind == SESSION_RECORDED:
        is_gone = any(one.removed is None for one in forgotten) and told["summary"] is not None
        return {**told, "summary": None} if is_gone else None
    if kind != TURN_COMPLETED:
        return None
    gone = {
        who: {**said, "text": None}
        for who, said, ids in (
            ("user", told["user"], told["user"]["item_ids"]),
            ("agent", told["agent"], [told["agent"]["item_id"]]),
        )
        if said["text"] is not None and any(one.removed is None or not one.removed.isdisjoint(ids) for one in forgotten)
    }
    return {**told, **gone} if gone else None


async def _forget_summaries(connection: AsyncConnection, life_id: int) -> None:
    query = select(sessions.c.id, sessions.c.data).where(sessions.c.life_id == life_id)
    changed = [
        {"of": number, "rewritten": json.dumps({**data, "summary": None})}
        for number, text in (await connection.execute(query)).all()
        if (data := json.loads(text))["summary"] is not None
    ]
    if changed:
        await connection.execute(_REWRITE_SESSION, changed)
