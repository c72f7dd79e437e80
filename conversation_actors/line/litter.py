"""Sockets' files that processes have left behind: whoever is killed removes nothing."""

import os
import re
import socket
import stat
from contextlib import suppress
from itertools import islice
from pathlib import Path

SUFFIX = ".sock"
_OF_A_PROCESS = re.compile(r"([0-9]{1,10})-[0-9a-f]+" + re.escape(SUFFIX))
_MOST_LOOKED_AT = 4096
_MOST_VISITED = 128
"""Sockets of unknown processes that one start connects to."""
_MOST_REMOVED = 32
"""Files removed by one start; each start leaves one at most, so that they become fewer."""


def sweep(directory: Path) -> int:
    """Remove sockets of this directory that belong to nobody any more, some at a time; return how many.

    A socket is left alone while its process lives, or while anybody listens: processes of other containers, whose
    numbers mean nothing here, may share the directory.
    """
    removed = 0
    with suppress(FileNotFoundError), os.scandir(directory) as entries:
        left = (Path(entry.path) for entry in islice(entries, _MOST_LOOKED_AT) if _is_of_the_dead(entry.name))
        for path in islice(left, _MOST_VISITED):
            if removed == _MOST_REMOVED:
                break
            if _is_deaf(path):
                path.unlink(missing_ok=True)
                removed += 1
    return removed


def sweep_beside(directory: Path, name: str) -> None:
    """Sweep this user's other directories whose names begin so, and remove those that became empty by that.

    They are beside this one; `name` itself is the one that stays.
    """
    with os.scandir(directory.parent) as entries:
        beside = [Path(one.path) for one in islice(entries, _MOST_LOOKED_AT) if one.name.startswith(name)]
    for other in beside[:_MOST_REMOVED]:
        if other != directory and _is_own_directory(other) and sweep(other) and other.name != name:
            with suppress(OSError):  # not empty
                other.rmdir()


def _is_own_directory(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:  # gone by now
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _is_of_the_dead(name: str) -> bool:
    """Whether a socket has the name of one whose process does not run, as far as this process can see."""
    found = _OF_A_PROCESS.fullmatch(name)
    return found is not None and not _is_running(int(found[1]))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _is_deaf(path: Path) -> bool:
    """Whether this is a socket that nobody listens to."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as visitor:
            visitor.setblocking(False)
            visitor.connect(os.fspath(path))
    except ConnectionRefusedError:
        return True
    except OSError:  # busy, gone by now, or not to be told
        return False
    return False
