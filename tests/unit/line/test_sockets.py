"""Where the sockets of owners are, who may reach them, and what the dead leave there."""

import asyncio
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from conversation_actors.line import litter, sockets
from tests.support.fakes import until
from tests.support.lines import RawLine, listening_owner
from tests.support.quick import QUICK

SHARED = f"conversation-actors-{os.geteuid()}"
SWEEPING = replace(QUICK, line_sweep=0.0)
"""An owner removes what the dead have left as soon as it listens."""


@pytest.fixture
def place() -> Iterator[Path]:
    """Make a directory with a short path, for sockets."""
    path = Path(tempfile.mkdtemp(prefix="line-"))
    yield path
    shutil.rmtree(path)


async def test_the_socket_is_where_only_this_user_comes(place: Path) -> None:
    """All owners of a user share a directory; its rights and the socket's let nobody else in."""
    async with listening_owner(place) as first, listening_owner(place) as second:
        paths = [Path(owner.address.unix or "") for owner in (first, second)]
        rights = [_rights(path) for path in (paths[0].parent, *paths)]

    assert {path.parent for path in paths} == {place / SHARED}
    assert rights == [0o700, 0o600, 0o600]
    assert paths[0] != paths[1]
    assert [path.name.split("-")[0] for path in paths] == [str(os.getpid())] * 2


@pytest.mark.parametrize("rights", [0o755, 0o770, 0o701])
async def test_a_directory_that_others_may_enter_is_not_used(rights: int, place: Path) -> None:
    """Another one is made for this owner, and removed with it."""
    shared = place / SHARED
    shared.mkdir()
    shared.chmod(rights)
    async with listening_owner(place) as owner:
        used = Path(owner.address.unix or "").parent
        assert sockets.is_private(used)
        line = await RawLine.proven(owner.address)
        line.close()

    assert used != shared
    assert _names(place) == [shared.name]


async def test_a_link_to_a_directory_is_not_used(place: Path) -> None:
    """Whoever made the link would choose where the socket is."""
    (place / "elsewhere").mkdir(mode=0o700)
    (place / SHARED).symlink_to(place / "elsewhere")
    async with listening_owner(place) as owner:
        assert Path(owner.address.unix or "").parent.name != SHARED

    assert _names(place / "elsewhere") == []


async def test_a_directory_of_another_user_is_not_used(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose a directory is counts, and not its name."""
    (place / SHARED).mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    (place / "conversation-actors-4711").mkdir(mode=0o700)

    assert not sockets.is_private(place / "conversation-actors-4711")


async def test_a_path_that_is_too_long_for_a_socket_is_not_used(place: Path) -> None:
    """A short place is taken instead, in which the same rules hold."""
    long = place / ("x" * 100)
    long.mkdir()
    async with listening_owner(long) as owner:
        path = owner.address.unix or ""
        line = await RawLine.proven(owner.address)
        line.close()

    assert path.startswith(str(sockets._SHORT_PLACE))
    assert len(path) <= 103
    assert _names(long) == []


async def test_processes_of_other_users_are_not_let_in(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says whose the process at the other side is; one of another user hears nothing at all."""
    async with listening_owner(place) as owner:
        line = await _connected_as_another(owner.address.unix or "", monkeypatch)
        assert await line.rest() == b""
        line.close()
        await until(lambda: not owner.server.connections)


async def _connected_as_another(path: str, monkeypatch: pytest.MonkeyPatch) -> RawLine:
    """Connect as another user, or if this one may not, have the owner's process be another user's."""
    if os.geteuid() != 0:
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
        return RawLine(*await asyncio.open_unix_connection(path))
    for directory in Path(path).parents[:2]:
        os.chmod(directory, 0o755)  # noqa: PTH101, S103  # as if the rights had not kept them out
    os.chmod(path, 0o666)  # noqa: PTH101, S103  # same
    visitor = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    os.seteuid(4711)
    try:
        visitor.connect(path)
    finally:
        os.seteuid(0)
    return RawLine(*await asyncio.open_unix_connection(sock=visitor))


def _names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def _rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


LEAVE = """
import os, socket, sys
listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
listening.bind(f"{sys.argv[1]}/{os.getpid()}-0123456789ab.sock")
listening.listen()
"""


def _leave_one(directory: Path) -> Path:
    """Have a process end without removing its socket."""
    subprocess.run([sys.executable, "-c", LEAVE, str(directory)], check=True)
    (left,) = [path for path in directory.iterdir() if path.name.endswith("-0123456789ab.sock")]
    return left


def _copies(left: Path, number: int) -> None:
    """Leave as many sockets as so many processes would: numbers above the kernel's largest belong to none."""
    for pid in range(number):
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(str(left.parent / f"{5_000_000_000 + pid}-0123456789ab.sock"))
        listening.close()


async def test_the_next_start_removes_what_the_dead_have_left(place: Path) -> None:
    """Sockets of processes that were killed do not become more and more."""
    (place / SHARED).mkdir(mode=0o700)
    left = _leave_one(place / SHARED)
    async with listening_owner(place, timing=SWEEPING) as owner:
        await until(lambda: not left.exists())
        line = await RawLine.proven(owner.address)
        line.close()


def test_one_start_removes_a_bounded_number(place: Path) -> None:
    """Nobody waits for a start that tidies up for everybody; the next ones remove the rest."""
    left = _leave_one(place)
    _copies(left, 40)

    assert [litter.sweep(place) for _ in range(3)] == [32, 9, 0]
    assert not list(place.iterdir())


def test_what_may_be_in_use_is_left_alone(place: Path) -> None:
    """A socket of a process that lives, one that somebody listens to, and what is no socket of an owner's."""
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.bind(str(place / f"{os.getpid()}-00.sock"))  # as between its making and its listening
    elsewhere = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    elsewhere.bind(str(place / "5000000000-00.sock"))  # a number that means nothing here, as a container's
    elsewhere.listen()
    (place / "5000000001-00.sock").write_text("a file")
    (place / "notes.sock").touch()
    kept = set(place.iterdir())
    try:
        assert litter.sweep(place) == 0
        assert set(place.iterdir()) == kept
    finally:
        ours.close()
        elsewhere.close()


async def test_directories_that_the_dead_have_left_are_removed_too(place: Path) -> None:
    """Those that were made because the shared one could not be used."""
    beside = place / f"{SHARED}-abcdefgh"
    beside.mkdir(mode=0o700)
    _leave_one(beside)
    fresh = place / f"{SHARED}-starting"
    fresh.mkdir(mode=0o700)  # of an owner that has no socket yet
    async with listening_owner(place, timing=SWEEPING):
        await until(lambda: not beside.exists())

    assert fresh.exists()
