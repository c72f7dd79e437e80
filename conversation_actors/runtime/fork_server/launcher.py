"""Hands a worker that a raylet starts to the fork server, or becomes the interpreter that was asked for.

Runs once for every process that Ray starts with `sys.executable`, without the standard library's `os`, `socket` and
`struct`: importing them would double its time. See the package for the whole.
"""

import _socket
import marshal
import posix
import sys

VERSION = b"conversation-actors fork 1\n"
"""Begins each request; a server of another version refuses it."""
READY = b"r"
GO = b"g"
WAIT_SECONDS = 10.0
"""For the server's import and the fork; then the worker is started the ordinary way."""
NIL_JOB = b"ffffffff"
"""Ray's id of no job: its C++ part reads it once, at import, and the server serves all jobs."""
FORKED = "CONVERSATION_WORKER_FORKED"
"""An environment variable: in a forked worker, its own process id."""

_WORKER = "/ray/_private/workers/default_worker.py"
_BACKLOG = 1024


def is_ordinary(arguments: list[str]) -> bool:
    """Whether this is a Python worker with nothing special about it."""
    if not arguments or not arguments[0].endswith(_WORKER):
        return False
    return not any(argument.startswith(("--worker-type", "--serialized")) for argument in arguments)


def server_name(raylet: int) -> bytes:
    """Return the abstract socket's name: this user's, this raylet's, and nobody's who gets its process id later."""
    with open(f"/proc/{raylet}/stat", "rb") as status:  # noqa: PTH123  # pathlib is not there
        started = status.read().rpartition(b")")[2].split()[19]
    return b"\0conversation-actors/%d/%d/%s" % (posix.getuid(), raylet, started)


def peer_user(connection: _socket.socket) -> int:
    """Return the user id at the other end, as the kernel knows it."""
    credentials = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[4:8], sys.byteorder)


def hand_over(arguments: list[str]) -> bool:
    """Return True when a forked worker has begun; False, or an `OSError`, when there is none and will be none."""
    raylet = posix.getppid()
    if posix.environ.get(b"RAY_RAYLET_PID") != b"%d" % raylet:
        return False
    name = server_name(raylet)
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    connection.settimeout(WAIT_SECONDS)
    try:
        connection.connect(name)
    except ConnectionRefusedError:
        start_server(name, raylet, log_path(arguments))
        connection.connect(name)
    if peer_user(connection) != posix.getuid():
        return False
    request = marshal.dumps((arguments, dict(posix.environ), posix.getcwdb(), posix.getpgid(0) == posix.getpid()))
    descriptors = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptors)]
    connection.sendmsg([VERSION + len(request).to_bytes(4, "little")], rights)
    connection.sendall(request)
    if connection.recv(1) != READY:
        return False
    connection.sendall(GO)
    return True


def log_path(arguments: list[str]) -> str:
    """Where the server logs: among Ray's own logs."""
    options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    return f"{options.get('--temp-dir', '')}/{options.get('--session-name', '')}/logs/conversation_fork_server.log"


def start_server(name: bytes, raylet: int, log: str) -> None:
    """Take the server's name, become the server, and go on here in a child; `OSError` if it is taken.

    So the server is the raylet's child. What is started here first waits, connected, until it listens.
    """
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    listener.bind(name)
    listener.listen(_BACKLOG)
    leads_group = posix.getpgid(0) == posix.getpid()
    if posix.fork() == 0:
        listener.close()
        if leads_group:
            posix.setpgid(0, 0)
        return
    number = listener.detach()
    posix.set_inheritable(number, True)
    path = __file__.rpartition("/")[0] + "/server.py"
    environment = {**posix.environ, b"RAY_JOB_ID": NIL_JOB}
    try:
        posix.execve(sys.executable, [sys.executable, path, str(number), str(raylet), log], environment)
    finally:
        posix._exit(1)  # noqa: SLF001  # the child goes on: this process must not become a second worker


def main() -> None:
    """Be the worker that was asked for, one way or the other."""
    arguments = sys.argv[1:]
    if is_ordinary(arguments):
        try:
            if hand_over(arguments):
                posix._exit(0)  # noqa: SLF001  # there is nothing to clean up
        except OSError as error:
            sys.stderr.write(f"conversation-actors: no fork ({error!r}); an ordinary worker is started\n")
            sys.stderr.flush()
    posix.execv(sys.executable, [sys.executable, *arguments])


if __name__ == "__main__":
    main()
