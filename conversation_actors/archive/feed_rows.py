"""What the feed reads of lives, and what it writes of them."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Integer, Text, bindparam, exists, insert, null, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive import entries
from conversation_actors.archive.bulk import BulkInsert
from conversation_actors.archive.feed_forgetting import Forgotten, forget
from conversation_actors.archive.items import storable
from conversation_actors.archive.records import Row
from conversation_actors.archive.tables import feeds, happenings, lives, session_people, sessions, superseded
from conversation_actors.calls import Happening
from conversation_actors.calls.happenings import SESSION_RECORDED

_PAGE, _BYTES = 50, 4 << 20
"""Entries that are read at a time, and the bytes after which no more are read in one step."""
_OF_A_LIFE = ("life_id", "tenant", "conversation_id")
_ADD_HAPPENINGS = BulkInsert(
    happenings,
    (*_OF_A_LIFE, "event_id", "type", "at", "call_id", "seq", "place", "data"),
    lambda rows: rows.on_conflict_do_nothing(index_elements=["life_id", "event_id"]),
)
_ADD_SESSIONS = BulkInsert(
    sessions,
    (*_OF_A_LIFE, "call_id", "started_at", "ended_at", "data"),
    lambda rows: rows.on_conflict_do_nothing(index_elements=["tenant", "conversation_id", "call_id"]),
)
_ADD_PERSON = insert(session_people).from_select(
    ["session_id", "identity"],
    select(sessions.c.id, bindparam("who", type_=Text)).where(
        sessions.c.tenant == bindparam("of_tenant"),
        sessions.c.conversation_id == bindparam("of_conversation"),
        sessions.c.call_id == bindparam("of_call"),
        ~exists().where(
            session_people.c.session_id == sessions.c.id, session_people.c.identity == bindparam("who", type_=Text)
        ),
    ),
)
_SAVE_DUE = BulkInsert(
    feeds,
    (*_OF_A_LIFE, "state", "due_at"),
    lambda rows: rows.on_conflict_do_update(
        index_elements=["life_id"], set_={"state": rows.excluded.state, "due_at": rows.excluded.due_at}
    ),
)
_SAVE_AT_REST = BulkInsert(
    feeds,
    (*_OF_A_LIFE, "state"),
    lambda rows: rows.on_conflict_do_update(
        index_elements=["life_id"], set_={"state": rows.excluded.state, "due_at": null()}
    ),
)
_OF_CONVERSATIONS = (
    lives.c.tenant == bindparam("tenant"),
    lives.c.conversation_id.in_(bindparam("conversations", expanding=True)),
    lives.c.deleted_at.is_(None),
)
_FIND = (
    select(
        lives.c.id, lives.c.conversation_id, lives.c.life, entries.READ_TO.label("read_to"), lives.c.seq, lives.c.quiet,
        lives.c.reported_from, lives.c.ticks, feeds.c.state, feeds.c.due_at,
    )
    .outerjoin(feeds, feeds.c.life_id == lives.c.id)
    .where(*_OF_CONVERSATIONS, or_(lives.c.fed < lives.c.seq, feeds.c.due_at <= bindparam("now")))
    .order_by(lives.c.id)
)  # fmt: skip
_ASIDE = (
    select(
        superseded.c.id, superseded.c.life_id,
        superseded.c.seq, superseded.c.epoch, superseded.c.at, superseded.c.event, superseded.c.data,
    )
    .where(superseded.c.life_id.in_(bindparam("identities", expanding=True)), superseded.c.is_unread)
    .order_by(superseded.c.id)
)  # fmt: skip
_IS_READ = (
    update(superseded)
    .where(superseded.c.life_id == bindparam("of"), superseded.c.id <= bindparam("through"), superseded.c.is_unread)
    .values(is_unread=False)
)
_LOCK = select(lives.c.id, lives.c.ticks).where(*_OF_CONVERSATIONS).order_by(lives.c.id).with_for_update()
_MOVE = (
    update(lives)
    .where(lives.c.id == bindparam("of"))
    .values(fed=bindparam("position"), reported_from=bindparam("reported"), ticks=lives.c.ticks + 1)
)
_AHEAD = (
    select(lives.c.id, lives.c.conversation_id)
    .where(lives.c.tenant == bindparam("tenant"), lives.c.fed < lives.c.seq, lives.c.id > bindparam("after"))
    .where(lives.c.deleted_at.is_(None))
    .order_by(lives.c.id)
    .limit(bindparam("most", type_=Integer))
)
_DUE = (
    select(feeds.c.due_at, feeds.c.conversation_id)
    .where(feeds.c.tenant == bindparam("tenant"), feeds.c.due_at <= bindparam("now"))
    .where(feeds.c.due_at > bindparam("after"))
    .order_by(feeds.c.due_at)
    .limit(bindparam("most", type_=Integer))
)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the feed stands in a life: it has read up to `fed`, and that has come to `state`; None: nothing is read.

    The archive has the life up to `seq`. Nobody is told of what happened up to `quiet`, and a back end is told of what
    is `reported_from` there on, which is None if the last step was one that tells it nothing. What is made of all this
    counts only as long as `ticks` is the same.
    """

    id: int
    conversation_id: str
    life: str
    fed: int
    seq: int
    quiet: int
    reported_from: int | None
    ticks: int
    state: str | None
    is_due: bool


@dataclass(frozen=True, slots=True)
class News:
    """The entries that follow a cursor, in order. `is_whole`: nothing follows them.

    Others were set `aside` and have not been read; they have the numbers of their rows. `is_cut`: there may be more.
    """

    cursor: Cursor
    aside: Sequence[tuple[int, Row]]
    rows: Sequence[Row]
    is_whole: bool
    is_cut: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to be read."""
        return not self.rows and not self.aside and self.cursor.fed == self.cursor.seq


@dataclass(slots=True)
class Step:
    """What reading on from a `cursor` has come to: up to where it has read, the state then, and what is to be told."""

    cursor: Cursor
    fed: int
    aside: int = 0
    """The number of the last entry that was set aside and is read now."""
    state: str = ""
    due: float | None = None
    told: list[Happening] = field(default_factory=list)
    forgotten: list[Forgotten] = field(default_factory=list)
    is_reported: bool = False
    """Whether a back end is told what only it is told."""

    @property
    def reported_from(self) -> int | None:
        """From where on a back end was told of everything: what it has missed once, it does not get later."""
        if not self.is_reported:
            return None
        return self.cursor.fed + 1 if self.cursor.reported_from is None else self.cursor.reported_from


async def find(connection: AsyncConnection, tenant: str, conversations: Collection[str], *, now: float) -> list[Cursor]:
    """Return the lives of conversations that have entries to be read, or something that is due, the oldest first."""
    told = {"tenant": tenant, "conversations": sorted(conversations), "now": now}
    return [
        Cursor(number, name, life, fed, seq, quiet, reported, ticks, state, at is not None and at <= now)
        for number, name, life, fed, seq, quiet, reported, ticks, state, at in await connection.execute(_FIND, told)
    ]


async def read_on(connection: AsyncConnection, cursors: Sequence[Cursor], *, most: int) -> list[News]:
    """Return what each of these lives has: `most` entries of each at most, and not many more bytes than `_BYTES`."""
    identities, width = [cursor.id for cursor in cursors], min(_PAGE, most)
    aside = await _aside(connection, identities, most=most)
    first = await entries.unread(connection, identities, most=width)
    return [
        await _read_on(
            connection, cursor, aside.get(cursor.id, ()), first[cursor.id], reached=cursor.fed + width, most=most
        )
        for cursor in cursors
    ]


async def _read_on(
    connection: AsyncConnection, cursor: Cursor, aside: Sequence[tuple[int, Row]], rows: list[Row], *,
    reached: int, most: int,
) -> News:  # fmt: skip
    """Return what a life has, of which `rows` were read: all up to the position that is `reached`."""
    size, fed = sum(len(row.data) for row in rows), min(reached, cursor.seq)
    is_cut = len(aside) >= most
    while fed < cursor.seq and len(rows) < most and size < _BYTES:
        wanted = min(_PAGE, most - len(rows))
        page = await entries.following(connection, cursor.id, fed, through=cursor.seq, most=wanted)
        rows += page
        if len(page) < wanted:
            return News(cursor, aside, rows, is_whole=True, is_cut=is_cut)
        fed, size = page[-1].seq, size + sum(len(row.data) for row in page)
    return News(cursor, aside, rows, is_whole=fed == cursor.seq, is_cut=is_cut)


async def _aside(
    connection: AsyncConnection, identities: Sequence[int], *, most: int
) -> Mapping[int, Sequence[tuple[int, Row]]]:
    """Return the first entries of each life that were set aside before the feed had read them, with their numbers."""
    found: dict[int, list[tuple[int, Row]]] = {}
    for number, life_id, *row in await connection.execute(_ASIDE, {"identities": identities}):
        here = found.setdefault(life_id, [])
        if len(here) < most:
            here.append((number, Row(*row)))
    return found


async def ahead(connection: AsyncConnection, tenant: str, *, after: int, most: int) -> Sequence[tuple[int, str]]:
    """Return lives with entries to be read, by the numbers of their rows, and their conversations."""
    told = {"tenant": tenant, "after": after, "most": most}
    return [(number, name) for number, name in await connection.execute(_AHEAD, told)]


async def due(
    connection: AsyncConnection, tenant: str, *, now: float, after: float, most: int
) -> Sequence[tuple[float, str]]:
    """Return when something was due, and in which conversation."""
    told = {"tenant": tenant, "now": now, "after": after, "most": most}
    return [(at, name) for at, name in await connection.execute(_DUE, told)]


async def write(connection: AsyncConnection, tenant: str, steps: Sequence[Step]) -> list[Step]:
    """Write what steps have come to, and return those that count: nobody has changed what they began with.

    The lives' rows are locked first, so that the numbers of a conversation's happenings rise in the order of commits.
    """
    names = sorted({step.cursor.conversation_id for step in steps})
    ticks: Mapping[int, int] = {
        row.id: row.ticks for row in await connection.execute(_LOCK, {"tenant": tenant, "conversations": names})
    }
    good = [step for step in steps if ticks.get(step.cursor.id) == step.cursor.ticks]
    if not good:
        return []
    moves = [{"of": one.cursor.id, "position": one.fed, "reported": one.reported_from} for one in good]
    await connection.execute(_MOVE, moves)
    for step in good:
        if step.forgotten:  # first: what is written below has no such words
            await forget(connection, step.cursor.id, step.forgotten)
    aside = [{"of": step.cursor.id, "through": step.aside} for step in good if step.aside]
    if aside:
        await connection.execute(_IS_READ, aside)
    whose = {id(step): (step.cursor.id, tenant, step.cursor.conversation_id) for step in good}
    at_rest = [step for step in good if step.due is None]
    await _SAVE_AT_REST.execute(connection, [(*whose[id(step)], step.state) for step in at_rest])
    await _SAVE_DUE.execute(
        connection, [(*whose[id(step)], step.state, step.due) for step in good if step.due is not None]
    )
    await _ADD_HAPPENINGS.execute(
        connection,
        [
            (*whose[id(step)], one.id, one.type, one.at, one.call_id, one.seq, one.place, json.dumps(one.data))
            for step in good
            for one in step.told
            if one.seq > step.cursor.quiet
        ],
    )
    for step in good:
        await _record(connection, whose[id(step)], [one.data for one in step.told if one.type == SESSION_RECORDED])
    return good


async def _record(
    connection: AsyncConnection, whose: tuple[int, str, str], records: Sequence[Mapping[str, Any]]
) -> None:
    """Add the records of a life's calls, with the people who took part."""
    await _ADD_SESSIONS.execute(
        connection,
        [(*whose, one["call_id"], one["started_at"], one["ended_at"], json.dumps(one)) for one in records],
    )
    people = [
        {"who": who, "of_tenant": whose[1], "of_conversation": whose[2], "of_call": one["call_id"]}
        for one in records
        for who in dict.fromkeys(storable(person["identity"]) for person in one["participants"])
    ]
    if people:
        await connection.execute(_ADD_PERSON, people)
