"""Reading the records of calls: a page of them, the newest first."""

import json
import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from sqlalchemy import Select, select, tuple_

from conversation_actors.archive.database import Database
from conversation_actors.archive.items import storable
from conversation_actors.archive.page_cursor import decoded, encoded, refuse_cursor, refuse_version
from conversation_actors.archive.tables import session_people, sessions
from conversation_actors.calls import SessionRecord
from conversation_actors.errors import CorruptStateError, InvalidInputError

_VERSION = 1
_PAGES = "sessions"


class SessionCursor(NamedTuple):
    """The last record of a page: when its call began, and the number of its row."""

    started_at: float
    number: int

    def encode(self) -> str:
        """Return it as text of letters, digits, ``-`` and ``_``."""
        return encoded([_PAGES, _VERSION, *self])

    @classmethod
    def decode(cls, given: object) -> Self:
        """Read what `encode` made. Raises `InvalidInputError` for anything else."""
        kind, version, started_at, number = decoded(given, count=4, pages_of=_PAGES)
        is_known = kind == _PAGES and type(version) is int and type(number) is int
        if not is_known or type(started_at) is not float or not math.isfinite(started_at) or not 0 <= number < 1 << 63:
            refuse_cursor(_PAGES)
        if version != _VERSION:
            refuse_version(version)
        return cls(started_at, number)


@dataclass(frozen=True, slots=True)
class WantedSessions:
    """Which records are wanted: of one conversation, of one person, of calls that began in a time. None: any."""

    limit: int
    conversation_id: str | None = None
    user: str | None = None
    since: float | None = None
    until: float | None = None
    """The calls that began then are not among them."""
    after: SessionCursor | None = None


async def page_of_sessions(
    database: Database, tenant: str, wanted: WantedSessions
) -> tuple[tuple[SessionRecord, ...], SessionCursor | None]:
    """Return the records that are wanted, the newest first, and where the next page begins if there is one.

    Raises as `Database.reading` does, and `CorruptStateError` with table and row for a record that cannot be read.
    """
    async with database.reading("reading sessions") as connection:
        rows = (await connection.execute(_query(tenant, wanted))).all()
    page = rows[: wanted.limit]
    last = SessionCursor(page[-1].started_at, page[-1].id) if len(rows) > wanted.limit else None
    return tuple(_record(row.id, row.data) for row in page), last


def _query(tenant: str, wanted: WantedSessions) -> Select[Any]:
    query = select(sessions.c.id, sessions.c.started_at, sessions.c.data).where(sessions.c.tenant == tenant)
    if wanted.conversation_id is not None:
        query = query.where(sessions.c.conversation_id == wanted.conversation_id)
    if wanted.user is not None:
        here = session_people.c.session_id == sessions.c.id
        query = query.join(session_people, here).where(session_people.c.identity == storable(wanted.user))
    if wanted.since is not None:
        query = query.where(sessions.c.started_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(sessions.c.started_at < wanted.until)
    order = sessions.c.started_at, sessions.c.id
    if wanted.after is not None:
        query = query.where(tuple_(*order) < tuple_(*wanted.after))
    return query.order_by(*(column.desc() for column in order)).limit(wanted.limit + 1)


def _record(number: int, data: str) -> SessionRecord:
    try:
        return SessionRecord.from_dict(json.loads(data))
    except (ValueError, TypeError, InvalidInputError) as error:
        key = f"archive_sessions.data of id {number}"
        message = f"{key}: not a session's record: {error}"
        raise CorruptStateError(message, key=key, position=0) from None
