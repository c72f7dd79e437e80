"""Conversations into the archive, from exports."""

from collections.abc import Sequence
from pathlib import Path

from conversation_actors.cli.extra import require_archive
from conversation_actors.settings import Settings

PROGRAM = "conversation-actors import"


async def run(files: Sequence[Path], *, dry_run: bool) -> str:
    """Check all files, then import them unless it is a dry run; return what was, or would be, done in one sentence.

    Raises `ConflictError`, before anything is written, if a conversation is there with other content.
    """
    require_archive()
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
    conflicts = "".join(f"\n  conflict: {one}" for one in plan.conflicts)
    return f"would import: {told}, {len(plan.conflicts)} in conflict{conflicts}"
