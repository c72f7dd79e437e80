"""Conversations into the archive, from exports and from other programs' lists in Redis."""

import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from conversation_actors.archive.extra import require_extra
from conversation_actors.errors import InvalidInputError
from conversation_actors.log_lines import harmless
from conversation_actors.settings import Settings

PROGRAM = "conversation-actors import"
_INTERVAL = 0.5
"""Seconds between two looks at lists that are followed."""


async def from_files(files: Sequence[Path], *, dry_run: bool) -> str:
    """Check all files, then import them unless it is a dry run; return what was, or would be, done in one sentence.

    Raises `ConflictError`, before anything is written, if a conversation is there with other content.
    """
    require_extra()
    from conversation_actors.transfer.importing import Importer  # noqa: PLC0415  # SQLAlchemy
    from conversation_actors.transfer.pair import open_pair  # noqa: PLC0415  # same

    async with open_pair(Settings(), program=PROGRAM) as pair:
        importer = Importer(pair.copies, pair.store)
        plan = await importer.plan(files)
        if not dry_run:
            plan.require_no_conflict()
            plan = await importer.add(files)
    told = f"{plan.new} new ({plan.rows} rows), {plan.there} there already"
    if not dry_run:
        return f"imported: {told}"
    return f"would import: {told}, {len(plan.conflicts)} in conflict{_listed(plan.conflicts)}"


async def from_lists(pattern: str, *, dry_run: bool, follow: bool) -> tuple[str, bool]:
    """Import lists, or follow them until SIGINT or SIGTERM; return what was done, and whether all could be read.

    What somebody should look at goes to standard error, as soon as it is found.
    """
    require_extra()
    from conversation_actors.store.redis_lists import ListPattern, RedisLists  # noqa: PLC0415  # redis-py
    from conversation_actors.transfer.from_redis_lists import ListImporter  # noqa: PLC0415  # SQLAlchemy
    from conversation_actors.transfer.pair import open_pair  # noqa: PLC0415  # same

    try:
        chosen = ListPattern(pattern)
    except ValueError as error:
        message = f"from-redis-lists: {error}"
        raise InvalidInputError(message, field="from-redis-lists") from None
    settings = Settings()
    async with open_pair(settings, program=PROGRAM) as pair:
        lists = RedisLists(settings)
        importer = ListImporter(
            lists,
            chosen,
            store=pair.store,
            copies=pair.copies,
            writer=pair.writer,
            limits=settings.history.limits(),
            tell=_tell,
        )
        try:
            if dry_run:
                done = await importer.plan()
            elif follow:
                done = await importer.follow(_stopped_by_a_signal(), interval=_INTERVAL)
            else:
                done = await importer.once()
        finally:
            await lists.aclose()
    told = f"{done.elements} elements of {done.lists} lists, {done.unreadable} of them unreadable"
    more = f"; {done.left_out} lists left out" if done.left_out else ""
    lost = f"; {done.broken} times a list lost elements unread" if done.broken else ""
    is_whole = not (done.unreadable or done.broken or done.left_out)
    return f"{'would import' if dry_run else 'imported'}: {told}{more}{lost}{_listed(done.conflicts)}", is_whole


def _stopped_by_a_signal() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _listed(conflicts: Sequence[str]) -> str:
    return "".join(f"\n  conflict: {one}" for one in conflicts)


def _tell(sentence: str) -> None:
    print(f"{PROGRAM}: {harmless(sentence)}", file=sys.stderr, flush=True)  # noqa: T201  # the interface
