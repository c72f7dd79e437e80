"""The process that workers are forked from; one for each raylet, started by ``launcher.py``. See the package.

``server.py LISTENER RAYLET LOG``: the number of the listening socket's descriptor, the raylet's process id, and the
path of the log.
"""

import asyncio
import gc
import importlib
import logging
import marshal
import os
import pickle
import random
import select
import signal
import socket
import stat
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING or __name__ != "__main__":
    from conversation_actors.runtime.fork_server.launcher import FORKED, GO, READY, VERSION
else:
    # By its path: the packages above would bring in what has to be imported in the workers themselves.
    from launcher import FORKED, GO, READY, VERSION

logger = logging.getLogger("conversation_actors.fork_server")

PRELOADED = (
    "ray",
    "ray._private.node",
    "ray._private.workers.default_worker",
    "ray.actor",
    # what a worker's first method call would import
    "ray._common.pydantic_compat",
    "ray._private.arrow_serialization",
    "ray._private.async_compat",
    "ray._common.usage.usage_lib",
    "ray.core.generated.usage_pb2",
    "pydantic.main",
    "pydantic.v1",
    "concurrent.futures.thread",
    # What a conversation's owner needs, but for its own module: that has to be imported in the worker itself,
    # for it takes SIGTERM over where it is imported (see `conversation_actors.runtime.termination`).
    "conversation_actors.runtime.host",
    "conversation_actors.runtime.owner_log",
    "conversation_actors.runtime.threads",
    "conversation_actors.store.redis",
    "redis.asyncio",
)
PRELOADED_IF_INSTALLED = ("starlette.datastructures",)
"""Ray's serialisation imports these, where they are, in every worker: 10 ms, and 1 MiB of its own."""
_REQUEST_SECONDS = 5.0
_READY_SECONDS = 60
_MAY_DIFFER = {b"RAY_JOB_ID"}
"""Variables whose value at the server's start is never that of a request: the server serves every job."""
_STANDARD_STREAMS = 3
_WORKERS_PLACE = "/where the worker's program is"
"""Stands on the module path while imports put theirs (Ray's third-party modules) before it, as in a fresh worker."""


@dataclass(frozen=True, slots=True)
class WorkerRequest:
    """What a launcher handed over: everything in which one start of the interpreter differs from another."""

    arguments: list[str]
    environment: dict[bytes, bytes]
    directory: bytes
    leads_group: bool


class DeclinedError(Exception):
    """This worker has to be started the ordinary way; the text says why."""


def receive(connection: socket.socket) -> WorkerRequest:
    """Read a request, and put its descriptors in the place of 0, 1 and 2."""
    length = len(VERSION) + 4
    head, descriptors, _, _ = socket.recv_fds(connection, length, _STANDARD_STREAMS)
    try:
        if len(descriptors) != _STANDARD_STREAMS or len(head) != length or not head.startswith(VERSION):
            message = "the launcher is of another version"
            raise DeclinedError(message)
        for target, source in enumerate(descriptors):
            os.dup2(source, target)
    finally:
        for source in descriptors:
            os.close(source)
    size = int.from_bytes(head[len(VERSION) :], "little")
    body = bytearray()
    while len(body) < size:
        part = connection.recv(size - len(body))
        if not part:
            message = "the launcher went away"
            raise DeclinedError(message)
        body += part
    return WorkerRequest(*marshal.loads(bytes(body)))  # noqa: S302  # of a process of this user; the kernel says so


def check(request: WorkerRequest, worker: str, environment: Mapping[bytes, bytes]) -> None:
    """Raise `DeclinedError` unless a fork of a process with `environment` is what a fresh interpreter would be."""
    if request.arguments[0] != worker:
        message = f"another worker program: {request.arguments[0]}"
        raise DeclinedError(message)
    differing = {
        name
        for name in request.environment.keys() | environment.keys()
        if request.environment.get(name) != environment.get(name) and name not in _MAY_DIFFER
    }
    if differing:
        names = ", ".join(sorted(os.fsdecode(name) for name in differing))
        message = f"the environment differs in {names}"
        raise DeclinedError(message)


def doubts(raylet: int) -> Iterator[str]:
    """Everything that speaks against forking workers from this process; none, usually."""
    import ray  # noqa: PLC0415  # after the socket was taken over; see main

    from conversation_actors.runtime.fork_server.node import untested_ray  # noqa: PLC0415  # likewise

    yield from untested_ray()
    if os.environ.get("RAY_RAYLET_PID") != str(raylet):
        yield "RAY_RAYLET_PID is not the raylet"
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        yield f"{threads} threads run after the imports; a fork would lose all but one"
    if ray.is_initialized():
        yield "an import has connected to Ray"
    if "conversation_actors.runtime.actor" in sys.modules:
        yield "the actor was imported too early; workers would not notice SIGTERM"
    first, second = _sample(), _sample()
    if not first or not second or set(first) & set(second):
        yield "forked processes draw the same random numbers"


async def rehearse() -> None:
    """Own a conversation in memory, so that all that is made when first used is there, and shared."""
    from conversation_actors.activation import Activation  # noqa: PLC0415  # as in `doubts`
    from conversation_actors.activation.activation import Place  # noqa: PLC0415
    from conversation_actors.items import Message  # noqa: PLC0415
    from conversation_actors.protocol import Request  # noqa: PLC0415  # as in `doubts`
    from conversation_actors.settings import HistoryLimits, PoolSettings, Settings, Timeouts  # noqa: PLC0415
    from conversation_actors.state import AppendItems  # noqa: PLC0415
    from conversation_actors.store import MemoryStore  # noqa: PLC0415
    from conversation_actors.store.scripts import load_scripts  # noqa: PLC0415

    # not from the environment: what is wrong there is to be told to whoever opens a conversation
    settings = Settings.model_construct(
        history=HistoryLimits.model_construct(),
        timeouts=Timeouts.model_construct(),
        pool=PoolSettings.model_construct(),
    )
    settings = pickle.loads(pickle.dumps(settings))  # noqa: S301  # as an actor gets them
    activation = await Activation.recover(
        "rehearsal", owner="nobody", create=True, store=MemoryStore(), settings=settings, place=Place(0, "")
    )
    item = Message(role="user", content="rehearsal")
    await activation.execute([Request("1", AppendItems((item.to_stored(),)))], watcher="", after_seq=0)
    await activation.read(fresh=True)
    await activation.passivate()
    await activation.aclose()
    load_scripts()


def _sample() -> tuple[str, ...]:
    """Random numbers of a forked child, one from each generator that ids are made of; empty if it failed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            from ray import NodeID  # noqa: PLC0415  # the point is to draw in the child

            os.write(writer, f"{NodeID.from_random().hex()} {random.random()}".encode())  # noqa: S311  # compared only
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        drawn = tuple(stream.read().decode().split())
    with suppress(ChildProcessError):  # the kernel has buried it already
        os.waitpid(child, 0)
    return drawn


def versions_of(files: list[Path]) -> list[tuple[int, int]]:
    """Return what changes when one of the files does."""
    found = []
    for file in files:
        try:
            status = file.stat()
        except OSError:
            found.append((0, 0))
        else:
            found.append((status.st_mtime_ns, status.st_size))
    return found


def imported_files() -> list[Path]:
    """Files that change when what this process has in memory does: each library's first, all of this project's."""
    files = [
        module.__file__
        for name, module in sys.modules.items()
        if "." not in name or name.startswith("conversation_actors.") or name == "ray._private.workers.default_worker"
        if getattr(module, "__file__", None)
    ]
    return [Path(str(file)) for file in files] + [Path(__file__)]


class ForkServer:
    """Answers launchers until the raylet ends. `serve` returns in forked children only."""

    def __init__(self, listener: socket.socket, raylet: int, *, environment: Mapping[bytes, bytes]) -> None:
        """`environment` is the one this process was started with."""
        self._listener = listener
        self._raylet = os.pidfd_open(raylet)
        self._environment = environment
        self._worker = str(sys.modules["ray._private.workers.default_worker"].__file__)
        self._refusal: str | None = None

    def refuse(self, reason: str) -> None:
        """From now on every worker is an ordinary one."""
        logger.error("no worker will be forked: %s", reason)
        self._refusal = reason

    def serve(self) -> WorkerRequest:
        """Fork a child for each connection; returns, in the child, what it is to run.

        A request that fails gets no answer, which is logged: its launcher starts an ordinary worker. Whatever else
        fails ends this process with a traceback in the log; the next worker starts another fork server.
        """
        files = imported_files()
        versions = versions_of(files)
        watched = select.poll()
        watched.register(self._listener, select.POLLIN)
        watched.register(self._raylet, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in watched.poll()}
            if self._raylet in ready:
                os._exit(0)
            if versions_of(files) != versions:
                logger.warning("what was imported has changed on disk; the next worker starts another fork server")
                os._exit(0)
            request = self._serve_one()
            if request is not None:
                return request

    def _serve_one(self) -> WorkerRequest | None:
        """See `_answer`; None too where that failed."""
        try:
            connection, _ = self._listener.accept()
            with connection:
                return self._answer(connection)
        except OSError:
            logger.debug("the launcher has gone already")
        except Exception:
            logger.exception("a launcher got no answer")
        return None

    def _answer(self, connection: socket.socket) -> WorkerRequest | None:
        """None in the server; in the child, what it is to run."""
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        if self._refusal is not None or int.from_bytes(credentials[4:8], sys.byteorder) != os.getuid():
            return None
        try:
            child = os.fork()
        except OSError as error:
            logger.warning("cannot fork: %s", error)
            return None
        return None if child else self._prepare(connection)

    def _prepare(self, connection: socket.socket) -> WorkerRequest:
        """In the child: become what the launcher asks for, or end."""
        try:
            self._listener.close()
            os.close(self._raylet)
            return self._agree(connection)
        except (DeclinedError, OSError) as error:
            logger.warning("not forked: %s", error)
        except BaseException:
            logger.exception("not forked")
        os._exit(1)

    def _agree(self, connection: socket.socket) -> WorkerRequest:
        connection.settimeout(_REQUEST_SECONDS)
        kept = os.dup(2)  # what is logged until then goes to the server's log
        _log_to(kept)
        request = receive(connection)
        check(request, self._worker, self._environment)
        os.chdir(request.directory)
        connection.sendall(READY)
        if connection.recv(1) != GO:
            message = "the launcher did not say go"
            raise DeclinedError(message)
        logger.handlers.clear()
        os.close(kept)
        return request


def become(request: WorkerRequest, at_start: Mapping[bytes, bytes]) -> None:
    """In a forked child, undo what makes a fork server different from a fresh interpreter; signals are `main`'s."""
    if request.leads_group:
        os.setpgid(0, 0)
    made_by_imports = {name: value for name, value in os.environb.items() if at_start.get(name) != value}
    os.environb.clear()
    os.environb.update(made_by_imports | request.environment)
    os.environ[FORKED] = str(os.getpid())
    sys.argv = list(request.arguments)
    sys.orig_argv = [sys.executable, *request.arguments]
    sys.path[sys.path.index(_WORKERS_PLACE)] = str(Path(request.arguments[0]).parent)
    gc.enable()


def main() -> types.CodeType:
    """Serve. Returns in forked children only: the program to run."""
    number, raylet, log_path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    signal.alarm(_READY_SECONDS)  # what hangs before anybody watches the raylet's end is to end by itself
    at_start = dict(os.environb)
    sys.path[0] = _WORKERS_PLACE  # was where this file is: no worker shall find its modules by that
    del sys.modules["launcher"]
    # SIGINT comes from a terminal and is meant for `ray start`; of dead children the kernel takes care.
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGCHLD)}
    with suppress(OSError):
        # Ray ends a worker's process group with the worker, and this one was made for a worker
        os.setpgid(0, os.getpgid(raylet))
    _take_descriptors(log_path, keep=number)
    gc.disable()
    for name in PRELOADED:
        importlib.import_module(name)
    for name in PRELOADED_IF_INSTALLED:
        with suppress(ImportError):
            importlib.import_module(name)
    from conversation_actors.runtime.fork_server.gaps import fill_gaps  # noqa: PLC0415  # as in `doubts`

    server = ForkServer(socket.socket(fileno=number), raylet, environment=at_start)
    worker = Path(str(sys.modules["ray._private.workers.default_worker"].__file__))
    program = compile(worker.read_bytes(), worker, "exec")
    try:
        # `asyncio.run` would leave the main thread, of every worker too, without a loop for `get_event_loop` to give
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(rehearse())
    except Exception:  # whatever it was: this saves time, and an actor that has the same fault tells of it itself
        logger.exception("the rehearsal failed; workers begin cold")
    for doubt in doubts(raylet):
        server.refuse(doubt)
    gc.collect()
    try:
        fill_gaps()
    except Exception:  # whatever it was: this saves memory, and nothing depends on it
        logger.exception("gaps are left; workers copy more of what they share")
    gc.freeze()  # no collection in a worker shall write to, and so copy, what it shares
    signal.alarm(0)
    request = server.serve()
    for signal_number, handler in before.items():
        signal.signal(signal_number, handler)
    become(request, at_start)
    return program


def _take_descriptors(log_path: str, *, keep: int) -> None:
    """Close what the raylet let slip through (its logs, a pipe), and log where Ray does."""
    os.set_inheritable(keep, False)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  # of descriptors; nothing is a path here
        if int(name) >= _STANDARD_STREAMS and int(name) != keep:
            with suppress(OSError):  # the one that listed them
                os.close(int(name))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    with suppress(OSError):  # Ray's log directory is not there: what the raylet gave us stays
        # Ray makes the directory writable to all: neither follow a stranger's link nor wait at a stranger's pipe.
        opened = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        status = os.fstat(opened)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid():
            os.dup2(opened, 1)
            os.dup2(opened, 2)
        os.close(opened)
    _log_to(2)


def _log_to(descriptor: int) -> None:
    handler = logging.StreamHandler(os.fdopen(descriptor, "w", buffering=1, closefd=False))
    pattern, moment = "%(asctime)s %(process)d %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z"
    handler.setFormatter(logging.Formatter(pattern, moment))
    logger.handlers[:] = [handler]
    logger.propagate = False


if __name__ == "__main__":
    _program = main()
    _main = types.ModuleType("__main__")
    _main.__file__ = sys.argv[0]
    sys.modules["__main__"] = _main
    exec(_program, _main.__dict__)  # noqa: S102  # Ray's own worker program, read from where Ray has it
