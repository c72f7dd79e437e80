"""The fork server and its launcher as processes of their own, without Ray's; and what of Ray they rely on.

This process plays the raylet: a launcher asks the server of its parent.
"""

import ctypes
import inspect
import json
import marshal
import os
import re
import resource
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from ray._private import ray_constants, services
from ray.autoscaler._private.cli_logger import cli_logger
from ray.autoscaler._private.constants import RAY_PROCESSES

from conversation_actors.errors import ClusterUnavailableError
from conversation_actors.runtime.fork_server import gaps, launcher, node, ray_words, server
from conversation_actors.versions import NEWEST_TESTED
from tests.support.fork_servers import Asked, connected_to, encoded
from tests.support.processes import is_alive, paused
from tests.support.servers import wait_for

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="not on this platform: processes are forked on Linux"),
    pytest.mark.skipif(any(node.untested_ray()), reason="not on this platform: this Ray's workers are not forked"),
]

ROOT = Path(__file__).parents[3]
PACKAGE = Path(server.__file__).parent
WORKERS = Path(services.__file__).parent / "workers"
WORKER = str(WORKERS / "default_worker.py")
RAYLET = os.getpid()
STREAMS = 3
SERVED_SECONDS = 30.0
"""An answer of a server that has to import everything first, on a busy machine."""
NOTED = """
import json, os, sys
from pathlib import Path
with Path({path!r}).open("a") as notes:
    print(json.dumps([os.getpid(), sys.argv[1:], os.environ.get("CONVERSATION_WORKER_FORKED")]), file=notes)
"""
"""A worker program, in the place of Ray's, that notes that it ran."""


# --- what the launcher decides ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([WORKER, "--node-ip-address=192.0.2.1", "--worker-id=ab"], True),
        ([WORKER], True),
        ([WORKER, "--worker-type=SPILL_WORKER"], False),
        ([WORKER, "--worker-type=RESTORE_WORKER"], False),
        ([WORKER, "--serialized-runtime-env-context={}"], False),
        ([str(WORKERS / "setup_worker.py"), WORKER, "--language=PYTHON"], False),
        (["-u", WORKER], False),
        (["-S", WORKER], False),
        (["-m", "ray.util.client.server"], False),
        (["/mine/default_worker.py"], False),
        (["-c", "import this"], False),
        ([], False),
    ],
)
def test_only_an_ordinary_worker_is_asked_for(arguments: list[str], *, expected: bool) -> None:
    """Another runtime environment, an I/O worker, an interpreter's option, another program: none is forked."""
    assert launcher.is_ordinary(arguments) is expected


def test_name_of_the_socket() -> None:
    """It is abstract, always the same for one process, and another one's for every other process."""
    mine, parents = launcher.server_name(os.getpid()), launcher.server_name(os.getppid())

    assert mine.startswith(b"\0")
    assert mine == launcher.server_name(os.getpid())
    assert mine != parents


def test_name_of_a_process_id_used_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A process that got the id of an earlier one has another name: the start time is part of it."""
    names = set()
    for started in (b"1111", b"2222"):
        status = tmp_path / started.decode()
        status.write_bytes(b"7 (a) name) S " + b" ".join([b"0"] * 18) + b" " + started + b" 0 0\n")
        monkeypatch.setattr(launcher, "open", lambda _path, mode, status=status: status.open(mode), raising=False)
        names.add(launcher.server_name(7))
        assert started in launcher.server_name(7)

    assert len(names) == 2


def test_log_lies_among_rays_logs() -> None:
    """The path is made of the worker's own options; without them there is one still, if a useless one."""
    options = ["--temp-dir=/var/a=b", "--session-name=session_1", "--flag"]

    assert launcher.log_path([WORKER, *options]) == "/var/a=b/session_1/logs/conversation_fork_server.log"
    assert launcher.log_path([WORKER]).endswith("/conversation_fork_server.log")


# --- what the server decides -----------------------------------------------------------------------------------------


def request(environment: dict[bytes, bytes], *, program: str = WORKER) -> server.WorkerRequest:
    """Make a request as a launcher would."""
    return server.WorkerRequest([program], environment, b"/", leads_group=True)


def test_accepts_the_environment_it_was_started_with() -> None:
    """Same program, same environment: nothing is raised. The job is another one for each worker."""
    server.check(request({b"A": b"1", b"RAY_JOB_ID": b"01"}), WORKER, {b"A": b"1", b"RAY_JOB_ID": b"ff"})
    server.check(request({b"A": b"1", b"RAY_JOB_ID": b"01"}), WORKER, {b"A": b"1"})


@pytest.mark.parametrize(
    "environment", [{}, {b"A": b"2"}, {b"A": b"1", b"NEW": b""}], ids=["missing", "changed", "added"]
)
def test_refuses_another_environment(environment: dict[bytes, bytes]) -> None:
    """What an import may have read differs: the reason names the variable, and never its value."""
    with pytest.raises(server.DeclinedError, match=r"differs in (A|NEW)$"):
        server.check(request(environment), WORKER, {b"A": b"1"})


def test_refuses_another_worker_program() -> None:
    """Another installation of Ray is asked for than the one that was imported."""
    with pytest.raises(server.DeclinedError, match="another worker program: /other/"):
        server.check(request({}, program="/other/default_worker.py"), WORKER, {})


def descriptors() -> dict[str, str]:
    """Return this process's open descriptors, and what they are of."""
    found = {}
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208  # names are all it takes
        with_target = Path("/proc/self/fd", number)
        if with_target.is_symlink():
            found[number] = str(with_target.readlink())
    return {number: target for number, target in found.items() if not target.startswith("/proc/")}


def receive(connection: socket.socket, placed: list[tuple[int, int]]) -> server.WorkerRequest:
    """Receive, but note in `placed`, as (inode, target), what would take the place of this process's streams."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "dup2", lambda source, target: placed.append((os.fstat(source).st_ino, target)))
        return server.receive(connection)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Make a launcher's end of a connection, and the server's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(5)
        yield ours, theirs


def test_receives_a_request(pair: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    """All that a launcher sent arrives, a big environment too; its descriptors become 0, 1 and 2, and none is left."""
    ours, theirs = pair
    placed: list[tuple[int, int]] = []
    environment = {b"BIG": b"x" * 100_000}
    head, body = encoded([WORKER, "--\udcff"], environment, directory=b"/tmp")
    with ExitStack() as stack:
        files = [stack.enter_context((tmp_path / str(number)).open("w")) for number in range(STREAMS)]
        inodes = [os.fstat(file.fileno()).st_ino for file in files]
        before = descriptors()
        socket.send_fds(ours, [head], [file.fileno() for file in files])
        ours.sendall(body)
        received = receive(theirs, placed)
        assert descriptors() == before

    assert received == server.WorkerRequest([WORKER, "--\udcff"], environment, b"/tmp", leads_group=True)
    assert placed == list(zip(inodes, range(STREAMS), strict=True))


HEAD, BODY = encoded([WORKER], {b"A": b"1"})


@pytest.mark.parametrize(
    ("head", "body", "count", "reason"),
    [
        (HEAD.replace(b"fork 1", b"fork 0"), BODY, 3, "another version"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"", 3, "another version"),
        (HEAD[:-1], b"", 3, "another version"),
        (HEAD, BODY, 0, "another version"),
        (HEAD, BODY, 2, "another version"),
        (HEAD, BODY[:-1], 3, "went away"),
        (HEAD, b"", 3, "went away"),
    ],
    ids=["old", "stranger", "short head", "no descriptors", "two descriptors", "short body", "no body"],
)
def test_refuses_what_is_no_request(
    pair: tuple[socket.socket, socket.socket],
    head: bytes,
    body: bytes,
    count: int,
    reason: str,
) -> None:
    """It is refused, and no descriptor that came with it stays open."""
    ours, theirs = pair
    placed: list[tuple[int, int]] = []
    with Path(os.devnull).open() as null:
        before = descriptors()
        socket.send_fds(ours, [head], [null.fileno()] * count)
        ours.sendall(body)
        ours.shutdown(socket.SHUT_WR)
        with pytest.raises(server.DeclinedError, match=reason):
            receive(theirs, placed)
        assert descriptors() == before
    assert not placed or reason == "went away"


def test_files_that_change_have_another_version(tmp_path: Path) -> None:
    """Written, touched, removed: each shows. What did not change is equal."""
    files = [tmp_path / "one.py", tmp_path / "two.py"]
    for file in files:
        file.write_text("1")
    seen = [server.versions_of(files)]
    assert server.versions_of(files) == seen[0]
    files[0].write_text("1 + 1")
    seen.append(server.versions_of(files))
    os.utime(files[1], ns=(1, 1))
    seen.append(server.versions_of(files))
    files[1].unlink()
    seen.append(server.versions_of(files))

    assert len({str(versions) for versions in seen}) == len(seen)


# --- the gaps that imports leave -------------------------------------------------------------------------------------


FREED_OF_ONE_SIZE = """
import sys
size, every = map(int, sys.argv[1:])
import gaps
kept, found = [], []
for count in range(600, 1600, 200):
    objects = gaps.objects_of(size, count * every)
    freed = {id(one) for one in objects[::every]}
    del objects[::every]
    filling = list(gaps.fill_pools(size))
    made = gaps.objects_of(size, 100)
    kept.append((objects, freed, filling, made))
    found.append(len(freed.intersection(map(id, made))))
print(max(found))
"""
"""In a process with nothing else in it: no gaps of earlier tests, and no thread that allocates meanwhile."""


@pytest.mark.parametrize("every", [2, 20], ids=["few pools", "many pools"])
@pytest.mark.parametrize("size", [16, 32, 48, 208, 512])
def test_pools_without_gaps(size: int, every: int) -> None:
    """Where objects were freed between others that are still there no more are made, in however many pools they lay.

    But for a few: where the filling's last round had its own iterators.
    """
    command = [sys.executable, "-c", FREED_OF_ONE_SIZE, str(size), str(every)]
    found = subprocess.run(command, check=True, capture_output=True, text=True, cwd=PACKAGE)

    assert int(found.stdout) < 10


def test_allocator_without_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no pool is ever seen to be new, as with another allocator, the filling ends nevertheless."""
    monkeypatch.setattr(gaps, "objects_of", lambda _size, _count: [object()])

    assert len(list(gaps.fill_pools(512))) <= 100


FREED_BETWEEN = """
import ctypes
from conversation_actors.runtime.fork_server import gaps
malloc, free = (getattr(ctypes.CDLL(None), name) for name in ("malloc", "free"))
malloc.argtypes, malloc.restype, free.argtypes = [ctypes.c_size_t], ctypes.c_size_t, [ctypes.c_size_t]
blocks = [malloc(size) for size in (100, 2000) * 1000]
freed = blocks[::4] + blocks[1::4]
for block in freed:
    free(block)
gaps.fill_malloc()
made = [malloc(size) for size in (100, 2000) * 20]
print(len(set(made) & set(freed)), min(made) > max(blocks))
"""


def test_malloc_without_gaps() -> None:
    """The same for malloc, small blocks and large: what is asked for next lies behind all that was freed."""
    found = subprocess.run([sys.executable, "-c", FREED_BETWEEN], check=True, capture_output=True, text=True)

    assert found.stdout.split() == ["0", "True"]


def test_malloc_that_maps_below_the_heap() -> None:
    """With no limit of the stack Linux maps below the heap, where no block is in a gap: the filling ends."""

    def unlimited() -> None:
        hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
        resource.setrlimit(resource.RLIMIT_STACK, (hard, hard))

    program = """
import resource
from conversation_actors.runtime.fork_server import gaps
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
gaps.fill_malloc()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "32768"}
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, preexec_fn=unlimited)

    assert int(found.stdout) < 50_000  # KiB; 240,000 where what is mapped counts as a gap


def test_malloc_without_a_heap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no heap grows by `brk`, nothing is asked of malloc."""
    monkeypatch.setattr(gaps, "heap_start", lambda: None)
    monkeypatch.setattr(ctypes.CDLL, "__getattr__", lambda _, name: pytest.fail(name))

    gaps.fill_malloc()


# --- where there can be a fork server --------------------------------------------------------------------------------


def test_nothing_stands_in_the_way_here() -> None:
    """On Linux, from this repository, a node gets a fork server."""
    assert not list(node._obstacles())


@pytest.mark.parametrize(
    ("decided", "arguments", "most"),
    [
        (None, "--head", 8),
        (None, "--head --num-cpus=3", 6),
        (None, "--num-cpus 3 --head", 6),
        (None, "--num-cpus=1 --num-cpus=64", 8),
        (None, "--num-cpus=0", 2),
        (None, "--num-cpus=many", 8),
        ("3", "--num-cpus=2", 3),
    ],
)
def test_starts_at_once(monkeypatch: pytest.MonkeyPatch, decided: str | None, arguments: str, most: int) -> None:
    """Twice as many workers as the node's CPUs may start at the same time, unless its owner has decided on a number."""
    setting = "RAY_worker_maximum_startup_concurrency"
    found: list[str] = []
    for name in ("executable", "argv"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    for name in (setting, "CONVERSATION_NODE_PYTHON"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    if decided:
        monkeypatch.setenv(setting, decided)
    monkeypatch.setattr("ray.scripts.scripts.cli", lambda **_: found.append(os.environ[setting]))
    monkeypatch.setattr("ray._private.utils.get_num_cpus", lambda: 4)
    with pytest.raises(SystemExit):
        node.start_node(arguments.split())
    assert found == [str(most)]


def test_what_keeps_ray_from_starting_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own words without its code, and with the command that was typed."""
    for name in ("executable", "argv"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    for name in ("RAY_worker_maximum_startup_concurrency", "CONVERSATION_NODE_PYTHON", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)

    def refusing(**_: object) -> None:
        message = "is already running.\nUse the flag of `ray start` command."
        raise ConnectionError(message)

    monkeypatch.setattr("ray.scripts.scripts.cli", refusing)
    monkeypatch.setattr(node, "name_our_command", lambda: None)
    told = "^Ray did not start: is already running. Use the flag of `conversation-actors start` command.$"
    with pytest.raises(ClusterUnavailableError, match=told):
        node.start_node(["--head"], program="conversation-actors")


def test_the_next_steps_name_our_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A node that Ray's own command adds would send no token, and start owners slowly."""
    monkeypatch.setattr(cli_logger, "_print", cli_logger._print)
    ray_words.name_our_command()
    cli_logger.print("{} ray start --address='{}'", "", "10.0.0.1:6379")
    assert "conversation-actors start --address='10.0.0.1:6379'" in capsys.readouterr().out


def test_obstacles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another system, a setting, a launcher that may not be executed or that Ray cannot start: each is named."""
    plain = tmp_path / "launcher.sh"
    plain.write_text("")
    spaced = tmp_path / "a b.sh"
    spaced.write_text("")
    spaced.chmod(0o755)
    monkeypatch.setattr(node, "_LAUNCHER", spaced)
    assert "a space" in next(node._obstacles())
    monkeypatch.setattr(node, "_LAUNCHER", plain)
    assert "may not be executed" in next(node._obstacles())
    monkeypatch.setattr("ray.__version__", "2.61.0")
    assert "Ray 2.61.0 was not tested" in next(node._obstacles())
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    assert "PYTHONSAFEPATH" in next(node._obstacles())
    monkeypatch.delattr(os, "pidfd_open")
    assert "pidfd_open" in next(node._obstacles())
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "needs Linux" in next(node._obstacles())


def test_forked_means_this_very_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that a forked worker starts inherits the variable, and is not forked."""
    assert not node.is_forked()
    monkeypatch.setenv(launcher.FORKED, str(os.getppid()))
    assert not node.is_forked()
    monkeypatch.setenv(launcher.FORKED, str(os.getpid()))
    assert node.is_forked()


# --- the launcher as a process ---------------------------------------------------------------------------------------


class Launched:
    """A launcher that was started as the raylet starts one, for a worker program that notes that it ran."""

    def __init__(self, directory: Path, *, raylet: int = RAYLET, script: Path = PACKAGE / "launcher.sh") -> None:
        """`directory` gets the worker's program and its notes."""
        self._notes = directory / "notes"
        program = directory / "ray" / "_private" / "workers" / "default_worker.py"
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(NOTED.format(path=str(self._notes)))
        self.arguments = [str(program), "--worker-id=ab"]
        self.process = subprocess.Popen(
            [script, *self.arguments],
            env={**os.environ, "RAY_RAYLET_PID": str(raylet), node._PYTHON: sys.executable},
            stderr=subprocess.PIPE,
            text=True,
        )

    def became_the_interpreter(self) -> bool:
        """Wait for its end; true when exactly one worker ran, an ordinary one, in the process that was started."""
        _, self.said = self.process.communicate(timeout=SERVED_SECONDS)
        return self.notes() == [[self.process.pid, self.arguments[1:], None]]

    def notes(self) -> list[Any]:
        """Return what each worker that ran has noted."""
        return [json.loads(line) for line in self._notes.read_text().splitlines()] if self._notes.exists() else []


@contextmanager
def listening(raylet: int = RAYLET) -> Iterator[socket.socket]:
    """Be the fork server of this process, or of another one, as far as launchers can see."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(launcher.server_name(raylet))
        listener.listen()
        listener.settimeout(SERVED_SECONDS)
        yield listener


def read_request(connection: socket.socket) -> server.WorkerRequest:
    """Take a whole request from a launcher, and drop its descriptors."""
    head, given, _, _ = socket.recv_fds(connection, len(HEAD), STREAMS)
    for number in given:
        os.close(number)
    body = connection.recv(int.from_bytes(head[-4:], "little"), socket.MSG_WAITALL)
    return server.WorkerRequest(*marshal.loads(body))  # noqa: S302  # of a launcher that the test has started


def test_not_the_raylets_child(tmp_path: Path) -> None:
    """Started by somebody else than the raylet it is told of: the ordinary worker, and nothing is asked or started."""
    launched = Launched(tmp_path, raylet=os.getppid())

    assert launched.became_the_interpreter(), launched.said
    assert launched.said == ""


def test_listener_that_closes(tmp_path: Path) -> None:
    """A server that ends, or refuses, instead of an answer: the ordinary worker, in the launcher's process."""
    with listening() as listener:
        launched = Launched(tmp_path)
        connection, _ = listener.accept()
        connection.close()
        assert launched.became_the_interpreter(), launched.said


def test_listener_that_refuses_after_reading(tmp_path: Path) -> None:
    """The server has read all and says no: the ordinary worker. What was asked for is all that makes up a start."""
    with listening() as listener:
        launched = Launched(tmp_path)
        connection, _ = listener.accept()
        with connection:
            asked = read_request(connection)
        assert launched.became_the_interpreter(), launched.said
    assert asked.arguments == launched.arguments
    assert asked.environment[b"RAY_RAYLET_PID"] == b"%d" % RAYLET
    assert asked.directory == os.fsencode(tmp_path)
    assert not asked.leads_group


def test_listener_that_says_something_else(tmp_path: Path) -> None:
    """Any answer but "ready" is a "no": the ordinary worker, and nobody is told to go."""
    with listening() as listener:
        launched = Launched(tmp_path)
        connection, _ = listener.accept()
        with connection:
            read_request(connection)
            connection.sendall(b"n")
            assert connection.recv(1) == b""
        assert launched.became_the_interpreter(), launched.said


def test_listener_that_hangs(tmp_path: Path) -> None:
    """No answer in time: the ordinary worker; a "ready" that comes too late begins nothing."""
    impatient = tmp_path / "launcher.py"
    source = (PACKAGE / "launcher.py").read_text()
    impatient.write_text(source.replace("WAIT_SECONDS = 10.0", "WAIT_SECONDS = 0.2"))
    assert impatient.read_text() != source
    script = tmp_path / "launcher.sh"
    script.write_text((PACKAGE / "launcher.sh").read_text())
    script.chmod(0o755)
    with listening() as listener:
        launched = Launched(tmp_path, script=script)
        connection, _ = listener.accept()
        with connection:
            read_request(connection)
            assert launched.became_the_interpreter(), launched.said
            assert "timed out" in launched.said
            with pytest.raises(BrokenPipeError):
                connection.sendall(launcher.READY)


def test_listener_that_dies_after_ready(tmp_path: Path) -> None:
    """The forked process is gone before it was told to go: the ordinary worker."""
    with listening() as listener:
        launched = Launched(tmp_path)
        connection, _ = listener.accept()
        read_request(connection)
        with paused(launched.process.pid):
            connection.sendall(launcher.READY)
            connection.close()
        assert launched.became_the_interpreter(), launched.said


def test_launcher_says_go_once(tmp_path: Path) -> None:
    """The forked process is ready: it is told to go, the launcher ends, and no other worker runs."""
    with listening() as listener:
        launched = Launched(tmp_path)
        connection, _ = listener.accept()
        with connection:
            read_request(connection)
            connection.sendall(launcher.READY)
            assert connection.recv(8) == launcher.GO
        assert launched.process.wait(SERVED_SECONDS) == 0
        launched.process.communicate()
    assert launched.notes() == []


def test_server_that_cannot_be_started(tmp_path: Path) -> None:
    """One worker runs, not two: the process that was to become the server ends, the launcher's child goes on."""
    launched = Launched(tmp_path, raylet=0)  # for its program
    launched.became_the_interpreter()
    driver = f"""
import os, posix, sys
sys.path.insert(0, {str(PACKAGE)!r})
import launcher
def fail(*_):
    raise OSError("no memory")
posix.execve = fail
os.environ["RAY_RAYLET_PID"] = str(os.getppid())
posix.environ[b"RAY_RAYLET_PID"] = b"%d" % os.getppid()
sys.argv = ["launcher.py", *{launched.arguments!r}]
launcher.main()
"""
    reader, writer = os.pipe()
    subprocess.run([sys.executable, "-c", driver], check=False, pass_fds=[writer], stderr=subprocess.DEVNULL)
    os.close(writer)
    with os.fdopen(reader) as stream:
        stream.read()  # until the last process that this one has started is gone
    assert len(launched.notes()) == 1 + 1


# --- the server as a process -----------------------------------------------------------------------------------------


class Served:
    """A fork server with an environment of its own, a process that it takes for its raylet, and those who ask it."""

    def __init__(self, directory: Path, **environment: str) -> None:
        """`environment` is added to this process's."""
        self._log = directory / "fork-server.log"
        self.raylet = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        pid = str(self.raylet.pid)
        variables = {**os.environ, "RAY_RAYLET_PID": pid, "RAY_JOB_ID": launcher.NIL_JOB.decode(), **environment}
        self.environment = {os.fsencode(name): os.fsencode(value) for name, value in variables.items()}
        with listening(self.raylet.pid) as listener:
            self.process = subprocess.Popen(
                [sys.executable, PACKAGE / "server.py", str(listener.fileno()), pid, self._log],
                env=variables,
                pass_fds=[listener.fileno()],
            )

    def __enter__(self) -> Self:
        """Nothing to do: it starts by itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it, and what it takes for its raylet."""
        for process in (self.process, self.raylet):
            process.kill()
            process.communicate()

    def connect(self) -> socket.socket:
        """Connect to it, and say nothing."""
        return connected_to(self.raylet.pid)

    def log(self) -> str:
        """Return what it has logged."""
        return self._log.read_text() if self._log.exists() else ""

    def ask(self, *options: str, **changes: str) -> "Asked":
        """Ask for a worker with these options."""
        changed = {os.fsencode(name): os.fsencode(value) for name, value in changes.items()}
        return Asked(self.connect(), [WORKER, *options], {**self.environment, **changed})


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Make a server that tests share; each of its workers is asked for help only, and ends."""
    with Served(tmp_path_factory.mktemp("served")) as started:
        yield started


def test_forks_rays_worker_from_the_installed_ray(served: Served) -> None:
    """Nothing speaks against forking with this Ray, and its worker's program runs. Fails with a Ray that differs."""
    asked = served.ask("--help")

    assert asked.answer() == launcher.READY, served.log()
    assert "usage: default_worker.py" in asked.go().output()
    assert served.log() == ""


def test_worker_that_is_not_told_to_go(served: Served) -> None:
    """The launcher dies between "ready" and "go": nothing runs, and the server's log says so."""
    asked = served.ask("--help")

    assert asked.answer() == launcher.READY
    assert asked.leave().output() == ""
    wait_for(lambda: "the launcher did not say go" in served.log(), "the log")


def test_worker_whose_launcher_is_silent(served: Served) -> None:
    """The launcher hangs between "ready" and "go": the worker gives up, and a late "go" fails."""
    asked = served.ask("--help")

    assert asked.answer() == launcher.READY
    assert asked._connection.recv(1) == b""
    with pytest.raises(BrokenPipeError):
        asked.go()
    assert asked.output() == ""


@pytest.mark.parametrize("code", ["", "raise ImportError"])
def test_what_only_ray_imports_may_be_missing(tmp_path: Path, code: str) -> None:
    """What Ray imports where it is installed the server has imported for it; where it is not, it forks nevertheless."""
    package, note = tmp_path / "starlette", tmp_path / "note"
    package.mkdir()
    (package / "__init__.py").write_text(code)
    (package / "datastructures.py").write_text(f"import os; open({str(note)!r}, 'a').write(str(os.getpid()))")
    with Served(tmp_path, PYTHONPATH=str(tmp_path)) as served:
        asked = served.ask("--help")
        assert asked.answer() == launcher.READY, served.log()
        assert "usage: default_worker.py" in asked.go().output()
        assert note.exists() is not bool(code)
        assert code or note.read_text() == str(served.process.pid)


@pytest.mark.parametrize("changes", [{"PYTHONPATH": "/other"}, {"NEW": ""}])
def test_environment_differs(served: Served, changes: dict[str, str]) -> None:
    """A worker with another environment than the server's is refused; the log names the variable."""
    assert served.ask("--help", **changes).is_refused()
    wait_for(lambda: f"the environment differs in {next(iter(changes))}" in served.log(), "the log")


def test_strangers_do_no_harm(served: Served) -> None:
    """Whoever connects and hangs up, says nonsense, or says nothing keeps nobody from getting a worker."""
    with served.connect(), served.connect() as nonsense:
        nonsense.sendall(b"x" * 1000)
        for _ in range(3):
            served.connect().close()
        asked = served.ask("--help")
        assert asked.answer() == launcher.READY
        assert "usage: default_worker.py" in asked.go().output()


def test_server_keeps_nothing_of_its_workers(served: Served) -> None:
    """After workers that ran, failed and were refused, it has its descriptors only, one thread, and no child."""

    def state() -> tuple[int, list[str]]:
        process = Path("/proc", str(served.process.pid))
        return len(list((process / "fd").iterdir())), (process / "task" / process.name / "children").read_text().split()

    served.ask("--help").leave().output()
    wait_for(lambda: not state()[1], "the children to be gone")
    before = state()
    for options, changes in ((["--help"], {}), (["--wrong"], {}), ([], {"NEW": "1"})) * 3:
        asked = served.ask(*options, **changes)
        if asked.answer():
            asked.go()
        asked.output()
    wait_for(lambda: state() == before, f"{state()} to be {before}")


@pytest.mark.parametrize(
    ("code", "doubt"),
    [
        ("import ray; ray.__version__ = '2.99.0'", "Ray 2.99.0 was not tested"),
        ("import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()", "2 threads run"),
        (
            "import asyncio; from threading import *; asyncio.Runner.close = lambda _: Timer(60, print).start()",
            "2 threads run",  # left behind by the rehearsal
        ),
        ("import ray; ray.is_initialized = lambda: True", "has connected to Ray"),
        ("import conversation_actors.runtime.actor", "was imported too early"),
        ("import random; random.random = lambda: 0.5", "the same random numbers"),
        ("import os; os.environ['RAY_RAYLET_PID'] = '1'", "RAY_RAYLET_PID is not the raylet"),
    ],
)
def test_each_doubt_can_arise(tmp_path: Path, code: str, doubt: str) -> None:
    """A server in doubt stays, refuses every worker at once, and its log says why."""
    (tmp_path / "sitecustomize.py").write_text(code)
    with Served(tmp_path, PYTHONPATH=str(tmp_path)) as served:
        assert served.ask("--help").is_refused()
        assert doubt in served.log()
        assert is_alive(served.process.pid)


SEEN_AT_THE_FREEZE = """
import ctypes, gc, json
from itertools import repeat
from pathlib import Path
freeze = gc.freeze
def look():
    malloc = ctypes.CDLL(None).malloc
    malloc.argtypes, malloc.restype = [ctypes.c_size_t], ctypes.c_size_t
    pools = [len({{id(block) >> 14 for block in list(map(bytes, repeat(size - 33, 200)))}}) for size in (48, 64)]
    blocks = [malloc(200) for _ in range(200)]
    Path({path!r}).write_text(json.dumps([pools, max(blocks) - min(blocks)]))
    freeze()
gc.freeze = look
"""
"""In how many of CPython's pools 200 objects of a size lie, and how far apart malloc puts 200 blocks."""


def test_workers_find_no_gaps(tmp_path: Path) -> None:
    """Before the first fork all that imports have freed is taken: what a worker allocates lies in one place."""
    found = tmp_path / "found"
    (tmp_path / "sitecustomize.py").write_text(SEEN_AT_THE_FREEZE.format(path=str(found)))
    with Served(tmp_path, PYTHONPATH=str(tmp_path)) as served:
        asked = served.ask("--help")
        assert asked.answer() == launcher.READY, served.log()
        asked.leave().output()
    pools, apart = json.loads(found.read_text())

    assert max(pools) <= 6  # with gaps: more than 20
    assert apart < 1 << 20  # with gaps: all of a heap of 16 MiB


def test_server_ends_with_its_raylet(tmp_path: Path) -> None:
    """The process that the server belongs to is killed: the server, which was waiting for launchers, ends too."""
    with Served(tmp_path) as served:
        assert served.ask("--help", NEW="1").is_refused()
        assert is_alive(served.process.pid)
        served.raylet.kill()
        assert served.process.wait(SERVED_SECONDS) == 0


def test_two_first_launchers(tmp_path: Path) -> None:
    """Nobody listens, and two launchers come at once: both workers run, and there is one server."""
    variables = {**os.environ, "RAY_RAYLET_PID": str(RAYLET), node._PYTHON: sys.executable}
    options = [f"--temp-dir={tmp_path}", "--session-name=.", "--help"]
    (tmp_path / "logs").mkdir()
    outputs = [tmp_path / str(number) for number in range(2)]
    processes = []
    for path in outputs:
        with path.open("w") as output:
            command = [str(PACKAGE / "launcher.sh"), WORKER, *options]
            processes.append(subprocess.Popen(command, env=variables, stdout=output, stderr=output))

    def servers() -> list[int]:
        """Which of them has become a server: the launcher goes on in a child of it."""
        commands = {p.pid: Path("/proc", str(p.pid), "cmdline").read_bytes() for p in processes if p.poll() is None}
        return [pid for pid, command in commands.items() if b"/fork_server/server.py" in command]

    try:
        wait_for(
            lambda: all("usage: default_worker.py" in path.read_text() for path in outputs),
            "both workers",
            patience=SERVED_SECONDS,
        )
        assert len(servers()) == 1
    finally:
        for process in processes:
            process.kill()
            process.wait()


# --- what of Ray this relies on --------------------------------------------------------------------------------------


def test_rays_command_for_a_worker() -> None:
    """`sys.executable` comes first, the programs are arguments of their own, with nothing between."""
    source = re.sub(r"\s+", "", inspect.getsource(services.start_raylet))

    assert "start_worker_command=([sys.executable,setup_worker_path,]+_site_flags()+[worker_path," in re.sub(
        r"#[^\[\]+]*?(?=\+)", "", source
    )
    assert services._site_flags() == []
    assert "python_worker_command={subprocess.list2cmdline(start_worker_command)}" in source


def test_rays_worker_program() -> None:
    """It does its work as `__main__` only, and knows which worker it is by an argument, not by its process id."""
    source = Path(WORKER).read_text()

    assert '\nif __name__ == "__main__":\n' in source
    assert '"--worker-id",\n    required=True' in source
    assert '"--worker-type"' in source
    assert '"--serialized-runtime-env-context"' in (WORKERS / "setup_worker.py").read_text()


def test_the_newest_tested_ray_has_forked_workers() -> None:
    """Who installs the newest version gets the quick start; another one is declared once it was tested."""
    assert NEWEST_TESTED["ray"].startswith(node.TESTED_RAY)


def test_ray_stop_finds_forked_workers() -> None:
    """`ray stop` goes by the title that a worker gives itself (a forked one has no other), and ends raylets first."""
    keywords = [keyword for keyword, _ in RAY_PROCESSES]

    assert "ray::" in keywords
    assert keywords[0] == "raylet"
    assert ray_constants.WORKER_PROCESS_TYPE_IDLE_WORKER.startswith("ray::")


def test_ray_can_take_the_launchers_path() -> None:
    """The raylet splits one string into the command; this path comes out of that as it went in."""
    line = subprocess.list2cmdline([str(PACKAGE / "launcher.sh"), WORKER])

    assert shlex.split(line) == [str(PACKAGE / "launcher.sh"), WORKER]
