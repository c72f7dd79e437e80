"""Forgetting in what the feed has made: no word of a removed item stays in a happening, nor a summary that is gone.

What the feed has not read yet has lost such words already: they go with the transaction that archives the removal. Of
what only a back end is told, older texts of items that are there go too.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Integer, bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.items import storable
from conversation_actors.archive.tables import happenings, items, sessions
from conversation_actors.calls.happenings import MESSAGE_STORED, SESSION_RECORDED, TRANSCRIPTION_FINAL, TURN_COMPLETED
from conversation_actors.calls.item_fields import fields_in, text_of

_AT_ONCE = 500
_REWRITE = update(happenings).where(happenings.c.id == bindparam("of")).values(data=bindparam("rewritten"))
_REWRITE_SESSION = update(sessions).where(sessions.c.id == bindparam("of")).values(data=bindparam("rewritten"))
_PRESENT = select(items.c.item_id, items.c.data).where(
    items.c.life_id == bindparam("life_id"), items.c.item_id.in_(bindparam("names", expanding=True))
)
Told = Mapping[str, Any]
"""A happening's data."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What the entry `seq` took out: items of these ids, or everything (None)."""

    seq: int
    removed: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class _Forgetting:
    """What entries have taken out, and the items that are there, by the names under which they are stored."""

    forgotten: Sequence[Forgotten]
    present: Mapping[str, Told] = field(default_factory=dict)

    @property
    def is_cleared(self) -> bool:
        """Whether everything was taken out."""
        return any(one.removed is None for one in self.forgotten)

    def is_any_gone(self, ids: Collection[str]) -> bool:
        """Tell whether one of these items was taken out."""
        return any(one.removed is None or not one.removed.isdisjoint(ids) for one in self.forgotten)

    def of_record(self, told: Told) -> Told:
        """Return what is otherwise in the record of a call now."""
        return {"summary": None} if self.is_cleared and told["summary"] is not None else {}

    def of_turn(self, told: Told) -> Told:
        """Return what is otherwise in a turn now."""
        parts = (("user", told["user"]["item_ids"]), ("agent", [told["agent"]["item_id"]]))
        return {
            who: {**told[who], "text": None}
            for who, ids in parts
            if told[who]["text"] is not None and self.is_any_gone(ids)
        }

    def of_message(self, told: Told) -> Told:
        """Return what is otherwise in an item that was stored now: it has words only if it is there as it was."""
        message = told["message"]
        if message["text"] is None or self.present.get(storable(message["id"]), {}) == message["item"]:
            return {}
        return {"message": {**message, "text": None, "item": None}}

    def of_transcription(self, told: Told) -> Told:
        """Return what is otherwise in a transcription now: it has its text only if the message still has it."""
        present = self.present.get(storable(told["item_id"]))
        is_there = told["text"] is None or (present is not None and text_of(present) == told["text"])
        return {} if is_there else {"text": None}


_WITHOUT: Mapping[str, Callable[[_Forgetting, Told], Told]] = {
    SESSION_RECORDED: _Forgetting.of_record,
    TURN_COMPLETED: _Forgetting.of_turn,
    MESSAGE_STORED: _Forgetting.of_message,
    TRANSCRIPTION_FINAL: _Forgetting.of_transcription,
}
"""Types of happenings that have words."""
_WITH_WORDS = (
    select(happenings.c.id, happenings.c.type, happenings.c.data)
    .where(happenings.c.life_id == bindparam("life_id"), happenings.c.id > bindparam("after"))
    .where(happenings.c.type.in_(tuple(_WITHOUT)))
    .order_by(happenings.c.id)
    .limit(bindparam("most", type_=Integer))
)


async def forget(connection: AsyncConnection, life_id: int, forgotten: Sequence[Forgotten]) -> None:
    """Take out of a life's happenings and records, all of which are older, what entries have taken out."""
    last = 0
    while True:
        rows = (await connection.execute(_WITH_WORDS, {"life_id": life_id, "after": last, "most": _AT_ONCE})).all()
        told = [(number, kind, json.loads(text)) for number, kind, text in rows]
        forgetting = _Forgetting(forgotten, await _present(connection, life_id, told))
        changed = [
            {"of": number, "rewritten": json.dumps({**data, **gone})}
            for number, kind, data in told
            if (gone := _WITHOUT[kind](forgetting, data))
        ]
        if changed:
            await connection.execute(_REWRITE, changed)
        if len(rows) < _AT_ONCE:
            break
        last = rows[-1][0]
    if any(one.removed is None for one in forgotten):
        await _forget_summaries(connection, life_id)


async def _present(
    connection: AsyncConnection, life_id: int, told: Sequence[tuple[int, str, Told]]
) -> Mapping[str, Told]:
    """Return the items that a back end is told of in these happenings, and that are there."""
    ids = {data["message"]["id"] for _, kind, data in told if kind == MESSAGE_STORED}
    ids |= {data["item_id"] for _, kind, data in told if kind == TRANSCRIPTION_FINAL}
    if not ids:
        return {}
    found = await connection.execute(_PRESENT, {"life_id": life_id, "names": sorted(storable(one) for one in ids)})
    return {name: fields_in(data) for name, data in found}


async def _forget_summaries(connection: AsyncConnection, life_id: int) -> None:
    query = select(sessions.c.id, sessions.c.data).where(sessions.c.life_id == life_id)
    changed = [
        {"of": number, "rewritten": json.dumps({**data, "summary": None})}
        for number, text in (await connection.execute(query)).all()
        if (data := json.loads(text))["summary"] is not None
    ]
    if changed:
        await connection.execute(_REWRITE_SESSION, changed)
