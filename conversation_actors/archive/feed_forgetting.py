"""Forgetting in what the feed has made: no word of a removed item stays in a happening, nor a summary that is gone.

What the feed has not read yet has lost such words already: they go with the transaction that archives the removal.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Integer, bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.tables import happenings, sessions
from conversation_actors.calls.happenings import MESSAGE_STORED, SESSION_RECORDED, TRANSCRIPTION_FINAL, TURN_COMPLETED

_AT_ONCE = 500
_REWRITE = update(happenings).where(happenings.c.id == bindparam("of")).values(data=bindparam("rewritten"))
_REWRITE_SESSION = update(sessions).where(sessions.c.id == bindparam("of")).values(data=bindparam("rewritten"))
Told = Mapping[str, Any]
"""A happening's data."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What the entry `seq` took out: items of these ids, or everything (None)."""

    seq: int
    removed: frozenset[str] | None


def _is_any_gone(ids: Collection[str], forgotten: Sequence[Forgotten]) -> bool:
    """Tell whether one of these items was taken out."""
    return any(one.removed is None or not one.removed.isdisjoint(ids) for one in forgotten)


def _of_record(told: Told, forgotten: Sequence[Forgotten]) -> Told:
    is_cleared = any(one.removed is None for one in forgotten)
    return {"summary": None} if is_cleared and told["summary"] is not None else {}


def _of_turn(told: Told, forgotten: Sequence[Forgotten]) -> Told:
    parts = (("user", told["user"]["item_ids"]), ("agent", [told["agent"]["item_id"]]))
    return {
        who: {**told[who], "text": None}
        for who, ids in parts
        if told[who]["text"] is not None and _is_any_gone(ids, forgotten)
    }


def _of_message(told: Told, forgotten: Sequence[Forgotten]) -> Told:
    message = told["message"]
    is_there = message["text"] is not None or message["item"] is not None
    is_gone = is_there and _is_any_gone([message["id"]], forgotten)
    return {"message": {**message, "text": None, "item": None}} if is_gone else {}


def _of_transcription(told: Told, forgotten: Sequence[Forgotten]) -> Told:
    return {"text": None} if told["text"] is not None and _is_any_gone([told["item_id"]], forgotten) else {}


_FORGETTING: Mapping[str, Callable[[Told, Sequence[Forgotten]], Told]] = {
    SESSION_RECORDED: _of_record,
    TURN_COMPLETED: _of_turn,
    MESSAGE_STORED: _of_message,
    TRANSCRIPTION_FINAL: _of_transcription,
}
"""Types of happenings that have words, and what takes the place of those that are gone."""
_WITH_WORDS = (
    select(happenings.c.id, happenings.c.type, happenings.c.data)
    .where(happenings.c.life_id == bindparam("life_id"), happenings.c.id > bindparam("after"))
    .where(happenings.c.type.in_(tuple(_FORGETTING)))
    .order_by(happenings.c.id)
    .limit(bindparam("most", type_=Integer))
)


async def forget(connection: AsyncConnection, life_id: int, forgotten: Sequence[Forgotten]) -> None:
    """Take out of a life's happenings and records, all of which are older, what entries have taken out."""
    last = 0
    while True:
        rows = (await connection.execute(_WITH_WORDS, {"life_id": life_id, "after": last, "most": _AT_ONCE})).all()
        changed = list[dict[str, Any]]()
        for number, kind, text in rows:
            told = json.loads(text)
            if gone := _FORGETTING[kind](told, forgotten):
                changed.append({"of": number, "rewritten": json.dumps({**told, **gone})})
        if changed:
            await connection.execute(_REWRITE, changed)
        if len(rows) < _AT_ONCE:
            break
        last = rows[-1][0]
    if any(one.removed is None for one in forgotten):
        await _forget_summaries(connection, life_id)


async def _forget_summaries(connection: AsyncConnection, life_id: int) -> None:
    query = select(sessions.c.id, sessions.c.data).where(sessions.c.life_id == life_id)
    changed = [
        {"of": number, "rewritten": json.dumps({**data, "summary": None})}
        for number, text in (await connection.execute(query)).all()
        if (data := json.loads(text))["summary"] is not None
    ]
    if changed:
        await connection.execute(_REWRITE_SESSION, changed)
