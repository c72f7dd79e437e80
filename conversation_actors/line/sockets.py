"""Sockets on which an owner's process listens: where they are, who may reach them, and how dead peers are noticed."""

import os
import secrets
import socket
import stat
import struct
import tempfile
from contextlib import suppress
from pathlib import Path

from conversation_actors.line.litter import SUFFIX

BACKLOG = 1024
"""Connections that wait to be accepted: as many handles may come back at once."""
_LONGEST_PATH = 103
"""Bytes that the path of a socket may have, wherever this runs."""
_NAME_BYTES = 32
"""Bytes of a socket's name within its directory, at most."""
_SHORT_PLACE = Path("/tmp")  # noqa: S108  # what is made there is checked, or has a name that nobody foresaw
_IDLE_SECONDS, _PROBE_SECONDS, _PROBES = 5, 2, 3
_UNANSWERED_MILLISECONDS = 10_000
_CREDENTIALS = struct.Struct("3i")


def private_directory(parent: Path | None = None) -> Path:
    """Return a directory that only this user may use, below `parent` or else where temporary files are.

    All processes of a user share one, unless somebody has made that one differently: then it is a new one.
    """
    place = parent or Path(tempfile.gettempdir())
    name = shared_name()
    if len(os.fsencode(place / name)) + len(secrets.token_hex(4)) + 1 + _NAME_BYTES > _LONGEST_PATH:
        place = _SHORT_PLACE
    shared = place / name
    with suppress(FileExistsError):
        shared.mkdir(mode=0o700)
    return shared if is_private(shared) else Path(tempfile.mkdtemp(prefix=f"{name}-", dir=place))


def shared_name() -> str:
    """Return the name of the directory that all processes of this user share."""
    return f"conversation-actors-{os.geteuid()}"


def is_private(path: Path) -> bool:
    """Whether this is a directory of this user's, and no link to one, which nobody else may even enter."""
    found = path.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077


def unix_listener(directory: Path) -> tuple[socket.socket, Path]:
    """Return a socket that listens in a private directory, and its path. Raises `OSError`."""
    path = directory / f"{os.getpid()}-{secrets.token_hex(6)}{SUFFIX}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(os.fspath(path))
        path.chmod(0o600)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        path.unlink(missing_ok=True)
        raise
    listener.setblocking(False)
    return listener, path


def tcp_listener(address: str) -> socket.socket:
    """Return a socket that listens on a port of its own at this node's address. Raises `OSError`."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, 0), family=family, backlog=BACKLOG)
    listener.setblocking(False)
    return listener


def watch_over(connection: socket.socket) -> None:
    """Send small messages at once, and have the kernel notice within seconds that the other side is gone.

    A Unix socket needs neither.
    """
    if connection.family == socket.AF_UNIX:
        return
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _IDLE_SECONDS),
        ("TCP_KEEPINTVL", _PROBE_SECONDS),
        ("TCP_KEEPCNT", _PROBES),
        ("TCP_USER_TIMEOUT", _UNANSWERED_MILLISECONDS),
    ):
        if (option := getattr(socket, name, None)) is not None:  # macOS lacks some
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def is_of_this_user(connection: socket.socket) -> bool:
    """Whether the process at the other side of a Unix socket is this user's, or root's; True for any other socket.

    Where the kernel does not tell it as Linux does, the directory's rights have to be enough.
    """
    if connection.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
        return True
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(told)
    return user in {0, os.geteuid()}
