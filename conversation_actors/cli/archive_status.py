"""How far the archive is, printed for people or as JSON."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from rich.console import Console

from conversation_actors.archive.extra import require_extra
from conversation_actors.log_lines import harmless
from conversation_actors.settings import Settings
from conversation_actors.values import check_id

if TYPE_CHECKING:
    from conversation_actors.archive.status import ArchiveStatus, LifeArchived

_SHOWN = 20
"""Conversations that are printed for people; JSON has all."""
_PATIENCE = timedelta(seconds=10)


async def run(conversation_id: str | None, *, as_json: bool) -> None:
    """Print it. Raises `ConversationError`."""
    if conversation_id is not None:
        check_id(conversation_id, "conversation_id")
    require_extra()
    from conversation_actors.archive import service, status  # noqa: PLC0415  # SQLAlchemy takes its time

    settings = Settings()
    async with service.opened(settings, program="conversation-actors archive status", patience=_PATIENCE) as parts:
        found = await status.status_of(parts, tenant=settings.tenant, conversation_id=conversation_id)
    told = asdict(found)
    if as_json:
        print(json.dumps(told, ensure_ascii=False))  # noqa: T201  # the interface
        return
    console = Console(highlight=False, soft_wrap=True)
    for line in _lines(found, conversation_id):
        console.print(harmless(line), markup=False)


def _lines(found: "ArchiveStatus", conversation_id: str | None) -> Iterator[str]:
    lag = found.lag
    of = "" if conversation_id is not None else f" of {lag.conversations} conversations"
    yield f"waiting     {lag.records} entries{of}, {lag.bytes} bytes, the oldest for {_seconds(lag.seconds)}"
    if conversation_id is None:
        most = sorted(found.waiting.items(), key=lambda one: -one[1])
        yield from (f"  {count:>8}  {name}" for name, count in most[:_SHOWN])
        if len(most) > _SHOWN:
            yield f"            … and {len(most) - _SHOWN} conversations more (--json prints all)"
    yield f"given up    {lag.given_up} entries, because too much waited in Redis"
    if conversation_id is None:
        yield f"archived    {found.conversations} conversations, with {found.gaps} gaps"
    elif not found.lives:
        yield "archived    nothing of this conversation"
    for life in found.lives:
        yield from _life(life)
    yield f"migration   {found.migration}, the newest of this version"


def _life(life: "LifeArchived") -> Iterator[str]:
    deleted = ", deleted" if life.is_deleted else ""
    until = f"the last at {_when(life.active_at)}{deleted}"
    yield f"archived    life {life.life}: seq {life.start + 1} to {life.seq}, {until}"
    for gap in life.gaps:
        to = "" if gap.to_seq is None else f" to {gap.to_seq}"
        yield f"  gap       from {gap.from_seq}{to}: {gap.reason}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))  # noqa: PLR2004  # a minute


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(sep=" ", timespec="seconds")
