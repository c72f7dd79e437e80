"""Conversations out of Redis and the archive, into files."""

from pathlib import Path

from conversation_actors.archive.extra import require_extra
from conversation_actors.errors import InvalidInputError
from conversation_actors.settings import Settings
from conversation_actors.values import check_id


async def run(conversation: str | None, *, every: bool, to: Path, chosen: str) -> str:
    """Export, and return what was done in one sentence."""
    if (conversation is None) == (not every):
        message = "conversation: give an id, or --all"
        raise InvalidInputError(message, field="conversation")
    if conversation is not None:
        conversation = check_id(conversation, "conversation")
    require_extra()
    from conversation_actors.transfer.exporting import Format, export_all, export_one  # noqa: PLC0415  # SQLAlchemy
    from conversation_actors.transfer.pair import open_pair  # noqa: PLC0415  # same

    form = Format(chosen)
    async with open_pair(Settings(), program="conversation-actors export") as pair:
        if conversation is None:
            await pair.catching_up.everything()
            done = await export_all(pair.copies, to, form)
        else:
            await pair.catching_up.one(conversation)
            done = await export_one(pair.copies, conversation, to, form)
    told = f"{_counted(done.conversations, 'conversation')} in {_counted(done.files, 'file')}, {done.bytes} bytes: {to}"
    return told + (f" ({done.left_out} items or parts of items have no place in {chosen})" if done.left_out else "")


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" + ("" if count == 1 else "s")
