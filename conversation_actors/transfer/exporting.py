"""Conversations out of the archive, into files."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from conversation_actors.archive.copying import Chosen, Copies
from conversation_actors.archive.rows import Row
from conversation_actors.errors import ConversationNotFoundError, InvalidInputError
from conversation_actors.transfer.chat_context import ChatContextForm
from conversation_actors.transfer.export_file import ExportWriter
from conversation_actors.transfer.files import NewFile, file_name, naming
from conversation_actors.transfer.markdown import MarkdownForm


class Format(StrEnum):
    """What an export is written as."""

    JSONL = "jsonl"
    CHAT_CONTEXT = "chat-context"
    MARKDOWN = "markdown"


class Form(Protocol):
    """A form for one conversation in a file of its own."""

    suffix: str
    kinds: frozenset[str]
    only_latest: bool
    left_out: int

    def write(self, rows: AsyncIterator[Row]) -> AsyncIterator[bytes]:
        """Yield the file's bytes."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: `left_out` counts items, and parts of items, that the format has no place for."""

    conversations: int
    files: int
    bytes: int
    left_out: int = 0


def form_of(chosen: Format, conversation_id: str) -> Form:
    """Return a new form. JSON Lines is none: it has all conversations in one file."""
    makes: dict[Format, Callable[[], Form]] = {
        Format.CHAT_CONTEXT: ChatContextForm,
        Format.MARKDOWN: lambda: MarkdownForm(conversation_id),
    }
    return makes[chosen]()


async def export_one(copies: Copies, conversation_id: str, to: Path, chosen: Format) -> Exported:
    """Write one conversation into a file. Raises `ConversationNotFoundError` if the archive does not have it."""
    if not await copies.knows(conversation_id):
        message = f"conversation {conversation_id!r} is neither in Redis nor in the archive"
        raise ConversationNotFoundError(message)
    _require_file(to, "one conversation goes into one file")
    if chosen is Format.JSONL:
        return await _in_one_file(copies, _only(conversation_id), to)
    return await _in_its_own_file(copies, conversation_id, to, chosen)


async def export_all(copies: Copies, to: Path, chosen: Format) -> Exported:
    """Write every conversation: as JSON Lines into one file, else into a directory, each into a file of its own."""
    if chosen is Format.JSONL:
        _require_file(to, "all conversations go into one file as JSON Lines")
        return await _in_one_file(copies, copies.ids(), to)
    _make_directory(to)
    conversations = size = left_out = 0
    async for conversation_id in copies.ids():
        path = to / file_name(conversation_id, form_of(chosen, conversation_id).suffix)
        written = await _in_its_own_file(copies, conversation_id, path, chosen)
        conversations, size, left_out = conversations + 1, size + written.bytes, left_out + written.left_out
    return Exported(conversations, conversations, size, left_out)


async def _in_one_file(copies: Copies, ids: AsyncIterator[str], to: Path) -> Exported:
    with NewFile(to) as file:
        export = ExportWriter(file)
        async for conversation_id in ids:
            await export.add(conversation_id, copies.rows(conversation_id))
        export.finish()
    return Exported(export.conversations, 1, file.size)


async def _in_its_own_file(copies: Copies, conversation_id: str, to: Path, chosen: Format) -> Exported:
    form = form_of(chosen, conversation_id)
    rows = copies.rows(conversation_id, Chosen(kinds=form.kinds, only_latest=form.only_latest))
    with NewFile(to) as file:
        async for piece in form.write(rows):
            file.write(piece)
    return Exported(1, 1, file.size, form.left_out)


async def _only(conversation_id: str) -> AsyncIterator[str]:
    yield conversation_id


def _require_file(to: Path, reason: str) -> None:
    if to.is_dir():
        message = f"to: {to} is a directory; {reason}"
        raise InvalidInputError(message, field="to")


def _make_directory(to: Path) -> None:
    if to.exists() and not to.is_dir():
        message = f"to: {to} is a file; all conversations go into a directory, each into a file of its own"
        raise InvalidInputError(message, field="to")
    with naming(to):
        to.mkdir(parents=True, exist_ok=True, mode=0o700)
