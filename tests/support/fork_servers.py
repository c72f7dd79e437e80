"""A cluster of a test's own whose workers are forked, and what can be seen of its fork servers."""

import marshal
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import psutil
import pytest
import ray

import conversation_actors
from conversation_actors.runtime.fork_server import launcher
from tests.support.probe import Probe
from tests.support.processes import is_alive
from tests.support.ray_cluster import IS_PLAIN, Node, RayCluster
from tests.support.servers import wait_for

NEEDS_FORKED_WORKERS = pytest.mark.skipif(
    IS_PLAIN or sys.platform != "linux", reason="not on this platform: no forked workers, or TEST_PLAIN_RAY is set"
)
ANSWER_SECONDS = 40.0
"""For an actor on a busy machine, one whose launcher first waits for a server that hangs (10 s) among them."""


@contextmanager
def forking_cluster(directory: Path) -> Iterator[RayCluster]:
    """Start a cluster that runs a copy of the package: nobody's edit replaces its servers, but a test may.

    No worker is started in advance, so that a test sees how the one is started that it asks for. Actors without other
    resources go to the head: only it has `conversation`.
    """
    source = directory / "source"
    shutil.copytree(
        Path(conversation_actors.__file__).parent,
        source / "conversation_actors",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)  # `-m` would find the repository's package first, where it is the working directory
        environment = {"PYTHONPATH": str(source), "RAY_prestart_worker_first_driver": "0"}
        with RayCluster(environment=environment) as cluster:
            yield cluster


@pytest.fixture(scope="module")
def own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A cluster of a module's own, whose fork servers its tests may hurt."""
    with forking_cluster(tmp_path_factory.mktemp("forking")) as started:
        yield started


@pytest.fixture
def head(own_cluster: RayCluster) -> Node:
    """Its only node, joined by this process; its fork server is idle, and has forked a worker already."""
    own_cluster.join()
    node = own_cluster.nodes[0]
    end(start_probe(node))
    server_of(node)
    return node


def source_of(process: psutil.Process) -> Path:
    """Return the package's directory that a fork server was started from."""
    return Path(process.cmdline()[1]).parents[2]


def servers_of(node: Node) -> list[psutil.Process]:
    """Return the fork servers of a node that run, or are stopped: children of the raylet, of that program."""
    found = []
    for process in node.raylet.children():
        with suppress(psutil.Error):
            command = process.cmdline()
            if len(command) > 1 and command[1].endswith("/fork_server/server.py"):
                found.append(process)
    return found


def server_of(node: Node) -> psutil.Process:
    """Return the node's fork server; where there is none, or a dead one's successor has not begun, wait for one."""
    wait_for(lambda: len(servers_of(node)) == 1, "one fork server")
    return servers_of(node)[0]


def server_log(node: Node) -> str:
    """Return what the node's fork servers have logged."""
    options = dict(argument.split("=", 1) for argument in node.raylet.cmdline() if "=" in argument)
    path = Path(options["--log_dir"]) / "conversation_fork_server.log"
    return path.read_text() if path.exists() else ""


def start_probe(node: Node, **options: Any) -> Any:
    """Start an actor in a new process of this node, not in one that idled; `options` are Ray's."""
    options = {"num_cpus": 0, "resources": {"conversation": 0.01}, **options}
    known = {process.pid for process in node.processes()}
    idle = []
    while True:
        actor = ray.remote(Probe).options(**options).remote()
        if answer(actor.pid.remote()) not in known:
            break
        idle.append(actor)
    end(*idle)
    return actor


def answer(reference: Any) -> Any:
    """Return what an actor or a task answers."""
    return ray.get(reference, timeout=ANSWER_SECONDS)


def end(*actors: Any) -> None:
    """Kill actors, and wait until their processes are gone."""
    pids = [answer(actor.pid.remote()) for actor in actors]
    for actor in actors:
        ray.kill(actor)
    wait_for(lambda: not any(is_alive(pid) for pid in pids), "the actors' processes to be gone")


def zombies_of(process: psutil.Process) -> list[int]:
    """Return its children that are dead and not reaped."""
    return [child.pid for child in process.children() if not is_alive(child.pid) and psutil.pid_exists(child.pid)]


def connected_to(raylet: int) -> socket.socket:
    """Connect to a raylet's fork server."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(ANSWER_SECONDS)
    connection.connect(launcher.server_name(raylet))
    return connection


def encoded(arguments: list[str], environment: dict[bytes, bytes], *, directory: bytes = b"/") -> list[bytes]:
    """Return a request as the launcher sends it: first what goes with the descriptors, then the rest."""
    body = marshal.dumps((arguments, environment, directory, True))
    return [launcher.VERSION + len(body).to_bytes(4, "little"), body]


class Asked:
    """What a launcher asks for on one connection, with a pipe in the place of a worker's streams."""

    def __init__(self, connection: socket.socket, arguments: list[str], environment: dict[bytes, bytes]) -> None:
        """Send the request, and no "go" yet."""
        self._connection = connection
        self._reader, writer = os.pipe()
        head, body = encoded(arguments, environment, directory=b"/tmp")
        with Path(os.devnull).open() as null:
            socket.send_fds(self._connection, [head], [null.fileno(), writer, writer])
        os.close(writer)
        self._connection.sendall(body)

    def answer(self) -> bytes:
        """Return what the server says; nothing where it refuses."""
        try:
            return self._connection.recv(8)
        except ConnectionResetError:
            return b""

    def is_refused(self) -> bool:
        """Tell whether the server hangs up and nothing runs; hang up too."""
        return self.answer() == b"" and self.output() == ""

    def go(self) -> Self:
        """Let the worker begin."""
        self._connection.sendall(launcher.GO)
        return self

    def leave(self) -> Self:
        """Hang up."""
        self._connection.close()
        return self

    def output(self) -> str:
        """Return all that the worker said, when it has ended, and hang up."""
        with os.fdopen(self._reader) as stream:
            said = stream.read()
        self._connection.close()
        return said
