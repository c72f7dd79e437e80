"""A new file of an export: nobody else's file is written to, and nobody can look into it before or after."""

import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from conversation_actors.errors import TransferFileError
from conversation_actors.transfer.files import PART, NewFile


def names(directory: Path) -> list[str]:
    """Return the names of what is in a directory."""
    return sorted(path.name for path in directory.iterdir())


def test_a_foreign_file_of_the_drafts_name_is_not_written_to(tmp_path: Path) -> None:
    """It would keep its rights, and whoever has it open would read along."""
    foreign = tmp_path / f"e.jsonl{PART}"
    foreign.write_bytes(b"theirs")
    foreign.chmod(0o666)
    with NewFile(tmp_path / "e.jsonl") as file:
        file.write(b"ours")
    assert foreign.read_bytes() == b"theirs"
    assert (tmp_path / "e.jsonl").read_bytes() == b"ours"
    assert stat.S_IMODE((tmp_path / "e.jsonl").stat().st_mode) == 0o600


def test_a_link_of_the_drafts_name_leads_nowhere(tmp_path: Path) -> None:
    """What it leads to is not overwritten."""
    theirs = tmp_path / "theirs"
    theirs.write_bytes(b"theirs")
    (tmp_path / f"e.jsonl{PART}").symlink_to(theirs)
    with NewFile(tmp_path / "e.jsonl") as file:
        file.write(b"ours")
    assert theirs.read_bytes() == b"theirs"
    assert (tmp_path / "e.jsonl").read_bytes() == b"ours"


def test_two_files_of_one_name_do_not_mix(tmp_path: Path) -> None:
    """The later one to end has the name, and is whole; one that fails takes nothing of another one with it."""
    path = tmp_path / "e.jsonl"
    with NewFile(path) as outer:
        outer.write(b"outer, first half, ")
        with NewFile(path) as inner:
            inner.write(b"inner")
        with suppress(KeyboardInterrupt), NewFile(path) as failing:
            failing.write(b"failing")
            raise KeyboardInterrupt
        assert path.read_bytes() == b"inner"
        outer.write(b"second half")
    assert path.read_bytes() == b"outer, first half, second half"
    assert names(tmp_path) == ["e.jsonl"]


def test_a_file_that_is_there_is_replaced_with_its_rights(tmp_path: Path) -> None:
    """Whoever could read the old one cannot read the new one; another name of the old one keeps it."""
    path, twin = tmp_path / "e.jsonl", tmp_path / "twin"
    path.write_bytes(b"old")
    path.chmod(0o666)
    os.link(path, twin)
    with NewFile(path) as file:
        file.write(b"new")
    assert (path.read_bytes(), twin.read_bytes()) == (b"new", b"old")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["link", "link to nothing", "directory", "pipe"])
def test_what_is_no_file_is_neither_followed_nor_replaced(tmp_path: Path, kind: str) -> None:
    """That is said before anything is written."""
    path, theirs = tmp_path / "e.jsonl", tmp_path / "theirs"
    match kind:
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case _:
            path.symlink_to(theirs)
            if kind == "link":
                theirs.write_bytes(b"theirs")
    before = (path.lstat().st_ino, names(tmp_path))
    with pytest.raises(TransferFileError, match=r"e\.jsonl: there is something else than a file"), NewFile(path):
        pytest.fail("was begun")
    assert (path.lstat().st_ino, names(tmp_path)) == before
    assert not theirs.exists() or theirs.read_bytes() == b"theirs"


@pytest.mark.parametrize("name", ["e" * 255, "ü" * 127, "😀" * 63], ids=["ASCII", "two bytes", "four bytes"])
def test_the_longest_name_that_a_file_may_have(tmp_path: Path, name: str) -> None:
    """The draft's own name is no longer."""
    with NewFile(tmp_path / name) as file:
        file.write(b"ours")
    assert names(tmp_path) == [name]
