"""An export as a file: the same bytes for the same rows, and no damage that goes unnoticed."""

import asyncio
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from conversation_actors.archive.rows import COLUMNS, Row
from conversation_actors.errors import (
    ConversationError,
    CorruptStateError,
    IncompatibleVersionError,
    InvalidInputError,
    TransferFileError,
)
from conversation_actors.items import Message
from conversation_actors.transfer.export_file import Begun, Ended, ExportWriter, digest_of, read_export
from conversation_actors.transfer.files import NewFile, file_name
from tests.support.archived_rows import every_kind, rows_of, stream

GOLDEN = Path(__file__).parents[2] / "data" / "transfer" / "export-1.jsonl"


def exported(path: Path) -> bytes:
    """Write an export of two conversations, and return its bytes."""

    async def write() -> None:
        with NewFile(path) as file:
            export = ExportWriter(file)
            await export.add("a/1", stream(every_kind()))
            await export.add("nobody", stream([]))
            await export.add("ü", stream(rows_of(Message(id="x", role="user", content="Hello", created_at=1.0))))
            export.finish()

    asyncio.run(write())
    return path.read_bytes()


def read(path: Path) -> list[object]:
    """Read a whole export."""
    return list(read_export(path))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """Every row of every kind, with its types; a conversation without rows is not there."""
    exported(tmp_path / "e.jsonl")
    parts = read(tmp_path / "e.jsonl")
    assert [part.conversation_id for part in parts if isinstance(part, Begun)] == ["a/1", "ü"]
    assert [part for part in parts if isinstance(part, Row)][: len(every_kind())] == every_kind()
    assert {row.kind for row in every_kind()} == set(COLUMNS)
    ended = next(part for part in parts if isinstance(part, Ended))
    assert ended.sha256 == asyncio.run(digest_of("a/1", stream(every_kind())))


def test_the_format_stays_as_it_is(tmp_path: Path) -> None:
    """The bytes of version 1 are in the repository; other bytes need another version."""
    assert exported(tmp_path / "e.jsonl") == GOLDEN.read_bytes()


def test_an_export_is_for_its_owner_alone(tmp_path: Path) -> None:
    """It holds what people said."""
    exported(tmp_path / "e.jsonl")
    assert (tmp_path / "e.jsonl").stat().st_mode & 0o077 == 0
    assert os.listdir(tmp_path) == ["e.jsonl"]  # noqa: PTH208  # names are all that is wanted


def test_every_damage_is_noticed(tmp_path: Path) -> None:
    """A file that is cut off anywhere, or in which one byte is another one, is read to no end without an error."""
    whole = exported(tmp_path / "e.jsonl")
    chance = random.Random(19)
    cuts = [whole[:at] for at in chance.sample(range(len(whole)), 60)]
    places = chance.sample(range(len(whole)), 120)
    flips = [whole[:at] + bytes([whole[at] ^ (1 << chance.randrange(8))]) + whole[at + 1 :] for at in places]
    lines = whole.splitlines(keepends=True)
    without_one = [b"".join(lines[:at] + lines[at + 1 :]) for at in range(len(lines))]
    swapped = [b"".join([*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]) for at in range(len(lines) - 1)]
    for damaged in [*cuts, *flips, *without_one, *swapped, whole + b"x", whole + whole]:
        (tmp_path / "d.jsonl").write_bytes(damaged)
        with pytest.raises((CorruptStateError, InvalidInputError, IncompatibleVersionError)):
            read(tmp_path / "d.jsonl")


def changed(change: Callable[[list[bytes]], object]) -> Callable[[bytes], bytes]:
    """Return what makes an export another one by its lines."""

    def make(whole: bytes) -> bytes:
        lines = whole.splitlines(keepends=True)
        change(lines)
        return b"".join(lines)

    return make


@pytest.mark.parametrize(
    ("change", "kind", "told"),
    [
        (lambda _: b"", InvalidInputError, "not a file of the format"),
        (lambda _: b'{"role":"user"}\n', InvalidInputError, "not a file of the format"),
        (lambda whole: whole.replace(b'"version":1', b'"version":2'), IncompatibleVersionError, "version 2"),
        (lambda whole: whole[:-5], CorruptStateError, "cut off"),
        (changed(lambda lines: lines.pop()), CorruptStateError, "cut off"),
        (changed(lambda lines: lines.insert(2, b'"\xff"\n')), CorruptStateError, "not UTF-8"),
        (changed(lambda lines: lines.insert(2, b"{\n")), CorruptStateError, "not a line of an export"),
        (changed(lambda lines: lines.insert(2, b'{"kind":"vote"}\n')), CorruptStateError, "'vote', which is not known"),
        (changed(lambda lines: lines.insert(2, lines[4])), CorruptStateError, "does not belong here"),
        (changed(lambda lines: lines.insert(1, lines[-2])), CorruptStateError, "an end without its beginning"),
        (lambda whole: whole.replace(b'"start":0,', b""), CorruptStateError, "start is missing"),
        (lambda whole: whole.replace(b'"start":0', b'"start":false'), CorruptStateError, "start is of a wrong type"),
        (lambda whole: whole.replace(b'"start":0', b'"start":0,"x":1'), CorruptStateError, "x is not known"),
        (lambda whole: whole.replace(b'base64":"', b'base64":"*'), CorruptStateError, "is not base64"),
        (lambda whole: whole.replace(b"Hello", b"Hallo"), CorruptStateError, "has been changed"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    tmp_path: Path, change: Callable[[bytes], bytes], kind: type[ConversationError], told: str
) -> None:
    """With the file's name, and the byte if there is one."""
    path = tmp_path / "e.jsonl"
    path.write_bytes(change(exported(path)))
    with pytest.raises(kind, match=told) as raised:
        read(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """What the system refuses is one typed error that names the file."""
    with pytest.raises(TransferFileError, match=r"e\.jsonl: No such file"):
        read(tmp_path / "e.jsonl")


def test_no_room_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither half a file under the name that was asked for, nor a draft; what was there before stays."""
    path = tmp_path / "e.jsonl"
    path.write_text("before")
    real = os.open
    monkeypatch.setattr(os, "open", lambda _, flags, mode: real("/dev/full", flags & ~os.O_CREAT, mode))
    with pytest.raises(TransferFileError, match="No space left"), NewFile(path) as file:
        file.write(b"x")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_part_that_is_written_again_begins_where_it_began(tmp_path: Path) -> None:
    """What was cut is gone."""
    with NewFile(tmp_path / "f") as file:
        file.write(b"one")
        size = file.size
        file.write(b" two, too much")
        file.cut(size)
        file.write(b" 2")
    assert (tmp_path / "f").read_bytes() == b"one 2"


def test_every_id_has_a_file_of_its_own(tmp_path: Path) -> None:
    """Whatever is in an id, the file is in the directory, and its name is short enough for it."""
    ids = ["a", "a/b", "a%2Fb", "..", ".", "a b", "😀" * 256, "😀" * 255, "x" * 256, "x" * 255 + "y", "\\", "con:1"]
    names = [file_name(one, ".chat-context.json") for one in ids]
    assert len(set(names)) == len(ids)
    for name in names:
        (tmp_path / name).write_text("x")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_lines_are_json_with_text_as_it_is(tmp_path: Path) -> None:
    """So that other programs can read an export: words stay words."""
    lines = exported(tmp_path / "e.jsonl").splitlines()
    said = [json.loads(line) for line in lines if b"Gr\xc3\xbc\xc3\x9fe" in line]
    assert [line["kind"] for line in said] == ["entry", "item"]
