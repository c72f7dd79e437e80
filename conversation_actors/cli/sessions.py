"""The records of calls, printed for people or as JSON."""

import json
from datetime import UTC, datetime, timedelta

from pydantic import TypeAdapter, ValidationError

from conversation_actors.archive.extra import require_extra
from conversation_actors.client.archive import ClientArchive
from conversation_actors.client.sessions import page
from conversation_actors.settings import Duration, Settings
from conversation_actors.values import refuse


async def run(
    conversation: str | None, user: str | None, *, since: str | None, until: str | None, limit: int, as_json: bool
) -> None:
    """Print the newest records. Raises what `ConversationClient.sessions` raises."""
    now = datetime.now(UTC)
    begin, end = moment(since, "since", now=now), moment(until, "until", now=now)
    require_extra()
    settings = Settings()
    archive = ClientArchive(settings)
    try:
        found = await page(
            archive, settings,
            conversation_id=conversation, user=user, since=begin, until=end, limit=limit, cursor=None,
        )  # fmt: skip
    finally:
        await archive.aclose()
    if as_json:
        document = {"sessions": [one.to_dict() for one in found.sessions], "has_more": found.next_cursor is not None}
        print(json.dumps(document, ensure_ascii=False))  # noqa: T201  # the interface
        return
    print("\n\n".join(one.to_text() for one in found.sessions) or "No call is recorded.")  # noqa: T201  # same
    if found.next_cursor is not None:
        print(f"\nThese are the newest {limit}; there are more.")  # noqa: T201  # same


def moment(given: str | None, field: str, *, now: datetime) -> datetime | None:
    """Read a time: in ISO 8601, of this machine's zone unless it names one, or as a duration before `now`."""
    if given is None:
        return None
    try:
        return datetime.fromisoformat(given).astimezone()
    except ValueError:
        pass
    try:
        ago: timedelta = TypeAdapter(Duration).validate_python(given)
        return now - ago
    except (ValidationError, OverflowError):
        refuse(field, f"expected a time such as 2026-11-28T09:00, or how long ago such as 24h or 7d, got {given!r}")
