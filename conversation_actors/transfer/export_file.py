"""An export as a file: written line by line, and read with everything checked that it says of itself."""

from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, Self

from conversation_actors.archive.rows import CHECKPOINT, COLUMNS, LIFE, ORDER, PICTURE, Column, Row
from conversation_actors.errors import CorruptStateError, IncompatibleVersionError, InvalidInputError
from conversation_actors.transfer.files import NewFile, naming
from conversation_actors.transfer.lines import (
    CONVERSATION,
    END,
    FORMAT,
    HEADER,
    TRAILER,
    VERSION,
    line_of,
    parse_line,
    row_line,
    row_of,
)
from conversation_actors.values import check_id

MAX_LINE = 256 << 20
"""Bytes of one line at most: what is longer is no line of ours."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A kind of file: its name, the version that is written, and the rows that may be in it.

    `last` are kinds of rows that come after all others of a conversation, in this order.
    """

    format: str
    version: int
    columns: Mapping[str, Mapping[str, Column]]
    last: tuple[str, ...] = ()

    def after(self, kind: str) -> Collection[str]:
        """Return the kinds of rows that may follow one of this kind; CONVERSATION is the beginning."""
        if kind in self.last:
            return self.last[self.last.index(kind) :]
        if kind == PICTURE:
            return (PICTURE, *self.last)
        if kind == CONVERSATION:
            return (LIFE, PICTURE, *self.last)
        following = ORDER[0 if kind == LIFE else ORDER.index(kind) + (kind == CHECKPOINT) :]
        return (*following, LIFE, PICTURE, *self.last)


EXPORT = Layout(FORMAT, VERSION, COLUMNS)


class Tally:
    """Counts lines, and digests them."""

    def __init__(self) -> None:
        """None yet."""
        self.lines, self._digest = 0, sha256()

    def add(self, line: bytes) -> None:
        """Count one line."""
        self.lines += 1
        self._digest.update(line)

    @property
    def sha256(self) -> str:
        """The digest of all lines so far."""
        return self._digest.hexdigest()

    def copy(self) -> Self:
        """Return one that counts on by itself."""
        twin = type(self)()
        twin.lines, twin._digest = self.lines, self._digest.copy()  # noqa: SLF001  # one of its own class
        return twin


def tally_of(conversation_id: str) -> Tally:
    """Return the tally of a conversation that has no rows yet."""
    tally = Tally()
    tally.add(line_of(CONVERSATION, {"id": conversation_id}))
    return tally


async def digest_of(conversation_id: str, rows: AsyncIterator[Row]) -> str | None:
    """Return the digest that an export of these rows has; None if there are none."""
    tally, is_empty = tally_of(conversation_id), True
    async for row in rows:
        tally.add(row_line(row, COLUMNS))
        is_empty = False
    return None if is_empty else tally.sha256


class ExportWriter:
    """Writes an export: conversations in the order of their ids, then the trailer."""

    def __init__(self, file: NewFile, layout: Layout = EXPORT) -> None:
        """Begin the file."""
        self._file, self._layout, self._whole = file, layout, Tally()
        self.conversations = self.rows = 0
        self._write(line_of(HEADER, {"format": layout.format, "version": layout.version}))

    async def add(self, conversation_id: str, rows: AsyncIterator[Row]) -> bool:
        """Write one conversation; False, and nothing is written, if it has no rows.

        If `rows` raises, nothing of the conversation is in the file, and it may be added again.
        """
        size, whole, before = self._file.size, self._whole.copy(), self.rows
        try:
            return await self._add(conversation_id, rows)
        except BaseException:
            self._file.cut(size)
            self._whole, self.rows = whole, before
            raise

    async def _add(self, conversation_id: str, rows: AsyncIterator[Row]) -> bool:
        tally, is_begun = tally_of(conversation_id), False
        async for row in rows:
            if not is_begun:
                self._write(line_of(CONVERSATION, {"id": conversation_id}))
                is_begun = True
            line = row_line(row, self._layout.columns)
            tally.add(line)
            self._write(line)
            self.rows += 1
        if is_begun:
            ended = {"id": conversation_id, "lines": tally.lines, "sha256": tally.sha256}
            self._write(line_of(END, ended))
            self.conversations += 1
        return is_begun

    def finish(self) -> None:
        """Write the trailer, without which the file is no export."""
        whole = {"conversations": self.conversations, "lines": self._whole.lines, "sha256": self._whole.sha256}
        self._file.write(line_of(TRAILER, whole))

    def _write(self, line: bytes) -> None:
        self._whole.add(line)
        self._file.write(line)


@dataclass(frozen=True, slots=True)
class Begun:
    """A conversation begins."""

    conversation_id: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A conversation is complete, and its digest is this."""

    conversation_id: str
    sha256: str


Part = Begun | Row | Ended


def read_export(path: Path, layout: Layout = EXPORT) -> Iterator[Part]:
    """Yield the parts of an export, each once it is checked; what is left out at the end is noticed there.

    Raises `InvalidInputError` if the file is no export, `IncompatibleVersionError` if a newer version wrote it,
    `CorruptStateError` with the byte if it is damaged or cut off, and `TransferFileError` if it cannot be read.
    """
    with naming(path), path.open("rb") as file:
        yield from _Reader(path, file, layout).parts()


class _Reader:
    def __init__(self, path: Path, file: BinaryIO, layout: Layout) -> None:
        self._path, self._file, self._layout, self._at = path, file, layout, 0
        self._whole, self._of_one = Tally(), Tally()
        self._id: str | None = None
        self._last: bytes = b""
        self._kinds: Collection[str] = ()
        """The kinds that may come now, of the conversation that has begun."""

    def parts(self) -> Iterator[Part]:
        self._header()
        conversations = 0
        while True:
            line, kind, fields = self._next()
            if kind == TRAILER:
                self._trailer(fields, conversations)
                return
            if kind == CONVERSATION:
                yield self._begin(line, fields)
                conversations += 1
            elif kind == END:
                yield self._end(fields)
            elif kind in self._layout.columns:
                yield self._row(line, kind, fields)
            else:
                self._damaged(f"a line of the kind {kind!r}, which is not known")
            self._whole.add(line)
            self._at += len(line)

    def _header(self) -> None:
        line = self._file.readline(4096)
        try:
            kind, fields = parse_line(line)
        except ValueError:
            kind, fields = "", {}
        if kind != HEADER or fields.get("format") != self._layout.format:
            message = f"{self._path}: not a file of the format {self._layout.format!r}; its first line would say so"
            raise InvalidInputError(message, field="file")
        version = fields.get("version")
        if type(version) is not int or version < 1:
            self._damaged("its header has no version")
        if version > self._layout.version:
            known = self._layout.version
            message = f"{self._path}: written in version {version} of the format; this version reads up to {known}"
            raise IncompatibleVersionError(message)
        self._whole.add(line)
        self._at += len(line)

    def _next(self) -> tuple[bytes, str, dict[str, Any]]:
        line = self._file.readline(MAX_LINE)
        if not line.endswith(b"\n"):
            self._damaged("cut off: the file ends before its trailer" if len(line) < MAX_LINE else "a line has no end")
        try:
            return line, *parse_line(line)
        except UnicodeDecodeError as error:
            self._damaged("not UTF-8", error.start)
        except ValueError as error:
            self._damaged(f"not a line of an export: {error}")

    def _begin(self, line: bytes, fields: dict[str, Any]) -> Begun:
        if self._id is not None:
            self._damaged(f"{self._id!r} has no end")
        try:
            conversation_id = check_id(fields.get("id"), "id")
        except InvalidInputError as error:
            self._damaged(str(error))
        if self._last and conversation_id.encode() <= self._last:
            self._damaged(f"{conversation_id!r} is out of order, or there twice")
        self._id, self._last, self._of_one = conversation_id, conversation_id.encode(), Tally()
        self._kinds = self._layout.after(CONVERSATION)
        self._of_one.add(line)
        return Begun(conversation_id)

    def _row(self, line: bytes, kind: str, fields: dict[str, Any]) -> Row:
        if self._id is None or kind not in self._kinds:
            self._damaged(f"a line of the kind {kind!r} does not belong here")
        self._kinds = self._layout.after(kind)
        self._of_one.add(line)
        try:
            return row_of(kind, fields, self._layout.columns)
        except ValueError as error:
            self._damaged(str(error))

    def _end(self, fields: dict[str, Any]) -> Ended:
        if self._id is None or fields.get("id") != self._id:
            self._damaged("an end without its beginning")
        if fields.get("lines") != self._of_one.lines or fields.get("sha256") != self._of_one.sha256:
            self._damaged(f"{self._id!r} has been changed: its lines do not have the digest that its end says")
        ended = Ended(self._id, self._of_one.sha256)
        self._id = None
        return ended

    def _trailer(self, fields: dict[str, Any], conversations: int) -> None:
        whole = {"conversations": conversations, "lines": self._whole.lines, "sha256": self._whole.sha256}
        if self._id is not None or any(fields.get(name) != value for name, value in whole.items()):
            self._damaged("changed: the lines do not have the digest that the trailer says")
        if self._file.read(1):
            self._damaged("something follows the trailer")

    def _damaged(self, reason: str, within: int = 0) -> NoReturn:
        position = self._at + within
        message = f"{self._path}: byte {position}: {reason}"
        raise CorruptStateError(message, key=str(self._path), position=position)
