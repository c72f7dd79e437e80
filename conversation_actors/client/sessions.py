"""The records of calls, for a client: checks what is asked for, and reads pages of them out of the archive."""

from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING

from conversation_actors.calls import SessionRecord
from conversation_actors.client.archive import ClientArchive
from conversation_actors.client.history import no_archive
from conversation_actors.settings import Settings
from conversation_actors.values import check_id, refuse

if TYPE_CHECKING:
    from conversation_actors.archive.sessions import SessionCursor, WantedSessions

MAX_SESSIONS = 1000
"""Records of a page at most."""


@dataclass(frozen=True, slots=True)
class SessionPage:
    """Records of calls, the newest first. `next_cursor` asks for those that follow; None: there are none."""

    sessions: tuple[SessionRecord, ...]
    next_cursor: str | None


async def page(
    archive: ClientArchive, settings: Settings, *, conversation_id: object, user: object, since: object, until: object,
    limit: object, cursor: object,
) -> SessionPage:  # fmt: skip
    """See `ConversationClient.sessions`."""
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_SESSIONS:
        refuse("limit", f"expected a whole number from 1 to {MAX_SESSIONS}, got {limit!r}")
    told = {
        "conversation_id": None if conversation_id is None else check_id(conversation_id, "conversation_id"),
        "user": None if user is None else check_id(user, "user"),
    }
    times = {"since": _seconds(since, "since"), "until": _seconds(until, "until")}
    if not archive.is_configured:
        raise no_archive()
    database = await archive.database()
    reading = import_module("conversation_actors.archive.sessions")  # imported with the database
    after: SessionCursor | None = None if cursor is None else reading.SessionCursor.decode(cursor)
    wanted: WantedSessions = reading.WantedSessions(int(limit), **told, **times, after=after)
    records, last = await reading.page_of_sessions(database, settings.tenant, wanted)
    return SessionPage(records, None if last is None else last.encode())


def _seconds(given: object, field: str) -> float | None:
    if given is None:
        return None
    if not isinstance(given, datetime):
        refuse(field, f"expected a datetime, got {type(given).__name__}")
    if given.tzinfo is None:
        refuse(field, "a datetime without a time zone may mean any hour; give it one, such as datetime.now(UTC)")
    return given.timestamp()
